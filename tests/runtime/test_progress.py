import io
import sys

import pytest

from fre_runtime import progress
from fre_runtime.progress import Status, track


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """``terminal()`` makes stderr one; in the test itself, since pytest sets stderr before it."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")

    def begin():
        stream = Terminal()
        monkeypatch.setattr(sys, "stderr", stream)
        return stream

    return begin


@pytest.fixture
def no_rich(monkeypatch):
    monkeypatch.setattr(progress.importlib.util, "find_spec", lambda name: None)


def test_people_see_a_bar(terminal):
    pytest.importorskip("rich")
    stderr = terminal()
    assert list(track(iter("abc"), 3, "scoring")) == ["a", "b", "c"]
    shown = stderr.getvalue()
    assert "scoring" in shown
    assert "3/3" in shown
    assert shown.endswith("\x1b[2K")  # and it is gone afterwards


def test_without_rich_people_see_a_changing_line(terminal, no_rich, monkeypatch):
    clock, stderr = iter(range(100)), terminal()
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(clock)))
    assert list(track("abc", 3, "scoring")) == ["a", "b", "c"]
    shown = stderr.getvalue()
    assert "\r\x1b[Kscoring: 2/3" in shown
    assert "\n" not in shown
    assert shown.endswith("\r\x1b[K")


def test_logs_get_a_plain_line_now_and_then(monkeypatch, capsys):
    clock = iter([0.0, 1.0, progress.LOG_SECONDS + 1, progress.LOG_SECONDS + 2, 99.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    assert list(track("abcd", None, "scoring")) == list("abcd")
    assert capsys.readouterr().err == "scoring: 1\nscoring: 3\n"


@pytest.mark.parametrize("rich", [True, False])
def test_an_error_passes_and_leaves_nothing_behind(rich, terminal, request):
    if not rich:
        request.getfixturevalue("no_rich")

    def items():
        yield 1
        raise ValueError("broken")

    stderr = terminal()
    with pytest.raises(ValueError, match="broken"):
        list(track(items(), 5, "scoring"))
    assert stderr.getvalue().endswith(("\x1b[K", "\x1b[2K"))


def test_status(terminal):
    stderr = terminal()
    status = Status()
    status.show("x" * 200)
    assert stderr.getvalue() == "\r\x1b[K" + "x" * 59  # one row, which can be wiped out
    status.clear()
    quiet = terminal()
    status = Status(quiet=True)
    status.show("x")
    status.clear()
    assert quiet.getvalue() == ""
