"""One connection of paho, from CONNECT to its end. It never connects again by itself: the terminal does."""

from __future__ import annotations

import ssl
import time
from dataclasses import dataclass, field
from typing import Any, Callable, Optional
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from .outbox import Upward

CONNACK_MAX_S = 15
"""A platform under load answers up to 4 s late; more than that is a network that does not carry."""

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
    keep_alive_s: int
    tls: Optional[ssl.SSLContext]


@dataclass(frozen=True)
class Hear:
    """What a connection calls, always from its own thread."""

    open: Callable[[], None]
    """The platform has let the terminal in."""
    message: Callable[[mqtt.MQTTMessage], None]
    """A message is acked when this returns."""
    answered: Callable[[int], None]
    """The platform has answered what was published."""


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
        client.on_message = lambda _client, _userdata, message: hear.message(message)
        client.on_publish = lambda _client, _userdata, _mid, reason, _properties: hear.answered(reason.value)

    def run(self) -> End:
        """Connects and serves the connection to its end.

        :raises OSError: when nobody answers.
        """
        properties = Properties(PacketTypes.CONNECT)
        properties.UserProperty = ("after", self._login.after)
        host, port = self._url.hostname or "", self._url.port or PORTS[self._url.scheme]
        self._client.connect(host, port, self._login.keep_alive_s, properties=properties)
        patience = time.monotonic() + CONNACK_MAX_S
        while self._client.loop(LOOK_EVERY_S) == mqtt.MQTT_ERR_SUCCESS:
            if not self._end.opened and time.monotonic() > patience:
                self._end.cause = "the platform did not answer"
                self._client.disconnect()
        return self._end

    def publish(self, message: Upward) -> None:
        """Begins to send a message; ``answered`` is called when the platform has it."""
        properties = Properties(PacketTypes.PUBLISH)
        properties.ContentType = message.content_type
        self._client.publish(message.topic, message.payload, qos=1, properties=properties)

    def close(self) -> None:
        """Says goodbye: the platform then knows at once that the terminal is away. Any thread may call it."""
        self._client.disconnect()

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
