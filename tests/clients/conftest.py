"""Other people's clients: a real model for them, and an environment of its own for each.

Every test of this folder bears the marker `clients`.
"""

import hashlib
import os
import subprocess
import sys
import venv as environments
from pathlib import Path

import pytest

from fre_edge import Fit, FitOptions, fit
from fre_export import ExportOptions, export
from fre_runtime.model_dir import ModelDir

ROOT = Path(__file__).parents[2]
BUILD = ROOT / "build" / "clients"
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
