"""How often a client may ask: a bucket of requests for each, refilled evenly."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

MOST_CLIENTS = 10_000  # that are remembered; the ones seen first are forgotten


@dataclass
class Rates:
    """Buckets of `per_minute` requests.

    Attributes:
      per_minute: requests of a client; None for no limit.
      clock: seconds that only grow.
    """

    per_minute: int | None = None
    clock: Callable[[], float] = time.monotonic
    _buckets: dict[str, tuple[float, float]] = field(default_factory=dict)

    def take(self, client: str) -> float:
        """Takes a request out of a client's bucket; returns 0, or, if it is empty, the
        seconds until there is one.

        Example: with 60 per minute, 60 at once return 0, and the next one 1.0.
        """
        if self.per_minute is None:
            return 0.0
        rate, now = self.per_minute / 60, self.clock()
        left, seen = self._buckets.pop(client, (float(self.per_minute), now))
        left = min(float(self.per_minute), left + (now - seen) * rate)
        wait = 0.0 if left >= 1 else (1 - left) / rate
        self._buckets[client] = (left if wait else left - 1, now)
        if len(self._buckets) > MOST_CLIENTS:
            del self._buckets[next(iter(self._buckets))]
        return wait
