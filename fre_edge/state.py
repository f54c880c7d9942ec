"""``fit.safetensors``: the fitted subspaces as numbers, beside the graph that they went into."""

from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import save_file

from fre_edge.fitting import Fit
from fre_runtime.errors import OutputError


def save_fit(fit: Fit, path: Path) -> None:
    """Write mu, W, the spectrum and the counts of each layer, and the held-out scores."""
    tensors: dict[str, np.ndarray] = {
        "held_out_scores": fit.held_out_scores,
        "groups": np.ascontiguousarray(fit.groups),
        "count": np.array([len(fit.photos)], np.int64),
    }
    for name, subspace in zip(fit.backbone.layers, fit.subspaces, strict=True):
        tensors[f"{name}.mean"] = subspace.mean
        tensors[f"{name}.components"] = subspace.components
        tensors[f"{name}.spectrum"] = np.ascontiguousarray(subspace.spectrum)
    try:
        save_file(tensors, path)
    except SafetensorError as error:  # a full disk, among others
        raise OutputError(f"{path.name}: cannot be written ({error})") from error
