"""One connection of paho, from CONNECT to its end. It never connects again by itself: the terminal does."""

from __future__ import annotations

import ssl
import threading
import time
from dataclasses import dataclass, field
from typing import Any, Callable, Optional
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from .coding import OFFERED
from .outbox import Upward

CONNACK_MAX_S = 30
"""In a storm a platform answers up to 24 s late; more than that is a network that does not carry."""

LOOK_EVERY_S = 1.0
"""How often paho looks at its clock while nothing comes."""

PORTS = {"mqtt": 1883, "mqtts": 8883, "ws": 80, "wss": 443}


@dataclass
class End:
    """How a connection ended."""

    opened: bool = False
    """Whether the platform had let the terminal in."""
    reason: Optional[int] = None
    """Of MQTT 5, when the platform gave one."""
    elsewhere: list[str] = field(default_factory=list)
    """Access points to go to instead."""
    cause: str = "the connection was lost"
    """For people."""


@dataclass(frozen=True)
class Login:
    """Who connects, and what it has received."""

    app: str
    device: str
    token: str
    after: str
    mode: str
    keep_alive_s: int
    tls: Optional[ssl.SSLContext]


@dataclass(frozen=True)
class Hear:
    """What a connection calls, always from its own thread."""

    open: Callable[[], None]
    """The platform has let the terminal in."""
    take: Callable[[mqtt.MQTTMessage], None]
    """What comes is acked, if it needs that, when this returns."""


class Link:
    """One connection."""

    def __init__(self, url: str, login: Login, hear: Hear) -> None:
        self._hear = hear
        self._end = End()
        self._login = login
        self._url = urlsplit(url)
        is_websocket = self._url.scheme in ("ws", "wss")
        self._client = client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2,
            client_id=login.device,
            protocol=mqtt.MQTTv5,
            transport="websockets" if is_websocket else "tcp",
            reconnect_on_failure=False,
        )
        client.username_pw_set(login.app, login.token)
        if is_websocket:
            client.ws_set_options(path=self._url.path or "/mqtt")
        if self._url.scheme in ("mqtts", "wss"):
            client.tls_set_context(login.tls or ssl.create_default_context())
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        client.on_message = lambda _client, _userdata, message: hear.take(message)
        client.on_publish = lambda _client, _userdata, mid, reason, _properties: self._answered(mid, reason.value)
        # By packet id: who waits for an answer, and answers that came before it was known who does.
        self._lock = threading.Lock()
        self._waiting: dict[int, Callable[[int], None]] = {}
        self._early: dict[int, int] = {}

    def run(self) -> End:
        """Connects and serves the connection to its end.

        :raises OSError: when nobody answers.
        """
        properties = Properties(PacketTypes.CONNECT)
        properties.UserProperty = [("after", self._login.after), ("mode", self._login.mode), ("enc", OFFERED)]
        host, port = self._url.hostname or "", self._url.port or PORTS[self._url.scheme]
        self._client.connect(host, port, self._login.keep_alive_s, properties=properties)
        patience = time.monotonic() + CONNACK_MAX_S
        while self._client.loop(LOOK_EVERY_S) == mqtt.MQTT_ERR_SUCCESS:
            if not self._end.opened and time.monotonic() > patience:
                self._end.cause = "the platform did not answer"
                self._client.disconnect()
        return self._end

    def publish(self, message: Upward, answered: Callable[[int], None]) -> None:
        """Begins to send a message; ``answered`` gets the reason when the platform has answered. Any thread may call it."""
        properties = Properties(PacketTypes.PUBLISH)
        properties.ContentType = message.content_type
        properties.UserProperty = ("id", message.id)
        if message.response_topic:
            properties.ResponseTopic = message.response_topic
        packet_id = self._client.publish(message.topic, message.payload, qos=1, properties=properties).mid
        with self._lock:
            reason = self._early.pop(packet_id, None)
            if reason is None:
                self._waiting[packet_id] = answered
        if reason is not None:
            answered(reason)

    def close(self) -> None:
        """Says goodbye: the platform then knows at once that the terminal is away. Any thread may call it."""
        self._client.disconnect()

    def _answered(self, packet_id: int, reason: int) -> None:
        with self._lock:
            answered = self._waiting.pop(packet_id, None)
            if answered is None:
                self._early[packet_id] = reason
        if answered:
            answered(reason)

    def _on_connect(self, _client: Any, _userdata: Any, _flags: Any, reason: Any, _properties: Any) -> None:
        if reason.is_failure:
            self._end.reason, self._end.cause = reason.value, f"CONNACK {reason}"
            self._client.disconnect()
        else:
            self._end.opened = True
            self._hear.open()

    def _on_disconnect(self, _client: Any, _userdata: Any, flags: Any, reason: Any, properties: Any) -> None:
        if flags.is_disconnect_packet_from_server:
            self._end.reason, self._end.cause = reason.value, f"DISCONNECT {reason}"
            self._end.elsewhere = getattr(properties, "ServerReference", "").split()
