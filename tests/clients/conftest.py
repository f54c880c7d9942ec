"""Other people's clients: a real model for them, and an environment of its own for each.

Every test of this folder bears the marker `clients`.
"""

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import venv as environments
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from fre_edge import Fit, FitOptions, fit
from fre_export import ExportOptions, export
from fre_runtime import Detector, read_image
from fre_runtime.image import encode_image, resize
from fre_runtime.model_dir import ModelDir

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "clients"
FOLLOW = Path(__file__).parent / "follow.py"
LEAKS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
"""Variables that would show a client our own packages."""
PHOTOS = 120
"""Good solar cells to learn from: enough for a model that tells the defective ones apart."""


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.clients)


@pytest.fixture(scope="session")
def client_environ() -> dict[str, str]:
    """The variables for a client's process: none that leads to our own packages."""
    return {key: value for key, value in os.environ.items() if key not in LEAKS}


@pytest.fixture(scope="session")
def venv(client_environ):
    """``venv(name, *requirements)`` gives the Python of an environment that holds just these.

    It stays in build/clients until the requirements change.
    """

    def made(name: str, *requirements: str) -> Path:
        wanted = f"{sys.version}\n" + "\n".join(requirements)
        key = hashlib.sha256(wanted.encode()).hexdigest()[:12]
        folder = BUILD / f"{name}-{key}"
        python, stamp = folder / "bin" / "python", folder / "installed.txt"
        if not stamp.exists():
            environments.create(folder, clear=True, with_pip=True, symlinks=True)
            pip = [python, "-m", "pip", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, "install", *requirements], check=True, env=client_environ)
            stamp.write_text(wanted + "\n")
        return python

    return made


@pytest.fixture(scope="session")
def solar_fit(solar_cells) -> Fit:
    """EfficientNet-Lite0 fitted to real photos."""
    return fit(sorted((solar_cells / "train/good").iterdir())[:PHOTOS], FitOptions(fpr=0.05))


@pytest.fixture(scope="session")
def golden_model(solar_fit, tmp_path_factory) -> ModelDir:
    """A model directory as fre-export writes it by default: uint8, RGB, NHWC."""
    return export(solar_fit, tmp_path_factory.mktemp("golden") / "uint8")


@pytest.fixture(scope="session")
def golden_float_model(solar_fit, tmp_path_factory) -> ModelDir:
    """The same with ``--io float``: 0..1, NCHW, the map as large as the input."""
    out = tmp_path_factory.mktemp("golden") / "float"
    return export(solar_fit, out, options=ExportOptions(io="float"))


@pytest.fixture(scope="session")
def photos(solar_cells, tmp_path_factory) -> dict[str, list[Path]]:
    """Photos by kind, good and defective ones of each.

    ``exact`` have the model's size, and among them are two in colour, so that the order of the
    channels matters; ``camera`` are as they were taken, 300 x 300; ``large`` are 1200 x 1000.
    """
    root = tmp_path_factory.mktemp("photos")
    taken = [
        path
        for folder in ("test/good", "test/defective")
        for path in sorted((solar_cells / folder).iterdir())[:3]
    ]
    pictures = [read_image(path) for path in taken]
    exact = [resize(picture, 256, 256) for picture in pictures]
    tint = np.array([1.0, 0.8, 0.6])
    exact += [(picture * tint).astype(np.uint8) for picture in (exact[0], exact[3])]
    large = [cv2.resize(pictures[i], (1200, 1000), interpolation=cv2.INTER_CUBIC) for i in (1, 4)]

    def written(kind: str, images: list) -> list[Path]:
        paths = [root / f"{kind}{number}.png" for number in range(len(images))]
        for path, image in zip(paths, images, strict=True):
            path.write_bytes(encode_image(image, ".png"))
        return paths

    return {"exact": written("exact", exact), "camera": taken, "large": written("large", large)}


@dataclass(frozen=True)
class Page:
    """A page of docs/embedding, as somebody follows it."""

    text: str

    def blocks(self, language: str) -> list[str]:
        """Its fenced blocks in one language."""
        return re.findall(rf"^```{language}\n(.*?)^```$", self.text, re.MULTILINE | re.DOTALL)

    @property
    def requirements(self) -> list[str]:
        """What its line ``pip install ...`` installs."""
        (line,) = (b for b in self.blocks("bash") if b.startswith("pip install "))
        return shlex.split(line)[2:]


@pytest.fixture(scope="session")
def page():
    """``page("node.md")`` reads a page of docs/embedding; tests/docs leaves those to us that a test
    of this folder opens in this very way.
    """
    folder = ROOT / "docs/embedding"
    return lambda name: Page((folder / name).read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def follow(client_environ, tmp_path_factory):
    """``follow(python, blocks, model, photos, record, probes)`` runs blocks as `follow.py` says.

    In a folder that holds the model as ``model``; gives the answers and what the probes found.
    """

    def followed(python, blocks, model, photos, record, probes=None):
        folder = tmp_path_factory.mktemp("reader")
        (folder / "model").symlink_to(model.path)
        task = {
            "blocks": blocks,
            "photos": [str(path) for path in photos],
            "record": record,
            "probes": probes or {},
        }
        done = subprocess.run(
            [python, FOLLOW],
            input=json.dumps(task),
            capture_output=True,
            text=True,
            cwd=folder,
            env=client_environ,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return followed


@pytest.fixture(scope="session")
def formats(photos, tmp_path_factory) -> dict[str, Path]:
    """One photo in colour, stored in many ways, by the name of its file."""
    root = tmp_path_factory.mktemp("formats")
    rng = np.random.default_rng(0)
    rgb = cv2.resize(read_image(photos["exact"][-1]), (600, 500), interpolation=cv2.INTER_CUBIC)
    rgb = np.clip(rgb + rng.normal(0, 5, rgb.shape), 0, 255).astype(np.uint8)
    photo, alpha = Image.fromarray(rgb), rng.integers(0, 256, rgb.shape[:2], np.uint8)
    turned = Image.Exif()
    turned[0x112] = 6
    photo.save(root / "plain.png")
    photo.save(root / "plain.webp")
    photo.save(root / "plain.bmp")
    photo.save(root / "plain.tiff")
    photo.save(root / "plain.jpg", quality=92)
    photo.save(root / "turned.jpg", quality=92, exif=turned.tobytes())
    photo.convert("L").save(root / "grey.jpg")
    photo.convert("L").save(root / "grey.png")
    photo.quantize(64).save(root / "palette.png")
    photo.convert("CMYK").save(root / "cmyk.jpg")
    Image.fromarray(np.dstack([rgb, alpha])).save(root / "alpha.png")
    cv2.imwrite(str(root / "rgb16.png"), rgb[..., ::-1].astype(np.uint16) * 256 + alpha[..., None])
    return {path.name: path for path in sorted(root.iterdir())}


@pytest.fixture(scope="session")
def broken(formats, tmp_path_factory) -> dict[str, Path]:
    """Files that are no photos, or no longer, by what is wrong with them."""
    root = tmp_path_factory.mktemp("broken")
    for name in ("plain.jpg", "plain.png"):
        data = formats[name].read_bytes()
        (root / f"cut_{name}").write_bytes(data[: len(data) // 2])
    (root / "empty.png").touch()
    (root / "text.png").write_text("not a photo\n")
    (root / "folder.png").mkdir()
    return {path.name: path for path in sorted(root.iterdir())} | {"missing": root / "missing.png"}


@pytest.fixture(scope="session")
def javascript(page, client_environ) -> Path:
    """The files of docs/embedding/javascript in a folder, installed as the page says."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("no node and npm here")
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
    if tuple(map(int, version.stdout.strip().lstrip("v").split(".")[:2])) < (20, 9):
        pytest.skip(f"node is {version.stdout.strip()}, sharp wants 20.9")
    install = page("node.md").blocks("bash")[0]
    assert install == page("browser.md").blocks("bash")[0]
    folder = BUILD / "javascript"
    folder.mkdir(parents=True, exist_ok=True)
    for file in (ROOT / "docs/embedding/javascript").iterdir():
        shutil.copy(file, folder)
    stamp, wanted = folder / "installed.txt", install + (folder / "package.json").read_text()
    if not stamp.exists() or stamp.read_text() != wanted:
        subprocess.run(["bash", "-c", install], cwd=folder, check=True, env=client_environ)
        stamp.write_text(wanted)
    return folder


@pytest.fixture
def javascript_model(javascript, golden_model) -> Path:
    """The model beside them, a copy that a test may damage."""
    model = javascript / "model"
    shutil.rmtree(model, ignore_errors=True)
    return Path(shutil.copytree(golden_model.path, model))


@pytest.fixture(scope="session")
def check_lines():
    """``check_lines(stdout, paths, detector)``: each line of JSON says what we say of its photo."""

    def check(stdout: str, paths: list[Path], detector: Detector) -> None:
        lines = [json.loads(line) for line in stdout.splitlines()]
        assert [line["source"] for line in lines] == [str(path) for path in paths]
        for line, path in zip(lines, paths, strict=True):
            ours = detector(path)
            assert line["score"] == pytest.approx(ours.score, abs=1e-6), path.name
            assert line["raw_score"] == pytest.approx(ours.raw_score, rel=1e-5), path.name
            assert line["state"] == ours.state
        assert {line["state"] for line in lines} == {"good", "anomalous"}

    return check
