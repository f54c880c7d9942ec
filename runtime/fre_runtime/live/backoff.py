"""How long to wait before trying again."""

import random
from collections.abc import Callable


class Backoff:
    """Delays that double from ``first`` up to ``cap`` seconds.

    Each is shortened at random by up to the share ``jitter``, so that many cameras that were cut
    off together do not all come back in the same moment.
    """

    def __init__(
        self,
        first: float = 0.5,
        cap: float = 30.0,
        jitter: float = 0.5,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self._first, self._cap, self._jitter, self._uniform = first, cap, jitter, uniform
        self._failures = 0

    def next(self) -> float:
        """Seconds to wait after one more failure."""
        full = min(self._cap, self._first * 2.0 ** min(self._failures, 60))
        self._failures += 1
        return full * (1 - self._jitter * self._uniform())

    def reset(self) -> None:
        """Start from the shortest delay again."""
        self._failures = 0
