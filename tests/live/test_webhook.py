"""Events posted to an address."""

import json
import socket

import pytest

from fre_runtime.errors import UsageError
from fre_runtime.live.backoff import Backoff
from fre_runtime.live.sinks.outlet import Outlet
from fre_runtime.live.sinks.webhook import Webhook
from tests.live.sink_events import event, wait_for


def answering(*answers):
    """A handler that answers with one status after the other, the last again and again."""

    def handle(connection, number):
        data = connection.recv(65536)
        while b"\r\n\r\n" not in data or not data.endswith(b"}"):
            data += connection.recv(65536)
        handle.bodies.append(data)
        status = answers[min(number, len(answers) - 1)]
        connection.sendall(b"HTTP/1.0 %d X\r\nLocation: http://127.0.0.1:9/\r\n\r\n" % status)

    handle.bodies = []
    return handle


def test_webhook_posts_json(serve):
    handle = answering(200)
    server = serve(handle)
    Webhook(f"http://user:secret@127.0.0.1:{server.port}/x", {"X-Station": "7"}).emit(event(3))
    head, _, body = handle.bodies[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /x HTTP/1.1")
    assert b"Authorization: Basic dXNlcjpzZWNyZXQ=" in head
    assert b"X-Station: 7" in head
    assert json.loads(body)["number"] == 3


@pytest.mark.parametrize(
    ("answers", "delivered", "lost"),
    [((503, 429, 200), 1, 0), ((404,), 0, 1), ((302,), 0, 1)],
)
def test_webhook_tries_again_only_where_that_helps(answers, delivered, lost, serve):
    server = serve(answering(*answers))
    hook = Webhook(f"http://127.0.0.1:{server.port}")
    out = Outlet(hook, "x", retry=True, backoff=Backoff(0.001, 0.002))
    out.emit(event())
    wait_for(lambda: out.delivered + out.lost == 1)
    out.close()
    assert (out.delivered, out.lost) == (delivered, lost)
    assert server.connections == len(answers)


def test_an_unreachable_webhook_is_buffered_and_then_delivered(serve):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    out = Outlet(Webhook(f"http://127.0.0.1:{port}/"), "x", retry=True, backoff=Backoff(0.01, 0.02))
    for number in range(5):
        out.emit(event(number))
    wait_for(lambda: out.trouble is not None)
    assert "refused" in out.trouble
    handle = answering(200)
    server = serve(handle, port)
    wait_for(lambda: out.delivered == 5)
    out.close()
    told = [json.loads(body.partition(b"\r\n\r\n")[2])["number"] for body in handle.bodies]
    assert told == [0, 1, 2, 3, 4]
    assert server.connections == 5


def test_a_webhook_that_is_no_address():
    with pytest.raises(UsageError, match="no address of this kind") as caught:
        Webhook("ftp://user:secret@host/x")
    assert "secret" not in str(caught.value)
