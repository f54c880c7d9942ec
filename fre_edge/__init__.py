"""Training side of FRE Edge: fits feature reconstruction error on photos of good parts.

>>> from fre_edge import FRE, fit                               # doctest: +SKIP
>>> model: FRE = fit("photos_of_good_parts").module()           # doctest: +SKIP
"""

from fre_edge.fitting import Fit, FitOptions, fit
from fre_edge.fre import FRE

__all__ = ["FRE", "Fit", "FitOptions", "fit"]
