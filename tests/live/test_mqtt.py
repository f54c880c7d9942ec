"""The MQTT sink against a real broker, which comes late, goes and comes back."""

import asyncio
import json
import logging
import socket
import sys
import threading

import pytest

from fre_runtime.errors import MissingDependencyError, UsageError
from fre_runtime.live.backoff import Backoff
from fre_runtime.live.sinks.mqtt import Mqtt
from fre_runtime.live.sinks.outlet import Outlet
from tests.live.sink_events import event, stale, wait_for

paho = pytest.importorskip("paho.mqtt.client")
amqtt = pytest.importorskip("amqtt.broker")


class Broker:
    """amqtt in a thread of its own, on a port of its own."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        logging.getLogger("amqtt").setLevel(logging.CRITICAL)
        logging.getLogger("transitions").setLevel(logging.CRITICAL)
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._broker = None

    def _call(self, coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(20)

    def start(self) -> None:
        async def begin():
            self._broker = amqtt.Broker({
                "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{self.port}"}},
                "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {
                    "allow_anonymous": True}},
            })  # fmt: skip
            await self._broker.start()

        self._call(begin())

    def stop(self) -> None:
        self._call(self._broker.shutdown())

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)


class Listener:
    """Another client, which notes what is published."""

    def __init__(self, port: int) -> None:
        self.heard: list[tuple[str, bytes]] = []
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        self._client.on_message = lambda _c, _d, m: self.heard.append((m.topic, m.payload))
        ready = threading.Event()
        self._client.on_subscribe = lambda *_: ready.set()
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._client.subscribe("plant/#", qos=1)
        assert ready.wait(20)

    def numbers(self) -> list[int]:
        return [json.loads(p)["number"] for topic, p in self.heard if topic == "plant/cell/top"]

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def broker():
    broker = Broker()
    yield broker
    broker.close()


def test_events_arrive_even_where_the_broker_comes_late_and_goes(broker):
    sink = Mqtt(f"mqtt://operator:secret@127.0.0.1:{broker.port}/plant/cell")
    sink._client.reconnect_delay_set(1, 1)
    out = Outlet(sink, "MQTT", retry=True, backoff=Backoff(0.05, 0.1))
    for number in range(3):
        out.emit(event(number))
    wait_for(lambda: out.trouble is not None)  # nobody listens yet
    broker.start()
    wait_for(lambda: out.delivered == 3)
    listener = Listener(broker.port)
    out.emit(event(3))
    out.emit(stale(4))
    wait_for(lambda: listener.numbers() == [3, 4])
    assert ("plant/cell/status", b"online") in listener.heard
    told = json.loads(listener.heard[-1][1])
    assert (told["state"], told["score"]) == ("stale", None)
    listener.close()
    broker.stop()
    out.emit(event(5))
    wait_for(lambda: out.waiting == 1 and not sink._client.is_connected())
    broker.start()
    wait_for(lambda: out.delivered == 6)
    listener = Listener(broker.port)
    out.close()
    wait_for(lambda: ("plant/cell/status", b"offline") in listener.heard)
    listener.close()
    broker.stop()
    assert (out.delivered, out.lost) == (6, 0)


def test_an_unreachable_broker_costs_events_not_the_line(broker):
    out = Outlet(Mqtt(f"mqtt://127.0.0.1:{broker.port}"), "MQTT", retry=True)
    for number in range(1500):
        out.emit(event(number))
    out.close()
    assert (out.delivered, out.lost) == (0, 1500)
    assert out.trouble


@pytest.mark.parametrize("address", ["localhost", "mqtt://", "http://host", "mqtt://u:secret@/x"])
def test_what_is_no_broker(address):
    with pytest.raises(UsageError, match=r"expected mqtt://HOST or mqtts://HOST") as caught:
        Mqtt(address)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("address", ["mqtt://u:secret@host/fre/+/top", "mqtt://host/fre#top"])
def test_a_topic_that_stands_for_many(address):
    with pytest.raises(UsageError, match="name one topic") as caught:
        Mqtt(address)
    assert "secret" not in str(caught.value)


def test_without_paho(monkeypatch):
    monkeypatch.setitem(sys.modules, "paho.mqtt", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'fre-edge\[live\]'"):
        Mqtt("mqtt://localhost")
