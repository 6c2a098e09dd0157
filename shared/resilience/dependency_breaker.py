"""A circuit breaker for one dependency: lets work through, stops it during an outage, then probes with one record.

pybreaker counts and holds the state; the gate in front is ours, since pybreaker's own calls do not fit asyncio:
`call` and `calling` hold a lock across the await, let every waiting task through when half-open, count a cancelled
task as a failure, and count an excluded error as a success. So outcomes are reported after the fact.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, Literal, cast

import msgspec
import pybreaker

from omnibase_infra.shared.core.clock import Clock, SystemClock
from omnibase_infra.shared.core.errors import (
    BreakerOpenError,
    ConfigurationError,
    DependencyBusyError,
    DependencyUnavailableError,
    OperationRejectedError,
    TransientError,
    error_code,
)

BreakerState = Literal["closed", "half-open", "open"]


class BreakerPreset(msgspec.Struct, frozen=True, kw_only=True):
    """How a breaker behaves.

    Attributes:
        fail_max: availability failures in a row that open it.
        reset_seconds: time until the first probe.
        cap_seconds: longest time until a probe.
        growth: factor per failed probe.
        jitter: share of the wait that is random, so that a fleet does not probe in step.
        probe_timeout_seconds: a probe without an outcome by then counts as failed; above the operations' deadlines.
    """

    fail_max: int
    reset_seconds: float
    cap_seconds: float
    growth: float = 2.0
    jitter: float = 0.2
    probe_timeout_seconds: float = 60.0

    def __post_init__(self) -> None:
        if self.fail_max < 1 or not 0 < self.reset_seconds <= self.cap_seconds:
            raise ConfigurationError("a breaker needs fail_max of at least 1 and 0 < reset_seconds <= cap_seconds")
        if self.growth < 1 or not 0 <= self.jitter < 1 or self.probe_timeout_seconds <= 0:
            raise ConfigurationError("a breaker needs growth >= 1, 0 <= jitter < 1 and a probe time-out above 0")


class Permit(msgspec.Struct, frozen=True):
    """The breaker's answer to a piece of work. Report its outcome with it.

    Attributes:
        granted: whether to go on.
        probe: whether this is the one probe of a half-open breaker.
        retry_in: seconds after which asking again is worth it, when not granted.
        generation: ties the outcome to the state it was granted in; later ones are ignored.
    """

    granted: bool
    probe: bool
    retry_in: float
    generation: int


class BreakerChange(msgspec.Struct, frozen=True):
    """A change of state, for listeners.

    Attributes:
        dependency: whose.
        old / new: states.
        retry_in: seconds until the next probe, when open.
        code: of the error that opened it, else empty.
    """

    dependency: str
    old: BreakerState
    new: BreakerState
    retry_in: float
    code: str


class _CountedFailureError(Exception):
    """Passed through pybreaker in place of the real error, whose traceback it would lengthen."""


class DependencyBreaker:
    """The breaker of one dependency. Used from the event loop's thread only; never blocks.

    with breaker.guarding():  # raises BreakerOpenError while it lets nothing through
        await work()

    What decides before it works, as lanes do, asks for a permit and reports the outcome with it.
    """

    def __init__(
        self,
        dependency: str,
        preset: BreakerPreset,
        *,
        clock: Clock | None = None,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self.dependency: Final = dependency
        self._preset = preset
        self._clock = clock or SystemClock()
        self._uniform = uniform
        self._breaker = pybreaker.CircuitBreaker(
            fail_max=preset.fail_max,
            reset_timeout=preset.reset_seconds,
            name=dependency,
            throw_new_error_on_trip=False,
        )
        self._listeners: list[Callable[[BreakerChange], None]] = []
        self._generation = 0
        self._trips_in_a_row = 0
        self._probe_due = 0.0  # monotonic; while open
        self._probe_deadline: float | None = None  # monotonic; while a probe runs

    @property
    def state(self) -> BreakerState:
        """Return the state. Reading it changes nothing: an open breaker that is due stays open until asked."""
        return cast("BreakerState", self._breaker.current_state)

    @property
    def seconds_until_probe(self) -> float:
        """Return how long to wait before asking again; 0 when work would be let through now."""
        now = self._clock.monotonic()
        if self.state == "open":
            return max(0.0, self._probe_due - now)
        if self._probe_deadline is not None:
            return max(0.0, self._probe_deadline - now)
        return 0.0

    def on_change(self, listener: Callable[[BreakerChange], None]) -> None:
        """Call `listener` after each change of state, from the event loop's thread.

        It must be quick. What it raises reaches whoever caused the change; the state has changed by then.
        """
        self._listeners.append(listener)

    @contextmanager
    def guarding(self) -> Iterator[Permit]:
        """Let the block through and report how it ends, or raise. It may await; a cancelled one counts neither way.

        A refusal or a failed attempt that this dependency itself answered proves that it is there.

        Raises:
            BreakerOpenError: it lets nothing through now; says when asking again is worth it.
        """
        permit = self.permit()
        if not permit.granted:
            raise BreakerOpenError(
                f"{self.dependency} was not asked: it was unavailable, and is tried again in {permit.retry_in:.1f} s",
                dependency=self.dependency,
                retry_in_seconds=permit.retry_in,
            )
        try:
            yield permit
        except BaseException as error:
            if self._answered(error):
                self.record_success(permit)
            else:
                self.record_failure(permit, error)
            raise
        else:
            self.record_success(permit)

    def _answered(self, error: BaseException) -> bool:
        of_this = getattr(error, "dependency", None) == self.dependency
        answers = isinstance(error, OperationRejectedError | TransientError)
        return of_this and answers and not isinstance(error, DependencyBusyError)

    def permit(self) -> Permit:
        """Ask whether work that needs the dependency may start.

        Closed: always. Open: not before the next probe is due. Half-open: one piece of work at a time.
        """
        if self.state != "closed" and not self._open_gate():
            return Permit(granted=False, probe=False, retry_in=self.seconds_until_probe, generation=self._generation)
        return Permit(granted=True, probe=self._probe_deadline is not None, retry_in=0.0, generation=self._generation)

    def record_success(self, permit: Permit) -> None:
        """Report that the dependency answered; also for work it refused, such as a violated constraint."""
        if self._is_current(permit):
            self._apply(lambda: self._breaker.call(_succeed))

    def record_failure(self, permit: Permit, error: BaseException) -> None:
        """Report an error. Only this dependency's availability failures count; others release the permit."""
        if not self._is_current(permit):
            return
        if isinstance(error, DependencyUnavailableError) and error.dependency == self.dependency:
            self._apply(self._count_failure, error)
        else:
            self.release(permit)

    def release(self, permit: Permit) -> None:
        """Give a permit back without an outcome; harmless after one was reported, or twice."""
        if permit.probe and self._is_current(permit):
            self._end_probe()

    def _open_gate(self) -> bool:
        """Start a probe if one may run now."""
        now = self._clock.monotonic()
        if self._probe_deadline is not None:
            if now >= self._probe_deadline:  # it hangs or was lost; either way nobody has seen the dependency answer
                self._apply(self._count_failure)
            return False
        if self.state == "open":
            if now < self._probe_due:
                return False
            self._apply(self._breaker.half_open)
        self._generation += 1
        self._probe_deadline = now + self._preset.probe_timeout_seconds
        return True

    def _end_probe(self) -> None:
        self._generation += 1
        self._probe_deadline = None

    def _is_current(self, permit: Permit) -> bool:
        return permit.granted and permit.generation == self._generation

    def _count_failure(self) -> None:
        try:
            self._breaker.call(_fail)
        except _CountedFailureError:
            return

    def _apply(self, change: Callable[[], None], error: BaseException | None = None) -> None:
        """Let pybreaker change its state, follow it, and tell the listeners.

        Not pybreaker's own listeners: they run while its state and its stored state differ.
        """
        old = self.state
        change()
        new = self.state
        if new == old:
            return
        self._end_probe()
        if new == "closed":
            self._trips_in_a_row = 0
        elif new == "open":
            self._probe_due = self._clock.monotonic() + self._next_wait()
            self._trips_in_a_row += 1
        notice = BreakerChange(
            dependency=self.dependency,
            old=old,
            new=new,
            retry_in=self.seconds_until_probe,
            code=error_code(error) if error is not None else "",
        )
        for listener in self._listeners:
            listener(notice)

    def _next_wait(self) -> float:
        preset = self._preset
        # Bounded before it is computed: after a week of outage the power would overflow.
        grown = preset.reset_seconds * preset.growth ** min(self._trips_in_a_row, 64)
        return min(grown, preset.cap_seconds) * (1.0 - preset.jitter * self._uniform())


def _succeed() -> None:
    return None


def _fail() -> None:
    raise _CountedFailureError
