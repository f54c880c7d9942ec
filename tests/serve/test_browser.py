"""The page in a real browser, end to end: a folder fills up, a person looks and tries things."""

import threading
from pathlib import Path

import cv2
import numpy as np
import pytest

from fre_runtime.image import encode_image
from fre_runtime.live.captures import open_capture
from fre_runtime.live.line import Line
from fre_runtime.serve.app import make_app
from fre_runtime.serve.board import Board
from fre_runtime.serve.guard import Access
from fre_runtime.serve.limits import Limits
from fre_runtime.serve.server import bind, serving
from fre_runtime.serve.service import Service, Watched

TOKEN = "correct-horse-battery"
PATIENCE_MS = 60_000


def until(page, condition: str) -> None:
    """Wait for a JavaScript condition. The page's own policy forbids what Playwright would do."""
    for _ in range(PATIENCE_MS // 50):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"never came true: {condition}; the page says: {page.inner_text('body')}")


@pytest.fixture
def open_page(browser):
    """``open_page(address, **context)``: a page that fails the test for errors and strangers."""
    contexts, faults = [], []

    def go(address: str, **options):
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | options))
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("dialog", lambda dialog: faults.append(f"dialog: {dialog.message}"))
        page.on("console", lambda m: "Security Policy" in m.text and faults.append(m.text))
        origin = address.split("#")[0]
        page.on(
            "request",
            lambda r: r.url.startswith((origin, "data:", "blob:")) or faults.append(r.url),
        )
        page.goto(address)
        return page

    yield go
    for context in contexts:
        context.close()
    assert faults == []


@pytest.fixture
def line(detector, make_folder, tmp_path, stop):
    """A line over a folder with three good photos, served; yields folder and address."""
    folder = make_folder(tmp_path / "photos", 3)
    board, ended = Board(), threading.Event()
    line = Line("line", detector, open_capture(str(folder), watch=True), [board])
    thread = threading.Thread(target=lambda: (line.run(stop), ended.set()))
    thread.start()
    app = make_app(
        Service(detector, Path("model"), Watched(board, line, ended)), Access(None), Limits(1 << 20)
    )
    with bind("127.0.0.1", 0) as bound, serving(app, bound):
        yield folder, f"http://127.0.0.1:{bound.getsockname()[1]}/"
        stop.set()
        thread.join(10)


def scratched(photo: np.ndarray) -> bytes:
    cv2.line(photo, (30, 30), (60, 44), (250, 250, 250), 3)
    cv2.circle(photo, (40, 60), 14, (10, 10, 250), -1)
    return encode_image(photo, ".png")


def test_a_person_watches_a_line(line, open_page, make_photo, stop):
    folder, address = line
    page = open_page(address)
    until(page, "document.getElementById('scored').textContent === '3'")
    assert page.inner_text("#word") in ("Good", "Anomalous")
    assert not page.locator("#drift").is_visible()
    until(page, "document.getElementById('picture').naturalWidth > 0")
    before = page.locator("#anomalies li").count()

    # A bad part comes: said in words and by a sign, not by colour alone, and kept as a picture.
    (folder / "scratch.png").write_bytes(scratched(make_photo(50)))
    until(page, "document.getElementById('note').textContent.includes('scratch.png')")
    assert page.inner_text("#word") == "Anomalous"
    assert page.get_attribute("#verdict use", "href") == "#icon-anomalous"
    assert page.inner_text("#said") == "Anomalous"
    assert page.title().startswith("Anomalous · ")
    assert page.locator("#anomalies li").count() == before + 1
    page.locator("#anomalies button").first.focus()
    page.keyboard.press("Enter")
    until(page, "document.querySelector('#large img').naturalWidth > 0")
    assert "scratch.png" in page.inner_text("#large-text")
    page.keyboard.press("Escape")
    assert not page.locator("#large").is_visible()

    # A photo that cannot be read is invalid, with its reason.
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    until(page, "document.getElementById('word').textContent === 'Invalid'")
    assert "broken.png" in page.inner_text("#note")
    assert page.inner_text("#failed") == "1"

    # The source ends: what stands there is old, and says so.
    stop.set()
    until(page, "document.getElementById('word').textContent === 'Stale'")
    assert "ended" in page.inner_text("#note")
    assert page.locator("#old").is_visible()


def test_the_slider_says_what_another_threshold_would_mean(line, open_page, uint8_model):
    _, address = line
    page = open_page(address)
    until(page, "document.getElementById('scored').textContent === '3'")
    assert page.inner_text("#trial-value") == "0.500"
    assert not page.locator("#advice").is_visible()
    scores = page.evaluate("points.map((point) => point[2])")
    assert len(scores) == 3

    page.locator("#trial").focus()
    for _ in range(40):
        page.keyboard.press("ArrowLeft")
    assert page.inner_text("#trial-value") == "0.300"
    calibration = uint8_model.card.variants["fp32"].calibration
    raw = calibration.image.raw(np.array(0.3))
    rate = float(calibration.held_out.share_above(raw))
    assert 0.01 < rate < 1
    digits = 1 if rate < 0.0995 else 0
    assert page.inner_text("#rate") == f"about {rate * 100:.{digits}f} % of good parts rejected"
    above = [sum(score > threshold for score in scores) for threshold in (0.3, 0.5)]
    assert page.inner_text("#changed") == f"{above[0]} instead of {above[1]} anomalous"
    command = page.inner_text("#command")
    assert command.startswith("fre-calibrate model GOOD_PHOTOS --out NEW --fpr 0.")
    assert abs(float(command.split()[-1]) - rate) < 0.051 * rate

    page.click("#reset")
    assert page.inner_text("#trial-value") == "0.500"
    painted = page.evaluate(
        "() => { const c = document.getElementById('chart'); const d = c.getContext('2d')"
        ".getImageData(0, 0, c.width, c.height).data; return d.some((value) => value > 0); }"
    )
    assert painted


def test_photos_are_tried_by_picking_and_by_dropping(line, open_page, detector, make_photo):
    _, address = line
    page = open_page(address)
    photo = encode_image(make_photo(9), ".png")
    expected = detector(photo)
    name = "<img src=x onerror=alert(1)>.png"
    page.set_input_files(
        "#file",
        [
            {"name": name, "mimeType": "image/png", "buffer": photo},
            {"name": "evil.svg", "mimeType": "image/svg+xml", "buffer": b"<svg onload=alert(1) />"},
        ],
    )
    until(page, "document.querySelectorAll('#tried strong').length === 2")
    shown = page.locator("#tried li").nth(1)
    assert name in shown.inner_text()
    assert f"{expected.state.capitalize()} {expected.score:.3f}" in shown.inner_text()
    assert shown.locator("img").evaluate("(image) => image.naturalWidth") == 960
    refused = page.locator("#tried li").nth(0)
    assert "Invalid" in refused.inner_text()
    assert "is not a JPEG" in refused.inner_text()

    page.evaluate(
        """(bytes) => {
          const data = new DataTransfer();
          data.items.add(new File([new Uint8Array(bytes)], "dropped.png"));
          data.items.add(new File([new Uint8Array(1 << 21)], "huge.png"));
          dispatchEvent(new DragEvent("drop", { dataTransfer: data, cancelable: true }));
        }""",
        list(photo),
    )
    until(page, "document.querySelectorAll('#tried strong').length === 4")
    assert f"{expected.score:.3f}" in page.locator("#tried li").nth(1).inner_text()
    assert "over the limit of 1 MiB" in page.locator("#tried li").nth(0).inner_text()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("width", "height"), [(320, 640), (390, 844), (1280, 900)])
def test_nothing_sticks_out(line, open_page, width, height, scheme):
    _, address = line
    viewport = {"width": width, "height": height}
    page = open_page(address, viewport=viewport, color_scheme=scheme)
    until(page, "document.getElementById('picture').naturalWidth > 0")
    page.eval_on_selector("#trial", "(slider) => { slider.value = 20; slider.oninput(); }")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(background.split("(")[1].split(",")[0]) > 128) == (scheme == "light")


def test_the_printed_link_opens_a_locked_page(detector, open_page):
    with bind("127.0.0.1", 0) as bound:
        port = bound.getsockname()[1]
        service = Service(detector, Path("model"))
        app = make_app(service, Access(TOKEN, port=port), Limits(1 << 20))
        with serving(app, bound):
            locked = open_page(f"http://127.0.0.1:{port}/")
            assert not locked.locator("#wrong").is_visible()
            locked.fill("#token", "not the token, no")
            locked.keyboard.press("Enter")
            locked.wait_for_url("**/login")
            assert locked.locator("#wrong").is_visible()
            locked.fill("#token", TOKEN)
            locked.keyboard.press("Enter")
            locked.wait_for_selector("main[data-alone]")
            page = open_page(f"http://127.0.0.1:{port}/#token={TOKEN}")
            page.wait_for_selector("main[data-alone]")
            assert "token" not in page.evaluate("location.href")
            assert page.inner_text("#scores") == "Scores of your photos"
            assert page.evaluate("document.cookie") == "", "no script can read the token"


def test_a_drift_alarm_is_plain_to_see_with_what_to_do(detector, drifted, open_page):
    app = make_app(Service(detector, Path("my model"), drifted), Access(None), Limits(1 << 20))
    with bind("127.0.0.1", 0) as bound, serving(app, bound):
        page = open_page(f"http://127.0.0.1:{bound.getsockname()[1]}/")
        until(page, "!document.getElementById('drift').hidden")
        assert page.locator("#drift").is_visible()
        assert page.inner_text("#drift-what").endswith("scores are higher than chance explains")
        assert "fre-calibrate 'my model' GOOD_PHOTOS --out NEW" in page.inner_text("#drift")
        page.click("#drift-reset")
        until(page, "document.getElementById('drift').hidden")
        assert drifted.line.drift.scores == 0


def test_a_lost_server_is_noticed(detector, open_page, make_event):
    board = Board()
    board.emit(make_event(1))
    line = Line("line", detector, open_capture("camera:0"), [board])  # never run
    with bind("127.0.0.1", 0) as bound:
        watched = Watched(board, line, threading.Event())
        app = make_app(Service(detector, Path("m"), watched), Access(None), Limits(1 << 20))
        with serving(app, bound):
            page = open_page(f"http://127.0.0.1:{bound.getsockname()[1]}/")
            until(page, "document.getElementById('picture').naturalWidth > 0")
    until(page, "document.getElementById('word').textContent === 'Stale'")
    assert "No connection" in page.inner_text("#note")
    assert page.locator("#old").is_visible()
