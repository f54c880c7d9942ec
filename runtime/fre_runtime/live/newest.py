"""A queue that keeps the newest."""

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class NewestQueue(Generic[T]):
    """At most ``size`` items; where another comes, the oldest gives way."""

    def __init__(self, size: int) -> None:
        self._items: deque[T] = deque()
        self._size = size
        self._closed = False
        self._changed = threading.Condition()

    def put(self, item: T) -> list[T]:
        """Add an item; returns those that had to give way (the item itself once closed)."""
        with self._changed:
            if self._closed:
                return [item]
            gone = [self._items.popleft() for _ in range(len(self._items) + 1 - self._size)]
            self._items.append(item)
            self._changed.notify_all()
            return gone

    def wait_for_room(self, timeout: float) -> bool:
        """Wait up to ``timeout`` seconds until nothing would have to give way."""
        with self._changed:
            return self._changed.wait_for(self._has_room, timeout)

    def _has_room(self) -> bool:
        return len(self._items) < self._size

    def get(self) -> T | None:
        """Wait for the oldest item; None once closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed)
            item = self._items.popleft() if self._items else None
            self._changed.notify_all()
            return item

    def close(self, *, discard: bool) -> list[T]:
        """Take nothing more; returns what was thrown away, which is nothing unless ``discard``."""
        with self._changed:
            self._closed = True
            gone = list(self._items) if discard else []
            if discard:
                self._items.clear()
            self._changed.notify_all()
            return gone
