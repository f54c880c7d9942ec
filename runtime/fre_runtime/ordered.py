"""Work on a stream with several threads: bounded, and in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ordered_map(
    call: Callable[[T], R],
    items: Iterable[T],
    workers: int,
    ahead: int,
    prepare: Callable[[], object] | None = None,
) -> Iterator[R]:
    """Yield ``call(item)`` for each item in order, ``workers`` at a time.

    At most ``ahead`` items are taken before the oldest one's result has been yielded. An error of
    ``call`` is raised in its item's turn; one of ``items`` after the results of the items before
    it. ``prepare`` runs once in each worker.
    """
    # Here, because whoever scores one photo at a time needs neither them nor the logging they load.
    from concurrent.futures import Future, ThreadPoolExecutor

    pending: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(workers, "fre-ordered", initializer=prepare)
    iterator = iter(items)
    failure: Exception | None = None
    try:
        while failure is None:
            try:
                pending.append(pool.submit(call, next(iterator)))
            except StopIteration:
                break
            except Exception as error:
                failure = error
            if len(pending) >= ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
        if failure is not None:
            raise failure
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
