"""The fold: a fitted FRE becomes one ONNX graph, its OpenVINO IR, and a verified model directory.

>>> from fre_export import export                               # doctest: +SKIP
>>> export("photos_of_good_parts", "model")                     # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fre_export.fold import ExportOptions, export
    from fre_export.parity import ParityError

__all__ = ["ExportOptions", "ParityError", "export"]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - PEP 562
    """Import on first use: torch takes seconds, and ``fre-export --help`` needs none of it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fre_export import fold, parity

    return getattr(parity if name == "ParityError" else fold, name)
