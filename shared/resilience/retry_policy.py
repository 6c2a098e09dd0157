"""How long to wait before trying again, by backoff's schedules, and a bounded loop for connections at start-up."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from itertools import islice
from types import MappingProxyType
from typing import Final, Literal, Self, TypeVar

import backoff
import msgspec

from omnibase_infra.shared.core.errors import ConfigurationError, DependencyUnavailableError, OmnibaseError
from omnibase_infra.shared.core.worker_spec import RetrySpec
from omnibase_infra.shared.observability.log_events import LogEvent
from omnibase_infra.shared.observability.structured_logger import get_logger
from omnibase_infra.shared.resilience.service_kinds import ServiceKind

T = TypeVar("T")
Jitter = Literal["full", "equal", "none"]
Spread = Callable[[float], float]

IN_LANE_BASE_SECONDS: Final = 0.05
IN_LANE_CAP_SECONDS: Final = 1.0


class RetryPolicy(msgspec.Struct, frozen=True):
    """A schedule of waits: `base`, twice that, four times, ... up to `cap`, each with jitter.

    Attributes:
        attempts: how often the work is tried in all; 1 is no retry.
        base: seconds before the second attempt.
        cap: longest wait in seconds.
        jitter: `full` waits between 0 and the schedule's value, `equal` between half of it and all, `none` exactly it.
    """

    attempts: int
    base: float
    cap: float
    jitter: Jitter = "full"

    def __post_init__(self) -> None:
        if self.attempts < 1 or not 0 < self.base <= self.cap:
            raise ConfigurationError("a retry policy needs attempts of at least 1 and 0 < base <= cap (seconds)")

    @classmethod
    def from_spec(cls, spec: RetrySpec) -> Self:
        """Return the policy of a contract's in-lane attempts."""
        return cls(max(1, spec.in_lane), IN_LANE_BASE_SECONDS, IN_LANE_CAP_SECONDS, spec.jitter)

    def allows(self, attempt: int) -> bool:
        """Return whether another attempt follows the failed attempt number `attempt` (from 1)."""
        return attempt < self.attempts

    def delay(self, attempt: int, spread: Spread = backoff.full_jitter) -> float:
        """Return the seconds to wait after the failed attempt number `attempt` (from 1).

        Args:
            attempt: larger numbers than the schedule has wait its longest time.
            spread: returns a random number from 0 to its argument; a test passes its own.
        """
        ceilings = _ceilings(self.base, self.cap)
        return self._jittered(ceilings[min(attempt, len(ceilings)) - 1], spread)

    def _jittered(self, ceiling: float, spread: Spread) -> float:
        if self.jitter == "none":
            return ceiling
        if self.jitter == "equal":
            return ceiling / 2 + spread(ceiling / 2)
        return spread(ceiling)


RETRY_PRESETS: Final[Mapping[ServiceKind, RetryPolicy]] = MappingProxyType(
    {
        "database": RetryPolicy(attempts=5, base=0.1, cap=5.0),
        "kafka": RetryPolicy(attempts=8, base=0.2, cap=10.0),
        "external_service": RetryPolicy(attempts=5, base=0.5, cap=30.0),
        "vault": RetryPolicy(attempts=5, base=0.5, cap=15.0),
        "consul": RetryPolicy(attempts=5, base=0.2, cap=10.0),
    }
)


async def retrying(
    call: Callable[[], Awaitable[T]],
    policy: RetryPolicy,
    *,
    dependency: str,
    total_seconds: float,
    spread: Spread = backoff.full_jitter,
) -> T:
    """Await `call` until it succeeds, for connections at start-up. Safe to cancel.

    Args:
        call: one attempt; repeated after errors of our tree that are retryable, others end it at once.
        policy: how often and with which waits.
        dependency: what is being reached, for the log and the error.
        total_seconds: bounds everything, an attempt that hangs included.
        spread: as in `RetryPolicy.delay`.

    Raises:
        DependencyUnavailableError: the time is over; its cause is the last attempt's error.
        OmnibaseError: the last attempt's own error, when the attempts are used up or it is not retryable.
    """
    last: list[BaseException] = []

    async def attempt() -> T:
        return await call()

    def remember(details: Mapping[str, object]) -> None:
        error = details["exception"]
        assert isinstance(error, BaseException)
        last[:] = [error]
        get_logger().warning(
            LogEvent.CONNECTION_RETRY,
            dependency=dependency,
            attempt=details["tries"],
            wait_seconds=details["wait"],
            error=error,
        )

    retried = backoff.on_exception(
        backoff.expo,
        OmnibaseError,
        max_tries=policy.attempts,
        giveup=lambda error: not getattr(error, "retryable", False),
        jitter=lambda ceiling: policy._jittered(ceiling, spread),
        on_backoff=remember,
        logger=None,
        factor=policy.base,
        max_value=policy.cap,
    )(attempt)
    try:
        # Not backoff's own max_time: it follows the wall clock and cannot end an attempt that hangs.
        async with asyncio.timeout(total_seconds) as limit:
            return await retried()
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise DependencyUnavailableError(
            f"{dependency} could not be reached within {total_seconds:g} s", dependency=dependency
        ) from (last[0] if last else error)


@lru_cache(maxsize=256)
def _ceilings(base: float, cap: float) -> tuple[float, ...]:
    """Return the schedule without jitter, up to and with the first `cap`."""
    waits = backoff.expo(factor=base, max_value=cap)
    waits.send(None)  # backoff's generators yield once before the first wait
    ceilings: list[float] = []
    for wait in islice(waits, 4096):
        ceilings.append(wait)
        if wait >= cap:
            break
    return tuple(ceilings)
