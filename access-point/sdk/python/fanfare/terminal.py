"""A terminal that stays connected: it finds an access point, receives each message once and in order, sends up what it is
given, and comes back when the link breaks."""

from __future__ import annotations

import json
import logging
import ssl
import threading
import time
from collections.abc import MutableMapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Callable, Optional, Union

from paho.mqtt.client import MQTTMessage

from .endpoints import Endpoints, Refused, Source
from .link import End, Hear, Link, Login
from .outbox import Outbox, Upward
from .pause import backoff
from .seen import Seen

GOOD_S = 30.0
"""A link that lasted this long was a good one: what follows is not a failure in a row."""

KEEP_ALIVE_OF_PLATFORM_S = 65_535
"""The most that MQTT can say: the platform then tells the keep alive that suits it."""

NOT_AUTHORISED = 0x87
REFUSALS = {0x84, 0x85, 0x86, NOT_AUTHORISED, 0x8A, 0x8C, 0x98}
"""Answers about who the terminal is: version, client id, password, not authorised, banned, method, kicked."""

TAKEN_OVER = 0x8E
"""The same device is connected elsewhere."""
TAKEN_OVER_FAILURES = 4
"""Failures that this counts for: two terminals with one device id must not throw each other out all the time."""

_log = logging.getLogger("fanfare")


@dataclass(frozen=True)
class Message:
    """What a product has sent."""

    id: str
    """The same whenever it is sent again."""
    seq: str
    """Where it stands in its stream."""
    type: str
    ts: str
    """When it was accepted, RFC 3339."""
    traceparent: str
    payload: Any
    """A value if it was sent as JSON, else bytes."""
    is_command: bool = False
    """Whether ``conclude`` is to answer it."""
    deadline: Optional[str] = None
    """A command is not to be begun later, RFC 3339."""
    sender: Optional[str] = None
    """The device that sent it, if it was one."""
    request: Optional[str] = None
    """The request that it answers."""


class Terminal:
    """A device of an app.

    :param token: a device token, or how to get one before each connection.
    :param endpoints: the platform's HTTP address, or addresses of access points: ``mqtt://``, ``mqtts://``, ``ws://`` or
        ``wss://``.
    :param on_message: gets each message once and in order, in a thread of the terminal. The platform counts it as received
        when this returns; what it raises is logged.
    :param on_order: what the platform tells besides: ``op`` is ``resync``, ``recall``, ``notify``, …
    :param on_state: ``connecting``, ``online``, ``waiting`` or ``stopped``, with a word on it.
    :param storage: what is known lives as long as this: a ``Folder``, or by default only as long as the object.
    :param keep_alive_s: by default the platform decides.
    :param tls: for ``mqtts://`` and ``wss://``; by default what the system trusts.
    """

    def __init__(
        self,
        *,
        app: str,
        device: str,
        token: Union[str, Callable[[], str]],
        endpoints: Source,
        on_message: Callable[[Message], object],
        on_order: Callable[[dict[str, Any]], object] = lambda order: None,
        on_state: Callable[[str, str], object] = lambda state, detail: None,
        storage: Optional[MutableMapping[str, str]] = None,
        keep_alive_s: int = KEEP_ALIVE_OF_PLATFORM_S,
        tls: Optional[ssl.SSLContext] = None,
    ) -> None:
        storage = {} if storage is None else storage
        self._app, self._device, self._token = app, device, token
        self._keep_alive_s, self._tls = keep_alive_s, tls
        self._on_message, self._on_order, self._on_state = on_message, on_order, on_state
        self._endpoints = Endpoints(endpoints)
        self._seen = Seen(storage, f"fanfare/{app}/{device}/seen")
        self._outbox = Outbox(storage, f"fanfare/{app}/{device}/outbox")
        self._stopping = threading.Event()
        self._link: Optional[Link] = None
        self._thread = threading.Thread(target=self._stay, name=f"fanfare-{device}", daemon=True)

    def start(self) -> None:
        """Connects, and goes on doing so until ``stop`` or until the platform refuses the terminal for good."""
        self._thread.start()

    def stop(self) -> None:
        """Disconnects for good."""
        self._stopping.set()
        link = self._link
        if link:
            link.close()
        self._thread.join()

    def send(self, type: str, payload: Any, request: Optional[str] = None) -> Future[None]:
        """Sends text, or a value that JSON can write, up to the products that read this type.

        The future ends when the platform has it on disk, or with ``NotTaken`` when it never will. With a name for what it
        asks, the answer is a message with the same ``request``.
        """
        return self._up(f"up/{type}/{request}" if request else f"up/{type}", payload)

    def send_to(self, device: str, type: str, payload: Any) -> Future[None]:
        """Sends something to another device, where the app lets devices do so."""
        return self._up(f"peer/{device}/{type}", payload)

    def conclude(self, id: str, status: str, reason: Optional[str] = None, result: Any = None) -> Future[None]:
        """Says what came of a command: ``succeeded``, ``failed`` or ``rejected``. The first word on it counts."""
        return self._up(f"result/{id}", {"status": status, "reason": reason, "result": result})

    def report(self, patch: dict[str, Any]) -> Future[None]:
        """Changes what the platform knows about the device: a JSON merge patch of its tags and attributes."""
        return self._up("attr", patch)

    def _up(self, topic: str, payload: Any) -> Future[None]:
        topic = f"push/{self._app}/{topic}"
        if isinstance(payload, str):
            return self._outbox.put(Upward(topic, "text/plain", payload))
        return self._outbox.put(Upward(topic, "application/json", json.dumps(payload)))

    def _stay(self) -> None:
        failures = refusals = 0
        while not self._stopping.is_set():
            since = time.monotonic()
            end = self._once()
            if self._stopping.is_set():
                break
            refusals = refusals + 1 if end.reason in REFUSALS else 0
            # A new token gets one chance.
            if refusals > (1 if callable(self._token) else 0):
                self._on_state("stopped", end.cause)
                return
            if end.elsewhere:
                self._endpoints.moved(end.elsewhere)
            elif not end.opened or end.reason is not None:
                self._endpoints.failed()
            if end.opened and time.monotonic() - since > GOOD_S:
                failures = 0
            if end.reason == TAKEN_OVER:
                failures = max(failures, TAKEN_OVER_FAILURES)
            self._on_state("waiting", end.cause)
            self._stopping.wait(backoff(failures))
            failures += 1
        self._on_state("stopped", "as asked")

    def _once(self) -> End:
        """One connection, or the attempt at one."""
        try:
            token = self._token() if callable(self._token) else self._token
            url = self._endpoints.next(token)
            self._on_state("connecting", url)
            login = Login(self._app, self._device, token, self._seen.position, self._keep_alive_s, self._tls)
            link = Link(url, login, Hear(lambda: self._opened(link, url), self._take, self._outbox.answered))
            self._link = link
            return End() if self._stopping.is_set() else link.run()
        except Refused as refused:
            return End(reason=NOT_AUTHORISED, cause=str(refused))
        except Exception as error:  # noqa: BLE001: whatever it was, the terminal stays and tries again
            return End(cause=str(error) or repr(error))
        finally:
            self._outbox.close()
            self._link = None

    def _opened(self, link: Link, url: str) -> None:
        self._outbox.open(link.publish)
        self._on_state("online", url)

    def _take(self, packet: MQTTMessage) -> None:
        kind, _, last = packet.topic[len(f"push/{self._app}/") :].partition("/")
        if kind not in ("msg", "res"):
            self._called(self._on_order, {"op": kind, **json.loads(packet.payload)})
            return
        told = dict(packet.properties.UserProperty)
        id, seq = told["id"], told["seq"]
        if self._seen.is_new(id, seq):
            is_json = getattr(packet.properties, "ContentType", None) == "application/json"
            payload = json.loads(packet.payload) if is_json else packet.payload
            message = Message(
                id,
                seq,
                told["type"],
                told["ts"],
                told["traceparent"],
                payload,
                is_command=told.get("class") == "command",
                deadline=told.get("deadline"),
                sender=told.get("from"),
                request=last if kind == "res" else None,
            )
            self._called(self._on_message, message)
        self._seen.note(id, seq)

    def _called(self, callback: Callable[[Any], object], argument: Any) -> None:
        """An application that fails at a message would fail at it again: it counts as received."""
        try:
            callback(argument)
        except Exception:  # noqa: BLE001: applications raise what they like
            _log.exception("a callback of the application failed")
