import dataclasses

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import load_file

from fre_edge import FitOptions
from fre_export import ExportOptions, ParityError, export, variants
from fre_runtime.errors import OutputError, UsageError
from fre_runtime.image import RESIZE_RULE, encode_image


def leftovers(folder):
    return [path.name for path in folder.iterdir() if path.name.startswith(".")]


def test_the_card_tells_what_was_fitted(uint8_model, tiny_fit):
    card = uint8_model.card
    assert card.training.images == len(tiny_fit.photos) == 24
    assert [layer.name for layer in card.layers] == ["layer1", "layer2"]
    assert [layer.components for layer in card.layers] == [
        len(s.components) for (s,) in tiny_fit.subspaces
    ]
    assert card.backbone.weights == "random"
    assert card.graph.resize == RESIZE_RULE
    assert card.variants["fp32"].calibration == tiny_fit.calibration
    assert {"torch", "onnxruntime", "openvino"} <= card.versions.keys()


def test_the_certificate_rests_on_unseen_photos(uint8_model, tmp_path, category, tiny_fit):
    parity = uint8_model.variant("fp32").parity
    assert parity.images == 24  # exported from a fit: no test folder is known
    assert parity.source == "training photos turned by 180 degrees"
    assert parity.labels_equal
    assert set(parity.score_error) == {"openvino", "onnxruntime"}
    assert max(parity.score_error.values()) < 1e-4
    from_folder = export(category, tmp_path / "model", tiny_fit.options).variant("fp32").parity
    assert from_folder.source == "photos of the test folder"
    assert from_folder.images == 16


def test_the_fit_can_be_read_back(uint8_model, tiny_fit):
    state = load_file(uint8_model.path / "fit.safetensors")
    np.testing.assert_array_equal(state["layer1.components"], tiny_fit.subspaces[0][0].components)
    np.testing.assert_array_equal(state["layer2.mean"], tiny_fit.subspaces[1][0].mean)
    assert state["count"] == 24


class Liar:
    """An engine that is right but for one image."""

    def __init__(self, engine, change):
        self._engine, self._change, self._calls = engine, change, 0

    def run(self, batch):
        outputs = self._engine.run(batch)
        self._calls += 1
        return self._change(outputs) if self._calls == 3 else outputs


@pytest.mark.parametrize(
    "change",
    [
        lambda o: o._replace(pred_score=o.pred_score * np.float32(1.01)),
        lambda o: o._replace(pred_score=o.pred_score * np.float32("nan")),
        lambda o: o._replace(pred_label=~o.pred_label),
        lambda o: o._replace(anomaly_map=o.anomaly_map + np.float32(0.01)),
    ],
    ids=["score", "nan", "label", "map"],
)
def test_a_disagreement_fails_the_export_and_leaves_nothing(
    tiny_fit, tmp_path, monkeypatch, change
):
    real = variants.load_engine

    def load(name, *args):
        engine = real(name, *args)
        return Liar(engine, change) if name == "openvino" else engine

    monkeypatch.setattr(variants, "load_engine", load)
    with pytest.raises(ParityError, match=r"openvino disagrees .* worst on .*photo_002.png"):
        export(tiny_fit, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, OSError(28, "No space left")])
def test_whatever_stops_the_export_nothing_is_left(tiny_fit, tmp_path, monkeypatch, error):
    def stop(*_):
        raise error

    monkeypatch.setattr(variants, "save_ir", stop)
    expected = OutputError if isinstance(error, OSError) else error
    with pytest.raises(expected):
        export(tiny_fit, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_directory_is_not_touched(tiny_fit, tmp_path):
    out = tmp_path / "mine"
    out.mkdir()
    (out / "precious.txt").write_text("x")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="already exists"):
            export(tiny_fit, out, options=ExportOptions(overwrite=overwrite))
    assert (out / "precious.txt").read_text() == "x"
    assert not leftovers(tmp_path)


def test_a_model_directory_is_replaced_only_when_asked(tiny_fit, writable_model):
    with pytest.raises(OutputError, match="pass --overwrite"):
        export(tiny_fit, writable_model)
    before = (writable_model / "model.json").stat().st_ino
    export(tiny_fit, writable_model, options=ExportOptions(overwrite=True))
    assert (writable_model / "model.json").stat().st_ino != before
    assert not leftovers(writable_model.parent)


def test_a_parent_that_is_a_file_is_refused_before_any_work(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        export(tmp_path / "no photos needed", tmp_path / "file" / "model")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (ExportOptions(io="int8"), "io 'int8' does not exist; choose uint8 or float"),
        (ExportOptions(map_size="huge"), "map size 'huge' does not exist"),
    ],
)
def test_options_that_do_not_exist(tiny_fit, tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        export(tiny_fit, tmp_path / "model", options=options)


def test_a_fit_brings_its_own_options(tiny_fit, tmp_path):
    with pytest.raises(UsageError, match="cannot be given with a Fit"):
        export(tiny_fit, tmp_path / "model", FitOptions())


def test_unicode_and_spaces_in_paths(tmp_path, make_folder, tiny_fit):
    photos = make_folder(tmp_path / "gute Teile – 好 品", 6)
    options = dataclasses.replace(tiny_fit.options, layers=("layer1",))
    model = export(photos, tmp_path / "Modell ü 1", options)
    assert model.path.name == model.card.name == "Modell ü 1"


@pytest.mark.parametrize(("count", "variance"), [(2, 0.92), (3, 0.92), (5, 1.0), (12, 1.0)])
def test_few_photos_and_full_rank_work(tmp_path, make_folder, tiny_fit, count, variance):
    photos = make_folder(tmp_path / "few", count)
    options = dataclasses.replace(tiny_fit.options, layers=("layer1",), variance=variance)
    model = export(photos, tmp_path / "model", options)
    assert model.variant("fp32").calibration.fpr_supported == pytest.approx(1 / (count + 1))


def test_photos_that_hardly_vary_pass_the_proof(tmp_path, make_photo, tiny_fit):
    base = make_photo(0)
    for i in range(12):
        photo = base.copy()
        photo[i, i] += np.uint8(1)
        (tmp_path / f"{i}.png").write_bytes(encode_image(photo, ".png"))
    out = tmp_path.parent / "hardly_varies"
    options = dataclasses.replace(tiny_fit.options, layers=("layer1",))
    assert export(tmp_path, out, options).variant("fp32").parity.labels_equal


@pytest.mark.parametrize("writer", ["save_ir", "save_fit"])
def test_a_full_disk_is_one_of_our_errors(tiny_fit, tmp_path, monkeypatch, writer):
    module = {"save_ir": "openvino.serialize", "save_fit": "fre_edge.tensors.save_file"}[writer]
    error = {"save_ir": RuntimeError, "save_fit": SafetensorError}[writer]

    def full(*_):
        raise error("No space left on device")

    monkeypatch.setattr(module, full)
    with pytest.raises(OutputError, match="No space left"):
        export(tiny_fit, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
