"""A window that shows each line's newest picture, by Python's own Tk."""

import math
import threading
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from fre_runtime.errors import UsageError
from fre_runtime.image import Image
from fre_runtime.live.events import Event
from fre_runtime.live.sinks.annotated_video import drawn
from fre_runtime.overlay import captioned

if TYPE_CHECKING:
    import tkinter

WIDTH, HEIGHT = 1200, 800
"""Most that all pictures together take on the screen."""


class Window:
    """A sink that keeps the newest picture of each line until the main thread shows it."""

    def __init__(self, root: "tkinter.Tk") -> None:
        self._root = root
        self._lock = threading.Lock()
        self._fresh: dict[str, Image] = {}
        self._labels: dict[str, tkinter.Label] = {}
        self._closed = False
        root.protocol("WM_DELETE_WINDOW", self._close)

    def emit(self, event: Event) -> None:
        """Take one event; one without a picture shows why."""
        if event.image is not None:
            picture = drawn(event)
        else:
            text = f"{event.line} {event.state}: {event.error}"
            picture = captioned(np.full((240, 640, 3), 40, np.uint8), text, event.state)
        with self._lock:
            self._fresh[event.line] = picture

    def close(self) -> None:
        """Nothing: the window belongs to the main thread."""

    def update(self, stop: threading.Event) -> None:
        """Show what is new; for the main thread. Where people close the window, set ``stop``."""
        with self._lock:
            fresh, self._fresh = self._fresh, {}
        for line, picture in fresh.items():
            self._show(line, picture)
        self._root.update()
        if self._closed:
            stop.set()

    def _close(self) -> None:
        self._closed = True

    def _show(self, line: str, picture: Image) -> None:
        import tkinter

        if line not in self._labels:
            self._labels[line] = tkinter.Label(self._root, bd=2, bg="#181818")
            columns = math.ceil(math.sqrt(len(self._labels)))
            for place, label in enumerate(self._labels.values()):
                label.grid(row=place // columns, column=place % columns)
        share = math.ceil(math.sqrt(len(self._labels)))
        height, width = picture.shape[:2]
        scale = min(1.0, WIDTH / share / width, HEIGHT / share / height)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        shown: Any = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
        data = b"P6 %d %d 255 " % size + shown.tobytes()
        photo = tkinter.PhotoImage(data=data, format="ppm")
        label = self._labels[line]
        label.configure(image=photo)
        label.image = photo  # type: ignore[attr-defined]  # Tk itself keeps no reference


def open_window(title: str) -> Window:
    """Open a window on this machine's display.

    Raises
    ------
    UsageError
        When there is no display, or Python came without Tk.
    """
    try:
        import tkinter
    except ModuleNotFoundError as error:
        raise UsageError(
            "--view needs Python's tkinter, which is not installed; see fre-serve"
        ) from error
    try:
        root = tkinter.Tk(className=title)
    except tkinter.TclError as error:
        raise UsageError(
            f"--view needs a display ({error}); fre-serve shows the same in a browser"
        ) from error
    root.title(title)
    root.configure(bg="#181818")
    return Window(root)
