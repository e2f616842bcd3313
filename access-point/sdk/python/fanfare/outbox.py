"""What a terminal sends up: kept until the platform has it on disk, sent one after the other in the order of sending.

What was under way when a link broke goes out again, under the id that it had: products read it once.
"""

from __future__ import annotations

import json
import threading
from collections.abc import MutableMapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from typing import Callable, Optional
from uuid import uuid4

from .pause import backoff

WAITING_MAX = 100
"""Messages that wait at a time: a terminal that is away for long sends what counts, not everything."""

PAYLOAD_MAX_BYTES = 32 * 1024
"""The largest payload: what a terminal reports is small, and every one of these may lie in storage."""

FOR_GOOD = {0x87, 0x90, 0x95, 0x99}
"""Answers that a repetition would not change: not authorised, topic name, packet too large, payload format."""


class NotTaken(Exception):
    """The platform did not take a message, and will not."""


@dataclass(frozen=True)
class Upward:
    """A message on its way up."""

    topic: str
    content_type: str
    payload: str
    response_topic: Optional[str] = None
    """Where an answer is to go."""
    id: str = field(default_factory=lambda: uuid4().hex, compare=False)
    """Unlike any other of this device; the same when it is sent again."""


class Outbox:
    """Messages on their way up; one at a time is under way. Any thread may call."""

    def __init__(self, storage: MutableMapping[str, str], key: str) -> None:
        self._storage = storage
        self._key = key
        self._lock = threading.Lock()
        # Nobody waits any longer for those of an earlier process.
        self._waiting: list[tuple[Upward, Future[None]]] = []
        self._publish: Optional[Callable[[Upward, Callable[[int], None]], object]] = None
        self._under_way = False
        self._failures = 0
        self._timer: Optional[threading.Timer] = None
        try:
            self._waiting = [(Upward(**kept), Future()) for kept in json.loads(storage.get(key, "[]"))]
        except (ValueError, TypeError):
            pass  # It cannot be sent if it cannot be read.

    def put(self, message: Upward) -> Future[None]:
        """Keeps a message for as long as it takes. The future ends when the platform has it, or says it never will."""
        taken: Future[None] = Future()
        taken.set_running_or_notify_cancel()  # Nobody can take it back.
        size = len(message.payload.encode())
        with self._lock:
            if size > PAYLOAD_MAX_BYTES:
                taken.set_exception(NotTaken(f"{size} bytes, {PAYLOAD_MAX_BYTES} at most"))
            elif len(self._waiting) >= WAITING_MAX:
                taken.set_exception(NotTaken(f"{WAITING_MAX} messages wait already"))
            else:
                self._waiting.append((message, taken))
                self._save()
        self._next()
        return taken

    def open(self, publish: Callable[[Upward, Callable[[int], None]], object]) -> None:
        """A link is there: everything goes out. ``publish`` begins to send; its callback gets the reason of the answer."""
        with self._lock:
            self._publish = publish
        self._next()

    def close(self) -> None:
        """The link is gone."""
        with self._lock:
            self._publish = None
            self._under_way = False
            if self._timer:
                self._timer.cancel()

    def _answered(self, reason: int) -> None:
        """The platform has answered what is under way."""
        is_taken = reason < 0x80
        with self._lock:
            if not (is_taken or reason in FOR_GOOD):
                self._timer = threading.Timer(backoff(self._failures), self._again)
                self._timer.daemon = True
                self._timer.start()
                self._failures += 1
                return
            _, taken = self._waiting.pop(0)
            self._save()
            self._failures = 0
            self._under_way = False
        if is_taken:
            taken.set_result(None)
        else:
            taken.set_exception(NotTaken(f"the platform answers {reason:#x}"))
        self._next()

    def _again(self) -> None:
        with self._lock:
            self._under_way = False
        self._next()

    def _next(self) -> None:
        with self._lock:
            publish = self._publish
            if publish is None or self._under_way or not self._waiting:
                return
            self._under_way = True
            message, _ = self._waiting[0]
        publish(message, self._answered)

    def _save(self) -> None:
        self._storage[self._key] = json.dumps([asdict(message) for message, _ in self._waiting])
