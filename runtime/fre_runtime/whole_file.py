"""Files that are there whole, or as they were before."""

import contextlib
import os
import tempfile
from pathlib import Path

from fre_runtime.errors import OutputError


def check_writable(path: Path) -> None:
    """Find out early that ``path`` cannot be written; makes the folder that it goes into.

    Raises
    ------
    OutputError
        When ``path`` is a folder, or its folder cannot be written.
    """
    if _is_special(path):
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        with tempfile.TemporaryFile(dir=path.resolve().parent):
            pass
    except OSError as error:
        raise _unwritable(path, error) from error


def write_whole(path: Path, data: bytes, *, lasting: bool = True) -> None:
    """Write ``data`` under the name ``path`` once it is complete; makes the folder.

    Pipes and devices are written to as they are. With ``lasting`` it is on the disk, power cut or
    not, before this returns: too slow for many pictures.

    Raises
    ------
    OutputError
        When the disk is full or not writable; what was there before is still there.
    """
    temporary: Path | None = None
    try:
        if _is_special(path):
            path.write_bytes(data)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        target = path.resolve()  # a link stays a link
        with tempfile.NamedTemporaryFile(dir=target.parent, suffix=".part", delete=False) as file:
            temporary = Path(file.name)
            file.write(data)
            file.flush()
            if lasting:
                os.fsync(file.fileno())
        temporary.chmod(0o644)  # temporary files are private
        temporary.replace(target)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()


def _is_special(path: Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()


def _unwritable(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{path}: cannot be written ({error.strerror or error})")
