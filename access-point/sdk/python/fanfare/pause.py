"""Waiting before the next try, so that a crowd that was cut off together does not come back together."""

import random

FIRST_S = 2.0
LONGEST_S = 60.0
DOUBLED_MAX = 5
"""2 s · 2^5 is past the longest: counting further changes nothing."""


def backoff(failures: int) -> float:
    """How many seconds to wait after so many failures in a row, from 0: anywhere up to a bound that doubles."""
    return random.uniform(0, min(LONGEST_S, FIRST_S * 2 ** min(failures, DOUBLED_MAX)))
