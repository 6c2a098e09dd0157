"""Which failures are tried again, how often, after which waits: policies by service, and the loops that keep them.

The schedules and the loops are backoff's; conditions, total time and the budget of the process are decided here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import lru_cache
from itertools import islice
from types import MappingProxyType
from typing import Any, Final, Literal, Self, TypeVar

import backoff
import msgspec

from omnibase_infra.shared.core.clock import Clock, SystemClock
from omnibase_infra.shared.core.errors import (
    BreakerOpenError,
    ConfigurationError,
    DependencyUnavailableError,
    OmnibaseError,
    RateLimitedError,
)
from omnibase_infra.shared.core.worker_spec import RetrySpec
from omnibase_infra.shared.observability.log_events import LogEvent
from omnibase_infra.shared.observability.structured_logger import get_logger
from omnibase_infra.shared.observability.worker_metrics import GivenUp, RetryMetrics
from omnibase_infra.shared.resilience.deadline import Deadline
from omnibase_infra.shared.resilience.retry_budget import RetryBudget
from omnibase_infra.shared.resilience.service_kinds import ServiceKind

T = TypeVar("T")
Jitter = Literal["full", "equal", "none"]
Spread = Callable[[float], float]
ErrorClasses = tuple[type[BaseException], ...]

IN_LANE_BASE_SECONDS: Final = 0.05
IN_LANE_CAP_SECONDS: Final = 1.0


class RetryPolicy(msgspec.Struct, frozen=True):
    """A schedule of waits: `base`, twice that, four times, ... up to `cap`, each with jitter; and what it is for.

    Attributes:
        attempts: how often the work is tried in all; 1 is no retry.
        base: seconds before the second attempt.
        cap: longest wait in seconds.
        jitter: `full` waits between 0 and the schedule's value, `equal` between half of it and all, `none` exactly it.
        total_seconds: bounds the loops below: attempts, waits and all.
        retry_on: error classes that are tried again; empty: what our tree calls `retryable`.
        give_up_on: error classes that are not, whatever `retry_on` says.
    """

    attempts: int
    base: float
    cap: float
    jitter: Jitter = "full"
    total_seconds: float = 60.0
    retry_on: ErrorClasses = ()
    give_up_on: ErrorClasses = (BreakerOpenError, RateLimitedError)

    def __post_init__(self) -> None:
        if self.attempts < 1 or not 0 < self.base <= self.cap or self.total_seconds <= 0:
            raise ConfigurationError(
                "a retry policy needs attempts of at least 1, 0 < base <= cap and total_seconds above 0 (seconds)"
            )

    @classmethod
    def from_spec(cls, spec: RetrySpec) -> Self:
        """Return the policy of a contract's in-lane attempts."""
        return cls(max(1, spec.in_lane), IN_LANE_BASE_SECONDS, IN_LANE_CAP_SECONDS, spec.jitter)

    def allows(self, attempt: int) -> bool:
        """Return whether another attempt follows the failed attempt number `attempt` (from 1)."""
        return attempt < self.attempts

    def covers(self, error: BaseException) -> bool:
        """Return whether another attempt may cure this error. Never true of a cancellation."""
        if not isinstance(error, Exception) or isinstance(error, self.give_up_on):
            return False
        if self.retry_on:
            return isinstance(error, self.retry_on)
        return isinstance(error, OmnibaseError) and error.retryable

    def delay(self, attempt: int, spread: Spread = backoff.full_jitter) -> float:
        """Return the seconds to wait after the failed attempt number `attempt` (from 1).

        Args:
            attempt: larger numbers than the schedule has wait its longest time.
            spread: returns a random number from 0 to its argument; a test passes its own.
        """
        return self.jittered(self.ceiling(attempt), spread)

    def ceiling(self, attempt: int) -> float:
        """Return the schedule's value after the failed attempt number `attempt` (from 1), in seconds without jitter."""
        ceilings = _ceilings(self.base, self.cap)
        return ceilings[min(attempt, len(ceilings)) - 1]

    def jittered(self, ceiling: float, spread: Spread = backoff.full_jitter) -> float:
        """Return a wait of the schedule's value `ceiling`, in seconds."""
        if self.jitter == "none":
            return ceiling
        if self.jitter == "equal":
            return ceiling / 2 + spread(ceiling / 2)
        return spread(ceiling)


RETRY_PRESETS: Final[Mapping[ServiceKind, RetryPolicy]] = MappingProxyType(
    {
        "database": RetryPolicy(attempts=5, base=0.1, cap=5.0, total_seconds=30.0),
        "kafka": RetryPolicy(attempts=8, base=0.2, cap=10.0, total_seconds=60.0),
        "external_service": RetryPolicy(attempts=5, base=0.5, cap=30.0, total_seconds=60.0),
        # Half of each wait is certain: a server that has just been unsealed is not asked by everybody at once.
        "vault": RetryPolicy(attempts=5, base=0.5, cap=15.0, jitter="equal", total_seconds=30.0),
        "consul": RetryPolicy(attempts=5, base=0.2, cap=10.0, total_seconds=30.0),
    }
)


class RetryOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What surrounds a loop.

    Attributes:
        budget: of the process; None is for what must be waited for, or adds no load.
        metrics: count retries, and calls given up.
        when: decides instead of the policy's classes, for errors that only their content tells apart.
        spread: as in `RetryPolicy.delay`.
        quiet: logs nothing, for commands whose output is somebody's and who tell of the outcome.
        clock: for tests.
    """

    budget: RetryBudget | None = None
    metrics: RetryMetrics | None = None
    when: Callable[[BaseException], bool] | None = None
    spread: Spread = backoff.full_jitter
    quiet: bool = False
    clock: Clock = msgspec.field(default_factory=SystemClock)


NO_OPTIONS: Final = RetryOptions()


async def retrying(
    call: Callable[[], Awaitable[T]],
    policy: RetryPolicy,
    *,
    dependency: str,
    total_seconds: float | None = None,
    options: RetryOptions = NO_OPTIONS,
) -> T:
    """Await `call` until it succeeds. Safe to cancel.

    Args:
        call: one attempt; must be safe to repeat.
        policy: what is tried again, how often, with which waits.
        dependency: what is called, for the log, the metrics and the error.
        total_seconds: instead of the policy's; an attempt that hangs is ended by it.
        options: budget, metrics.

    Raises:
        DependencyUnavailableError: the time is over; its cause is the last attempt's error.
        Exception: the last attempt's own error, when attempts or budget are used up or it is not to be tried again.
    """
    loop = _Loop(policy, dependency, total_seconds or policy.total_seconds, options)

    async def attempt() -> T:
        loop.begin()
        return await call()

    try:
        # Not backoff's own max_time: it follows the wall clock and cannot end an attempt that hangs.
        async with loop.deadline.enforced(f"{dependency} could not be reached", dependency=dependency):
            return await backoff.on_exception(**loop.settings())(attempt)()
    except DependencyUnavailableError as error:
        if error is loop.last:
            raise
        loop.ran_out()
        raise error from loop.last or error.__cause__


def retrying_in_thread(
    call: Callable[[], T],
    policy: RetryPolicy,
    *,
    dependency: str,
    total_seconds: float | None = None,
    options: RetryOptions = NO_OPTIONS,
) -> T:
    """Call until it succeeds, blocking the thread; as `retrying`, for clients that block. Not on an event loop.

    No thread can be stopped: each attempt bounds itself, and none begins after `total_seconds`.

    Raises:
        Exception: the last attempt's own error.
    """
    loop = _Loop(policy, dependency, total_seconds or policy.total_seconds, options)

    def attempt() -> T:
        loop.begin()
        return call()

    return backoff.on_exception(**loop.settings())(attempt)()


class _Loop:
    """Decides, between the attempts of one call, and remembers."""

    def __init__(self, policy: RetryPolicy, dependency: str, total_seconds: float, options: RetryOptions) -> None:
        self._policy = policy
        self._dependency = dependency
        self._options = options
        self._tries = 0
        self.deadline: Final = Deadline.after(total_seconds, options.clock)
        self.last: Exception | None = None

    def begin(self) -> None:
        """Note an attempt; the first one adds to the budget."""
        self._tries += 1
        if self._tries == 1 and self._options.budget is not None:
            self._options.budget.called()

    def settings(self) -> dict[str, Any]:
        """Return what `backoff.on_exception` is to do."""
        return {
            "wait_gen": backoff.expo,
            "exception": Exception,
            "giveup": self._gives_up,
            "jitter": self._wait,
            "on_backoff": self._note,
            "logger": None,
            "factor": self._policy.base,
            "max_value": self._policy.cap,
        }

    def ran_out(self) -> None:
        """Count that the time was over in the middle of an attempt or a wait."""
        self._count("time")

    def _gives_up(self, error: Exception) -> bool:
        self.last = error
        options, policy = self._options, self._policy
        if not (options.when(error) if options.when is not None else policy.covers(error)):
            return True
        if not policy.allows(self._tries):
            self._count("attempts")
        elif self.deadline.expired:
            self._count("time")
        elif options.budget is not None and not options.budget.spend():
            self._count("budget")
        else:
            return False
        return True

    def _wait(self, ceiling: float) -> float:
        return self.deadline.within(self._policy.jittered(ceiling, self._options.spread))

    def _note(self, details: Mapping[str, Any]) -> None:
        if self._options.metrics is not None:
            self._options.metrics.retries.inc()
        if self._options.quiet:
            return
        get_logger().warning(
            LogEvent.CONNECTION_RETRY,
            dependency=self._dependency,
            attempt=details["tries"],
            wait_seconds=details["wait"],
            error=details["exception"],
        )

    def _count(self, reason: GivenUp) -> None:
        if self._options.metrics is not None:
            self._options.metrics.given_up[reason].inc()


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
