"""A terminal that stays connected: it finds an access point, receives each message once and in order, sends up what it is
given, and comes back when the link breaks."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import MutableMapping
from typing import Any, Callable, Optional, Union

from paho.mqtt.client import MQTTMessage

from .binding import Binding, Wish
from .endpoints import Endpoints, Refused, Source
from .inlet import Ears, Inlet, Message
from .link import End, Hear, Link, Login
from .outbox import Outbox
from .pause import Comeback
from .session import Session

GOOD_S = 30.0
"""A link that lasted this long was a good one: what follows is not a failure in a row."""

KEEP_ALIVE_OF_PLATFORM_S = 65_535
"""The most that MQTT can say: the platform then tells the keep alive that suits it."""

NOT_AUTHORISED = 0x87
REFUSALS = {0x84, 0x85, 0x86, NOT_AUTHORISED, 0x8A, 0x8C, 0x98}
"""Answers about who the terminal is: version, client id, password, not authorised, banned, method, kicked."""

TAKEN_OVER = 0x8E
"""The same device is connected elsewhere."""

Order = dict[str, Any]


def _silent(*_: Any) -> None:
    """Who does not listen."""


class Terminal(Session):
    """A device of an app, and the link that it holds.

    :param token: a device token, or how to get one before each connection.
    :param endpoints: the platform's HTTP address, or addresses of access points: ``mqtt://``, ``mqtts://``, ``ws://`` or
        ``wss://``.
    :param on_message: gets each message once and in order, in a thread of the terminal. The platform counts it as received
        when this returns; what it raises is logged.
    :param on_order: what the platform tells besides: ``op`` is ``resync``, ``recall``, …
    :param on_state: ``connecting``, ``online``, ``waiting`` or ``stopped``, with a word on it.
    :param mode: with ``notify`` messages wait until they are fetched.
    :param on_notice: with ``notify``, that there is something up to this number; by default it is fetched at once.
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
        on_order: Callable[[Order], object] = _silent,
        on_state: Callable[[str, str], object] = _silent,
        mode: str = "push",
        on_notice: Optional[Callable[[str], object]] = None,
        storage: Optional[MutableMapping[str, str]] = None,
        keep_alive_s: int = KEEP_ALIVE_OF_PLATFORM_S,
        tls: Optional[ssl.SSLContext] = None,
    ) -> None:
        self._storage = {} if storage is None else storage
        self._device, self._token = device, token
        self._mode, self._keep_alive_s, self._tls = mode, keep_alive_s, tls
        self._on_order, self._on_state = on_order, on_state
        self._endpoints = Endpoints(endpoints)
        ears = Ears(on_message, self._order, on_notice)
        inlet = Inlet(app, device, self._storage, ears)
        super().__init__(app, inlet, Outbox(self._storage, f"fanfare/{app}/{device}/outbox"))
        self._stopping = threading.Event()
        self._link: Optional[Link] = None
        # Other apps on the link, by name, and how to publish on it while it is open.
        self._lock = threading.Lock()
        self._bindings: dict[str, Binding] = {}
        self._open: Optional[Link] = None
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
        for app in list(self._bindings):
            self.unbind(app)

    def bind(
        self,
        *,
        app: str,
        token: Union[str, Callable[[], str]],
        on_message: Callable[[Message], object],
        on_order: Callable[[Order], object] = _silent,
        on_state: Callable[[str, str], object] = _silent,
        on_notice: Optional[Callable[[str], object]] = None,
    ) -> Session:
        """Puts another app on the same link: one keep alive, one way through the network, whatever the number of apps.

        It has its own token, position and outbox; what is known of it lives in the terminal's storage.
        """
        self.unbind(app)
        wish = Wish(app, self._app, self._device, token, on_state)
        binding = Binding(wish, self._storage, Ears(on_message, on_order, on_notice))
        with self._lock:
            self._bindings[app] = binding
            link = self._open
        if link:
            binding.open(link.publish)
        return binding.session

    def unbind(self, app: str) -> None:
        """Takes an app off the link."""
        with self._lock:
            binding = self._bindings.pop(app, None)
        if binding:
            binding.leave()

    def _stay(self) -> None:
        comeback = Comeback(self._token)
        while not self._stopping.is_set():
            since = time.monotonic()
            end = self._once()
            if self._stopping.is_set():
                break
            if end.opened and time.monotonic() - since > GOOD_S:
                comeback.succeeded()
            pause_s = comeback.after(is_refusal=end.reason in REFUSALS, is_taken_over=end.reason == TAKEN_OVER)
            if pause_s is None:
                self._on_state("stopped", end.cause)
                return
            if end.elsewhere:
                self._endpoints.moved(end.elsewhere)
            elif not end.opened or end.reason is not None:
                self._endpoints.failed()
            self._on_state("waiting", end.cause)
            self._stopping.wait(pause_s)
        self._on_state("stopped", "as asked")

    def _once(self) -> End:
        """One connection, or the attempt at one."""
        try:
            token = self._token() if callable(self._token) else self._token
            url = self._endpoints.next(token)
            self._on_state("connecting", url)
            position = self._inlet.position
            login = Login(self._app, self._device, token, position, self._mode, self._keep_alive_s, self._tls)
            link = Link(url, login, Hear(lambda: self._opened(link, url), self._take))
            self._link = link
            return End() if self._stopping.is_set() else link.run()
        except Refused as refused:
            return End(reason=NOT_AUTHORISED, cause=str(refused))
        except Exception as error:  # noqa: BLE001: whatever it was, the terminal stays and tries again
            return End(cause=str(error) or repr(error))
        finally:
            self._closed()

    def _opened(self, link: Link, url: str) -> None:
        self._inlet.open(link.publish)
        self._outbox.open(link.publish)
        self._on_state("online", url)
        with self._lock:
            self._open, bindings = link, list(self._bindings.values())
        for binding in bindings:
            binding.open(link.publish)

    def _closed(self) -> None:
        self._link = None
        self._inlet.close()
        self._outbox.close()
        with self._lock:
            bindings = list(self._bindings.values()) if self._open else []
            self._open = None
        for binding in bindings:
            binding.close()

    def _take(self, packet: MQTTMessage) -> None:
        _, app, *levels = packet.topic.split("/")
        to = self._inlet if app == self._app else self._bindings.get(app)
        if to:
            to.take(levels, packet)

    def _order(self, order: Order) -> None:
        if order["op"] not in ("bind", "unbind"):
            self._on_order(order)
            return
        binding = self._bindings.get(order["app"])
        if binding:
            binding.told(order)
