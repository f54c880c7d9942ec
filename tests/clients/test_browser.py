"""browser.md, followed with ONNX Runtime Web in a headless Chromium."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from fre_runtime import Detector

REFUSED = {"alpha.png", "plain.tiff"}
OWN_WAY = {"cmyk.jpg"}
PATIENCE_MS = 120_000


@pytest.fixture
def address(javascript, javascript_model, page):
    """Where the page's own server serves, on a port that is free."""
    command = page("browser.md").blocks("bash")[1]
    assert command == "python -m http.server --bind 127.0.0.1 8000\n"
    server = subprocess.Popen(
        [sys.executable, *shlex.split(command)[1:-1], "0"],
        cwd=javascript,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    port = re.search(r"port (\d+)", server.stdout.readline())[1]
    yield f"http://127.0.0.1:{port}/"
    server.terminate()
    server.wait()


@pytest.fixture
def opened(browser, address):
    """``opened(query)`` shows the page once it has said how it went; nothing comes from outside."""
    context, faults = browser.new_context(), []
    context.set_default_timeout(PATIENCE_MS)

    def go(query: str = ""):
        shown = context.new_page()
        shown.on("pageerror", lambda error: faults.append(str(error)))
        shown.on("request", lambda r: r.url.startswith((address, "blob:")) or faults.append(r.url))
        shown.goto(address + query)
        shown.wait_for_function(
            "!document.getElementById('photos').disabled ||"
            "document.getElementById('status').textContent.includes('cannot')"
        )
        return shown

    yield go
    context.close()
    assert faults == []


def rows(shown) -> list[list[str]]:
    script = "(rows) => rows.map((row) => [...row.cells].map((cell) => cell.textContent))"
    return shown.eval_on_selector_all("#results tr", script)


def choose(shown, paths: list[Path]) -> list[list[str]]:
    """What the page says of photos that a person picks."""
    shown.set_input_files("#photos", paths)
    count = f"document.querySelectorAll('#results tr').length === {1 + len(paths)}"
    shown.wait_for_function(count)
    return rows(shown)[1:]


def test_photos_score_as_ours(opened, golden_model, photos, formats):
    shown = opened()
    detector = Detector(golden_model, "onnxruntime")
    golden = golden_model.path / "golden/image.png"
    assert [row[0] for row in rows(shown)] == ["golden/image.png"]
    names = sorted(set(formats) - REFUSED - OWN_WAY)
    paths = [*photos["exact"], *photos["camera"], *photos["large"], *map(formats.get, names)]
    table = rows(shown) + choose(shown, paths)
    for (_, state, score, raw), path in zip(table, [golden, *paths], strict=True):
        ours = detector(path)
        near = 1e-5 if path.suffix != ".jpg" else 0.01  # another browser's own decoder
        assert float(score) == pytest.approx(ours.score, abs=near), path.name
        assert float(raw) == pytest.approx(ours.raw_score, rel=10 * near)
        assert state == ours.state
    assert {row[1] for row in table} == {"good", "anomalous"}


def test_what_a_canvas_cannot_give_is_told(opened, golden_model, formats, broken):
    shown = opened()
    paths = [*map(formats.get, sorted(REFUSED)), *(p for p in broken.values() if p.is_file())]
    table = choose(shown, paths)
    assert [row[1] for row in table] == ["invalid"] * len(paths)
    assert table[0][2] == "the photo is partly transparent"
    assert all(row[2] for row in table)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda model: None, "nowhere/model.json: 404"),
        (lambda model: (model / "model.json").write_text("{}"), "cannot be used"),
        (lambda model: to_float(model), "export it with --io uint8"),
        (lambda model: (model / "model.onnx").write_bytes(b"not a model"), "cannot be used"),
    ],
)
def test_a_model_that_cannot_be_used_is_told(opened, javascript_model, change, said):
    change(javascript_model)
    shown = opened("?model=nowhere" if "nowhere" in said else "")
    assert said in shown.inner_text("#status")
    assert shown.is_disabled("#photos")
    assert rows(shown) == []


def to_float(model: Path) -> None:
    card = json.loads((model / "model.json").read_text())
    card["graph"]["io"] = "float"
    (model / "model.json").write_text(json.dumps(card))


def test_nothing_sticks_out(opened, photos):
    shown = opened()
    shown.set_viewport_size({"width": 360, "height": 640})
    assert "anomalous" in {row[1] for row in choose(shown, photos["exact"])}
    assert shown.evaluate("document.documentElement.scrollWidth") <= 360
