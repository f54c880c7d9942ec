"""HTTP POST of each event, as JSON."""

import base64
import http.client
import urllib.error
import urllib.request
from collections.abc import Mapping

from fre_runtime.live.addresses import check_address, reason_of, split_password
from fre_runtime.live.events import Event
from fre_runtime.live.record import encode
from fre_runtime.live.sinks.outlet import Undeliverable

TIMEOUT_SECONDS = 5.0
TRY_AGAIN = frozenset({408, 425, 429})
"""Answers below 500 that ask to come back later."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirected POST would arrive as a GET without its body."""

    def redirect_request(self, *_: object) -> None:
        return None


class Webhook:
    """Posts to ``address``; any answer of 200-299 counts as delivered.

    Raises
    ------
    UsageError
        When ``address`` is not an http or https address.
    """

    def __init__(self, address: str, headers: Mapping[str, str] | None = None) -> None:
        check_address(address, ("http", "https"))
        self._address, user, password = split_password(address)
        self._headers = {"Content-Type": "application/json", **(headers or {})}
        if user:
            login = base64.b64encode(f"{user}:{password}".encode()).decode()
            self._headers["Authorization"] = f"Basic {login}"
        self._opener = urllib.request.build_opener(_NoRedirect)

    def emit(self, event: Event) -> None:
        """Post one event.

        Raises
        ------
        Undeliverable
            When the server refuses it for good.
        OSError
            When it cannot be reached, or asks to come back later.
        """
        request = urllib.request.Request(
            self._address, encode(event), dict(self._headers), method="POST"
        )
        try:
            with self._opener.open(request, timeout=TIMEOUT_SECONDS) as response:
                response.read(1024)
        except urllib.error.HTTPError as error:
            with error:
                for_good = error.code < 500 and error.code not in TRY_AGAIN
                raise (Undeliverable if for_good else OSError)(reason_of(error)) from error
        except (urllib.error.URLError, http.client.HTTPException) as error:
            raise OSError(reason_of(error)) from error

    def close(self) -> None:
        """Nothing to close."""
