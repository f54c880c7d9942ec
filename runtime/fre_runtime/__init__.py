"""Torch-free runtime of FRE Edge: runs an exported model directory on a CPU.

>>> from fre_runtime import Detector                            # doctest: +SKIP
>>> Detector("model")("photo.jpg").is_anomalous                 # doctest: +SKIP
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fre_runtime.detector import Detector
    from fre_runtime.errors import (
        ArtifactError,
        CaptureError,
        DataError,
        EngineError,
        FreError,
        ImageError,
        MissingDependencyError,
        OutputError,
        QualityError,
        UsageError,
    )
    from fre_runtime.image import read_image
    from fre_runtime.result import Box, Result

__all__ = [
    "ArtifactError",
    "Box",
    "CaptureError",
    "DataError",
    "Detector",
    "EngineError",
    "FreError",
    "ImageError",
    "MissingDependencyError",
    "OutputError",
    "QualityError",
    "Result",
    "UsageError",
    "read_image",
]

_MODULES = {"Box": "result", "Detector": "detector", "Result": "result", "read_image": "image"}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - PEP 562
    """Import on first use: the commands answer Ctrl-C while OpenCV still loads."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"fre_runtime.{_MODULES.get(name, 'errors')}")
    return getattr(module, name)
