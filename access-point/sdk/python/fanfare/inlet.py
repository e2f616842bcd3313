"""What comes for one app: each message is given to the application once and in order, pages of them are fetched.

It knows no link, only how to publish while there is one. Messages come from the thread of the link; any thread may fetch.
"""

from __future__ import annotations

import json
import logging
import threading
from base64 import b64decode
from collections.abc import MutableMapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Callable, Optional

from paho.mqtt.client import MQTTMessage

from .coding import unpack
from .outbox import Upward
from .seen import Seen

PAGE_MAX = 50
"""Messages of a page at most: the application is through with them before the platform doubts that they arrived."""

Publish = Callable[[Upward, Callable[[int], None]], object]
"""Begins to publish something; the callback gets the reason of the answer."""

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


@dataclass(frozen=True)
class Ears:
    """What an application hears of one app, always from a thread of the terminal. What it raises is logged."""

    message: Callable[[Message], object]
    """Gets each message once and in order. The platform counts it as received when this returns."""
    order: Callable[[dict[str, Any]], object]
    """What the platform tells besides."""
    notice: Optional[Callable[[str], object]]
    """There is something up to this number; by default it is fetched at once."""


class Inlet:
    """What comes for one app."""

    def __init__(self, app: str, device: str, storage: MutableMapping[str, str], ears: Ears) -> None:
        self._app, self._ears = app, ears
        self._seen = Seen(storage, f"fanfare/{app}/{device}/seen")
        self._lock = threading.Lock()
        self._publish: Optional[Publish] = None
        self._fetching: Optional[Future[None]] = None

    @property
    def position(self) -> str:
        """The last number received in each stream, as the platform reads it."""
        return self._seen.position

    def open(self, publish: Publish) -> None:
        """There is a link."""
        self._publish = publish

    def close(self) -> None:
        """The link is gone. The next one tells of what is left."""
        self._publish = None
        self._fetched(ConnectionError("the link is gone, and not everything is fetched"))

    def fetch(self) -> Future[None]:
        """Fetches what there is, page by page. The future ends when the application has all of it, or with the link."""
        with self._lock:
            fetching = self._fetching
            if fetching is not None:
                return fetching
            fetching = self._fetching = Future()
            fetching.set_running_or_notify_cancel()
        if not self._ask():
            self._fetched(ConnectionError("there is no link to fetch over"))
        return fetching

    def take(self, levels: list[str], packet: MQTTMessage) -> None:
        """Takes what was published to a topic of the app; it may be acked when this returns."""
        kind, request = levels[0], levels[1] if len(levels) > 1 else None
        told = dict(getattr(packet.properties, "UserProperty", ()))
        coding = told.get("content-encoding")
        if kind == "page":
            self._take_page(unpack(coding, packet.payload))
        elif kind in ("msg", "res"):
            is_json = getattr(packet.properties, "ContentType", None) == "application/json"

            def payload() -> Any:
                body = unpack(coding, packet.payload)
                return json.loads(body) if is_json else body

            self._give({**told, "request": request if kind == "res" else None}, payload)
        elif kind == "notify":
            latest = json.loads(packet.payload)["latest"]
            self._called(lambda: self._ears.notice(latest) if self._ears.notice else self.fetch())
        else:
            self._called(lambda: self._ears.order({"op": kind, **json.loads(packet.payload)}))

    def _give(self, told: dict[str, Any], payload: Callable[[], Any]) -> None:
        id, seq = told["id"], told["seq"]
        if self._seen.is_new(id, seq):
            self._called(lambda: self._ears.message(_message(told, payload())))
        self._seen.note(id, seq)

    def _take_page(self, body: bytes) -> None:
        page = json.loads(body)
        for told in page["messages"]:
            self._give(told, lambda told=told: _payload(told))
        if page["more"]:
            self._ask()
        else:
            self._fetched()

    def _ask(self) -> bool:
        publish = self._publish
        if publish is None:
            return False
        payload = json.dumps({"after": self.position, "limit": PAGE_MAX})
        topic, answer = f"push/{self._app}/sync", f"push/{self._app}/page"
        publish(Upward(topic, "application/json", payload, response_topic=answer), self._asked)
        return True

    def _asked(self, reason: int) -> None:
        if reason >= 0x80:
            self._fetched(ConnectionError(f"the platform answers {reason:#x}"))

    def _fetched(self, error: Optional[Exception] = None) -> None:
        with self._lock:
            fetching, self._fetching = self._fetching, None
        if fetching is None:
            return
        if error:
            fetching.set_exception(error)
        else:
            fetching.set_result(None)

    @staticmethod
    def _called(callback: Callable[[], object]) -> None:
        """An application that fails at a message would fail at it again: it counts as received."""
        try:
            callback()
        except Exception:  # noqa: BLE001: applications raise what they like
            _log.exception("a callback of the application failed")


def _message(told: dict[str, Any], payload: Any) -> Message:
    return Message(
        told["id"],
        told["seq"],
        told["type"],
        told["ts"],
        told["traceparent"],
        payload,
        is_command=told.get("class") == "command",
        deadline=told.get("deadline"),
        sender=told.get("from"),
        request=told.get("request"),
    )


def _payload(envelope: dict[str, Any]) -> Any:
    """The body of a message that has no packet of its own."""
    packed = envelope.get("payload_base64")
    return envelope["payload"] if packed is None else b64decode(packed)
