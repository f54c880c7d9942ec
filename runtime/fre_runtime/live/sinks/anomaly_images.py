"""Pictures of what was found, under a disk quota."""

import re
from pathlib import Path

from fre_runtime.image import encode_image
from fre_runtime.live.events import Event
from fre_runtime.live.record import FILE_NAME, file_name
from fre_runtime.live.sinks.quota import QuotaFolder
from fre_runtime.overlay import overlay

DEFAULT_MIB = 1024
SUFFIX = ".jpg"
OURS = re.compile(rf"{FILE_NAME}(_map)?\.jpg")


class AnomalyImages:
    """Writes each picture as it came and, beside it, with its heat map.

    Files are named after time, line and number, e.g. ``20261122T073000.123Z_top_41.jpg`` and
    ``..._41_map.jpg``; the oldest are removed where all take more than ``quota`` bytes.

    Raises
    ------
    OutputError
        When the folder cannot be used.
    """

    def __init__(self, folder: Path, quota: int = DEFAULT_MIB << 20) -> None:
        self._folder = QuotaFolder(folder, quota, OURS)

    def emit(self, event: Event) -> None:
        """Write the files of one event; raises OSError where they cannot be written."""
        if event.image is None:
            return
        name = file_name(event)
        self._folder.write(f"{name}{SUFFIX}", encode_image(event.image, SUFFIX))
        if event.result is not None:
            drawn = overlay(event.image, event.result)
            self._folder.write(f"{name}_map{SUFFIX}", encode_image(drawn, SUFFIX))

    def close(self) -> None:
        """Nothing to close."""
