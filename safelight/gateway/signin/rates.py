"""How often somebody may ask: a bucket of tokens each, in this process."""

import math
import time
from collections import OrderedDict
from threading import Lock

from safelight.gateway.problems import SlowDownError

MOST_KNOWN = 10_000
"""Buckets that are kept; those used longest ago are dropped, and begin anew full."""


class Rates:
    """Buckets that hold as many requests as a minute has, and fill evenly."""

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = Lock()

    def wait(self, who: str, per_minute: int) -> float:
        """Take one; seconds until there is one, 0 where there was."""
        now = time.monotonic()
        with self._lock:
            left, then = self._buckets.pop(who, (float(per_minute), now))
            left = min(float(per_minute), left + (now - then) * per_minute / 60)
            taken = left >= 1
            self._buckets[who] = (left - 1 if taken else left, now)
            while len(self._buckets) > MOST_KNOWN:
                self._buckets.popitem(last=False)
        return 0.0 if taken else (1 - left) * 60 / per_minute

    def require(self, who: str, per_minute: int) -> None:
        """Take one.

        Raises:
            SlowDownError: there is none.
        """
        seconds = self.wait(who, per_minute)
        if seconds:
            raise SlowDownError(
                f"{who} has sent more than {per_minute} requests in a minute",
                f"wait {math.ceil(seconds)} s, or ask for a key with another limit",
                seconds,
            )
