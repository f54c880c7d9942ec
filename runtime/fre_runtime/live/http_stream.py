"""Pictures over HTTP, one JPEG after the other (MJPEG), as most network cameras send them.

FFmpeg would fill up a picture that broke off in the middle, and bend one of another size to the
size of the first; both would be scored as if they were real. Here each picture goes through
`Frame.decoded`, which refuses the one and leaves the other as it is.
"""

import http.client
import re
import time
import urllib.request
from collections.abc import Generator

from fre_runtime.errors import CaptureError
from fre_runtime.image import MAX_PIXELS
from fre_runtime.live.addresses import reason_of, shown, split_password
from fre_runtime.live.ffmpeg import OPEN_SECONDS, READ_SECONDS, FfmpegStream
from fre_runtime.sources import Frame

MAX_PART_BYTES = 64 << 20
"""No camera's JPEG is larger; a server that sends no end is not believed."""


class HttpStream:
    """``http://`` or ``https://``: pictures one by one, or any video that FFmpeg reads."""

    endless = True
    patient = False

    def __init__(
        self,
        address: str,
        threads: int | None = None,
        max_pixels: int = MAX_PIXELS,
        silence: float = READ_SECONDS,
    ) -> None:
        self._address = address
        self._threads = threads
        self._max_pixels = max_pixels
        self._silence = max(silence, READ_SECONDS)
        self.name = shown(address)

    def frames(self) -> Generator[Frame | None]:
        """See `Capture.frames`."""
        try:
            response = _get(self._address, max(OPEN_SECONDS, self._silence))
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise CaptureError(f"{self.name}: does not answer ({reason_of(error)})") from error
        with response:
            kind = response.headers.get_content_type()
            if kind == "multipart/x-mixed-replace":
                yield from self._pictures(response, _boundary(response))
        if not kind.startswith(("video/", "application/")):
            raise CaptureError(
                f"{self.name}: sends {kind}; give the address of a video or of MJPEG, "
                "multipart/x-mixed-replace"
            )
        stream = FfmpegStream(
            self._address, self.name, self._threads, self._max_pixels, self._silence
        )
        yield from stream.frames()

    def _pictures(self, response: http.client.HTTPResponse, boundary: bytes) -> Generator[Frame]:
        parts = _Parts(response, boundary, self._silence)
        number = 0
        while True:
            try:
                data = parts.next()
            except (OSError, http.client.HTTPException, ValueError) as error:
                raise CaptureError(
                    f"{self.name}: broke off after {number} frames ({reason_of(error)})"
                ) from error
            # Decoded only when its turn comes: most of those that give way never are.
            yield Frame(self.name, number, None, encoded=data, max_pixels=self._max_pixels)
            number += 1


def _get(address: str, timeout: float) -> http.client.HTTPResponse:
    plain, user, password = split_password(address)
    handlers: list[urllib.request.BaseHandler] = []
    if user:
        passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        passwords.add_password(None, plain, user, password)
        handlers = [
            urllib.request.HTTPBasicAuthHandler(passwords),
            urllib.request.HTTPDigestAuthHandler(passwords),  # what most cameras ask for
        ]
    response: http.client.HTTPResponse = urllib.request.build_opener(*handlers).open(
        plain, timeout=timeout
    )
    return response


def _boundary(response: http.client.HTTPResponse) -> bytes:
    """The line between two pictures; cameras write it with and without the leading dashes."""
    name = str(response.headers.get_param("boundary") or "")
    return b"--" + name.removeprefix("--").encode("latin-1", "replace")


class _Parts:
    """The bodies of a multipart response, one after the other."""

    def __init__(self, response: http.client.HTTPResponse, boundary: bytes, silence: float) -> None:
        self._response = response
        self._boundary = boundary
        self._silence = silence
        self._buffer = bytearray()
        self._limit = self._deadline = 0.0

    def next(self) -> bytes:
        """The next body; raises ValueError or OSError where there is none."""
        self._wait(self._silence)
        self._take(self._find(self._boundary) + len(self._boundary))
        head = self._take(self._find(b"\r\n\r\n") + 4)
        length = re.search(rb"(?im)^content-length:\s*(\d{1,9})\s*$", head)
        if length is None:  # it ends where the next one begins, which may be late
            self._wait(self._silence)
            return self._take(self._find(b"\r\n" + self._boundary))
        self._wait(READ_SECONDS)  # a picture that has begun comes without a pause
        size = int(length[1])
        while len(self._buffer) < size:
            self._more()
        return self._take(size)

    def _wait(self, seconds: float) -> None:
        self._limit, self._deadline = seconds, time.monotonic() + seconds

    def _find(self, mark: bytes) -> int:
        searched = 0
        while (at := self._buffer.find(mark, searched)) < 0:
            searched = max(0, len(self._buffer) - len(mark))
            self._more()
        return at

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def _more(self) -> None:
        data = self._response.read1(1 << 16)
        if not data:
            raise ValueError("the server closed the connection")
        self._buffer += data
        if len(self._buffer) > MAX_PART_BYTES:
            raise ValueError(f"a picture of more than {MAX_PART_BYTES} bytes")
        if time.monotonic() > self._deadline:  # a byte now and then resets the socket's own
            raise ValueError(f"no whole picture within {self._limit:g} s")
