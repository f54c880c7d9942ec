"""From a photo to the tensor that the graph takes."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fre_runtime.card import Graph
from fre_runtime.image import Image, resize


def prepare(image: Image, graph: Graph) -> NDArray[Any]:
    """Resize a uint8 (H, W, 3) RGB image and lay it out as a batch of one.

    Returns uint8 (1, height, width, 3) for ``io="uint8"`` graphs, float32
    (1, 3, height, width) in 0..1 for ``io="float"`` ones; scaling is by dtype, never by content.
    """
    resized = np.ascontiguousarray(resize(image, graph.height, graph.width))[None]
    if graph.io == "uint8":
        return resized
    return np.ascontiguousarray(resized.transpose(0, 3, 1, 2), dtype=np.float32) / np.float32(255)
