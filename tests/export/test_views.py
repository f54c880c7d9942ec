"""Models that look at tiles, regions, or unstretched photos: planted defects are found in place."""

import dataclasses
import json
import tracemalloc

import cv2
import numpy as np
import pytest

from fre_edge import FitOptions, fit
from fre_edge.expectation import fit_expectation, look
from fre_edge.fitting import update
from fre_edge.strategies.base import Rank, Rows
from fre_edge.strategies.pca import Pca
from fre_export import cli, export
from fre_runtime import ArtifactError, DataError, Detector, ImageError, UsageError
from fre_runtime.card import read_card
from fre_runtime.commands import calibrate, evaluate, info, run
from fre_runtime.commands.common import run_command
from fre_runtime.conformal import conformal_quantile
from fre_runtime.geometry import View
from fre_runtime.image import encode_image

POLYGON = [[20, 10], [150, 10], [150, 90], [60, 90]]
OPTIONS = FitOptions(
    backbone="resnet18",
    layers=("layer1",),
    weights="random",
    size=(64, 64),
    pool=2,
    groups="none",
    fpr=0.1,
)


def sheet(seed, height=110, width=170):
    """A good sheet of some cloudy material."""
    rng = np.random.default_rng(seed)
    clouds = cv2.GaussianBlur(rng.normal(0, 60, (height, width)), (0, 0), 3)
    return np.clip(120 + rng.normal(0, 3) + clouds, 0, 255).astype(np.uint8)[..., None].repeat(3, 2)


def scratched(image, x, y):
    """The same with a scratch of 14 x 14 pixels round (x, y)."""
    image = image.copy()
    cv2.line(image, (x - 6, y - 6), (x + 6, y + 6), (255, 255, 255), 2)
    cv2.line(image, (x + 6, y - 6), (x - 6, y + 6), (0, 0, 0), 2)
    return image


@pytest.fixture(scope="module")
def sheets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sheets")
    for seed in range(14):
        (folder / f"{seed:02d}.png").write_bytes(encode_image(sheet(seed), ".png"))
    return folder


@pytest.fixture(scope="module")
def tiled_fit(sheets):
    view = View(tile=[48, 48], overlap=0.25)
    return fit(sheets, dataclasses.replace(OPTIONS, view=view))


@pytest.fixture(scope="module")
def tiled_model(tiled_fit, tmp_path_factory):
    return export(tiled_fit, tmp_path_factory.mktemp("models") / "tiled")


@pytest.fixture(scope="module")
def region_model(sheets, tmp_path_factory):
    """Made by the command: a polygon, its aspect kept."""
    folder = tmp_path_factory.mktemp("models")
    (folder / "part.json").write_text(json.dumps(POLYGON))
    argv = [sheets, "--out", folder / "region", "--roi", folder / "part.json", "--keep-aspect"]
    argv += ["--backbone", "resnet18", "--layers", "layer1", "--weights", "random", "--size", "64"]
    argv += ["--pool", "2", "--groups", "none", "--fpr", "0.1", "--quiet"]
    assert run_command(cli, [str(arg) for arg in argv]) == 0
    return folder / "region"


def peak(result):
    y, x = np.unravel_index(result.anomaly_map.argmax(), result.anomaly_map.shape)
    return int(x), int(y)


def test_one_model_is_learned_from_all_tiles(tiled_fit):
    assert len(tiled_fit.photos) == 14
    assert len(tiled_fit.state.kept[0]) == len(tiled_fit.state.photos) == 14 * 3 * 5
    assert tiled_fit.subspaces[0][0].spectrum.shape == (14 * 3 * 5,)
    assert tiled_fit.held_out_scores.shape == (14,)
    assert tiled_fit.calibration.photos == tiled_fit.calibration.scenes == 14


def test_tiles_of_one_photo_are_held_out_together(tiled_fit):
    state = tiled_fit.state
    for photo in range(14):
        assert len(set(state.folds[state.photos == photo])) == 1
    folds = [np.flatnonzero(state.folds == fold) for fold in range(5)]
    rank = Rank(tiled_fit.options.variance)
    maps = Pca().held_out(Rows(state.kept[0]), tiled_fit.shapes[0], folds, rank)
    # The photo's score is that of its worst tile.
    cubic = (maps**3).mean((1, 2)) ** (1 / 3)
    looks = look(state.kept[0], tiled_fit.shapes[0], tiled_fit.subspaces[0])
    _, expected = fit_expectation(cubic, looks, state.folds, state.scenes)
    worst = (cubic / expected).reshape(14, 15).max(1)
    np.testing.assert_allclose(tiled_fit.held_out_scores, worst, rtol=1e-6)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "incremental"}, "incremental cannot tell tiles from photos; fit on all photos"),
        ({"scratch": "work"}, "tiles cannot be kept in a scratch folder"),
    ],
)
def test_what_does_not_go_with_tiles(sheets, tiled_fit, changes, message):
    with pytest.raises(UsageError, match=message):
        fit(sheets, dataclasses.replace(tiled_fit.options, **changes))


def test_models_are_updated_as_they_see(sheets, tiled_model, region_model):
    with pytest.raises(UsageError, match="model of tiles cannot be updated"):
        update([tiled_model.path], sheets)
    updated = update([region_model], sheets)
    assert updated.options.view == View(regions=[POLYGON], size=[110, 170], aspect="keep")
    whole = dataclasses.replace(updated.options, view=View())
    with pytest.raises(DataError, match="differ in view"):
        update([region_model], sheets, whole)


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
@pytest.mark.parametrize(("height", "width", "x", "y"), [(110, 170, 140, 30), (131, 93, 20, 111)])
def test_tiles_find_a_planted_defect_in_place(tiled_model, engine, height, width, x, y):
    detector = Detector(tiled_model, engine)
    clean = detector(sheet(99, height, width))
    result = detector(scratched(sheet(99, height, width), x, y))
    assert result.anomaly_map.shape == result.mask.shape == (height, width)
    assert np.hypot(*np.subtract(peak(result), (x, y))) < 8
    assert result.raw_score > 2 * clean.raw_score
    assert result.score == max(tile.score for tile in result.tiles)
    worst = max(result.tiles, key=lambda tile: tile.score)
    assert worst.x <= x < worst.x + worst.width
    assert worst.y <= y < worst.y + worst.height
    box = result.boxes[0]
    assert box.x <= x < box.x + box.width
    assert box.y <= y < box.y + box.height


def test_one_tile_of_model_size_is_the_whole_bit_for_bit(tmp_path):
    photos = tmp_path / "small"
    photos.mkdir()
    for seed in range(8):
        (photos / f"{seed}.png").write_bytes(encode_image(sheet(seed, 64, 64), ".png"))
    models = {}
    for name, view in (("tiled", View(tile=[64, 64], overlap=0.5)), ("whole", View())):
        models[name] = export(photos, tmp_path / name, dataclasses.replace(OPTIONS, view=view))
    tiled, whole = (model.variant("fp32").calibration for model in models.values())
    assert tiled == whole
    image = scratched(sheet(50, 64, 64), 40, 22)
    for engine in ("openvino", "onnxruntime"):
        one = Detector(models["tiled"], engine)(image)
        other = Detector(models["whole"], engine, throughput=True)(image)
        assert len(one.tiles) == 1
        assert (one.score, one.raw_score) == (other.score, other.raw_score)
        np.testing.assert_array_equal(one.anomaly_map, other.anomaly_map)
        assert one.boxes == other.boxes


def test_a_region_finds_what_lies_in_it_and_ignores_the_rest(region_model):
    detector = Detector(region_model)
    good = sheet(99)
    clean = detector(good)
    inside = detector(scratched(good, 110, 45))
    assert np.hypot(*np.subtract(peak(inside), (110, 45))) < 8
    assert inside.anomaly_map.shape == (110, 170)
    assert inside.raw_score > 1.5 * clean.raw_score
    outside = good
    for x, y in ((8, 8), (160, 100), (25, 85)):
        outside = scratched(outside, x, y)
    ignored = detector(outside)
    assert ignored.score == clean.score
    np.testing.assert_array_equal(ignored.anomaly_map, clean.anomaly_map)
    assert clean.anomaly_map[95:].max() == clean.anomaly_map[:, :15].max() == 0


def test_the_card_says_what_is_looked_at(region_model, tiled_model, capsys):
    assert run_command(info, [str(region_model)]) == 0
    assert (
        "region polygon of 4 corners of photos of 170 x 110 pixels, aspect kept"
        in capsys.readouterr().out
    )
    assert run_command(info, [str(tiled_model.path)]) == 0
    said = "in tiles of 48 x 48 pixels that overlap by 0.25, stretched"
    assert said in capsys.readouterr().out


def test_a_moved_camera_gets_its_region_and_thresholds_anew(region_model, tmp_path, capsys):
    moved = tmp_path / "moved"
    moved.mkdir()
    for seed in range(100, 112):
        (moved / f"{seed}.png").write_bytes(encode_image(sheet(seed), ".png"))
    out = tmp_path / "new"
    argv = [region_model, moved, "--out", out, "--roi", "30,20,130,80", "--fpr", "0.1", "--quiet"]
    assert run_command(calibrate, [str(a) for a in (*argv, "--groups", "none")]) == 0
    detector = Detector(out)
    assert detector.card.view.regions == [[[30, 20], [160, 20], [160, 100], [30, 100]]]
    assert detector(sheet(7)).anomaly_map[:20].max() == 0


def test_tiled_thresholds_come_from_the_worst_tile(tiled_model, tmp_path, capsys):
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    for seed in range(200, 212):
        (fresh / f"{seed}.png").write_bytes(encode_image(sheet(seed), ".png"))
    argv = [tiled_model.path, fresh, "--out", tmp_path / "new", "--fpr", "0.1", "--groups", "none"]
    assert run_command(calibrate, [str(arg) for arg in argv]) == 0
    new = Detector(tmp_path / "new")
    raw = [Detector(tiled_model)(path).raw_score for path in sorted(fresh.iterdir())]
    expected = conformal_quantile(np.array(raw), np.arange(12), 0.1).value
    assert new.card.variants["fp32"].calibration.image.value == pytest.approx(expected, rel=1e-4)


def test_streams_of_tiled_photos_keep_their_order(tiled_model):
    photos = [sheet(seed) for seed in range(6)]
    detector = Detector(tiled_model)
    assert [r.score for r in detector.stream(photos)] == [detector(p).score for p in photos]


def test_a_tile_that_is_no_number_makes_the_photo_invalid(tiled_model, monkeypatch):
    detector = Detector(tiled_model)
    real, calls = detector._engine.run, []

    def broken(batch):
        outputs = real(batch)
        calls.append(1)
        return outputs._replace(
            pred_score=outputs.pred_score * np.float32("nan" if len(calls) == 4 else 1)
        )

    monkeypatch.setattr(detector._engine, "run", broken)
    result = detector(sheet(0))
    assert result.state == "invalid"
    assert result.is_anomalous
    assert result.boxes == []


def test_100_megapixels_take_the_memory_of_a_few_tiles(tiled_model, monkeypatch):
    detector = Detector(tiled_model)
    monkeypatch.setattr(detector, "_view", View(tile=[1000, 1000], overlap=0.1))
    image = np.full((10_000, 10_000, 3), 120, np.uint8)
    image[7000:7300, 2000:2300] = 255
    detector(image[:1000, :1000])  # what is allocated once
    tracemalloc.start()
    try:
        result = detector(image)
        scored = tracemalloc.get_traced_memory()[1]
        box = result.boxes[0]
        boxed = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(result.tiles) == 121
    assert scored < 20e6  # the image has 300 MB, its map 400 MB
    assert boxed < 120e6
    assert box.x <= 2150 < box.x + box.width
    assert box.y <= 7150 < box.y + box.height


@pytest.mark.parametrize(
    ("argv", "code", "message"),
    [
        (
            ["--overlap", "1", "--tile", "32"],
            2,
            "overlap is a share of the tile and must lie in 0..0.9, got 1",
        ),
        (["--overlap", "0.2"], 2, "needs the size of the tiles"),
        (
            ["--tile", "400"],
            1,
            "tile of 400 x 400 pixels (width x height) is larger than the 170 x 110",
        ),
        (
            ["--roi", "100,50,100,20"],
            1,
            "100,50,100,20 (x,y,width,height) lies outside of the image",
        ),
        (["--max-pixels", "1000"], 1, "over the limit of 1000"),
    ],
)
def test_export_says_what_is_wrong(argv, code, message, sheets, tmp_path, capsys):
    argv = [str(sheets), "--out", str(tmp_path / "model"), "--backbone", "resnet18", *argv]
    argv += ["--weights", "random", "--layers", "layer1", "--size", "64", "--quiet"]
    assert run_command(cli, argv) == code
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert message in errors[0]
    assert list(tmp_path.iterdir()) == []


def test_photos_of_another_size_are_left_out_of_a_fit_with_regions(sheets, tmp_path, caplog):
    for seed in range(14):
        size = {0: (40, 40), 5: (220, 340)}.get(seed, (110, 170))  # the first holds no region
        (tmp_path / f"{seed:02d}.png").write_bytes(encode_image(sheet(seed, *size), ".png"))
    fitted = fit(tmp_path, dataclasses.replace(OPTIONS, view=View(regions=[POLYGON])))
    assert fitted.options.view.size == [110, 170]
    why = {path.name: reason for path, reason in fitted.skipped.items()}
    assert set(why) == {"00.png", "05.png"}
    assert "the image is 340 x 220 pixels" in why["05.png"]
    assert "drawn on photos of 170 x 110" in why["05.png"]
    strict = dataclasses.replace(OPTIONS, view=View(regions=[POLYGON]), strict=True)
    with pytest.raises(DataError, match="strict allows none; the first: .* is 40 x 40 pixels"):
        fit(tmp_path, strict)


def test_the_card_must_say_how_large_the_photos_were(region_model, tmp_path):
    card = json.loads((region_model / "model.json").read_text())
    assert card["view"]["size"] == [110, 170]
    card["view"]["size"] = []
    (tmp_path / "model.json").write_text(json.dumps(card))
    with pytest.raises(ArtifactError, match="photos of which size its regions are drawn"):
        read_card(tmp_path / "model.json")


def test_evaluation_names_photos_of_another_size(region_model, tmp_path, capsys):
    for name, size in (("good/a", (110, 170)), ("good/b", (220, 340)), ("bad/c", (110, 170))):
        path = tmp_path / f"test/{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_image(scratched(sheet(3, *size), 80, 40), ".png"))
    assert run_command(evaluate, [str(region_model), str(tmp_path)]) == 1
    told = capsys.readouterr()
    assert "the image is 340 x 220 pixels" in told.err
    assert "drawn on photos of 170 x 110" in told.err


def test_run_names_photos_that_do_not_fit_and_goes_on(region_model, tmp_path, capsys):
    (tmp_path / "a.png").write_bytes(encode_image(sheet(0, 220, 340), ".png"))
    (tmp_path / "b.png").write_bytes(encode_image(sheet(0), ".png"))
    assert run_command(run, [str(region_model), str(tmp_path), "--json", "-"]) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert rows[0]["state"] == "invalid"
    assert "is 340 x 220 pixels" in rows[0]["error"]
    assert "drawn on photos of 170 x 110" in rows[0]["error"]
    assert rows[1]["state"] in ("good", "anomalous")


def test_photos_over_the_cap_are_scored_when_the_cap_is_raised(tiled_model, tmp_path, capsys):
    path = tmp_path / "a.png"
    path.write_bytes(encode_image(sheet(0), ".png"))
    with pytest.raises(ImageError, match="raise the limit with --max-pixels"):
        Detector(tiled_model, max_pixels=10_000)(path)
    assert run_command(run, [str(tiled_model.path), str(path), "--max-pixels", "10000"]) == 1
    assert run_command(run, [str(tiled_model.path), str(path), "--max-pixels", "20000"]) == 0
