import dataclasses
import logging
import shutil

import cv2
import numpy as np
import pytest
import torch

from fre_edge import FitOptions, fit, learning
from fre_edge.job import prepare
from fre_edge.state import State
from fre_runtime.errors import DataError, UsageError
from fre_runtime.image import encode_image
from fre_runtime.photos import PhotoReader

OPTIONS = FitOptions(
    backbone="resnet18", layers=("layer1",), weights="random", size=(32, 32), pool=2, fpr=0.2
)


@pytest.fixture
def folder(tmp_path, make_folder):
    return make_folder(tmp_path / "good", 12)


def test_is_the_same_bit_for_bit(folder):
    one, two = fit(folder, OPTIONS), fit(folder, OPTIONS)
    assert one.calibration == two.calibration
    for (a,), (b,) in zip(one.subspaces, two.subspaces, strict=True):
        np.testing.assert_array_equal(a.components, b.components)
        np.testing.assert_array_equal(a.mean, b.mean)


def test_takes_a_category_a_folder_or_files(category, tiny_fit):
    from_folder = fit(category / "train" / "good", tiny_fit.options)
    from_files = fit(sorted((category / "train" / "good").iterdir()), tiny_fit.options)
    assert tiny_fit.calibration == from_folder.calibration == from_files.calibration


def test_learns_nothing_of_the_test_images(category, tiny_fit):
    assert {path.parent for path in tiny_fit.photos} == {category / "train" / "good"}


def test_unusable_files_are_named_and_left_out(folder, caplog):
    good = fit(folder, OPTIONS)
    (folder / "notes.txt").write_text("not a photo")
    (folder / "empty.png").touch()
    whole = (folder / "photo_000.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    shutil.copy(folder / "photo_001.png", folder / "z_copy.png")
    with caplog.at_level(logging.WARNING):
        fitted = fit(folder, OPTIONS)
    assert len(fitted.skipped) == 4
    for name in ("notes.txt", "empty.png", "cut.png", "z_copy.png"):
        assert name in caplog.text
    assert fitted.photos == good.photos
    assert fitted.calibration == good.calibration
    with pytest.raises(DataError, match="4 of 16 files cannot be used, and strict allows none"):
        fit(folder, dataclasses.replace(OPTIONS, strict=True))


@pytest.mark.parametrize("count", [0, 1])
def test_needs_two_photos(tmp_path, make_folder, count):
    folder = make_folder(tmp_path / "few", count)
    with pytest.raises(DataError, match="holds no file|1 usable photo among 1 files, at least 2"):
        fit(folder, OPTIONS)


def test_copies_of_one_photo_are_one_photo(tmp_path, make_folder):
    folder = make_folder(tmp_path / "copies", 1)
    shutil.copy(folder / "photo_000.png", folder / "again.png")
    with pytest.raises(DataError, match="1 usable photo among 2 files.*is a copy of"):
        fit(folder, OPTIONS)


def test_photos_that_give_the_same_features_are_refused(tmp_path):
    for grey in (0, 1):  # these differ, but the model sees no more than 32 x 32 equal cells
        image = np.full((64, 64, 3), 100, np.uint8)
        image[0, 0] += np.uint8(grey)
        (tmp_path / f"{grey}.png").write_bytes(encode_image(image, ".png"))
    with pytest.raises(DataError, match="zero variance|1 usable photo"):
        fit(tmp_path, OPTIONS)


def test_mixed_sizes_grey_and_deep_photos_are_fine(folder, make_photo):
    (folder / "small.png").write_bytes(encode_image(make_photo(50, 20, 30), ".png"))
    (folder / "tall.jpg").write_bytes(encode_image(make_photo(51, 200, 40), ".jpg"))
    (folder / "grey.png").write_bytes(cv2.imencode(".png", make_photo(52)[..., 0])[1].tobytes())
    deep = make_photo(53).astype(np.uint16) * 257
    (folder / "deep.tiff").write_bytes(cv2.imencode(".tiff", deep)[1].tobytes())
    fitted = fit(folder, OPTIONS)
    assert len(fitted.photos) == 16
    assert not fitted.skipped


def test_says_which_rate_the_data_supports(folder, caplog):
    with caplog.at_level(logging.WARNING):
        fitted = fit(folder, dataclasses.replace(OPTIONS, fpr=0.01, groups="none"))
    assert "support a false-reject rate of 0.0769 at best, not 0.01" in caplog.text
    assert fitted.calibration.fpr_supported == pytest.approx(1 / 13)
    assert fitted.calibration.image.value == pytest.approx(fitted.held_out_scores.max())


def test_warns_when_all_photos_show_one_scene(tmp_path, make_photo, caplog):
    base = make_photo(0).astype(int)
    for shot in range(8):
        noise = np.random.default_rng(shot).integers(-3, 4, base.shape)
        image = np.clip(base + noise, 0, 255).astype(np.uint8)
        (tmp_path / f"{shot}.png").write_bytes(encode_image(image, ".png"))
    table = tmp_path.parent / "groups.csv"
    table.write_text("file,group\n" + "".join(f"{shot}.png,one\n" for shot in range(8)))
    with caplog.at_level(logging.WARNING):
        fitted = fit(tmp_path, dataclasses.replace(OPTIONS, groups=str(table)))
    assert "all 8 photos show one scene" in caplog.text
    assert fitted.scenes == 1
    assert fitted.calibration.fpr_supported == 0.5


def test_more_components_than_photos_allow(folder):
    with pytest.raises(DataError, match="12 components asked for, 12 images give at most 11"):
        fit(folder, dataclasses.replace(OPTIONS, components=12))


def test_a_layer_has_no_more_components_than_allowed(folder):
    def components(**changes):
        options = dataclasses.replace(OPTIONS, layers=("layer1", "layer2"), variance=0.99)
        fitted = fit(folder, dataclasses.replace(options, **changes))
        return [len(subspaces[0].components) for subspaces in fitted.subspaces]

    free = components()
    assert min(free) > 3
    limit = {"max_components": {"layer2": 3}}
    assert components(**limit) == [free[0], 3]
    assert components(**limit, method="incremental") == [free[0], 3]
    assert components(**limit, method="randomized") == [free[0], 3]


def test_the_lites_limit_their_deepest_layer():
    lite = FitOptions(backbone="efficientnet_lite1")
    job = prepare(None, lite)
    assert job.options.max_components == {"blocks.5.2": 80}
    assert [rank.most for rank in learning.ranks_of(job.options)] == [None, 80]
    for other in (
        {"layers": ("blocks.3",)},
        {"max_components": {}},
        {"subspace": "regions"},
        {"components": 100},
    ):
        assert prepare(None, dataclasses.replace(lite, **other)).options.max_components == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"variance": 0.0}, "variance must be above 0 and at most 1, got 0.0"),
        ({"variance": 1.5}, "got 1.5"),
        ({"fpr": 1.0}, "fpr must lie between 0.000001 and 1, got 1.0"),
        ({"components": 0}, "components must be at least 1, got 0"),
        ({"max_components": {"layer1": 0}}, "max_components of layer1 must be at least 1, got 0"),
        (
            {"max_components": {"layer1": 4}, "subspace": "local"},
            "for whole subspaces, .* is local",
        ),
        ({"max_components": {"layer1": 4}, "components": 9}, "components or max_components, not"),
        ({"max_components": {"layer9": 4}}, "max_components names 'layer9', which is not tapped"),
        ({"pool": 0}, "pool must be at least 1, got 0"),
        ({"size": (8, 64)}, r"size must lie in 32..4096 pixels, got \(8, 64\)"),
        ({"score": "mean"}, "score 'mean' does not exist"),
    ],
)
def test_options_out_of_range_are_refused(folder, change, message):
    with pytest.raises(UsageError, match=message):
        fit(folder, dataclasses.replace(OPTIONS, **change))


def test_reader_keeps_the_order_and_stops_cleanly(folder):
    paths = sorted(folder.iterdir())
    reader = PhotoReader(paths, 16, 16)
    assert [photo.path for photo in reader] == paths
    assert next(iter(PhotoReader(paths, 16, 16))).image.shape == (16, 16, 3)


@pytest.fixture(scope="module")
def fits(category):
    """Fits with scenes found by themselves, each with its features, by the tapped layers."""
    made = {}
    for layers in (("layer1",), ("layer1", "layer2")):
        options = dataclasses.replace(OPTIONS, layers=layers, groups="auto")
        fitted = fit(category, options)
        made[layers] = fitted, features_of(fitted)
    return made


@torch.inference_mode()
def features_of(fitted):
    """What was fitted on: one thread, one photo at a time, so that the bits are the same."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    extractor, reader = fitted.extractor(), PhotoReader(fitted.photos, *fitted.size)
    taps = [extractor(torch.from_numpy(photo.image)[None]) for photo in reader]
    torch.set_num_threads(threads)
    return [torch.cat(layer).flatten(1).numpy() for layer in zip(*taps, strict=True)]


@pytest.fixture
def no_search(monkeypatch):
    """Scenes must not be looked for again: other features could tell others apart."""
    monkeypatch.setattr(learning, "find_groups", None)


@pytest.mark.usefixtures("no_search")
@pytest.mark.parametrize("layers", [("layer1",), ("layer1", "layer2")])
def test_a_refit_on_the_same_features_is_the_same_bit_for_bit(fits, layers):
    fitted, features = fits[layers]
    again = fitted.refit(State.of([layer.copy() for layer in features]))
    assert 1 < fitted.scenes < len(fitted.photos)
    assert again is not fitted
    assert again.calibration == fitted.calibration
    assert again.fusion == fitted.fusion
    np.testing.assert_array_equal(again.groups, fitted.groups)
    np.testing.assert_array_equal(again.held_out_scores, fitted.held_out_scores)
    for (a,), (b,) in zip(again.subspaces, fitted.subspaces, strict=True):
        np.testing.assert_array_equal(a.components, b.components)
        np.testing.assert_array_equal(a.mean, b.mean)
        assert a.captured == b.captured


@pytest.mark.usefixtures("no_search")
def test_a_refit_on_features_twice_as_large_has_errors_four_times_as_large(fits):
    fitted, features = fits["layer1",]
    again = fitted.refit(State.of([2 * layer for layer in features]))
    np.testing.assert_array_equal(again.groups, fitted.groups)
    for scale in ("image", "pixel"):
        before, after = (getattr(f.calibration, scale).value for f in (fitted, again))
        assert after == pytest.approx(4 * before, rel=1e-5)
    np.testing.assert_allclose(again.held_out_scores, 4 * fitted.held_out_scores, rtol=1e-4)
    (before,), (after,) = fitted.subspaces[0], again.subspaces[0]
    np.testing.assert_allclose(after.mean, 2 * before.mean, rtol=1e-6)


@pytest.mark.usefixtures("no_search")
def test_a_refit_weighs_the_layers_anew(fits):
    """Twice the features of one layer alone: its unit follows, the fused score does not move."""
    fitted, (one, two) = fits["layer1", "layer2"]
    again = fitted.refit(State.of([2 * one, two]))
    ratios = np.divide(again.fusion.means, fitted.fusion.means)
    np.testing.assert_allclose(ratios, [4, 1], rtol=1e-5)
    weights = np.divide(again.fusion.score_weights, fitted.fusion.score_weights)
    np.testing.assert_allclose(weights, [1 / 4, 1], rtol=1e-5)
    assert again.calibration.image.value == pytest.approx(fitted.calibration.image.value, rel=1e-4)
    np.testing.assert_array_equal(again.groups, fitted.groups)


@pytest.mark.usefixtures("no_search")
def test_a_refit_keeps_what_was_not_learned_and_changes_nothing_in_place(fits):
    fitted, features = fits["layer1",]
    before = fitted.subspaces[0][0].components.copy()
    noise = np.random.default_rng(0).normal(size=features[0].shape).astype(np.float32)
    again = fitted.refit(State.of([features[0] + noise]))
    for name in ("options", "backbone", "size", "pool", "shapes", "photos", "skipped", "groups"):
        assert getattr(again, name) is getattr(fitted, name)
    assert again.calibration != fitted.calibration
    np.testing.assert_array_equal(fitted.subspaces[0][0].components, before)


@pytest.mark.parametrize("layers", [("layer1",), ("layer1", "layer2")])
def test_a_recalibration_on_the_same_features_changes_nothing(fits, layers):
    fitted, features = fits[layers]
    again = fitted.recalibrate(State.of([layer.copy() for layer in features]))
    np.testing.assert_allclose(again.held_out_scores, fitted.held_out_scores, rtol=1e-4)
    for scale in ("image", "pixel"):
        before, after = (getattr(f.calibration, scale).value for f in (fitted, again))
        assert after == pytest.approx(before, rel=1e-4)


def test_a_recalibration_counts_rounding_as_error_and_leaves_the_model_as_it_is(fits):
    fitted, features = fits["layer1", "layer2"]
    noise = np.random.default_rng(0)
    rounded = [x + 0.1 * x.std() * noise.normal(size=x.shape).astype(np.float32) for x in features]
    again = fitted.recalibrate(State.of(rounded))
    for name in ("subspaces", "fusion", "expectation", "state", "photos"):
        assert getattr(again, name) is getattr(fitted, name)
    assert again.calibration.image.value > fitted.calibration.image.value
    assert (again.held_out_scores > fitted.held_out_scores).mean() > 0.9
