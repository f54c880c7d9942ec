"""How much may be asked: bytes, seconds and requests at once are bounded.

So an upload costs at most ``MAX_AT_ONCE`` times the limit of bytes and one decoded image,
whatever is sent; the pixels are bounded by `fre_runtime.image`, from the header.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request

MAX_SECONDS = 30.0
"""So long may a body take to arrive."""

MAX_AT_ONCE = 8
"""Requests with a body under way; further ones are told to come back."""

T = TypeVar("T")


class Limits:
    """The limits of one server, and who is inside them now.

    Parameters
    ----------
    max_bytes
        Largest body.
    workers
        Images decoded and scored at once; the rest waits its turn.
    """

    def __init__(
        self,
        max_bytes: int,
        workers: int = 1,
        *,
        at_once: int = MAX_AT_ONCE,
        seconds: float = MAX_SECONDS,
    ) -> None:
        self.max_bytes = max_bytes
        self._workers = ThreadPoolExecutor(workers, "fre-serve")
        self._at_once = at_once
        self._seconds = seconds
        self._inside = 0

    @asynccontextmanager
    async def body(self, request: Request) -> AsyncIterator[bytes]:
        """Read the body, counting as it comes; the place is held until the caller is done.

        Raises
        ------
        HTTPException
            503 when too many are inside, 413 when the body is too large, 408 when it is too slow,
            415 when it is compressed as a whole.
        """
        if self._inside >= self._at_once:
            hint = f"{self._at_once} requests are under way; try again in a second"
            raise HTTPException(503, hint, {"Retry-After": "1"})
        self._inside += 1
        try:
            yield await self._read(request)
        finally:
            self._inside -= 1

    async def _read(self, request: Request) -> bytes:
        if request.headers.get("content-encoding", "identity") != "identity":
            raise HTTPException(415, "send the body without Content-Encoding")
        if int(request.headers.get("content-length", 0)) > self.max_bytes:
            raise self._too_large()
        data = bytearray()
        try:
            async with asyncio.timeout(self._seconds):
                async for chunk in request.stream():
                    if len(data) + len(chunk) > self.max_bytes:
                        raise self._too_large()
                    data += chunk
        except TimeoutError:
            raise HTTPException(408, f"the body took over {self._seconds:g} s") from None
        return bytes(data)

    def _too_large(self) -> HTTPException:
        hint = f"the body is over the limit of {self.max_bytes} bytes; see --max-upload"
        return HTTPException(413, hint, {"Connection": "close"})

    async def work(self, call: Callable[[], T]) -> T:
        """Run ``call`` in a thread when it is its turn."""
        return await asyncio.get_running_loop().run_in_executor(self._workers, call)
