"""Torch-free runtime of FRE Edge: runs an exported model directory on a CPU.

>>> from fre_runtime import Detector                            # doctest: +SKIP
>>> Detector("model")("photo.jpg").is_anomalous                 # doctest: +SKIP
"""

from fre_runtime.detector import Detector
from fre_runtime.errors import (
    ArtifactError,
    DataError,
    EngineError,
    FreError,
    ImageError,
    MissingDependencyError,
    OutputError,
    UsageError,
)
from fre_runtime.image import read_image
from fre_runtime.result import Box, Result

__all__ = [
    "ArtifactError",
    "Box",
    "DataError",
    "Detector",
    "EngineError",
    "FreError",
    "ImageError",
    "MissingDependencyError",
    "OutputError",
    "Result",
    "UsageError",
    "read_image",
]
