import json
import shutil
import struct

import cv2
import numpy as np
import pytest

from fre_runtime import read_image
from fre_runtime.commands import bench, evaluate, info, run
from fre_runtime.commands.common import run_command
from fre_runtime.engines.openvino import OpenVinoEngine
from fre_runtime.metrics import auroc
from fre_runtime.sources import video_frames


def call(command, *argv):
    return run_command(command, [str(arg) for arg in argv])


@pytest.fixture
def video(tmp_path, make_photo):
    path = tmp_path / "line.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 10, (96, 80))
    for seed in range(5):
        writer.write(np.ascontiguousarray(make_photo(seed)[..., ::-1]))
    writer.release()
    return path


def strictly(text):
    """Parse JSON as others do, to whom Infinity and NaN are errors."""

    def refuse(constant):
        raise ValueError(f"{constant} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture
def saturated(monkeypatch):
    """Scores above the threshold have rounded to 1."""
    run = OpenVinoEngine.run

    def rounded(self, batch):
        found = run(self, batch)
        score = np.where(found.pred_score > 0.5, np.float32(1), found.pred_score)
        return found._replace(pred_score=score)

    monkeypatch.setattr(OpenVinoEngine, "run", rounded)


def test_info(uint8_model, capsys, tmp_path):
    assert call(info, uint8_model.path, "--json", tmp_path / "card.json") == 0
    printed = capsys.readouterr().out
    assert "layer1" in printed
    assert "every file matches" in printed
    assert "pooled 2 x 2" in printed
    assert "24 photos of 24 scenes (groups none)" in printed
    assert "pca, subspace whole, errors relative to those expected, seed 0" in printed
    card = json.loads((tmp_path / "card.json").read_text())
    assert card == json.loads((uint8_model.path / "model.json").read_text())


def test_run_scores_files_folders_and_patterns(uint8_model, category, tmp_path, capsys):
    folder = category / "test/good"
    lines = tmp_path / "out.jsonl"
    sources = [folder, folder / "photo_000.png", f"{category}/test/scr*/00[12].png"]
    assert call(run, uint8_model.path, *sources, "--json", lines) == 0
    rows = [json.loads(line) for line in lines.read_text().splitlines()]
    assert len(rows) == 8 + 1 + 2
    keys = {"source", "frame", "state", "score", "raw_score", "boxes", "ms"}
    assert all(keys <= row.keys() for row in rows)
    assert rows[0]["score"] == rows[8]["score"]
    assert "0 invalid" in capsys.readouterr().out


def test_run_writes_pictures_under_the_names_of_the_photos(uint8_model, category, tmp_path, capsys):
    assert call(run, uint8_model.path, category / "test", "--save", tmp_path / "out") == 0
    names = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*.png")}
    assert len(names) == 16
    assert "scratch/003.png" in names
    assert read_image(tmp_path / "out/scratch/003.png").shape[2] == 3


def test_scores_that_have_rounded_to_one_stay_anomalous_and_valid_json(
    uint8_model, category, saturated, tmp_path, capsys
):
    options = ["--engine", "openvino", "--json", tmp_path / "out.json"]
    assert call(run, uint8_model.path, category / "test", *options) == 0
    rows = [strictly(line) for line in (tmp_path / "out.json").read_text().splitlines()]
    ones = [row for row in rows if row["score"] == 1]
    assert ones
    assert {row["state"] for row in ones} == {"anomalous"}
    assert min(row["raw_score"] for row in ones) > max(
        row["raw_score"] for row in rows if row not in ones
    )
    assert call(evaluate, uint8_model.path, category, *options) == 0
    figures = strictly((tmp_path / "out.json").read_text())
    found = {entry["raw"] for entry in figures["scores"].values() if entry["score"] == 1}
    assert found == {row["raw_score"] for row in ones}
    assert figures["detection_rate"] > 0


def test_run_reads_videos(uint8_model, video, tmp_path, capsys):
    assert call(run, uint8_model.path, video, "--json", "-", "--save", tmp_path / "out") == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["frame"] for row in rows] == [0, 1, 2, 3, 4]
    assert (tmp_path / "out/line_000004.png").is_file()


def test_run_overwrites_no_source(uint8_model, tmp_path, make_folder, capsys):
    photo = make_folder(tmp_path / "photos", 1) / "photo_000.png"
    before = photo.read_bytes()
    assert call(run, uint8_model.path, photo, "--save", photo.parent) == 2
    assert call(run, uint8_model.path, photo, "--json", photo) == 2
    assert photo.read_bytes() == before


def test_run_says_when_a_video_breaks_off(uint8_model, video, capsys):
    data = video.read_bytes()
    video.write_bytes(data[: len(data) // 2])
    assert call(run, uint8_model.path, video, "--json", "-") == 1
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["state"] == "invalid"


def test_frames_of_a_video_over_the_limit_are_not_decoded(uint8_model, video, capsys):
    assert call(run, uint8_model.path, video, "--json", "-", "--max-pixels", 96 * 80 - 1) == 1
    told = capsys.readouterr()
    (row,) = map(json.loads, told.out.splitlines())
    assert row["state"] == "invalid"
    assert "its frames are 96 x 80 pixels, the limit is 7679" in row["error"]
    assert "--max-pixels" in row["error"]


@pytest.mark.parametrize("sides", [(65535, 65535), (2**31 - 1, 3), (96, 2**31 - 1), (0, 0)])
def test_a_video_that_promises_huge_frames(video, sides):
    data = bytearray(video.read_bytes())
    size = struct.pack("<II", 96, 80)
    at = data.find(size)
    while at >= 0:  # in the headers of the file and of the stream; the pictures have their own
        data[at : at + 8] = struct.pack("<II", *sides)
        at = data.find(size)
    video.write_bytes(data)
    for frame in video_frames(video):
        assert frame.image.shape == (80, 96, 3) if frame.error is None else frame.image is None


def test_damaged_videos_give_pictures_or_reasons(video):
    whole, rng = video.read_bytes(), np.random.default_rng(0)
    reasons = 0
    for _ in range(100):
        data = np.frombuffer(whole, np.uint8).copy()
        at = rng.integers(0, len(data), 60)
        data[at] = rng.integers(0, 256, 60)
        video.write_bytes(data.tobytes())
        read = list(video_frames(video, 10**6))
        assert read
        assert all((frame.image is None) == (frame.error is not None) for frame in read)
        reasons += sum(frame.error is not None for frame in read)
    assert reasons


def test_what_the_decoder_of_a_video_raises_is_a_reason(video, monkeypatch):
    class Broken:
        def __init__(self, *_):
            self.reads = 0

        def get(self, _):
            return 0.0

        def read(self):
            self.reads += 1
            if self.reads == 3:
                raise cv2.error("no memory for this picture")
            return True, np.zeros((4, 4), np.uint8)

        def release(self):
            pass

    monkeypatch.setattr(cv2, "VideoCapture", Broken)
    monkeypatch.setattr(cv2.error, "err", None, raising=False)  # OpenCV leaves its last one there
    *read, last = video_frames(video)
    assert [frame.image.shape for frame in read] == [(4, 4, 3)] * 2  # grey is taken, too
    assert last.error.startswith(f"{video}: breaks off after 2 frames (no memory")


def test_run_reports_what_it_cannot_read_and_goes_on(uint8_model, category, tmp_path, capsys):
    (tmp_path / "a.png").write_bytes(b"junk")
    (tmp_path / "b.mp4").write_bytes(b"junk")
    good = category / "test/good/photo_001.png"
    sources = [tmp_path / "a.png", tmp_path / "b.mp4", good]
    assert call(run, uint8_model.path, *sources, "--json", "-") == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["state"] for row in rows[:2]] == ["invalid", "invalid"]
    assert rows[0]["score"] is None
    assert "a.png" in rows[0]["error"]
    assert rows[2]["state"] in ("good", "anomalous")


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_eval(uint8_model, category, engine, tmp_path, capsys):
    out = tmp_path / "eval.json"
    assert call(evaluate, uint8_model.path, category, "--engine", engine, "--json", out) == 0
    figures = json.loads(out.read_text())
    assert (figures["n_good"], figures["n_defective"]) == (8, 8)
    assert (figures["engine"], figures["variant"]) == (engine, "fp32")
    scores = figures["scores"]
    raw = np.array([entry["raw"] for entry in scores.values()])
    label = np.array([entry["label"] for entry in scores.values()])
    assert figures["image_auroc"] == pytest.approx(auroc(raw, label))
    over = np.array([entry["score"] for entry in scores.values()]) > 0.5
    assert figures["detection_rate"] == over[label].mean()
    assert figures["false_reject_rate"] == over[~label].mean()
    assert 0.5 < figures["pixel_auroc"] <= 1
    assert 0 < figures["aupro"] <= 1
    assert "scratch/000.png" in next(k for k in scores if "scratch" in k)
    assert "image AUROC" in capsys.readouterr().out


def test_eval_without_masks_or_without_a_class(
    uint8_model, category, tmp_path, make_folder, capsys
):
    make_folder(tmp_path / "test/good", 3)
    assert call(evaluate, uint8_model.path, tmp_path, "--json", "-") == 0
    figures = json.loads(capsys.readouterr().out)
    for key in ("image_auroc", "detection_rate", "pixel_auroc", "aupro"):
        assert figures[key] is None
    assert figures["false_reject_rate"] is not None


def test_eval_names_images_that_it_cannot_score(uint8_model, tmp_path, make_folder, capsys):
    make_folder(tmp_path / "test/good", 2)
    (tmp_path / "test/good/bad.png").write_bytes(b"junk")
    assert call(evaluate, uint8_model.path, tmp_path) == 1
    assert "bad.png" in capsys.readouterr().out


def test_eval_refuses_masks_of_another_size(uint8_model, tmp_path, category, capsys):
    data = shutil.copytree(category, tmp_path / "data")
    shutil.copy(data / "test/good/photo_000.png", data / "ground_truth/scratch/000_mask.png")
    mask = np.full((10, 10, 3), 255, np.uint8)
    cv2.imwrite(str(data / "ground_truth/scratch/000_mask.png"), mask)
    assert call(evaluate, uint8_model.path, data) == 1
    assert "masks must have the size of their photo" in capsys.readouterr().err


def test_eval_reads_masks_of_any_depth_and_leaves_empty_ones_out(
    uint8_model, tmp_path, category, capsys
):
    data = shutil.copytree(category, tmp_path / "data")
    whole = tmp_path / "whole.json"
    assert call(evaluate, uint8_model.path, data, "--json", whole) == 0
    masks = data / "ground_truth/scratch"
    for i, path in enumerate(sorted(masks.iterdir())):
        mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
        green = np.dstack([0 * mask, mask, 0 * mask])
        cv2.imwrite(str(path), (mask > 0).astype(np.uint16) if i % 2 else green)
    assert call(evaluate, uint8_model.path, data, "--json", tmp_path / "again.json") == 0
    figures = [json.loads(p.read_text()) for p in (whole, tmp_path / "again.json")]
    assert figures[0]["aupro"] == figures[1]["aupro"]
    empty = np.zeros((80, 96), np.uint8)
    cv2.imwrite(str(masks / "003_mask.png"), empty)
    assert call(evaluate, uint8_model.path, data, "--json", tmp_path / "empty.json") == 0
    found = json.loads((tmp_path / "empty.json").read_text())
    assert found["empty_masks"] == ["test/scratch/003.png"]
    assert found["pixel_auroc"] is not None


@pytest.mark.parametrize(
    ("command", "argv", "code", "message"),
    [
        (info, ["MISSING"], 1, "does not exist; give the directory that fre-export wrote"),
        (run, ["MODEL", "nothing/*.png"], 1, "nothing/*.png: no such file, folder or pattern"),
        (run, ["MODEL", "photo.png", "--variant", "int8"], 2, "has no variant 'int8'"),
        (evaluate, ["MODEL", "."], 1, "has no folder 'test'"),
        (bench, ["MODEL", "--variant", "int8"], 2, "has no variant 'int8'"),
        (bench, ["MODEL", "--vs", "MODEL", "--scenario", "throughput"], 2, "leave --scenario"),
        (bench, ["MODEL", "--image", "none.png"], 1, "none.png: cannot be read"),
    ],
)
def test_fails_with_one_clear_line(
    command, argv, code, message, uint8_model, tmp_path, monkeypatch, capsys, make_folder
):
    monkeypatch.chdir(tmp_path)
    make_folder(tmp_path, 1).joinpath("photo_000.png").rename("photo.png")
    argv = [str(uint8_model.path) if arg == "MODEL" else arg for arg in argv]
    assert call(command, *argv) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert message in line


@pytest.mark.parametrize("argv", [["--threads", "0"], ["--duration", "-1"], ["--frame-size", "7"]])
def test_misuse_exits_with_2(argv, uint8_model, capsys):
    with pytest.raises(SystemExit) as stop:
        call(bench, uint8_model.path, *argv)
    assert stop.value.code == 2


def test_json_that_cannot_be_written(uint8_model, tmp_path, capsys):
    (tmp_path / "file").touch()
    assert call(info, uint8_model.path, "--json", tmp_path / "file/card.json") == 1
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["Good", "GOOD", "good "])
def test_eval_takes_no_folder_of_good_parts_for_a_kind_of_defect(
    name, uint8_model, tmp_path, make_folder, capsys
):
    make_folder(tmp_path / "test" / name, 2)
    assert call(evaluate, uint8_model.path, tmp_path) == 1
    assert "would count as a kind of defect; rename it to 'good'" in capsys.readouterr().err
