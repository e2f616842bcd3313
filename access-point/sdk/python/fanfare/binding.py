"""Another app on a terminal's link: asked for whenever there is a link, and again when the platform ends it."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any, Callable, Optional, Union

from paho.mqtt.client import MQTTMessage

from .inlet import Ears, Inlet, Publish
from .outbox import Outbox, Upward
from .pause import Comeback
from .session import Session

REFUSALS = {"token", "unknown_app", "revoked", "rejected", "too_many", "receive_maximum"}
"""Why an app is not on the link that asking again does not change, unless with another token."""

TAKEN_OVER = "taken_over"
"""The same device is connected elsewhere."""

BAD_PAYLOAD = 0x99

_log = logging.getLogger("fanfare")


@dataclass(frozen=True)
class Wish:
    """Which app is to be on which link, as whom, and who hears of it."""

    app: str
    host: str
    """The link's own app."""
    device: str
    token: Union[str, Callable[[], str]]
    state: Callable[[str, str], object]


class Binding:
    """An app that shares a link. The terminal calls it from the thread of the link, and from the application's."""

    def __init__(self, wish: Wish, storage: MutableMapping[str, str], ears: Ears) -> None:
        self._wish = wish
        self._inlet = Inlet(wish.app, wish.device, storage, ears)
        self._outbox = Outbox(storage, f"fanfare/{wish.app}/{wish.device}/outbox")
        self._lock = threading.Lock()
        self._publish: Optional[Publish] = None
        self._timer: Optional[threading.Timer] = None
        self._comeback = Comeback(wish.token)
        self.session = Session(wish.app, self._inlet, self._outbox)

    def open(self, publish: Publish) -> None:
        """There is a link."""
        self._publish = publish
        self._comeback.succeeded()
        self._ask_after(0, publish)

    def close(self) -> None:
        """The link is gone."""
        self._end()
        self._wish.state("waiting", "the link is gone")

    def leave(self) -> None:
        """The app leaves the link, if there is one."""
        publish = self._publish
        if publish:
            publish(self._request({"app": self._wish.app}), lambda reason: None)
        self._end()
        self._wish.state("stopped", "as asked")

    def take(self, levels: list[str], packet: MQTTMessage) -> None:
        """Takes what was published to a topic of the app."""
        self._inlet.take(levels, packet)

    def told(self, order: dict[str, Any]) -> None:
        """What the platform says of the app on the link: ``bind``, or ``unbind`` with a reason."""
        publish = self._publish
        if publish is None:
            return
        if order["op"] == "bind":
            self._comeback.accepted()
            self._inlet.open(publish)
            self._outbox.open(publish)
            self._wish.state("online", self._wish.host)
        else:
            self._shut()
            self._again(order["reason"], publish)

    def _end(self) -> None:
        with self._lock:
            self._publish = None
            if self._timer:
                self._timer.cancel()
        self._shut()

    def _shut(self) -> None:
        self._inlet.close()
        self._outbox.close()

    def _ask_after(self, pause_s: float, publish: Publish) -> None:
        """In a thread of its own: to get a token may take its time."""
        with self._lock:
            if self._publish is not publish:
                return
            self._timer = threading.Timer(pause_s, self._ask, (publish,))
            self._timer.daemon = True
            self._timer.start()

    def _ask(self, publish: Publish) -> None:
        token = self._wish.token
        self._wish.state("connecting", self._wish.host)
        try:
            token = token() if callable(token) else token
        except Exception:  # noqa: BLE001: applications raise what they like
            _log.exception("there is no token for %s", self._wish.app)
            return self._again("no token", publish)
        if self._publish is publish:
            publish(
                self._request({"app": self._wish.app, "token": token, "after": self._inlet.position}), self._answered
            )

    def _answered(self, reason: int) -> None:
        # Whatever else comes of it is told.
        if reason == BAD_PAYLOAD:
            self._wish.state("stopped", f"no app is called {self._wish.app}")

    def _again(self, reason: str, publish: Publish) -> None:
        pause_s = self._comeback.after(is_refusal=reason in REFUSALS, is_taken_over=reason == TAKEN_OVER)
        if pause_s is None:
            self._wish.state("stopped", reason)
            return
        self._wish.state("waiting", reason)
        self._ask_after(pause_s, publish)

    def _request(self, bind: dict[str, str]) -> Upward:
        return Upward(f"push/{self._wish.host}/bind", "application/json", json.dumps(bind))
