"""8-bit post-training quantisation of the trunk, calibrated on photos of good parts."""

import contextlib
import importlib.util
import io
import logging
from collections.abc import Iterable
from typing import Any

import onnx
from numpy.typing import NDArray

from fre_runtime.errors import MissingDependencyError

SAMPLES = 128
"""Photos that the ranges of the activations are taken from."""


def quantise(trunk: onnx.ModelProto, inputs: Iterable[NDArray[Any]]) -> onnx.ModelProto:
    """Return ``trunk`` with QuantizeLinear and DequantizeLinear round its convolutions.

    NNCF does it: weights symmetric for each channel, activations by their observed ranges, biases
    corrected. The head stays in float: quantised, it changes the scale of every score.

    Parameters
    ----------
    trunk
        Image to features.
    inputs
        Batches as the trunk takes them; `SAMPLES` are enough.

    """
    with _quiet():
        import nncf
        from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters
        from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    samples = list(inputs)
    name = trunk.graph.input[0].name
    with _quiet():
        quantised: onnx.ModelProto = nncf.quantize(
            trunk,
            nncf.Dataset(samples, lambda batch: {name: batch}),
            subset_size=len(samples),
            preset=nncf.QuantizationPreset.PERFORMANCE,
            # Layer by layer, each on what the quantised ones before it give: half the error of the
            # fast way in the features, for some ten seconds more.
            fast_bias_correction=False,
            # The largest range of all photos, not their mean: a defect must not be clipped.
            advanced_parameters=AdvancedQuantizationParameters(
                activations_range_estimator_params=RangeEstimatorParametersSet.MINMAX
            ),
        )
    return quantised


def check_installed() -> None:
    """Raise `MissingDependencyError` where NNCF is not installed, before any work is done."""
    if importlib.util.find_spec("nncf") is None:
        raise MissingDependencyError(
            "nncf is not installed, int8 needs it; run: pip install 'fre-edge[quantize]'"
        )


@contextlib.contextmanager
def _quiet() -> Any:  # noqa: ANN401 - a generator-based context manager
    """NNCF logs and draws progress bars of its own."""
    logger = logging.getLogger("nncf")
    level = logger.level
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            logger.setLevel(level)
