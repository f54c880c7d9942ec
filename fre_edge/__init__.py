"""Training side of FRE Edge: fits feature reconstruction error on photos of good parts.

>>> from fre_edge import FRE, fit                               # doctest: +SKIP
>>> model: FRE = fit("photos_of_good_parts").module()           # doctest: +SKIP
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fre_edge.fitting import Fit, fit, update
    from fre_edge.fre import FRE
    from fre_edge.options import FitOptions

__all__ = ["FRE", "Fit", "FitOptions", "fit", "update"]

_MODULES = {
    "FRE": "fre",
    "Fit": "fitting",
    "FitOptions": "options",
    "fit": "fitting",
    "update": "fitting",
}


def __getattr__(name: str) -> Any:  # noqa: ANN401 - PEP 562
    """Import on first use: torch takes seconds, and a command line needs the options only."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"fre_edge.{_MODULES[name]}"), name)
