"""Where to connect: addresses that the platform names, the least loaded first, or those the application gives.

One that works is kept; one that does not makes room for the next.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from typing import Union
from urllib.error import HTTPError
from urllib.parse import urljoin
from urllib.request import Request, urlopen

ANSWER_MAX_S = 10

Source = Union[str, Sequence[str]]
"""The platform's HTTP address, or addresses of access points."""


class Refused(Exception):
    """The token is not, or no longer, good: asking again with the same one is of no use."""


class Endpoints:
    """The addresses of access points, in the order in which to try them."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._urls: list[str] = []
        self._at = 0
        self._ask_again_at = 0.0

    def next(self, token: str) -> str:
        """The address to connect to now."""
        if self._at >= len(self._urls) or time.monotonic() >= self._ask_again_at:
            self._look(token)
        return self._urls[self._at]

    def failed(self) -> None:
        """The address does not work: the next one is for the next time."""
        self._at += 1

    def moved(self, addresses: list[str]) -> None:
        """The access point asks to go elsewhere: there first, but not from a secure address to an open one."""
        must_be_secure = _is_secure(self._urls[self._at])
        first = [url for url in map(_of_address, addresses) if _is_secure(url) or not must_be_secure]
        if not first:
            return self.failed()
        self._urls = first + [url for url in self._urls if url not in first]
        self._at = 0

    def _look(self, token: str) -> None:
        kept = self._urls[self._at] if self._at < len(self._urls) else None
        try:
            if isinstance(self._source, str):
                self._urls = self._ask(self._source, token)
            else:
                self._urls, self._ask_again_at = list(self._source), math.inf
        except OSError:
            # Addresses that worked once may do so again.
            if not self._urls:
                raise
        self._at = self._urls.index(kept) if kept in self._urls else 0

    def _ask(self, platform: str, token: str) -> list[str]:
        request = Request(urljoin(platform, "/v1/endpoints"), headers={"Authorization": f"Bearer {token}"})
        try:
            with urlopen(request, timeout=ANSWER_MAX_S) as answer:
                found = json.load(answer)
        except HTTPError as error:
            if error.code in (401, 403):
                raise Refused("the platform refuses the token") from error
            raise
        self._ask_again_at = time.monotonic() + found["ttl_s"]
        return [url for at in found["endpoints"] for url in at.get("urls", [_of_address(at["address"])])]


def _of_address(address: str) -> str:
    return address if "://" in address else f"mqtt://{address}"


def _is_secure(url: str) -> bool:
    return url.startswith(("mqtts:", "wss:"))
