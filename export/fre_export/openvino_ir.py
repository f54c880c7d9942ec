"""From the ONNX graph to OpenVINO's own format."""

from collections.abc import Mapping
from pathlib import Path

import onnx
import openvino

from fre_export.passes.channels_last import normalise_channels_last
from fre_export.passes.compress_weights import compress_weights
from fre_runtime.errors import OutputError


def save_ir(graph: onnx.ModelProto, metadata: Mapping[str, str], path: Path) -> None:
    """Convert ``graph`` to IR; ``metadata`` goes to rt_info under ``model_info``.

    The batch is 1, since OpenVINO works out the shapes of a dynamic graph anew at each call, which
    costs a tenth of the time; ``Model.reshape`` gives any other one. The reader drops ONNX
    metadata, so it is written again. ``read_model`` and ``serialize`` instead of ``convert_model``
    and ``save_model``: these fold the 8-bit W into float32.
    """
    model = openvino.Core().read_model(graph.SerializeToString())
    compress_weights(model)
    normalise_channels_last(model)
    image = model.inputs[0]
    model.reshape({image.get_any_name(): [1, *list(image.get_partial_shape())[1:]]})
    # Else OpenVINO rounds what meets 8-bit weights to 8 bits as well: scores move by up to 2e-3.
    model.set_rt_info("0", ["runtime_options", "DYNAMIC_QUANTIZATION_GROUP_SIZE"])
    for key, value in metadata.items():
        model.set_rt_info(value, ["model_info", key])
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        openvino.serialize(model, path)
    except RuntimeError as error:  # a full disk, among others
        raise OutputError(
            f"{path.name}: OpenVINO cannot write it ({error}); is the disk full?"
        ) from error
