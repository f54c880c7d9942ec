"""MQTT: each event as JSON, published at least once."""

import contextlib
from typing import TYPE_CHECKING

from fre_runtime.errors import MissingDependencyError, UsageError
from fre_runtime.live.addresses import check_address, shown, split_password
from fre_runtime.live.events import Event
from fre_runtime.live.record import encode, slug

if TYPE_CHECKING:
    from paho.mqtt.client import Client, MQTTMessageInfo
    from paho.mqtt.reasoncodes import ReasonCode

CONFIRM_SECONDS = 5.0
"""So long the broker may take to confirm."""
DEFAULT_TOPIC = "fre"
STATUS = "status"
"""Below the topic, beside the lines: whether this client is there."""


class Mqtt:
    """Publishes to ``TOPIC/LINE`` of ``mqtt[s]://[USER:PASSWORD@]HOST[:PORT]/[TOPIC]``.

    Whether it is there stands, retained, in ``TOPIC/status``: ``online``, or ``offline`` as soon as
    the broker misses it. The client connects by itself, and again.

    Raises
    ------
    UsageError
        When the address is not of that form, or names a topic with a wildcard.
    MissingDependencyError
        When paho-mqtt is not installed.
    """

    def __init__(self, address: str) -> None:
        parts = check_address(address, ("mqtt", "mqtts"))
        try:
            from paho.mqtt import client as paho
            from paho.mqtt.enums import CallbackAPIVersion
        except ModuleNotFoundError as error:
            raise MissingDependencyError(
                "paho-mqtt is not installed; run: pip install 'fre-edge[live]'"
            ) from error
        _, user, password = split_password(address)
        self._topic = parts.path.strip("/") or DEFAULT_TOPIC
        if "+" in self._topic or parts.fragment:
            raise UsageError(
                f"{shown(address)}: + and # stand for many topics, and none can be published to; "
                "name one topic"
            )
        self._status = f"{self._topic}/{STATUS}"
        self._trouble = f"no connection to {parts.hostname} yet"
        self._pending: tuple[Event, MQTTMessageInfo] | None = None
        self._client = paho.Client(CallbackAPIVersion.VERSION2)
        if user:
            self._client.username_pw_set(user, password)
        if parts.scheme == "mqtts":
            self._client.tls_set()
        self._client.will_set(self._status, "offline", qos=1, retain=True)
        self._client.reconnect_delay_set(1, 30)
        self._client.on_connect = self._connected
        self._client.on_connect_fail = self._failed
        self._client.on_disconnect = self._disconnected
        port = parts.port or (8883 if parts.scheme == "mqtts" else 1883)
        self._host = f"{parts.hostname}:{port}"
        self._client.connect_async(str(parts.hostname), port, keepalive=30)
        self._client.loop_start()

    def emit(self, event: Event) -> None:
        """Publish one event and wait until the broker has it.

        Raises
        ------
        OSError
            When the broker cannot be reached, or does not confirm in time.
        """
        if not self._client.is_connected():
            raise OSError(self._trouble)
        if self._pending is None or self._pending[0] is not event:
            topic = f"{self._topic}/{slug(event.line)}"
            self._pending = event, self._client.publish(topic, encode(event), qos=1)
        message = self._pending[1]  # not confirmed in time: it is on its way, never sent twice
        try:
            message.wait_for_publish(CONFIRM_SECONDS)
            confirmed = message.is_published()
        except (RuntimeError, ValueError) as error:  # the connection broke meanwhile
            self._pending = None
            raise OSError(str(error)) from error
        if not confirmed:
            raise OSError(f"{self._host}: does not confirm within {CONFIRM_SECONDS:g} s")

    def close(self) -> None:
        """Say ``offline`` and disconnect."""
        if self._client.is_connected():
            with contextlib.suppress(RuntimeError, ValueError):
                self._client.publish(self._status, "offline", 1, True).wait_for_publish(1)
        self._client.disconnect()
        self._client.loop_stop()

    def _connected(
        self,
        client: "Client",
        _data: object,
        _flags: object,
        reason: "ReasonCode",
        _properties: object,
    ) -> None:
        if reason.is_failure:
            self._trouble = f"{self._host}: refuses the connection ({reason})"
        else:
            client.publish(self._status, "online", qos=1, retain=True)

    def _failed(self, _client: "Client", _data: object) -> None:
        self._trouble = f"{self._host}: cannot be reached"

    def _disconnected(
        self,
        _client: "Client",
        _data: object,
        _flags: object,
        reason: "ReasonCode",
        _properties: object,
    ) -> None:
        self._trouble = f"{self._host}: the connection broke ({reason})"
