"""Addresses of cameras and servers, and the passwords in them."""

import re
import urllib.parse

from fre_runtime.errors import UsageError

STREAMS = ("rtsp", "rtsps", "http", "https")
"""Schemes of the streams that can be read."""

_SECRET = re.compile(r"(?i)([?&][^=&#]*(?:pass|pwd|token|key|secret|auth)[^=&#]*=)[^&#]*")
"""A value among an address's parameters that only cameras and their owners should know."""


def is_stream(source: str) -> bool:
    """Whether ``source`` looks like a camera or the address of a stream, not like a file."""
    return source.lower().startswith(("camera:", *(f"{scheme}://" for scheme in STREAMS)))


def split_password(address: str) -> tuple[str, str, str]:
    """The address without user and password, and both of them."""
    scheme, mark, rest = address.partition("://")
    authority, slash, path = rest.partition("/")
    login, _, host = authority.rpartition("@")
    user, _, password = login.partition(":")
    unquote = urllib.parse.unquote
    return f"{scheme}{mark}{host}{slash}{path}", unquote(user), unquote(password)


def shown(address: str) -> str:
    """The address as it may be shown and logged, without what looks like a secret.

    By the rules a plain ``/``, ``?`` or ``#`` in a password ends the host, and the rest of it would
    be taken for the path: whatever may belong to it is hidden.
    """
    plain = split_password(address)[0]
    scheme, mark, rest = plain.partition("://")
    login, at, after = rest.rpartition("@")
    if at and ":" in login:
        plain = f"{scheme}{mark}***@{after}"
    return _without_secrets(plain)


def _without_secrets(text: str) -> str:
    return _SECRET.sub(r"\1***", text)


def check_address(address: str, schemes: tuple[str, ...]) -> urllib.parse.SplitResult:
    """Take an address apart.

    Raises
    ------
    UsageError
        When it has another scheme, no host, or a port that is no number.
    """
    try:
        parts = urllib.parse.urlsplit(address)
        known = parts.scheme in schemes and bool(parts.hostname) and parts.port != 0
    except ValueError:
        known = False
    if not known:
        wanted = " or ".join(f"{scheme}://HOST" for scheme in schemes)
        hint = "; in a password write / as %2F, ? as %3F and # as %23" if "@" in address else ""
        raise UsageError(f"{shown(address)}: is no address of this kind; expected {wanted}{hint}")
    return parts


def reason_of(error: Exception) -> str:
    """Why a server could not be asked, in a few words and without secrets."""
    reason = getattr(error, "reason", None) or error
    code = getattr(error, "code", None)
    text = str(reason) or type(reason).__name__
    return _without_secrets(text if code is None else f"HTTP {code} {text}")
