"""A deadline: one point in time for everything that belongs to one piece of work, however many waits that takes.

Passing seconds down gives every step the whole time again; a deadline is made once, at the top, and passed on.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Self

from omnibase_infra.shared.core.clock import Clock, SystemClock
from omnibase_infra.shared.core.errors import ConfigurationError, DependencyUnavailableError


class Deadline:
    """The monotonic time by which a piece of work is to be over. Immutable; safe from any thread.

    Args:
        at: monotonic seconds of `clock`.
        clock: for tests; default: the machine's.
    """

    __slots__ = ("_clock", "at")

    def __init__(self, at: float, clock: Clock | None = None) -> None:
        self.at: Final = at
        self._clock: Final = clock or SystemClock()

    @classmethod
    def after(cls, seconds: float, clock: Clock | None = None) -> Self:
        """Return the deadline `seconds` from now.

        Raises:
            ConfigurationError: not above 0.
        """
        if not seconds > 0:
            raise ConfigurationError(f"a deadline lies ahead: {seconds:g} s do not")
        clock = clock or SystemClock()
        return cls(clock.monotonic() + seconds, clock)

    @property
    def remaining(self) -> float:
        """Return the seconds that are left, 0 when it has passed."""
        return max(0.0, self.at - self._clock.monotonic())

    @property
    def expired(self) -> bool:
        """Return whether it has passed."""
        return self.remaining == 0.0

    def within(self, seconds: float) -> float:
        """Return `seconds`, or what is left where that is less: the time-out of one step."""
        return min(seconds, self.remaining)

    def sooner(self, seconds: float) -> Deadline:
        """Return the deadline of a part: `seconds` from now, and never after this one."""
        return Deadline(min(self.at, self._clock.monotonic() + seconds), self._clock)

    @asynccontextmanager
    async def enforced(self, what: str, *, dependency: str) -> AsyncIterator[None]:
        """End the block when the deadline passes. A `TimeoutError` of the block itself comes out as it is.

        Args:
            what: was to be done, for the message: `<what> within <n> s`.
            dependency: which did not answer.

        Raises:
            DependencyUnavailableError: the time was over; its cause is what the block was doing.
        """
        seconds = self.remaining
        try:
            async with asyncio.timeout(seconds) as limit:
                yield
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise DependencyUnavailableError(f"{what} within {seconds:.3g} s", dependency=dependency) from error

    def __repr__(self) -> str:
        return f"Deadline({self.remaining:.3f} s left)"
