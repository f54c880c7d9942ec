"""What the graph files say of themselves, for our runtime and for other people's clients."""

import json
from collections.abc import Mapping

from fre_runtime.calibration import Calibration
from fre_runtime.card import Graph
from fre_runtime.geometry import PAD, View


def graph_metadata(
    graph: Graph, view: View, calibration: Calibration, precision: str
) -> dict[str, str]:
    """Key-value pairs for the IR's ``rt_info/model_info`` and, through `onnx_props`, for ONNX.

    The thresholds stand there in full, so that a graph found without its card still tells them,
    and the runtime can check the card against the graph. The other keys are those of Intel's
    Model API; scores and maps are calibrated in the graph, so its thresholds are the neutral ones.
    """
    keys = {
        **calibration.metadata(),
        **view.metadata(),
        "fre_score": graph.score,
        "fre_precision": precision,
        "fre_resize": graph.resize,
        "fre_colour": graph.colour,
        "model_type": "AnomalyDetection",
        "task": "segmentation",
        "image_threshold": "0.5",
        "pixel_threshold": "0.5",
        "normalization_scale": "1.0",
        "orig_height": str(graph.height),
        "orig_width": str(graph.width),
        "image_shape": json.dumps([graph.height, graph.width]),
        **(
            {"resize_type": "fit_to_window_letterbox", "pad_value": str(PAD)}
            if view.aspect == "keep"
            else {"resize_type": "standard"}
        ),
        "reverse_input_channels": "True",
        "labels": "Good Anomalous",
    }
    if graph.io == "float":  # the graph takes 0..1, the Model API would feed 0..255
        keys["scale_values"] = "255 255 255"
        keys["mean_values"] = "0 0 0"
    return keys


def onnx_props(metadata: Mapping[str, str]) -> dict[str, str]:
    """The same for ONNX metadata_props, where the Model API looks for ``model_info <key>``."""
    return {
        key if key.startswith("fre_") else f"model_info {key}": value
        for key, value in metadata.items()
    }
