"""Running several lines side by side."""

import threading
from collections.abc import Callable, Sequence

from fre_runtime.live.line import Line


def run_lines(
    lines: Sequence[Line], stop: threading.Event, meanwhile: Callable[[], object] | None = None
) -> None:
    """Run each line in a thread of its own, until all have ended or ``stop`` is set.

    To be called from the main thread, where signals can set ``stop``; ``meanwhile`` is called there
    again and again. What has become of each line's pictures is in its ``counters``.
    """
    crashes: list[BaseException] = []

    def run(line: Line) -> None:
        try:
            line.run(stop)
        except BaseException as error:  # a fault of ours: the others go on, then it is shown
            crashes.append(error)

    threads = [
        threading.Thread(target=run, args=(line,), name=f"line {line.name}", daemon=True)
        for line in lines
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            thread.join(0.03 if meanwhile else 0.2)  # in between, signals are heard
            if meanwhile:
                meanwhile()
    if crashes:
        raise crashes[0]
