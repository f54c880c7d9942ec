"""cpp/README.md, followed: built against the Python wheels, and run on photos."""

import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fre_runtime import Detector
from fre_runtime.image import read_image

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "build" / "clients"
ENGINES = {"openvino": "openvino/model.xml", "onnxruntime": "model.onnx"}
GRAPH = {engine: f"model/{file}" for engine, file in ENGINES.items()}


def debian_headers() -> Path | None:
    """ONNX Runtime's headers out of Debian 13's package, without installing anything."""
    folder = KEPT / "onnxruntime-headers"
    found = folder / "usr" / "include" / "onnxruntime"
    if found.exists():
        return found
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        return None
    targets = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)"], capture_output=True, text=True
    )
    mirrors = sorted({u for u in targets.stdout.split() if u.rstrip("/").endswith("/debian")})
    if not mirrors:
        return None
    for part in ("lists/partial", "cache/archives/partial"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    keys = "/usr/share/keyrings/debian-archive-keyring.gpg"
    (folder / "sources.list").write_text(f"deb [signed-by={keys}] {mirrors[0]} trixie main\n")
    apt = ["apt-get", "-qq", "-o", f"Dir::Etc::SourceList={folder / 'sources.list'}"]
    apt += ["-o", "Dir::Etc::SourceParts=-", "-o", f"Dir::State::Lists={folder / 'lists'}"]
    apt += ["-o", f"Dir::Cache={folder / 'cache'}", "-o", "Acquire::Languages=none"]
    for words in (["update"], ["download", "libonnxruntime-dev"]):
        if subprocess.run([*apt, *words], cwd=folder, check=False).returncode:
            return None
    (package,) = folder.glob("libonnxruntime-dev*.deb")
    subprocess.run(["dpkg-deb", "-x", package, folder], check=True)
    shutil.rmtree(folder / "lists")
    return found


@pytest.fixture(scope="module")
def headers() -> Path:
    """The folder with onnxruntime_cxx_api.h."""
    installed = Path("/usr/include/onnxruntime")
    found = installed if installed.exists() else debian_headers()
    if found is None:
        pytest.skip("no headers of ONNX Runtime, and no Debian mirror to get them from")
    return found


@pytest.fixture(scope="module")
def programs(page, headers, client_environ) -> dict[str, Path]:
    """Both programs, built as the page says, by engine."""
    for tool in ("cmake", "c++"):
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool} here")
    if not any(Path("/usr/include").glob("opencv*/opencv2/imgcodecs.hpp")):
        pytest.skip("no OpenCV for C++ here (Debian: libopencv-imgcodecs-dev)")
    environ = client_environ | {
        "HEADERS": str(headers),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{client_environ['PATH']}",
    }
    (build,) = (b for b in page("cpp/README.md").blocks("bash") if "cmake --build" in b)
    done = subprocess.run(
        ["bash", "-euc", build], cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in done.stdout + done.stderr
    return {engine: ROOT / f"build/cpp/fre_{engine}" for engine in ENGINES}


@pytest.fixture
def score(programs, page, client_environ, golden_model, tmp_path):
    """``score(engine, *photos)`` runs the page's line on other photos than its own."""
    shutil.copytree(golden_model.path, tmp_path / "model")

    def run(engine: str, *photos, options: str = "", **environ) -> subprocess.CompletedProcess:
        block = next(b for b in page("cpp/README.md").blocks("bash") if "photo.png" in b)
        (line,) = (line for line in block.splitlines() if f"fre_{engine} " in line)
        program, graph, photo = line.split()
        assert (program, graph) == (f"build/cpp/fre_{engine}", GRAPH[engine])
        assert photo == "photo.png"
        return subprocess.run(
            [programs[engine], *options.split(), graph, *photos],
            cwd=tmp_path,
            env=client_environ | environ,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.mark.parametrize("engine", ENGINES)
def test_photos_score_as_ours(engine, score, golden_model, photos, formats, check_lines):
    paths = [golden_model.path / "golden/image.png"]
    paths += [*photos["exact"], *photos["camera"], *photos["large"], *formats.values()]
    done = score(engine, *paths)
    assert (done.returncode, done.stderr) == (0, "")
    check_lines(done.stdout, paths, Detector(golden_model, engine))


def test_a_jpeg_whose_markers_are_padded_is_whole(score, formats, golden_model, tmp_path):
    data, padded = formats["plain.jpg"].read_bytes(), tmp_path / "padded.jpg"
    padded.write_bytes(data[:2] + b"\xff\xff" + data[2:])
    done = score("onnxruntime", padded)
    assert done.returncode == 0, done.stderr
    ours = Detector(golden_model, "onnxruntime")(padded)
    assert json.loads(done.stdout)["score"] == pytest.approx(ours.score, abs=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
def test_repeats_are_lines(engine, score, photos):
    done = score(engine, photos["large"][0], options="--threads 1 --repeat 3")
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert len({re.sub(r'"ms".*', "", line) for line in lines}) == 1
    assert all(float(re.search(r'"ms": ([\d.]+)', line)[1]) > 0 for line in lines)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_photo_that_cannot_be_read_is_one_line(engine, score, broken, photos):
    done = score(engine, *broken.values(), photos["exact"][0])
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 1, "the others are scored all the same"
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == len(broken)
    for line, path in zip(lines, broken.values(), strict=True):
        assert line.startswith(f"error: {path}: ")
    assert "is truncated" in lines[list(broken).index("cut_plain.jpg")]


@pytest.mark.parametrize("engine", ENGINES)
def test_the_limit_of_pixels_is_opencvs(engine, score, photos):
    done = score(engine, photos["large"][0], OPENCV_IO_MAX_IMAGE_PIXELS="1000000")
    assert (done.returncode, done.stdout) == (1, "")
    assert "error: " in done.stderr


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def replaced(old: bytes, new: bytes):
    """Change what a graph says of itself, in as many bytes."""

    def change(path: Path) -> None:
        data = path.read_bytes()
        assert old in data
        assert len(old) == len(new)
        path.write_bytes(data.replace(old, new))

    return change


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (Path.unlink, ""),
        (cut, ""),
        (lambda path: path.write_bytes(b""), ""),
        (lambda path: path.write_bytes(b"not a graph\n" * 100), ""),
        (replaced(b"halve-area-linear", b"halve-area-nearby"), "the graph wants halve-area-nearby"),
        (replaced(b"fre_resize", b"fre_repair"), "does not tell fre_resize"),
    ],
)
def test_a_graph_that_cannot_be_used_is_one_line(engine, score, photos, tmp_path, damage, said):
    damage(tmp_path / GRAPH[engine])
    done = score(engine, photos["exact"][0])
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert line.startswith(f"error: {GRAPH[engine]}: ")
    assert said in line


@pytest.mark.parametrize("engine", ENGINES)
def test_another_flavour_is_refused(engine, programs, golden_float_model, photos, client_environ):
    done = subprocess.run(
        [programs[engine], golden_float_model.path / ENGINES[engine], photos["exact"][0]],
        env=client_environ,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.endswith("export with --io uint8")


def test_missing_weights_are_one_line(score, photos, tmp_path):
    cut(tmp_path / "model/openvino/model.bin")
    done = score("openvino", photos["exact"][0])
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: model/openvino/model.xml: ")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("options", ["--threads 0", "--repeat x", "--repeat", "--fast", ""])
def test_misuse_tells_the_usage(engine, score, options):
    done = score(engine, options=options)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: ")


def test_wrong_input_gives_what_the_page_says(
    programs, headers, golden_model, photos, client_environ, tmp_path
):
    (openvino,) = importlib.util.find_spec("openvino").submodule_search_locations
    (library,) = Path(openvino, "libs").glob("libopenvino.so.*")
    runtime = ROOT / "build/cpp/libonnxruntime.so.1"
    flags = f"-std=c++17 -I{openvino}/include -I{headers} {library} {runtime}"
    flags += f" -Wl,-rpath,{library.parent}:{runtime.parent}"
    source, program = Path(__file__).parent / "wrong_input.cpp", tmp_path / "wrong_input"
    command = ["c++", source, "-o", program, *shlex.split(flags)]
    subprocess.run(command, check=True, env=client_environ)

    image = read_image(photos["exact"][-1])
    (tmp_path / "pixels").write_bytes(image.tobytes())
    graphs = [golden_model.path / file for file in ENGINES.values()]
    done = subprocess.run(
        [program, *graphs, tmp_path / "pixels", str(len(image))],
        env=client_environ,
        capture_output=True,
        text=True,
        check=True,
    )
    found = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    for engine in ENGINES:
        detector = Detector(golden_model, engine)
        swapped = detector(image[..., ::-1].copy()).score
        assert float(found[f"{engine} right"]) == pytest.approx(detector(image).score, abs=1e-6)
        assert float(found[f"{engine} swapped"]) == pytest.approx(swapped, abs=1e-6)
        assert swapped != pytest.approx(detector(image).score, abs=1e-3)
        for case in ("size", "layout", "channels", "type"):
            assert found[f"{engine} {case}"].startswith("error "), found
    for case in ("size", "layout", "channels"):
        assert "invalid dimensions" in found[f"onnxruntime {case}"]
    assert "Unexpected input data type" in found["onnxruntime type"]
