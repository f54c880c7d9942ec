"""The address: binding it, and running an application there until told to stop."""

import asyncio
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address

import uvicorn
from starlette.types import ASGIApp

from fre_runtime.errors import OutputError

MAX_CONNECTIONS = 64
"""Further ones are told to come back (503); a browser opens up to six."""


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def bind(host: str, port: int) -> socket.socket:
    """Take an address before anything else is done; port 0 takes a free one.

    Raises
    ------
    OutputError
        When it is in use, is none of this machine's, or may not be taken.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.create_server(address[:2], family=family, backlog=128)
    except (OSError, UnicodeError) as error:
        number = getattr(error, "errno", None) or 0
        reason = os.strerror(number) if number > 0 else getattr(error, "strerror", None) or error
        raise OutputError(
            f"{host}:{port}: cannot be served ({reason}); choose another --port or --host, or "
            "end what runs there"
        ) from error
    bound.setblocking(False)
    return bound


@contextmanager
def serving(app: ASGIApp, bound: socket.socket) -> Iterator[threading.Thread]:
    """Serve ``app`` on a bound socket in a thread of its own while the block runs.

    The main thread stays free for signals.
    """
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        server_header=False,
        lifespan="off",
        ws="none",
        limit_concurrency=MAX_CONNECTIONS,
        timeout_graceful_shutdown=2,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(
        target=lambda: asyncio.run(server.serve(sockets=[bound])), name="fre-serve", daemon=True
    )
    thread.start()
    try:
        yield thread
    finally:
        server.should_exit = True
        thread.join(10)
