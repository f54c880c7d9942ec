"""A folder that never takes more than its share of the disk."""

import os
import re
import shutil
from collections import deque
from pathlib import Path

from fre_runtime.errors import OutputError

RESERVE_BYTES = 64 << 20
"""So much of the disk is left free for everybody else."""


class QuotaFolder:
    """Keeps the files of a folder below ``limit`` bytes by removing the oldest.

    Only files whose whole name is of the form ``ours`` are counted and removed; links and whatever
    else lies there is left alone.

    Raises
    ------
    OutputError
        When the folder cannot be made or listed.
    """

    def __init__(self, folder: Path, limit: int, ours: re.Pattern[str]) -> None:
        self._folder, self._limit = folder, limit
        try:
            folder.mkdir(parents=True, exist_ok=True)
            found = [
                (status.st_mtime_ns, path, status.st_size)
                for path in folder.iterdir()
                if ours.fullmatch(path.name) and path.is_file() and not path.is_symlink()
                for status in [path.stat()]
            ]
            if not os.access(folder, os.W_OK):
                raise PermissionError(0, "no permission to write")
        except OSError as error:
            raise OutputError(f"{folder}: cannot be used ({error.strerror or error})") from error
        self._files = deque((path, size) for _, path, size in sorted(found))
        self._used = sum(size for _, size in self._files)

    def write(self, name: str, data: bytes) -> None:
        """Write a file whole or not at all.

        Raises
        ------
        OSError
            When the file is larger than the quota, the disk full, or the folder gone.
        """
        self.make_room(len(data))
        path, part = self._folder / name, self._folder / f".{name}.part"
        try:
            part.write_bytes(data)
            part.replace(path)
        except OSError:
            part.unlink(missing_ok=True)
            raise
        self.add(path, len(data))

    def add(self, path: Path, size: int) -> None:
        """Count a file that is there now, as the newest."""
        self._files.append((path, size))
        self._used += size
        self._trim(0)

    def make_room(self, size: int, growing: int = 0) -> None:
        """Remove the oldest files until ``size`` more bytes fit; raises OSError if they cannot.

        ``growing`` bytes are on the disk already, in files that are not counted yet.
        """
        self._folder.mkdir(parents=True, exist_ok=True)  # somebody may have tidied up
        if size + growing > self._limit:
            raise OSError(f"{size + growing} bytes are more than the quota of {self._limit}")
        self._trim(size + growing)
        free = shutil.disk_usage(self._folder).free
        if free < size + RESERVE_BYTES:
            raise OSError(
                f"{self._folder}: {free >> 20} MiB are free, {RESERVE_BYTES >> 20} MiB of them "
                "stay so"
            )

    def _trim(self, size: int) -> None:
        while self._files and self._used + size > self._limit:
            path, freed = self._files.popleft()
            path.unlink(missing_ok=True)
            self._used -= freed
