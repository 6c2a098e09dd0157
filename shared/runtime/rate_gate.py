"""The rate gate: which of a batch's records may run now, which wait, which are refused.

Asked after a lane gave a batch and before it runs. No I/O, no awaits. A record is counted once: it keeps its place
through later attempts. Limits hold per process, and are forgotten with it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NamedTuple

from omnibase_infra.shared.core.clock import Clock, SystemClock
from omnibase_infra.shared.core.errors import RateLimitedError
from omnibase_infra.shared.core.worker_spec import RateLimitSpec, WorkerSpec
from omnibase_infra.shared.runtime.records import Record

if TYPE_CHECKING:
    from omnibase_infra.shared.core.settings import Settings
    from omnibase_infra.shared.observability.worker_metrics import RateDecision, WorkerMetrics
    from omnibase_infra.shared.resilience.rate_limiter import RateLimiter

# A longer wait is spent on the retry topic, where it takes no room in the worker and survives it.
PARK_AFTER_SECONDS: Final = 5.0
# Sources longer than this are remembered by their hash.
_LONGEST_KEY: Final = 120
_PERIODS: Final = {1: "second", 60: "minute", 3600: "hour", 86_400: "day"}


class Held(NamedTuple):
    """A record that must wait.

    Attributes:
        seconds: how long.
        park: wait on the retry topic and then ask again; otherwise in its lane, at the end of which it may run.
    """

    record: Record
    seconds: float
    park: bool = False


class RateGate:
    """Keeps the rate limits of a contract. Event loop.

    Args:
        spec: whose `rate_limits` are kept.
        metrics: count what was held or refused.
        park_after_seconds: waits beyond it are to be parked; None never parks.
        max_waiting: records that may wait in lanes at once; beyond it they are to be parked whatever their wait.
        tenant: of the realm, to which records that name none belong.
        clock: for tests.
    """

    def __init__(
        self,
        spec: WorkerSpec,
        metrics: WorkerMetrics,
        *,
        park_after_seconds: float | None,
        max_waiting: int,
        tenant: str = "",
        clock: Clock | None = None,
    ) -> None:
        # Imported by those who have limits only: the library takes a tenth of a second to load.
        from omnibase_infra.shared.resilience.rate_limiter import RateLimiter

        self._metrics = metrics
        self._park_after = park_after_seconds
        self._max_waiting = max_waiting
        self._tenant = tenant
        self._clock = clock or SystemClock()
        self._limiters = tuple(RateLimiter(limit, self._clock) for limit in spec.rate_limits)
        self._of: dict[str, tuple[RateLimiter, ...]] = {}
        self._refusals = {limiter: _refusal(limiter.limit) for limiter in self._limiters}
        self._waits: list[float] = []  # a heap of the times at which waits in lanes end

    @classmethod
    def of_worker(cls, spec: WorkerSpec, settings: Settings, metrics: WorkerMetrics) -> RateGate | None:
        """Return the gate of a worker, None when its contract has no limits.

        Records that wait in lanes may fill a quarter of the worker.
        """
        if not spec.rate_limits:
            return None
        waiting = settings.max_in_flight_records // 4
        tenant = settings.realm.tenant or ""
        return cls(spec, metrics, park_after_seconds=PARK_AFTER_SECONDS, max_waiting=waiting, tenant=tenant)

    def split(self, operation: str, records: Sequence[Record]) -> tuple[list[Record], list[Held]]:
        """Return the records of a batch that may go on, in order, and those that must wait.

        A record to be refused goes on with its `refusal` set: whether its command was done before is for the inbox
        to say, and a thousand refusals cost one transaction.
        """
        limiters = self._limiters_of(operation)
        if not limiters:
            return list(records), []
        runnable: list[Record] = []
        held: list[Held] = []
        for record in records:
            if record.admitted:
                runnable.append(record)
                continue
            places = [(limiter, self._key(limiter.limit, operation, record)) for limiter in limiters]
            record.refusal = None
            if _take(places):
                record.admitted = True
            elif (refusing := _first_refusing(places)) is not None:
                record.refusal = self._refusals[refusing]
                self._count(operation, "refuse")
            else:
                held.append(self._hold(operation, record, places))
                continue
            runnable.append(record)
        return runnable, held

    def _limiters_of(self, operation: str) -> tuple[RateLimiter, ...]:
        found = self._of.get(operation)
        if found is None:
            found = tuple(one for one in self._limiters if one.limit.operation in ("", operation))
            self._of[operation] = found
        return found

    def _key(self, limit: RateLimitSpec, operation: str, record: Record) -> str:
        if limit.per == "operation":
            return operation
        envelope = record.envelope
        key = envelope.source if limit.per == "client" else envelope.tenantid or self._tenant
        return key if len(key) <= _LONGEST_KEY else blake2b(key.encode(), digest_size=16).hexdigest()

    def _hold(self, operation: str, record: Record, places: Sequence[tuple[RateLimiter, str]]) -> Held:
        """Give the record a place ahead, or, where it would wait too long, a time to ask again."""
        seconds = max(limiter.seconds_until_free(key) for limiter, key in places)
        if self._must_park(seconds + _seconds_behind(record, places)):
            seconds = max(limiter.queue(key, seconds) for limiter, key in places)
            self._count(operation, "park")
            return Held(record, seconds, park=True)
        for limiter, key in places:
            limiter.reserve(key, seconds)
        if self._park_after is not None:
            heapq.heappush(self._waits, self._clock.monotonic() + seconds)
        record.admitted = True
        self._count(operation, "wait")
        return Held(record, seconds)

    def _must_park(self, seconds: float) -> bool:
        if self._park_after is None:
            return False
        now, waits = self._clock.monotonic(), self._waits
        while waits and waits[0] <= now:
            heapq.heappop(waits)
        return seconds > self._park_after or len(waits) >= self._max_waiting

    def _count(self, operation: str, decision: RateDecision) -> None:
        counters = self._metrics.rate_limited.get(operation)
        if counters is not None:  # the lane of unknown operations has none
            counters[decision].inc()


def _take(places: Sequence[tuple[RateLimiter, str]]) -> bool:
    """Take a place in every limit, or in none."""
    if len(places) == 1:
        limiter, key = places[0]
        return limiter.take(key)
    if any(limiter.seconds_until_free(key) for limiter, key in places):
        return False
    for limiter, key in places:
        limiter.take(key)
    return True


def _seconds_behind(record: Record, places: Iterable[tuple[RateLimiter, str]]) -> float:
    """Return how long the records behind this one of its key will need: they take room in the worker meanwhile."""
    behind = record.work.busy.get(record.key) if record.key is not None else None
    if not behind:
        return 0.0
    return len(behind) * max(limiter.limit.seconds / limiter.limit.count for limiter, _ in places)


def _first_refusing(places: Iterable[tuple[RateLimiter, str]]) -> RateLimiter | None:
    """Return the limit that is reached and refuses, if there is one."""
    for limiter, key in places:
        if limiter.limit.on_limit == "refuse" and limiter.seconds_until_free(key):
            return limiter
    return None


def _refusal(limit: RateLimitSpec) -> RateLimitedError:
    period = _PERIODS.get(limit.seconds, f"{limit.seconds} s")
    return RateLimitedError(
        f"more than {limit.count} per {period} and {limit.per}, the contract refuses the rest",
        hint="send it again later, with a new id",
        details={"limit": f"{limit.count}/{period}", "burst": str(limit.burst), "per": limit.per},
    )
