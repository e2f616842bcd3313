"""What a terminal has received: the greatest number of each stream and the last message ids.

A message is new when its number is greater and its id unknown; the id is for what the platform lost and sends again under a
greater number.
"""

from __future__ import annotations

import json
import re
from collections.abc import MutableMapping

IDS_MAX = 1_000
"""Ids that are kept: more than can be under way twice."""

_SEQ = re.compile(r"([it])(0|[1-9]\d{0,15})")
"""``i<number>`` stands in the inbox, ``t<number>`` in the timeline."""


class Seen:
    """What a terminal has received. It outlives the process if its storage does."""

    def __init__(self, storage: MutableMapping[str, str], key: str) -> None:
        self._storage = storage
        self._key = key
        self._greatest = {"i": 0, "t": 0}
        self._ids: dict[str, None] = {}
        try:
            kept = json.loads(storage.get(key, "{}"))
            self._greatest.update(kept.get("greatest", {}))
            self._ids = dict.fromkeys(kept.get("ids", []))
        except ValueError:
            pass  # What cannot be read is as good as nothing: the platform keeps a cursor of its own.

    @property
    def position(self) -> str:
        """The last number received in each stream, as the platform reads it."""
        return f"i{self._greatest['i']}.t{self._greatest['t']}"

    def is_new(self, id: str, seq: str) -> bool:
        """Whether a message was not received before."""
        stream, number = _parse(seq)
        return number > self._greatest[stream] and id not in self._ids

    def note(self, id: str, seq: str) -> None:
        """Notes a message as received, for good once this returns."""
        stream, number = _parse(seq)
        self._greatest[stream] = max(self._greatest[stream], number)
        self._ids.pop(id, None)
        self._ids[id] = None
        if len(self._ids) > IDS_MAX:
            del self._ids[next(iter(self._ids))]
        self._storage[self._key] = json.dumps({"greatest": self._greatest, "ids": list(self._ids)})


def _parse(seq: str) -> tuple[str, int]:
    match = _SEQ.fullmatch(seq)
    if match is None:
        raise ValueError(f"not a number of a stream: {seq!r}")
    return match[1], int(match[2])
