"""One writer at a time in a folder that several processes or threads may add to."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

LOCK = ".lock"
"""Is in the folder while somebody writes; one that a killed process has left does no harm."""


@contextlib.contextmanager
def alone_in(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Wait until nobody else is in ``folder``, made if need be, and keep others out.

    A folder that was made for this, and is empty after an error, is taken away again.

    Raises
    ------
    BlockingIOError
        When somebody else is there, and not to ``wait``.
    OSError
        When the folder cannot be made or written.
    """
    made = False
    file = None
    while file is None:
        if not folder.exists():
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o755)  # servers may run as another user
            made = True
        file = _locked(folder, wait=wait)
    with file:
        try:
            yield
        except BaseException:
            _remove_lock(folder)
            if made:
                with contextlib.suppress(OSError):  # not empty
                    folder.rmdir()
            raise
        _remove_lock(folder)


def _locked(folder: Path, *, wait: bool) -> BinaryIO | None:
    """The open lock; None where whoever had it before has just taken it away."""
    path = folder / LOCK
    try:
        file = path.open("ab")
    except FileNotFoundError:
        return None
    try:
        _take(file, wait=wait)
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
    except FileNotFoundError:
        pass
    except BaseException:
        file.close()
        raise
    file.close()
    return None


def _take(file: BinaryIO, *, wait: bool) -> None:
    if sys.platform == "win32":
        while True:
            try:
                msvcrt.locking(file.fileno(), msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
                return
            except OSError as error:  # it gives up after ten seconds
                if not wait:
                    raise BlockingIOError(*error.args) from error
    else:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise
        except OSError:  # some network drives have no locks; go on without
            pass


def _remove_lock(folder: Path) -> None:
    """Take the lock's file away while it is held, so that nobody waits for it unseen."""
    with contextlib.suppress(OSError):  # Windows removes no open file; the next one uses it again
        (folder / LOCK).unlink()
