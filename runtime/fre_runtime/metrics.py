"""Quality figures of anomaly detection, in numpy alone so that the runtime stays light.

Image metrics sort the scores. Pixel metrics stream: each image adds to three histograms over the
values' float32 bit patterns (relative resolution 2^-11), so memory does not grow with the data.
"""

from dataclasses import dataclass

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


@dataclass
class PixelMetrics:
    """Pixel AUROC and AUPRO over a stream of maps and masks.

    AUPRO (Bergmann et al., MVTec AD, IJCV 2021): the mean over all ground-truth regions of the
    fraction of the region found, as a function of the false-positive rate over all defect-free
    pixels, integrated up to ``limit`` and divided by it.
    """

    limit: float = 0.3

    def __post_init__(self) -> None:
        self._good = np.zeros(_BINS)
        self._bad = np.zeros(_BINS)
        self._regions = np.zeros(_BINS)  # each region's pixels weigh 1 / its area
        self._n_regions = 0

    def add(self, anomaly_map: NDArray[np.float32], mask: Bools) -> None:
        """Add one image: a finite, non-negative map (H, W) and its mask (H, W)."""
        bins = (np.ascontiguousarray(anomaly_map, np.float32).view(np.uint32) >> _SHIFT).ravel()
        truth = mask.ravel()
        self._good += np.bincount(bins[~truth], minlength=_BINS)
        if not truth.any():
            return
        found = bins[truth]
        self._bad += np.bincount(found, minlength=_BINS)
        count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
        region = labels.ravel()[truth]
        areas = np.bincount(region, minlength=count)
        self._regions += np.bincount(found, weights=1.0 / areas[region], minlength=_BINS)
        self._n_regions += count - 1

    def auroc(self) -> float:
        """Pixel AUROC; NaN unless there are both good and defective pixels."""
        return _auroc_of_counts(self._good, self._bad)

    def aupro(self) -> float:
        """AUPRO up to ``limit``, 0..1; NaN without defective or without good pixels."""
        if self._n_regions == 0 or self._good.sum() == 0:
            return float("nan")
        used = np.flatnonzero(self._good + self._regions)[::-1]
        fpr = np.concatenate([[0.0], np.cumsum(self._good[used]) / self._good.sum()])
        pro = np.concatenate([[0.0], np.cumsum(self._regions[used]) / self._n_regions])
        inside = fpr <= self.limit
        x = np.append(fpr[inside], self.limit)
        y = np.append(pro[inside], np.interp(self.limit, fpr, pro))
        return float(np.trapezoid(y, x) / self.limit)
