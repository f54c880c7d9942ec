import dataclasses
import json
import os
import re
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from fre_runtime.commands import evaluate
from fre_runtime.commands.common import run_command
from fre_runtime.detector import Detector
from fre_runtime.errors import ImageError, OutputError
from fre_runtime.geometry import View
from fre_runtime.image import encode_image
from fre_runtime.report import evaluated, facts, page, pictures, plots

HOSTILE = ("<script>alert(1).png", '"><img src=x onerror=alert(2)>.png', os.fsdecode(b"\xff&.png"))
VOID = {"meta", "img", "br", "link", "hr", "input"}


class Page(HTMLParser):
    """What a browser makes of a report."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.open, self.images, self.links, self.texts = [], [], [], [], []
        self.feed(path.read_text(encoding="utf-8"))
        self.close()
        assert self.open == []

    @property
    def text(self):
        return " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append((tag, attributes))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "img":
            self.images.append(attributes)
        self.links += [attributes[k] for k in ("src", "href", "xlink:href") if k in attributes]

    def handle_startendtag(self, tag, attributes):
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            self.texts.append(data)

    def check(self):
        """Opens offline, runs nothing, and can be read aloud."""
        assert all(link.startswith(("data:image/jpeg;base64,", "#")) for link in self.links)
        assert not {tag for tag, _ in self.tags} & {"script", "link", "iframe", "object", "form"}
        assert not [a for _, attributes in self.tags for a in attributes if a.startswith("on")]
        assert all(image["alt"] for image in self.images)
        charts = [attributes for tag, attributes in self.tags if tag == "svg"]
        assert charts
        assert all(chart["role"] == "img" and chart["aria-label"] for chart in charts)
        assert all("scope" in attributes for tag, attributes in self.tags if tag == "th")


def call(model, dataset, report, *argv):
    arguments = [model.path, dataset, "--report", report, "--quiet", *argv]
    return run_command(evaluate, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def report(uint8_model, category, tmp_path_factory):
    """The page on the whole synthetic category, and the figures beside it."""
    folder = tmp_path_factory.mktemp("report")
    figures = folder / "figures.json"
    assert call(uint8_model, category, folder / "deep/page.html", "--json", figures) == 0
    found = Page(folder / "deep/page.html")
    found.check()
    return found, json.loads(figures.read_text())


def test_shows_every_figure_with_its_interval(report):
    found, figures = report
    for key in ("image_auroc", "aupro", "pixel_auroc", "image_ap", "image_f1_max"):
        assert f"{figures[key]:.4f}" in found.text
    assert f"{100 * figures['false_reject_rate']:.1f}%" in found.text
    table = found.text[found.text.index("what it says") :]
    value, low, high = (
        float(n) for n in re.search(r"AUPRO \(30%\) ([\d.]+) ([\d.]+) – ([\d.]+)", table).groups()
    )
    assert low <= value <= high
    assert low < high


def test_shows_curves_kinds_card_and_latency(report, uint8_model):
    found, _ = report
    labels = [attributes["aria-label"] for tag, attributes in found.tags if tag == "svg"]
    assert [label.split()[0] for label in labels] == ["Histogram", "ROC", "PRO"]
    for words in (
        "scratch",
        "AUROC",
        "decode",
        "in all",
        "layer2",
        "openvino",
        "k=",
        "stretched",
        "relative",
    ):
        assert words in found.text
    threshold = uint8_model.variant("fp32").calibration.image.value
    assert f"{threshold:.4g}" in found.text


def test_galleries_show_what_went_worst(report):
    found, figures = report
    scores = sorted((entry["score"], name) for name, entry in figures["scores"].items())
    good = [name for _, name in scores if "/good/" in name][::-1]
    bad = [name for _, name in scores if "/scratch/" in name]
    shown = [image["alt"].removeprefix("photo ") for image in found.images]
    shown = [name for name in shown if name.startswith("test/")]
    assert shown[:12] == good[:6] + bad[:6]
    assert shown[12:] == [bad[::-1][i] for i in (0, 3, 7)]


def lay_out(root, make_folder, category, good=0, bad=0):
    if good:
        make_folder(root / "test/good", good, 50)
    if bad:
        (root / "test/scratch").mkdir(parents=True)
        for name in sorted(os.listdir(category / "test/scratch"))[:bad]:
            shutil.copy(category / "test/scratch" / name, root / "test/scratch" / name)
    return root


@pytest.mark.parametrize(
    ("good", "bad", "words"),
    [
        (3, 3, "No defective photo has a mask"),
        (3, 0, "only good photos"),
        (0, 3, "only defective photos"),
        (1, 0, "1 good and 0 defective"),
        (1, 1, "1 good and 1 defective"),
    ],
)
def test_says_what_is_missing(good, bad, words, uint8_model, tmp_path, make_folder, category):
    data = lay_out(tmp_path / "data", make_folder, category, good, bad)
    assert call(uint8_model, data, tmp_path / "page.html") == 0
    found = Page(tmp_path / "page.html")
    found.check()
    assert words in found.text
    assert ("ROC: photos" in found.text) == bool(good and bad)
    assert "PRO: regions" not in found.text


def test_hostile_names_stay_text(uint8_model, tmp_path, make_photo, capsys):
    for kind in ("good", "<script>alert(3)", os.fsdecode(b"\xfe")):
        folder = tmp_path / "data/test" / kind
        folder.mkdir(parents=True)
        for i, name in enumerate(HOSTILE):
            (folder / name).write_bytes(encode_image(make_photo(i), ".png"))
    (tmp_path / "data/test/good/<script>bad.png").write_bytes(b"junk")
    assert call(uint8_model, tmp_path / "data", tmp_path / "<b>page.html") == 1
    found = Page(tmp_path / "<b>page.html")
    found.check()
    for words in ("<script>alert(1).png", "onerror=alert(2)>", "\\udcff&", "Defect: <script>"):
        assert words in found.text
    assert "<script>bad.png: is not a JPEG" in found.text


def test_lists_photos_without_a_score(uint8_model, tmp_path, make_folder, monkeypatch, capsys):
    make_folder(tmp_path / "test/good", 4)
    score = Detector._result

    def broken(self, outputs, size):
        if outputs.pred_score[0] == worst:
            outputs.pred_score[0] = np.nan
        return score(self, outputs, size)

    detector = Detector(uint8_model)
    worst = np.float32(detector(tmp_path / "test/good/photo_002.png").score)
    monkeypatch.setattr(Detector, "_result", broken)
    assert call(uint8_model, tmp_path, tmp_path / "page.html") == 1
    found = Page(tmp_path / "page.html")
    assert "1 photos could not be scored" in found.text
    assert "photo_002.png: the score is not a number" in found.text
    assert "photo photo_002.png" not in str(found.images)


def test_a_photo_that_vanishes_meanwhile(uint8_model, tmp_path, make_folder, monkeypatch):
    def gone(path, max_pixels):
        raise ImageError(f"{path}: cannot be read")

    make_folder(tmp_path / "test/good", 2)
    monkeypatch.setattr(pictures, "read_image", gone)
    assert call(uint8_model, tmp_path, tmp_path / "page.html") == 0
    assert Page(tmp_path / "page.html").text.count("could not be read again") == 2


def test_says_when_good_photos_are_rejected_too_often(uint8_model, category, tmp_path, capsys):
    (tmp_path / "test/good").mkdir(parents=True)
    for path in (category / "test/scratch").iterdir():
        shutil.copy(path, tmp_path / "test/good" / path.name)
    assert call(uint8_model, tmp_path, tmp_path / "page.html", "--json", "-") == 0
    rejects = json.loads(capsys.readouterr().out)["false_reject_rate"]
    said = "More good photos are rejected" in Page(tmp_path / "page.html").text
    assert said == (rejects > 0.3)
    assert rejects > 0.3


@pytest.mark.parametrize(
    ("target", "code", "message"),
    [
        ("page.png", 2, "must end in .html or .htm"),
        ("folder.html", 1, "folder.html: cannot be written (it is a folder)"),
        ("file/page.html", 1, "cannot be written"),
        ("MODEL/report.html", 2, "lies in the model directory"),
    ],
)
def test_finds_out_early_that_it_cannot_write(
    target, code, message, uint8_model, category, tmp_path, monkeypatch, capsys
):
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "file").touch()
    monkeypatch.setattr(evaluate, "Detector", lambda *_: pytest.fail("work before the check"))
    report = Path(target.replace("MODEL", str(uint8_model.path)))
    assert call(uint8_model, category, tmp_path / report) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize("library", ["jinja2", "matplotlib.figure"])
def test_names_the_extra_that_is_missing(library, uint8_model, category, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, library, None)
    assert call(uint8_model, category, "page.html") == 1
    assert "pip install 'fre-edge[report]'" in capsys.readouterr().err


def test_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    target = tmp_path / "page.html"
    page.write_page(target, "before")

    def full(self, other):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", full)
        with pytest.raises(OutputError, match="No space left"):
            page.write_page(target, "after")
    assert target.read_text() == "before"
    page.write_page(target, "after")
    assert target.read_text() == "after"
    assert list(tmp_path.iterdir()) == [target]


def test_stays_small_whatever_the_photos(uint8_model, tmp_path):
    rng = np.random.default_rng(0)
    photos = [encode_image(rng.integers(0, 256, (120, 120, 3), np.uint8), ".png") for _ in range(5)]
    for i in range(500):
        kind = "good" if i % 5 == 0 else f"defect_{i % 14:02d}"
        folder = tmp_path / "data/test" / kind
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"a_long_name_as_cameras_give_it_{i:06d}.png").write_bytes(photos[i % 5])
    report = tmp_path / "page.html"
    assert call(uint8_model, tmp_path / "data", report) == 0
    assert report.stat().st_size < 3 * 2**20
    found = Page(report)
    assert f"{evaluated.KINDS} of 14 kinds" in found.text
    photos = 2 * evaluated.WORST + evaluated.KINDS * evaluated.PER_KIND
    assert len(found.images) == 2 * photos + 1


def test_a_thumbnail_has_a_largest_size():
    noise = np.random.default_rng(0).integers(0, 256, (288, 288, 3), np.uint8)
    assert len(pictures._data_uri(noise)) < 4 / 3 * pictures.MAX_BYTES + 100
    flat = pictures._thumbnail(np.zeros((3, 4000, 3), np.uint8))
    assert flat.shape == (1, pictures.SIDE, 3)


def test_small_defects_stay_outlined():
    mask = np.zeros((2000, 2000), bool)
    mask[1000:1003, 700:703] = True
    photo = np.full((288, 288, 3), 90, np.uint8)
    changed = np.argwhere((pictures._outlined(photo, mask) != photo).any(2))
    assert np.abs(changed.mean(0) - [144, 101]).max() < 1


def test_photos_that_fre_calibrate_saw_do_not_pass_for_those_of_the_fit(uint8_model):
    card = uint8_model.card
    old = card.variants["fp32"].calibration
    assert "a model that had not seen it" in evaluated._held_out(old)
    new = dataclasses.replace(old, folds=0, source="photos of line3", photos=40)
    assert evaluated._held_out(new).startswith("the 40 photos of line3 that the model was calib")
    fp32 = dataclasses.replace(card.variants["fp32"], calibration=new)
    (row,) = facts.variant_rows(dataclasses.replace(card, variants={"fp32": fp32}))
    assert row.set_on == f"40 photos of line3 of {new.scenes} scenes, {new.date}"
    tiled = dataclasses.replace(card, view=View(tile=[32, 40]))
    assert "tiles of 40 x 32" in dict(facts.card_rows(tiled))["view"]


def test_held_out_scores_keep_their_place_on_the_calibrated_scale(uint8_model):
    calibration = uint8_model.variant("fp32").calibration
    text = str(plots.score_histogram([], (calibration.held_out, calibration.image), "alt <text>"))
    assert "alt &lt;text&gt;" in text
    assert "var(--muted)" in text
    assert "held-out good (24)" in text
    assert not re.search("#0[1-5]0[1-5]0[1-5]|DejaVu|Bitstream", text)
