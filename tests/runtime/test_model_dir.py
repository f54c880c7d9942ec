import json
import os

import pytest

from fre_runtime import Detector
from fre_runtime.errors import ArtifactError, EngineError, UsageError
from fre_runtime.model_dir import open_model_dir, write_manifest


@pytest.mark.parametrize("name", ["model.onnx", "openvino/model.bin", "golden/image.png"])
def test_a_changed_file_is_refused(writable_model, name):
    path = writable_model / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ArtifactError, match=f"{name}: was changed since it was exported"):
        open_model_dir(writable_model)


@pytest.mark.parametrize("name", ["model.json", "model.onnx", "golden/fp32.npz"])
def test_a_missing_file_is_refused(writable_model, name):
    (writable_model / name).unlink()
    with pytest.raises(ArtifactError, match=f"{name}: is missing"):
        open_model_dir(writable_model)


def test_an_added_file_is_refused(writable_model):
    (writable_model / "extra.bin").touch()
    with pytest.raises(ArtifactError, match=r"extra.bin: is not in MANIFEST.json"):
        open_model_dir(writable_model)


def test_a_link_is_refused(writable_model, tmp_path):
    (writable_model / "model.onnx").rename(tmp_path / "elsewhere.onnx")
    os.symlink(tmp_path / "elsewhere.onnx", writable_model / "model.onnx")
    with pytest.raises(ArtifactError, match="is a link"):
        open_model_dir(writable_model)


@pytest.mark.parametrize("text", ["", "[]", '{"files": 3}', '{"files": {"a": {}}}'])
def test_a_damaged_manifest_is_refused(writable_model, text):
    (writable_model / "MANIFEST.json").write_text(text)
    with pytest.raises(ArtifactError, match="MANIFEST.json: is damaged"):
        open_model_dir(writable_model)


def test_other_places_are_no_model_directories(tmp_path):
    (tmp_path / "file").touch()
    for path, message in (
        (tmp_path / "none", "does not exist"),
        (tmp_path / "file", "is a file"),
        (tmp_path, "holds no MANIFEST.json, so it is not a model directory"),
    ):
        with pytest.raises(ArtifactError, match=message):
            open_model_dir(path)


def edit_card(model, change):
    """Change the card and make the manifest agree with it again."""
    card = json.loads((model / "model.json").read_text())
    change(card)
    (model / "model.json").write_text(json.dumps(card))
    write_manifest(model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(schema=99), "schema 99, this version reads 2"),
        (lambda c: c.pop("layers"), r"missing or unknown fields \['layers'\]"),
        (
            lambda c: c["graph"].update(height="64"),
            "graph: height: expected int, got '64'",
        ),
        (lambda c: c["graph"].update(more=1), r"unknown fields \['more'\]"),
        (
            lambda c: c["variants"]["fp32"]["files"].update(openvino="../model.xml"),
            "names ../model.xml, not in MANIFEST.json",
        ),
    ],
)
def test_a_card_that_is_not_valid_is_refused(writable_model, change, message):
    edit_card(writable_model, change)
    with pytest.raises(ArtifactError, match=message):
        open_model_dir(writable_model)


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda c: c["variants"]["fp32"]["calibration"]["image"].update(value=123.0),
            ArtifactError,
            "card says fre_image_threshold = 123.0, the graph",
        ),
        (lambda c: c["graph"].update(resize="nearest"), ArtifactError, "card asks for nearest"),
        (lambda c: c["graph"].update(colour="BGR"), ArtifactError, "and BGR, this version"),
        (lambda c: c["graph"].update(score="sum"), ArtifactError, "card says fre_score = sum"),
        (lambda c: c["graph"].update(map_height=7), ArtifactError, "the golden map .* is not"),
        (
            lambda c: c["variants"]["fp32"].update(precision="bf16"),
            (ArtifactError, EngineError),
            "card says fre_precision = bf16|runs f32, verified was bf16",
        ),
        (lambda c: c["graph"].update(height=128), EngineError, "disagrees with its card"),
        (lambda c: c["graph"].update(io="float"), EngineError, "disagrees with its card"),
    ],
)
def test_a_card_that_disagrees_with_the_graph_is_refused(
    writable_model, engine, change, error, message
):
    edit_card(writable_model, change)
    with pytest.raises(error, match=message):
        Detector(writable_model, engine)


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_an_engine_that_does_not_reproduce_the_golden_outputs_is_refused(writable_model, engine):
    import numpy as np

    path = writable_model / "golden/fp32.npz"
    golden = dict(np.load(path))
    golden["pred_score"] = golden["pred_score"] * np.float32(0.99)
    np.savez_compressed(path, **golden)
    write_manifest(writable_model)
    with pytest.raises(EngineError, match="does not reproduce what was verified"):
        Detector(writable_model, engine)


def test_a_variant_that_is_not_there(uint8_model):
    with pytest.raises(UsageError, match="has no variant 'int8'; it has: fp32"):
        Detector(uint8_model.path, variant="int8")


def test_golden_files_that_are_damaged_are_refused(writable_model):
    (writable_model / "golden/fp32.npz").write_bytes(b"junk")
    write_manifest(writable_model)
    with pytest.raises(ArtifactError, match="golden files are damaged"):
        Detector(writable_model)
