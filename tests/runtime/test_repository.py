"""What OpenVINO Model Server and Triton are given: whole, versioned, and true to the graph."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from fre_runtime.card import read_card
from fre_runtime.commands import deploy
from fre_runtime.commands.common import run_command
from fre_runtime.errors import OutputError, UsageError
from fre_runtime.folder_lock import LOCK
from fre_runtime.model_dir import ModelDir, open_model_dir
from fre_runtime.repository import lay_out, triton_config

TYPES = {
    onnx.TensorProto.UINT8: "TYPE_UINT8",
    onnx.TensorProto.FLOAT: "TYPE_FP32",
    onnx.TensorProto.BOOL: "TYPE_BOOL",
}
OVMS_OPTIONS = {
    "type": "object",
    "required": ["name", "base_path"],
    "additionalProperties": False,
    "properties": {
        "name": {"type": "string"},
        "base_path": {"type": "string"},
        "plugin_config": {"type": "object", "additionalProperties": {"type": ["string", "number"]}},
    },
}
OVMS_SCHEMA = {
    "type": "object",
    "required": ["model_config_list"],
    "additionalProperties": False,
    "properties": {
        "model_config_list": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["config"],
                "additionalProperties": False,
                "properties": {"config": OVMS_OPTIONS},
            },
        }
    },
}
"""Of what OpenVINO Model Server documents, what we use: it refuses every other key."""


def files(root):
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def onnx_tensors(path):
    """Name, type and shape of the graph's inputs and outputs; an open side is -1."""
    graph = onnx.load(path).graph
    return [
        [
            (
                value.name,
                TYPES[value.type.tensor_type.elem_type],
                [
                    side.dim_value if side.HasField("dim_value") else -1
                    for side in value.type.tensor_type.shape.dim
                ],
            )
            for value in values
        ]
        for values in (graph.input, graph.output)
    ]


@pytest.mark.parametrize("flavour", ["uint8_model", "float_model", "max_model"])
def test_triton_reads_the_graph_s_own_tensors(request, flavour, tmp_path):
    model = request.getfixturevalue(flavour)
    done = lay_out(model, tmp_path / "servers")
    folder = tmp_path / "servers/triton" / done.name
    text = (folder / "config.pbtxt").read_text(encoding="utf-8")  # tests/clients: by Triton itself
    for line in (f'name: "{done.name}"', 'backend: "onnxruntime"', "max_batch_size: 0"):
        assert line in text
    tensor = re.compile(r'\{ name: "(\w+)", data_type: (\w+), dims: \[ ([-0-9, ]+) \] \}')
    told = [
        [(name, kind, json.loads(f"[{dims}]")) for name, kind, dims in tensor.findall(part)]
        for part in text.split("output [")
    ]
    assert told == onnx_tensors(folder / "1/model.onnx")


def test_model_server_reads_a_configuration_that_it_knows(uint8_model, tmp_path):
    jsonschema = pytest.importorskip("jsonschema")
    lay_out(uint8_model, tmp_path)
    lay_out(uint8_model, tmp_path, name="second.model-2")
    config = json.loads((tmp_path / "ovms/config.json").read_text())
    jsonschema.validate(config, OVMS_SCHEMA)
    entries = [entry["config"] for entry in config["model_config_list"]]
    assert [entry["name"] for entry in entries] == [uint8_model.card.name, "second.model-2"]
    for entry in entries:
        assert entry["plugin_config"]["INFERENCE_PRECISION_HINT"] == "f32"
        folder = tmp_path / "ovms" / entry["base_path"] / "1"
        assert {p.name for p in folder.iterdir()} == {"model.xml", "model.bin", "model.json"}
        source = uint8_model.path / "openvino"
        for file in ("model.xml", "model.bin"):
            assert (folder / file).read_bytes() == (source / file).read_bytes()
        assert read_card(folder / "model.json") == uint8_model.card


def test_a_second_model_of_a_name_is_its_next_version(uint8_model, tmp_path):
    root = tmp_path / "servers"
    assert lay_out(uint8_model, root).version == 1
    before = files(root)
    assert lay_out(uint8_model, root).version == 2
    after = files(root)
    assert before.items() <= after.items()
    name = uint8_model.card.name
    added = {path.replace("/2/", "/1/") for path in after.keys() - before.keys()}
    assert added == {path for path in before if "/1/" in path}
    assert set(root.iterdir()) == {root / "ovms", root / "triton"}
    (root / "triton" / name / "9").mkdir()  # whatever the servers count by, ours comes after it
    (root / "triton" / name / "9/model.json").write_bytes(after[f"triton/{name}/2/model.json"])
    assert lay_out(uint8_model, root).version == 10


def test_what_somebody_set_for_a_server_stays(uint8_model, tmp_path):
    lay_out(uint8_model, tmp_path)
    path = tmp_path / "ovms/config.json"
    config = json.loads(path.read_text())
    config["model_config_list"][0]["config"]["nireq"] = 4
    config["mediapipe_config_list"] = []
    path.write_text(json.dumps(config))
    pbtxt = tmp_path / "triton" / uint8_model.card.name / "config.pbtxt"
    pbtxt.write_text(pbtxt.read_text() + "version_policy: { all {} }\n")
    changed = pbtxt.read_text()
    lay_out(uint8_model, tmp_path)
    assert json.loads(path.read_text()) == config
    assert pbtxt.read_text() == changed
    lay_out(uint8_model, tmp_path, name="other")
    kept = json.loads(path.read_text())
    assert kept["mediapipe_config_list"] == []
    assert kept["model_config_list"][0] == config["model_config_list"][0]


@pytest.mark.parametrize("changes", [{"width": 32}, {"io": "float"}, {"map_height": 7}])
def test_a_name_keeps_its_tensors(uint8_model, tmp_path, changes):
    root = tmp_path / "servers"
    lay_out(uint8_model, root)
    before = files(root)
    card = replace(uint8_model.card, graph=replace(uint8_model.card.graph, **changes))
    (key,) = changes
    with pytest.raises(UsageError, match=f"other tensors.*{key}.*another name"):
        lay_out(ModelDir(uint8_model.path, card), root)
    assert files(root) == before
    assert lay_out(ModelDir(uint8_model.path, card), root, name="other").version == 1


def test_a_crop_that_clients_make_belongs_to_the_name_too(uint8_model, tmp_path):
    lay_out(uint8_model, tmp_path)
    card = replace(uint8_model.card, view=replace(uint8_model.card.view, aspect="keep"))
    with pytest.raises(UsageError, match="aspect 'stretch' -> 'keep'"):
        lay_out(ModelDir(uint8_model.path, card), tmp_path)


def test_versions_of_an_earlier_fre_edge_go_on(uint8_model, tmp_path):
    lay_out(uint8_model, tmp_path)
    for path in tmp_path.rglob("model.json"):
        card = json.loads(path.read_text())
        card["schema"] = 0
        card["graph"]["gone"] = card["view"].pop("overlap")
        path.write_text(json.dumps(card))
    assert lay_out(uint8_model, tmp_path).version == 2
    for path in tmp_path.rglob("2/model.json"):
        path.write_text("[]")
    with pytest.raises(OutputError, match="does not tell what clients of"):
        lay_out(uint8_model, tmp_path)


@pytest.mark.parametrize(
    ("there", "broken", "last"),
    [
        (False, "copyfile", 4),
        (False, "rename", 1),
        (False, "rename", 2),
        (True, "copyfile", 4),
        (True, "rename", 2),
        (True, "replace", 1),
    ],
)
def test_written_whole_or_not_at_all(uint8_model, tmp_path, monkeypatch, there, broken, last):
    """Whichever copy or rename fails."""
    root = tmp_path / "servers"
    if there:
        lay_out(uint8_model, root, name="first")
    before = files(tmp_path)
    calls = {"n": 0}

    def failing(real):
        def call(*arguments, **options):
            calls["n"] += 1
            if calls["n"] == last:
                raise OSError(28, "No space left on device")
            return real(*arguments, **options)

        return call

    if broken == "copyfile":
        monkeypatch.setattr(shutil, "copyfile", failing(shutil.copyfile))
    else:
        monkeypatch.setattr(Path, broken, failing(getattr(Path, broken)))
    with pytest.raises(OutputError, match="No space left"):
        lay_out(uint8_model, root)
    assert files(tmp_path) == before
    assert there or not root.exists()
    assert not list(tmp_path.rglob(".*"))
    monkeypatch.undo()
    assert lay_out(uint8_model, root).version == 1


@pytest.mark.parametrize("there", [False, True])
def test_deploys_at_the_same_time_all_count(uint8_model, tmp_path, there):
    """Four processes, two names: no entry is lost, and no version given twice."""
    root = tmp_path / "servers"
    if there:
        lay_out(uint8_model, root, name="first")
    code = (
        "import sys\n"
        "from fre_runtime.commands import deploy\n"
        "from fre_runtime.commands.common import run_command\n"
        "sys.stdin.readline()\n"  # all start at once
        "sys.exit(run_command(deploy, sys.argv[1:]))\n"
    )
    names = ["top", "bottom", "top", "bottom"]
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(uint8_model.path), str(root), "--name", name],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
        )
        for name in names
    ]  # fmt: skip
    for process in running:
        process.stdin.write(b"go\n")
        process.stdin.close()
    assert [process.wait(60) for process in running] == [0] * len(names)
    listed = json.loads((root / "ovms/config.json").read_text())["model_config_list"]
    found = sorted(entry["config"]["name"] for entry in listed)
    assert found == ["bottom", *(["first"] if there else []), "top"]
    for name in ("top", "bottom"):
        for models in ("ovms/models", "triton"):
            assert {p.name for p in (root / models / name).glob("[0-9]*")} == {"1", "2"}
    assert not list(root.rglob(".*"))


def test_an_abandoned_lock_keeps_nobody_out(uint8_model, tmp_path):
    (tmp_path / LOCK).touch()
    assert lay_out(uint8_model, tmp_path).version == 1
    assert not (tmp_path / LOCK).exists()


def test_precisions_are_models_of_their_own(variants_model, tmp_path):
    root = tmp_path / "servers"
    for name, variant in variants_model.card.variants.items():
        done = lay_out(variants_model, root, variant=name)
        suffix = "" if name == "fp32" else f"-{name}"
        assert (done.name, done.version) == (variants_model.card.name + suffix, 1)
        assert done.servers == [
            server
            for server, engine in (("ovms", "openvino"), ("triton", "onnxruntime"))
            if engine in variant.files
        ]
        (entry,) = (
            entry["config"]
            for entry in json.loads((root / "ovms/config.json").read_text())["model_config_list"]
            if entry["config"]["name"] == done.name
        )
        hint = {"int8": "f32", "f32": "f32", "bf16": "bf16"}[variant.precision]
        assert entry["plugin_config"]["INFERENCE_PRECISION_HINT"] == hint
        assert lay_out(variants_model, root, variant=name).version == 2


@pytest.mark.parametrize("hint", [None, "bf16"])
def test_a_name_keeps_its_precision(uint8_model, tmp_path, hint):
    lay_out(uint8_model, tmp_path)
    path = tmp_path / "ovms/config.json"
    config = json.loads(path.read_text())
    settings = config["model_config_list"][0]["config"]["plugin_config"]
    settings.pop("INFERENCE_PRECISION_HINT")
    settings |= {"INFERENCE_PRECISION_HINT": hint} if hint else {}
    path.write_text(json.dumps(config))
    before = files(tmp_path)
    with pytest.raises(UsageError, match=f"INFERENCE_PRECISION_HINT = {hint}.* hold for f32"):
        lay_out(uint8_model, tmp_path)
    assert files(tmp_path) == before
    assert lay_out(uint8_model, tmp_path, name="other").version == 1


def run(*argv):
    return run_command(deploy, [str(arg) for arg in argv])


def test_fre_deploy_says_what_to_start(uint8_model, tmp_path, capsys):
    assert run(uint8_model.path, tmp_path / "servers") == 0
    printed = capsys.readouterr().out
    assert f"{uint8_model.card.name} version 1 (fp32)" in printed
    assert f"ovms --config_path {tmp_path}/servers/ovms/config.json" in printed
    assert f"tritonserver --model-repository {tmp_path}/servers/triton" in printed
    assert run(uint8_model.path, tmp_path / "servers", "--name", "b", "--json", "-") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["name"], told["version"], told["servers"]) == ("b", 1, ["ovms", "triton"])


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["--name", "a b"], 2, "'a b' cannot name a served model"),
        (["--name", "../up"], 2, "cannot name"),
        (["--name", "x" * 101], 2, "up to 100"),
        (["--variant", "fp64"], 2, "has no variant 'fp64'"),
    ],
)
def test_what_cannot_be_served_is_refused(uint8_model, tmp_path, capsys, arguments, code, reason):
    assert run(uint8_model.path, tmp_path / "servers", *arguments) == code
    assert reason in capsys.readouterr().err
    assert not (tmp_path / "servers").exists()


def test_directories_that_hold_something_else_are_left_alone(
    uint8_model, writable_model, tmp_path, capsys
):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "ovms").mkdir()
    (tmp_path / "ovms/config.json").write_text('{"model_config_list": 7}')
    for target, reason in (
        (tmp_path / "file", "is not a directory"),
        (writable_model, "must hold its own files only"),
        (writable_model / "golden/servers", "must hold its own files only"),
        (tmp_path, "is no configuration of OpenVINO Model Server"),
    ):
        before = files(tmp_path)
        assert run(uint8_model.path, target) == 1
        assert reason in capsys.readouterr().err
        assert files(tmp_path) == before
    open_model_dir(writable_model)


def test_a_damaged_model_is_not_served(writable_model, tmp_path, capsys):
    with (writable_model / "model.onnx").open("ab") as file:
        file.write(b"x")
    assert run(writable_model, tmp_path / "servers") == 1
    assert "was changed since" in capsys.readouterr().err
    assert not (tmp_path / "servers").exists()


def test_the_text_for_triton_names_the_model(uint8_model):
    assert triton_config(uint8_model.card, "a.b-c").splitlines()[1] == 'name: "a.b-c"'
