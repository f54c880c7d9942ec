"""A model directory laid out as OpenVINO Model Server and Triton want to find it.

    DIR/ovms/config.json
    DIR/ovms/models/NAME/VERSION/    model.xml, model.bin, model.json (the card)
    DIR/triton/NAME/config.pbtxt
    DIR/triton/NAME/VERSION/         model.onnx, model.json

A second model of the same name becomes the next version: both servers load it beside the old one
and then switch, without an answer lost. Nothing that is there already is changed, but for new
entries in config.json.
"""

import json
import os
import re
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fre_runtime.card import OUTPUTS, Card
from fre_runtime.errors import OutputError, UsageError
from fre_runtime.folder_lock import alone_in
from fre_runtime.model_dir import (
    CARD,
    MANIFEST,
    ModelDir,
    check_writable,
    settle,
)

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
"""Names that every server, address and file system takes as they are."""

_MODELS = {"ovms": Path("ovms/models"), "triton": Path("triton")}
"""Where a server looks for models, below the repository."""

_FILES = {"ovms": ("openvino", (".xml", ".bin")), "triton": ("onnxruntime", (".onnx",))}
"""The engine whose files a server runs, and their suffixes."""

_CONFIG = Path("ovms/config.json")

_TYPES = {"uint8": "TYPE_UINT8", "float32": "TYPE_FP32"}

_PBTXT = """\
# The batch is an axis of the graph itself: shapes are the graph's own, as other servers have them.
name: "{name}"
backend: "onnxruntime"
max_batch_size: 0
input [
{input}
]
output [
{outputs}
]
# The thresholds were calibrated and verified on the CPU in float32.
instance_group [ {{ count: 1, kind: KIND_CPU }} ]
"""


@dataclass(frozen=True)
class Servable:
    """What a server offers now."""

    root: Path
    name: str
    version: int
    variant: str
    servers: list[str]
    """``ovms``, ``triton``: those whose engine has a file of this variant."""


def lay_out(
    model: ModelDir, root: str | Path, *, name: str | None = None, variant: str = "fp32"
) -> Servable:
    """Add one variant of a model to a repository, as a new model or the next version of one.

    Parameters
    ----------
    model
        A verified model directory.
    root
        The repository; made if it does not exist. Everything is added, or nothing is.
    name
        What clients call the model; default: the model's own name.
    variant
        Which precision. All but fp32 are models of their own, ``NAME-VARIANT``: their thresholds
        and scores are others.

    Raises
    ------
    OutputError
        When ``root`` cannot be written, or holds something else.
    UsageError
        When the variant does not exist, the name is none, or there is a model of that name that
        runs at another precision, or whose clients would have to send or read other tensors.
    """
    root = Path(root)
    model.variant(variant)  # UsageError where there is none
    name = servable_name(name or model.card.name, variant)
    check_repository(root, name, model.card.variants[variant].precision)
    try:
        # Versions and config.json are read and then written: another fre-deploy has to wait.
        with alone_in(root):
            return _added(model, root, name, variant)
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{root}: cannot be written ({error.strerror or error})") from error


def _added(model: ModelDir, root: Path, name: str, variant: str) -> Servable:
    """Add the model to a repository in which nobody else writes."""
    files = model.variant(variant).files
    versions = _versions(root, name)
    version = max(versions, default=0) + 1
    if versions:
        _check_contract(model.card, versions[max(versions)], name)
    servers = [server for server, (engine, _) in _FILES.items() if engine in files]
    with tempfile.TemporaryDirectory(prefix=".new.", dir=root) as folder:
        tree = Path(folder)
        for server in servers:
            engine, suffixes = _FILES[server]
            target = tree / _MODELS[server] / name / str(version)
            target.mkdir(parents=True)
            for suffix in suffixes:
                source = (model.path / files[engine]).with_suffix(suffix)
                shutil.copyfile(source, target / f"model{suffix}")
            shutil.copyfile(model.path / CARD, target / CARD)
        if "triton" in servers:
            text = triton_config(model.card, name)
            (tree / _MODELS["triton"] / name / "config.pbtxt").write_text(text, encoding="utf-8")
        if "ovms" in servers:
            listed = _listed(root / _CONFIG, name, model.card.variants[variant].precision)
            (tree / _CONFIG).write_text(json.dumps(listed, indent=2) + "\n", encoding="utf-8")
        settle(tree)
        _merge(tree, root, name, version)
    return Servable(root, name, version, variant, servers)


def servable_name(name: str, variant: str = "fp32") -> str:
    """What clients call a variant of the model ``name``.

    Raises
    ------
    UsageError
        When an address or a configuration file could not hold the name as it is.
    """
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot name a served model; take up to 100 letters, digits, '.', '_' and "
            "'-': name the model directory so, or pass fre-deploy --name"
        )
    return name if variant == "fp32" else f"{name}-{variant}"


def check_repository(root: Path, name: str, precision: str = "f32") -> None:
    """Find out early that a model cannot be added, before hours of work are spent.

    Raises
    ------
    OutputError
        When ``root`` is no directory, lies in a model directory, cannot be written, or its
        configuration for OpenVINO Model Server cannot be read.
    UsageError
        When that configuration runs ``name`` at another precision.
    """
    for folder in (root.absolute(), *root.absolute().parents):
        if (folder / MANIFEST).is_file() and (folder / CARD).is_file():
            raise OutputError(
                f"{root}: lies in the model directory {folder}, which must hold its own files "
                "only; choose another directory"
            )
    if not os.path.lexists(root):
        check_writable(root, overwrite=False)
        return
    if not root.is_dir():
        raise OutputError(f"{root}: is not a directory; choose another one for the servers' files")
    try:
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        raise OutputError(f"{root}: cannot be written ({error.strerror or error})") from error
    _listed(root / _CONFIG, name, precision)


def triton_config(card: Card, name: str) -> str:
    """The text of ``config.pbtxt``."""
    graph = card.graph
    grid = (1, graph.map_height, graph.map_width)
    outputs = zip(
        OUTPUTS,
        ("TYPE_FP32", "TYPE_BOOL", "TYPE_FP32", "TYPE_BOOL"),
        ((), (), grid, grid),
        strict=True,
    )

    def tensor(name: str, kind: str, shape: tuple[int, ...]) -> str:
        dims = ", ".join(map(str, (-1, *shape)))
        return f'  {{ name: "{name}", data_type: {kind}, dims: [ {dims} ] }}'

    return _PBTXT.format(
        name=name,
        input=tensor(graph.input_name, _TYPES[graph.input_dtype], graph.input_shape),
        outputs=",\n".join(tensor(*output) for output in outputs),
    )


def _versions(root: Path, name: str) -> dict[int, Path]:
    """Folders of the versions that there are, of whichever server."""
    return {
        int(folder.name): folder
        for models in _MODELS.values()
        for folder in (root / models / name).glob("[0-9]*")
        if folder.name.isascii() and folder.name.isdigit()
    }


def _check_contract(card: Card, earlier: Path, name: str) -> None:
    """Clients of a name go on as before: what they send and read must stay as it is."""
    path = earlier / CARD
    try:
        old = json.loads(path.read_text(encoding="utf-8"))
        before = {**old["graph"], **old["view"]}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise OutputError(
            f"{path}: does not tell what clients of {name!r} send and read ({error!r}); choose "
            "another directory"
        ) from error
    new = {**asdict(card.graph), **asdict(card.view)}
    # The card may be of an earlier version of ours, with other fields; the score is no tensor.
    changed = [
        f"{key} {was!r} -> {new[key]!r}"
        for key, was in before.items()
        if key in new and key != "score" and new[key] != was
    ]
    if changed:
        raise UsageError(
            f"{earlier.parent}: clients of {name!r} would have to send or read other tensors "
            f"({', '.join(changed)}); give the model another name, or choose another directory"
        )


def _listed(path: Path, name: str, precision: str) -> dict[str, Any]:
    """What is in the configuration of OpenVINO Model Server, and ``name`` with it."""
    hint = "f32" if precision == "int8" else precision
    config: Any = {"model_config_list": []}
    if path.exists():
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
            entries = [entry["config"] for entry in config["model_config_list"]]
            hints = {
                entry["name"]: dict(entry.get("plugin_config", {})).get("INFERENCE_PRECISION_HINT")
                for entry in entries
            }
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise OutputError(
                f"{path}: is no configuration of OpenVINO Model Server ({error!r}); mend it, or "
                "choose another directory"
            ) from error
        if hints.get(name, hint) != hint:
            raise UsageError(
                f"{path}: runs {name!r} with INFERENCE_PRECISION_HINT = {hints[name]}, the new "
                f"version's thresholds hold for {hint}; set it, or give the model another name"
            )
        if name in hints:
            return dict(config)
    entry = {
        "name": name,
        "base_path": f"models/{name}",  # relative to this file
        "plugin_config": {
            "PERFORMANCE_HINT": "LATENCY",
            # Without it, processors with AMX run bf16, for which the thresholds do not hold.
            "INFERENCE_PRECISION_HINT": hint,
        },
    }
    return {**config, "model_config_list": [*config["model_config_list"], {"config": entry}]}


def _merge(tree: Path, root: Path, name: str, version: int) -> None:
    """Rename what is new into the repository; what was renamed is taken back on an error."""
    moved: list[Path] = []
    try:
        for models in _MODELS.values():
            new = models / name / str(version)
            if not (tree / new).exists():
                continue
            # The folder furthest up that is not there yet: the server sees all of it at once.
            step = next(p for p in (*reversed(new.parents), new) if not (root / p).exists())
            (tree / step).rename(root / step)
            moved.append(root / step)
        if (tree / _CONFIG).exists():
            # Last: a server that reads it finds the model that it names.
            (tree / _CONFIG).replace(root / _CONFIG)
    except BaseException:
        for target in moved:
            shutil.rmtree(target, ignore_errors=True)
        raise
