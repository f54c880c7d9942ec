import ast
import subprocess
import sys
from pathlib import Path

import pytest

import fre_runtime

FORBIDDEN = {"torch", "torchvision", "timm", "onnx", "sklearn", "scipy", "fre_edge", "fre_export"}


@pytest.mark.parametrize(
    "module",
    [
        "fre_runtime",
        "fre_runtime.detector",
        "fre_runtime.commands.run",
        "fre_runtime.commands.serve",
    ],
)
def test_importing_the_runtime_loads_nothing_heavy(module):
    code = f"import sys, {module}; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    modules = {name.split(".")[0] for name in loaded.stdout.split()}
    assert not modules & (FORBIDDEN | {"openvino", "onnxruntime", "starlette", "uvicorn"})


def test_no_module_of_the_runtime_imports_the_training_side():
    for path in Path(fre_runtime.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not {name.split(".")[0] for name in names} & FORBIDDEN, path


def test_public_names():
    assert {"Detector", "Result", "read_image", "FreError"} <= set(fre_runtime.__all__)
    assert all(hasattr(fre_runtime, name) for name in fre_runtime.__all__)
