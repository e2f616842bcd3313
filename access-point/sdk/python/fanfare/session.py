"""What an application does as a device of one app, whichever link that goes over."""

from __future__ import annotations

import json
from concurrent.futures import Future
from typing import Any, Optional

from .inlet import Inlet
from .outbox import Outbox, Upward


class Session:
    """A device of one app. Any thread may call."""

    def __init__(self, app: str, inlet: Inlet, outbox: Outbox) -> None:
        self._app, self._inlet, self._outbox = app, inlet, outbox

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

    def fetch(self) -> Future[None]:
        """With ``mode="notify"``, has ``on_message`` called for what waits on the platform.

        The future ends when it has all of it, or with ``ConnectionError``.
        """
        return self._inlet.fetch()

    def _up(self, topic: str, payload: Any) -> Future[None]:
        topic = f"push/{self._app}/{topic}"
        if isinstance(payload, str):
            return self._outbox.put(Upward(topic, "text/plain", payload))
        return self._outbox.put(Upward(topic, "application/json", json.dumps(payload)))
