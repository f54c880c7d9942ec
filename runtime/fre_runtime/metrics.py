"""Quality figures of anomaly detection, in numpy alone so that the runtime stays light.

Image metrics sort the scores. Pixel metrics stream: each image adds to three histograms over the
values' float32 bit patterns (relative resolution 2^-11), so memory does not grow with the data.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


def auroc(scores: Floats, labels: Bools) -> float:
    """Area under the ROC curve; ties count half. NaN unless both classes are present."""
    values, inverse = np.unique(scores, return_inverse=True)
    positives = np.bincount(inverse[labels], minlength=len(values)).astype(np.float64)
    negatives = np.bincount(inverse[~labels], minlength=len(values)).astype(np.float64)
    return _auroc_of_counts(negatives, positives)


def _auroc_of_counts(negatives: Floats, positives: Floats) -> float:
    total = negatives.sum() * positives.sum()
    if total == 0:
        return float("nan")
    below = np.cumsum(negatives) - negatives
    return float((positives * (below + negatives / 2)).sum() / total)


def roc_curve(scores: Floats, labels: Bools) -> tuple[Floats, Floats]:
    """False-positive and true-positive rate at each distinct score, from the highest down.

    Both start at 0 and end at 1; both classes must be present.
    """
    values, inverse = np.unique(-scores, return_inverse=True)
    hits = np.bincount(inverse[labels], minlength=len(values)).cumsum() / labels.sum()
    alarms = np.bincount(inverse[~labels], minlength=len(values)).cumsum() / (~labels).sum()
    return np.append(0.0, alarms), np.append(0.0, hits)


def average_precision(scores: Floats, labels: Bools) -> float:
    """Average precision: sum of precision times the gain in recall, thresholds descending."""
    precision, recall = _precision_recall(scores, labels)
    return float((np.diff(recall, prepend=0.0) * precision).sum())


def f1_max(scores: Floats, labels: Bools) -> float:
    """Largest F1 over all thresholds."""
    precision, recall = _precision_recall(scores, labels)
    with np.errstate(invalid="ignore"):
        f1 = 2 * precision * recall / (precision + recall)
    return float(np.nanmax(f1, initial=0.0)) if labels.any() else float("nan")


def _precision_recall(scores: Floats, labels: Bools) -> tuple[Floats, Floats]:
    """Precision and recall at each distinct score, from the highest down."""
    if not labels.any():
        return np.full(1, np.nan), np.full(1, np.nan)
    order = np.argsort(-scores, kind="stable")
    last = np.append(
        scores[order][1:] != scores[order][:-1], True
    )  # last of each run of equal scores
    hits = np.cumsum(labels[order])[last]
    return hits / (np.flatnonzero(last) + 1), hits / labels.sum()


_SHIFT = 12  # drop the 12 lowest of float32's 23 mantissa bits
_BINS = (0x7F800000 >> _SHIFT) + 1  # non-negative finite float32 values
_MERGED = 32  # bins made one for resampling: relative resolution 2^-6
_LOWEST = (127 - 12) << (23 - _SHIFT)  # first bin of 2^-12, ...
_HIGHEST = (127 + 12) << (23 - _SHIFT)  # ... and of 2^12; what lies outside is put at the ends
_AT_ONCE = 32  # images that one product adds to all replicates


class _Counts(NamedTuple):
    """Histograms of the map's values, (bins,) each."""

    good: Floats
    bad: Floats
    regions: Floats
    """Pixels of defective regions, each with the weight 1 / area of its region."""

    def auroc(self) -> float:
        return _auroc_of_counts(self.good, self.bad)

    def pro_curve(self) -> tuple[Floats, Floats]:
        used = np.flatnonzero(self.good + self.regions)[::-1]
        fpr = np.cumsum(self.good[used]) / self.good.sum()
        pro = np.cumsum(self.regions[used]) / self.regions.sum()
        return np.append(0.0, fpr), np.append(0.0, pro)

    def aupro(self, limit: float) -> float:
        if not self.regions.any() or not self.good.any():
            return float("nan")
        fpr, pro = self.pro_curve()
        inside = fpr <= limit
        x = np.append(fpr[inside], limit)
        y = np.append(pro[inside], np.interp(limit, fpr, pro))
        return float(np.trapezoid(y, x) / limit)


def _merge(counts: NDArray[Any]) -> NDArray[Any]:
    """The histogram with `_MERGED` bins made one, between 2^-12 and 2^12."""
    inner = np.asarray(counts[_LOWEST:_HIGHEST].reshape(-1, _MERGED).sum(1))
    inner[0] += counts[:_LOWEST].sum()
    inner[-1] += counts[_HIGHEST:].sum()
    return inner


@dataclass
class PixelMetrics:
    """Pixel AUROC and AUPRO over a stream of maps and masks.

    AUPRO (Bergmann et al., MVTec AD, IJCV 2021): the mean over all ground-truth regions of the
    fraction of the region found, as a function of the false-positive rate over all defect-free
    pixels, integrated up to ``limit`` and divided by it.

    With ``replicates`` both are also resampled over images while these stream by, each image
    counted Poisson(1) times in each replicate (online bootstrap; Oza & Russell 2001), on coarser
    histograms.
    """

    limit: float = 0.3
    replicates: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        self._total = _Counts(*np.zeros((3, _BINS)))
        self._resampled = np.zeros((self.replicates, 3, (_HIGHEST - _LOWEST) // _MERGED))
        self._waiting: list[Floats] = []
        """Merged histograms of images that are not in `_resampled` yet, (3, bins) each."""
        self._random = np.random.default_rng(self.seed)
        self.defective_images = 0
        """How many of the images had a mask that marks something."""

    def add(self, anomaly_map: NDArray[np.float32], mask: Bools) -> None:
        """Add one image: a finite, non-negative map (H, W) and its mask (H, W)."""
        bins = (np.ascontiguousarray(anomaly_map, np.float32).view(np.uint32) >> _SHIFT).ravel()
        merged = np.zeros(self._resampled.shape[1:])
        for i, counts in enumerate(_counts(bins, mask)):
            self._total[i][:] += counts
            if self.replicates:
                merged[i] = _merge(counts)
        self.defective_images += bool(mask.any())
        if self.replicates:
            self._waiting.append(merged)
        if len(self._waiting) == _AT_ONCE:
            self._resample()

    def _resample(self) -> None:
        if self._waiting:
            weights = self._random.poisson(1.0, (len(self._waiting), self.replicates))
            self._resampled += np.tensordot(weights.astype(np.float64), self._waiting, (0, 0))
            self._waiting.clear()

    def auroc(self) -> float:
        """Pixel AUROC; NaN unless there are both good and defective pixels."""
        return self._total.auroc()

    def aupro(self) -> float:
        """AUPRO up to ``limit``, 0..1; NaN without defective or without good pixels."""
        return self._total.aupro(self.limit)

    def pro_curve(self) -> tuple[Floats, Floats]:
        """False-positive rate and mean fraction of regions found, from (0, 0) to (1, 1)."""
        return self._total.pro_curve()

    def resampled(self) -> tuple[Floats, Floats]:
        """Pixel AUROC and AUPRO of each replicate, (replicates,) each."""
        self._resample()
        each = [_Counts(*rows) for rows in self._resampled]
        return (
            np.array([counts.auroc() for counts in each]),
            np.array([counts.aupro(self.limit) for counts in each]),
        )


def _counts(bins: NDArray[Any], mask: Bools) -> Iterator[NDArray[Any]]:
    """Histograms of one image: good pixels and, if there are any, bad ones, and these by region."""
    truth = mask.ravel()
    yield np.bincount(bins[~truth], minlength=_BINS)
    if not truth.any():
        return
    found = bins[truth]
    yield np.bincount(found, minlength=_BINS)
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    region = labels.ravel()[truth]
    areas = np.bincount(region, minlength=count)
    yield np.bincount(found, weights=1.0 / areas[region], minlength=_BINS)
