"""Limits for what a program itself calls: so many calls to a service, by waiting for a place or refusing.

Contracts limit what comes in (`runtime.rate_gate`); this limits what goes out. Places are counted in the process, or,
where a store is named, for all processes that name the same one.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from omnibase_infra.shared.core.clock import Clock, SystemClock
from omnibase_infra.shared.core.errors import ConfigurationError, RateLimitedError
from omnibase_infra.shared.core.worker_spec import RateLimitSpec
from omnibase_infra.shared.observability.worker_metrics import ThrottleMetrics
from omnibase_infra.shared.resilience.rate_limiter import RateLimiter

if TYPE_CHECKING:
    from omnibase_infra.shared.resilience.shared_window import SharedWindow

LONGEST_WAIT_SECONDS: Final = 30.0


class Throttle:
    """One limit of calls out, for all its keys: clients, operations, tenants. Event loop.

    Args:
        service: what is called, for messages and metrics.
        limit: count, period and burst of each key; `on_limit` says whether calls beyond it wait or are refused.
        longest_wait: seconds; who would wait longer is refused.
        store: where processes count together, a URI of `limits` such as `redis://host:6379` or
            `memcached://host:11211`; None counts in this process. A store knows no burst beyond the limit's count.
        metrics: count waits and refusals.
        clock: for tests.

    Raises:
        ConfigurationError: the store's client is not installed, its URI is wrong, or the burst is not the count.
    """

    def __init__(
        self,
        service: str,
        limit: RateLimitSpec,
        *,
        longest_wait: float = LONGEST_WAIT_SECONDS,
        store: str | None = None,
        metrics: ThrottleMetrics | None = None,
        clock: Clock | None = None,
    ) -> None:
        self.service: Final = service
        self.limit: Final = limit
        self._longest_wait = 0.0 if limit.on_limit == "refuse" else longest_wait
        self._metrics = metrics
        self._clock = clock or SystemClock()
        self._limiter = RateLimiter(limit, self._clock)
        self._window = self._shared(store) if store is not None else None

    def _shared(self, store: str) -> SharedWindow:
        from omnibase_infra.shared.resilience.shared_window import SharedWindow

        if self.limit.burst != self.limit.count:
            raise ConfigurationError(
                f"the limit of {self.service}: a shared store counts windows, whose burst is the count "
                f"({self.limit.count}), not {self.limit.burst}",
                hint="leave the burst out, or count in each process",
            )
        return SharedWindow(store, self.limit)

    async def acquire(self, key: str = "") -> float:
        """Return when a call may be made; the seconds that were waited. Who is cancelled while waiting has used its place.

        Args:
            key: what is counted apart.

        Raises:
            RateLimitedError: beyond the limit, and it refuses or the wait is too long; says how long it would be.
            DependencyUnavailableError: the shared store does not answer.
        """
        waited = await (self._place(key) if self._window is None else self._shared_place(self._window, key))
        if waited and self._metrics is not None:
            self._metrics.waited.inc()
        return waited

    async def _place(self, key: str) -> float:
        wait = self._limiter.seconds_until_free(key)
        if not wait and self._limiter.take(key):
            return 0.0
        if wait > self._longest_wait:
            raise self._refusal(wait)
        self._limiter.reserve(key, wait)
        await asyncio.sleep(wait)
        return wait

    async def _shared_place(self, window: SharedWindow, key: str) -> float:
        """Ask again when the store expects a place: whoever comes first gets it, there is no order."""
        started, waited = self._clock.monotonic(), 0.0
        while not await window.take(key):
            wait = await window.seconds_until_free(key)
            if self._clock.monotonic() - started + wait > self._longest_wait:
                raise self._refusal(wait)
            await asyncio.sleep(wait)
            waited = self._clock.monotonic() - started
        return waited

    def _refusal(self, wait: float) -> RateLimitedError:
        if self._metrics is not None:
            self._metrics.refused.inc()
        limit = self.limit
        return RateLimitedError(
            f"more than {limit.count} calls to {self.service} in {limit.seconds} s",
            hint=f"there is room in {wait:.1f} s",
            details={"limit": f"{limit.count}/{limit.seconds}s", "burst": str(limit.burst), "retry_in": f"{wait:.3f}"},
            dependency=self.service,
        )
