"""Photograph the page of fre-serve.

    python docs/screenshots.py MODEL CATEGORY OUT.png [--all]

Runs the real thing: the photos of CATEGORY's test folders come into a watched folder, one defective
part in ten, while a headless browser looks. OUT.png is the page as on a desk, in light colours;
with --all also as on a phone and in dark, as OUT-phone-dark.png and so on.

`make demo` makes MODEL and CATEGORY: build/demo/model and build/demo/data.
"""

import argparse
import contextlib
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from playwright.sync_api import Browser, sync_playwright

from fre_runtime import Detector
from fre_runtime.live.captures import open_capture
from fre_runtime.live.line import Line
from fre_runtime.serve.app import make_app
from fre_runtime.serve.board import Board
from fre_runtime.serve.guard import Access
from fre_runtime.serve.limits import Limits
from fre_runtime.serve.server import bind, serving
from fre_runtime.serve.service import Service, Watched

PARTS = 240
SECONDS_A_PART = 0.2
DEFECTIVE = 0.1
SLIDER = 0.42
"""Where the what-if slider stands."""

DESK = {"viewport": {"width": 1280, "height": 900}}
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2}


def main() -> None:
    """Take the pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("category", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--all", action="store_true")
    args = parser.parse_args()
    good = sorted((args.category / "test" / "good").iterdir())
    bad = [p for p in sorted((args.category / "test").glob("*/*")) if p.parent.name != "good"]
    model, out, photo = args.model.resolve(), args.out.resolve(), bad[3].resolve()
    good, bad = [p.resolve() for p in good], [p.resolve() for p in bad]
    folder = Path("camera")
    with tempfile.TemporaryDirectory() as place, contextlib.chdir(place):
        folder.mkdir()
        with line(model, folder) as address:
            fill(folder, good, bad)
            photograph(address, out, photo, everything=args.all)


def photograph(address: str, out: Path, photo: Path, *, everything: bool) -> None:
    """All pictures that were asked for."""
    executable = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        shoot(browser, address, out, photo, color_scheme="light", **DESK)
        for name, device in (("desk", DESK), ("phone", PHONE)) if everything else ():
            for scheme in ("light", "dark"):
                other = out.with_stem(f"{out.stem}-{name}-{scheme}")
                shoot(browser, address, other, photo, color_scheme=scheme, **device)
        browser.close()


@contextlib.contextmanager
def line(model: Path, folder: Path) -> Iterator[str]:
    """Serve a line over ``folder``; yields the page's address."""
    detector, board, stop = Detector(model), Board(), threading.Event()
    running = Line("line", detector, open_capture(str(folder), watch=True), [board])
    thread = threading.Thread(target=running.run, args=(stop,))
    thread.start()
    service = Service(detector, Path("model"), Watched(board, running, threading.Event()))
    app = make_app(service, Access(None), Limits(32 << 20))
    with bind("127.0.0.1", 0) as bound, serving(app, bound):
        yield f"http://127.0.0.1:{bound.getsockname()[1]}/"
    stop.set()
    thread.join()


def fill(folder: Path, good: list[Path], bad: list[Path]) -> None:
    """Let parts come at a steady pace; the last is defective."""
    chance = random.Random(4)
    for number in range(PARTS):
        defective = number == PARTS - 1 or chance.random() < DEFECTIVE
        source = chance.choice(bad if defective else good)
        shutil.copyfile(source, folder / f"cell-{number:04d}{source.suffix}")
        time.sleep(SECONDS_A_PART)
    time.sleep(2)


def shoot(browser: Browser, address: str, out: Path, photo: Path, **context: Any) -> None:  # noqa: ANN401 - Playwright's options
    """One picture of the page with the slider moved and a photo tried."""
    page = browser.new_context(**context).new_page()
    page.goto(address)
    page.set_input_files("#file", photo)
    page.wait_for_selector("#tried img")
    page.eval_on_selector(
        "#trial",
        "(slider, at) => { slider.value = stops.findIndex((s) => s[0] >= at); slider.oninput(); }",
        SLIDER,
    )
    page.wait_for_timeout(1500)
    # Down to the first row of anomalies.
    height = page.evaluate(
        "document.querySelector('#anomalies li').getBoundingClientRect().bottom + scrollY + 5"
    )
    width = page.viewport_size["width"] if page.viewport_size else 0
    data = page.screenshot(full_page=True, clip={"x": 0, "y": 0, "width": width, "height": height})
    out.write_bytes(smaller(data))
    page.context.close()


def smaller(png: bytes) -> bytes:
    """The same picture in 32 steps a channel, which a PNG packs far better."""
    pixels = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR)
    coarse = np.round(np.round(pixels * (31 / 255)) * (255 / 31)).astype(np.uint8)
    return bytes(cv2.imencode(".png", coarse, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1])


if __name__ == "__main__":
    main()
