"""Rate limits with a burst: a token bucket per key, as a strategy of the library `limits`.

The library's own strategies know windows and no burst. In memory they also keep an entry for every record of the
window, read the wall clock, which may jump, and start threads; a bucket is one number and reads the monotonic clock.
"""

from __future__ import annotations

from collections import OrderedDict
from math import floor
from typing import Final

from limits import RateLimitItem, RateLimitItemPerSecond
from limits.strategies import RateLimiter as Strategy
from limits.util import WindowStats

from omnibase_infra.shared.core.clock import Clock, SystemClock
from omnibase_infra.shared.core.worker_spec import RateLimitSpec

MAX_KEYS: Final = 50_000
# Sums of intervals are not exact: what is due within this time is due.
_TOLERANCE_SECONDS: Final = 1e-6
# Per new key so many old ones are looked at, so that keys that are over leave faster than new ones come.
_LOOKS_PER_NEW_KEY: Final = 2
_LOOKS_WHEN_FULL: Final = 8


class TokenBucket(Strategy):
    """Strategy of `limits`: in any `T` seconds at most `T * rate + burst` pass; after a pause `burst` at once.

    A key costs one number, the time at which its bucket is full again; a full bucket is not kept. Not for several
    threads.

    Args:
        burst: tokens a bucket holds.
        clock: whose monotonic time counts.
        max_keys: buckets kept; beyond it those nearest to full are forgotten, which favours their clients.
    """

    def __init__(self, burst: int, clock: Clock, max_keys: int = MAX_KEYS) -> None:
        # The base class wants a storage of counters or windows, which buckets have no use for.
        self._burst = burst
        self._clock = clock
        self._max_keys = max_keys
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def hit(self, item: RateLimitItem, *identifiers: str, cost: int = 1) -> bool:
        """Take `cost` tokens and return true, or return false and take none."""
        key, interval, now = item.key_for(*identifiers), _interval(item), self._clock.monotonic()
        full_at = max(self._full_at.get(key, now), now)
        if full_at + (cost - self._burst) * interval > now + _TOLERANCE_SECONDS:
            return False
        self._put(key, full_at + cost * interval, now)
        return True

    def test(self, item: RateLimitItem, *identifiers: str, cost: int = 1) -> bool:
        """Return whether `hit` would take `cost` tokens."""
        return self.seconds_until_free(item, *identifiers, cost=cost) == 0.0

    def seconds_until_free(self, item: RateLimitItem, *identifiers: str, cost: int = 1) -> float:
        """Return how long until `cost` tokens are there; 0 when they are."""
        interval, now = _interval(item), self._clock.monotonic()
        full_at = max(self._full_at.get(item.key_for(*identifiers), now), now)
        wait = full_at + (cost - self._burst) * interval - now
        return wait if wait > _TOLERANCE_SECONDS else 0.0

    def reserve(self, item: RateLimitItem, *identifiers: str, ahead: float) -> None:
        """Take the token that is free `ahead` seconds from now (`seconds_until_free`, or later)."""
        key, now = item.key_for(*identifiers), self._clock.monotonic()
        self._put(key, max(self._full_at.get(key, now), now + ahead) + _interval(item), now)

    def get_window_stats(self, item: RateLimitItem, *identifiers: str) -> WindowStats:
        """Return when the next token is there, in monotonic time, and how many there are."""
        now = self._clock.monotonic()
        full_at = max(self._full_at.get(item.key_for(*identifiers), now), now)
        tokens = floor(self._burst - (full_at - now - _TOLERANCE_SECONDS) / _interval(item))
        return WindowStats(now + self.seconds_until_free(item, *identifiers), max(0, min(self._burst, tokens)))

    def clear(self, item: RateLimitItem, *identifiers: str) -> None:
        """Fill a bucket."""
        self._full_at.pop(item.key_for(*identifiers), None)

    def _put(self, key: str, full_at: float, now: float) -> None:
        if key not in self._full_at:
            self._forget_full(now)
            if len(self._full_at) >= self._max_keys:
                self._forget_nearest_to_full()
        self._full_at[key] = full_at

    def _forget_full(self, now: float) -> None:
        """Look at the next few buckets in turn and forget the full ones."""
        buckets = self._full_at
        for _ in range(min(_LOOKS_PER_NEW_KEY, len(buckets))):
            key = next(iter(buckets))
            if buckets[key] <= now:
                del buckets[key]
            else:
                buckets.move_to_end(key)

    def _forget_nearest_to_full(self) -> None:
        looked_at = [self._full_at.popitem(last=False) for _ in range(min(_LOOKS_WHEN_FULL, len(self._full_at)))]
        looked_at.remove(min(looked_at, key=lambda bucket: bucket[1]))
        self._full_at.update(looked_at)


class RateLimiter:
    """One rate limit of a contract, for all its keys: clients, tenants or operations. Event loop.

    Args:
        limit: from the worker's spec.
        clock: for tests; default: the machine's.
        max_keys: keys that are remembered, see `TokenBucket`.
    """

    def __init__(self, limit: RateLimitSpec, clock: Clock | None = None, max_keys: int = MAX_KEYS) -> None:
        self.limit: Final = limit
        self._item = RateLimitItemPerSecond(limit.count, limit.seconds, namespace=limit.per)
        clock = clock or SystemClock()
        self._buckets = TokenBucket(limit.burst, clock, max_keys)
        self._queue = TokenBucket(1, clock, max_keys)

    def take(self, key: str) -> bool:
        """Take a place for now and return true, or return false when there is none."""
        return self._buckets.hit(self._item, key)

    def seconds_until_free(self, key: str) -> float:
        """Return how long until there is a place; 0 is now. Nothing is taken."""
        return self._buckets.seconds_until_free(self._item, key)

    def reserve(self, key: str, ahead: float) -> None:
        """Take the place that is free `ahead` seconds from now, so that whoever comes later waits longer."""
        self._buckets.reserve(self._item, key, ahead=ahead)

    def queue(self, key: str, ahead: float) -> float:
        """Return when to ask again for one that gives its place up: `ahead` or later, one after another.

        No place is taken. Those sent away come back at the limit's rate instead of all at once.
        """
        ahead = max(ahead, self._queue.seconds_until_free(self._item, key))
        self._queue.reserve(self._item, key, ahead=ahead)
        return ahead


def _interval(item: RateLimitItem) -> float:
    return item.get_expiry() / item.amount
