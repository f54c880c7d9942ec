"""Who may ask: checks on every request, before any of its body is read.

Three dangers, three checks. A web page elsewhere that makes its visitor's browser call us: a
request that changes or costs something must come from our own page (``Origin``). A name that an
attacker points at this machine, so that the attacker's page counts as ours (DNS rebinding): the
``Host`` header must be one that we know. Anybody else on the network: the token.
"""

import hmac
import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fre_runtime.errors import UsageError
from fre_runtime.serve.json_answer import JsonAnswer

MIN_TOKEN = 16
"""Characters of a token that somebody chose; ours have 32."""

OPEN_PATHS = frozenset({"/login", "/v2/health/live", "/v2/health/ready"})
"""What needs no token: the way to give it, and what a watchdog asks."""

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # with no-referrer, forms would not name their origin
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
"""Set on every answer that does not say otherwise."""

STRICT_POLICY = "default-src 'none'; frame-ancestors 'none'"
"""Content-Security-Policy of every answer but the pages: nothing in it is ever executed."""


@dataclass(frozen=True)
class Access:
    """Who may ask."""

    token: str | None
    """None: whoever reaches the address."""
    hosts: frozenset[str] = frozenset()
    """Names, in lower case, by which we may be called besides localhost and plain addresses."""
    port: int = 0
    """Part of the cookie's name: a browser sends its cookies to all ports of a machine."""

    def __post_init__(self) -> None:
        if self.token is not None and (len(self.token) < MIN_TOKEN or not self.token.isascii()):
            raise UsageError(
                f"the token has {len(self.token)} characters; take at least {MIN_TOKEN} of ASCII, "
                "or leave --token out and one is made"
            )

    @property
    def cookie(self) -> str:
        """Name of the cookie that holds the token."""
        return f"fre-serve-{self.port}"

    def matches(self, given: str | None) -> bool:
        """Whether ``given`` is the token, in a time that tells nothing of how much was right."""
        if self.token is None:
            return True
        return hmac.compare_digest((given or "").encode(), self.token.encode())

    def admits(self, request: HTTPConnection) -> bool:
        """Whether a request carries the token, as a bearer token or in our cookie."""
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        given = bearer if scheme.lower() == "bearer" else request.cookies.get(self.cookie)
        return self.matches(given)

    def knows_host(self, host: str) -> bool:
        """Whether a ``Host`` header may be ours: rebinding needs a name, an address is safe."""
        if set(host) & set("/?#@\\"):  # no host: an address built from it would have another path
            return False
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name == "localhost" or name in self.hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


class Guard:
    """ASGI middleware that refuses what `Access` does not allow and hardens every answer.

    Parameters
    ----------
    app
        What to guard.
    access
        Who may ask.
    login
        Answers people without a token who ask for the page.
    """

    def __init__(self, app: ASGIApp, access: Access, login: Response) -> None:
        self._app = app
        self._access = access
        self._login = login

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":  # no websockets here
            return
        answer = self._refusal(HTTPConnection(scope)) or self._app
        await answer(scope, receive, _hardened(send))

    def _refusal(self, request: HTTPConnection) -> Response | None:
        # The path that is routed; that of `request.url` may come out of the Host header.
        host, path = request.headers.get("host", ""), request.scope["path"]
        if not self._access.knows_host(host):
            hint = "this name is not served; start fre-serve with --allow-host NAME"
            return refusal(421, hint)
        if request.scope["method"] not in ("GET", "HEAD") and not _same_origin(request.headers):
            return refusal(403, "the request comes from another web page")
        if path in OPEN_PATHS or self._access.admits(request):
            return None
        if path == "/":
            return self._login
        hint = "needs the token that fre-serve printed: Authorization: Bearer TOKEN"
        return refusal(401, hint, {"WWW-Authenticate": "Bearer"})


def _same_origin(headers: Headers) -> bool:
    """Browsers name the origin of each request that is not a plain GET; programs name none."""
    origin = headers.get("origin")
    if origin is None:
        return headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none")
    try:
        return urlsplit(origin).netloc == headers.get("host")
    except ValueError:
        return False


def refusal(status: int, message: str, headers: dict[str, str] | None = None) -> Response:
    """Every error has this form, as the KServe protocol wants it."""
    return JsonAnswer({"error": message}, status, headers)


def _hardened(send: Send) -> Send:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("Content-Security-Policy", STRICT_POLICY)
        await send(message)

    return with_headers
