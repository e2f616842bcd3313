"""Waiting before the next try, so that a crowd that was cut off together does not come back together."""

import random
from typing import Optional

FIRST_S = 2.0
LONGEST_S = 60.0
DOUBLED_MAX = 5
"""2 s · 2^5 is past the longest: counting further changes nothing."""

TAKEN_OVER_FAILURES = 4
"""Failures that it counts for when the same device is connected elsewhere: two must not throw each other out all the time."""


def backoff(failures: int) -> float:
    """How many seconds to wait after so many failures in a row, from 0: anywhere up to a bound that doubles."""
    return random.uniform(0, min(LONGEST_S, FIRST_S * 2 ** min(failures, DOUBLED_MAX)))


class Comeback:
    """Whether and when to try again, for a terminal or an app on its link.

    :param token: a new one gets one chance, if it says how to get one.
    """

    def __init__(self, token: object) -> None:
        self._chances = 1 if callable(token) else 0
        self._failures = self._refusals = 0

    def succeeded(self) -> None:
        """What came before was good: what follows is not a failure in a row."""
        self._failures = 0

    def accepted(self) -> None:
        """Nothing is wrong with who it is."""
        self._refusals = 0

    def after(self, *, is_refusal: bool, is_taken_over: bool) -> Optional[float]:
        """Seconds until the next try; nothing when that would change nothing."""
        self._refusals = self._refusals + 1 if is_refusal else 0
        if self._refusals > self._chances:
            return None
        if is_taken_over:
            self._failures = max(self._failures, TAKEN_OVER_FAILURES)
        pause = backoff(self._failures)
        self._failures += 1
        return pause
