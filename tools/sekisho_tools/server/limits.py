"""Token buckets: how much one sender may ask for."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable


class Buckets:
    """One bucket per sender: *rate* tokens per second come in, at most *size* lie in it. Rate 0 means no limit.

    At most *senders* are remembered, the ones seen last; somebody forgotten starts with a full bucket.
    """

    def __init__(
        self, rate: float, size: float, senders: int = 50_000, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.rate = rate
        self.size = max(size, 1.0)
        self.senders = senders
        self.clock = clock
        self._level: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, sender: str) -> float:
        """Take one token; returns 0.0, or the seconds after which the next one comes."""
        if not self.rate:
            return 0.0
        now = self.clock()
        level, since = self._level.pop(sender, (self.size, now))
        level = min(self.size, level + (now - since) * self.rate)
        wait = 0.0 if level >= 1.0 else (1.0 - level) / self.rate
        self._level[sender] = (level if wait else level - 1.0, now)
        if len(self._level) > self.senders:
            self._level.popitem(last=False)
        return wait

    def wait(self, sender: str) -> float:
        """Seconds until there is a token, without taking it."""
        if not self.rate or sender not in self._level:
            return 0.0
        level, since = self._level[sender]
        level = min(self.size, level + (self.clock() - since) * self.rate)
        return 0.0 if level >= 1.0 else (1.0 - level) / self.rate
