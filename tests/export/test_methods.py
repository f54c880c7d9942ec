"""Whatever way the subspace was found, it goes through the same fold."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

from fre_edge import FitOptions, fit
from fre_edge.features import FeatureShape
from fre_edge.fre import Reconstruction
from fre_edge.saved import Saved
from fre_edge.strategies.base import Subspace
from fre_export import cli, export
from fre_runtime import Detector
from fre_runtime.commands.common import run_command
from fre_runtime.model_dir import open_model_dir

OPTIONS = FitOptions(
    backbone="resnet18",
    layers=("layer1",),
    weights="random",
    size=(32, 32),
    pool=2,
    fpr=0.2,
    groups="none",
    components=12,
)


def test_an_untied_pair_with_biases_is_reconstructed():
    rng = np.random.default_rng(0)
    mean, bias = rng.normal(size=96).astype(np.float32), rng.normal(size=7).astype(np.float32)
    encoder, decoder = (rng.normal(size=(7, 96)).astype(np.float32) / 10 for _ in range(2))
    subspace = Subspace(mean, encoder, np.zeros(0), 1.0, 0.9, decoder=decoder, bias=bias)
    u = rng.normal(size=(4, 96)).astype(np.float32)
    expected = np.square(subspace.residuals(u).reshape(4, 6, 16)).sum(1)
    got, _ = Reconstruction(subspace, FeatureShape(6, 4, 4))(
        torch.from_numpy(u).reshape(4, 6, 4, 4)
    )
    np.testing.assert_allclose(got, expected, rtol=0.05, atol=0.01)  # both in 8 bits
    x = u.astype(np.float64) - mean
    by_hand = x - (x @ encoder.T.astype(np.float64) + bias) @ decoder.astype(np.float64)
    np.testing.assert_allclose(subspace.residuals(u), by_hand, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def untied(category, tmp_path_factory):
    fitted = fit(category, dataclasses.replace(OPTIONS, method="ae", warm_start=True))
    return fitted, export(fitted, tmp_path_factory.mktemp("untied") / "model")


def test_an_untied_autoencoder_passes_parity_in_both_engines(untied, category):
    fitted, model = untied
    assert fitted.subspaces[0][0].decoder is not None
    parity = model.variant("fp32").parity
    assert set(parity.score_error) == {"openvino", "onnxruntime"}
    assert max(parity.score_error.values()) < 1e-4
    assert model.card.training.method == "ae"
    photo = sorted((category / "test" / "scratch").iterdir())[0]
    scores = [Detector(model, engine)(photo).score for engine in ("openvino", "onnxruntime")]
    assert scores[0] == pytest.approx(scores[1], rel=1e-4)


def test_both_matrices_of_an_untied_pair_are_stored_in_8_bits(untied):
    _, model = untied
    tensors = onnx.load(model.path / "model.onnx").graph.initializer
    shapes = [tuple(t.dims) for t in tensors if t.data_type == TensorProto.INT8]
    assert len(shapes) == 2
    assert {int(np.prod(shape)) for shape in shapes} == {12 * 1024}


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (
            ["--out", "m"],
            2,
            "IMAGES is missing: give a folder of photos of good parts, or --update",
        ),
        (["PHOTOS", "--out", "m", "--method", "svd"], 2, "method 'svd' does not exist"),
        (["PHOTOS", "--out", "m", "--warm-start"], 2, "warm_start is for tied-ae and ae"),
        (["--update", "MODEL", "--out", "m"], 2, "nothing to add to it; give IMAGES"),
        (
            ["PHOTOS", "--out", "m", "--scratch", "m/work"],
            2,
            "scratch m/work lies where m is to be",
        ),
        (["PHOTOS", "--update", "nowhere", "--out", "m"], 1, "nowhere: does not exist"),
        (["PHOTOS", "--update", "PHOTOS", "--out", "m"], 1, "so it is not a model directory"),
        (["PHOTOS", "--update", "MODEL", "--out", "m", "--size", "96"], 1, "differ in size"),
        (["PHOTOS", "--update", "MODEL", "--out", "m", "--layers", "layer1"], 1, "in layers"),
        (["PHOTOS", "--update", "MODEL", "--out", "m", "--backbone", "vgg16"], 1, "in backbone"),
        (["PHOTOS", "--update", "MODEL", "--out", "m", "--precision", "int8"], 2, "only fp32"),
    ],
)
def test_fails_with_one_clear_line(
    argv, code, message, tmp_path, monkeypatch, capsys, category, uint8_model
):
    monkeypatch.chdir(tmp_path)
    places = {"PHOTOS": str(category), "MODEL": str(uint8_model.path)}
    assert run_command(cli, [places.get(arg, arg) for arg in argv]) == code
    lines = [s for s in capsys.readouterr().err.splitlines() if not s.startswith("random weights")]
    assert len(lines) == 1
    assert message in lines[0]
    assert list(tmp_path.iterdir()) == []


def test_an_update_takes_over_what_is_not_given(monkeypatch):
    def chosen(*argv):
        options = cli._fit_options(cli.parse_args(["p", "--update", "m", "--out", "o", *argv]))
        options.check()
        return options

    changes = {"max_pixels": 123, "method": "tied-ae", "warm_start": True}
    options = dataclasses.replace(OPTIONS, **changes)
    monkeypatch.setattr(Saved, "read", lambda _: SimpleNamespace(options=options))
    assert chosen() == options
    assert chosen("--max-pixels", "9").max_pixels == 9
    assert not chosen("--method", "pca").warm_start
    assert chosen("--variance", "0.8").components is None
    assert chosen("--max-components", "layer1=3").max_components == {"layer1": 3}
    for other in (("--layers", "layer2"), ("--components", "5"), ("--subspace", "local")):
        assert chosen(*other).max_components is None


def test_updates_from_the_command_line_as_the_model_was_fitted(
    uint8_model, tiny_fit, tmp_path, make_folder, capsys
):
    photos = make_folder(tmp_path / "new", 6, 700)
    argv = [photos, "--update", uint8_model.path, "--out", tmp_path / "m", "--fpr", "0.1"]
    assert run_command(cli, [str(arg) for arg in argv]) == 0
    assert "30 photos of 30 scenes by pca, going on from uint8" in capsys.readouterr().out
    card = open_model_dir(tmp_path / "m").card
    assert card.variants["fp32"].calibration.fpr == 0.1
    assert card.graph.score == uint8_model.card.graph.score
    assert card.training.grouping == "none"
    assert card.backbone == uint8_model.card.backbone
