"""Calls to one service elsewhere, as they should be made: limited, timed, behind its breaker, tried again within reason.

    carrier = ServiceGuard("carrier", timeout_seconds=5)
    label = await carrier.call(lambda: client.find(parcel_id))

For custom processors and programs. PostgreSQL and Kafka have guards of their own in the runtime.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeVar

from omnibase_infra.shared.core.errors import DependencyUnavailableError, OutcomeUnknownError
from omnibase_infra.shared.resilience.process_wide import ProcessResilience, process_resilience
from omnibase_infra.shared.resilience.retry_policy import (
    RETRY_PRESETS,
    ErrorClasses,
    RetryOptions,
    RetryPolicy,
    retrying,
)
from omnibase_infra.shared.resilience.service_kinds import service_kind

if TYPE_CHECKING:
    from omnibase_infra.shared.resilience.throttle import Throttle

T = TypeVar("T")

TIMEOUT_SECONDS: Final = 10.0
# Of HTTP clients that wrap it: httpx, aiohttp.
_CONNECT_ERRORS: Final = frozenset(("ConnectError", "ClientConnectorError"))


class ServiceGuard:
    """Guards the calls of this process to one service. Make it once and keep it. Event loop.

    Args:
        service: its name, as in errors, logs and metrics; also decides the presets.
        timeout_seconds: of one attempt.
        policy: default: the preset of its kind; its `total_seconds` bound a call, attempts and waits together.
        unavailable: error classes of the client that mean the service is down or silent, besides `OSError` and
            `TimeoutError`, such as `httpx.TransportError`. Bad answers are the caller's to tell: raise
            `DependencyUnavailableError` for a 503, `TransientError` for a 429, `BusinessError` for a refusal.
        throttle: limits the calls.
        process: whose breaker, budget and metrics; default: this process.
    """

    def __init__(
        self,
        service: str,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        policy: RetryPolicy | None = None,
        unavailable: ErrorClasses = (),
        throttle: Throttle | None = None,
        process: ProcessResilience | None = None,
    ) -> None:
        process = process or process_resilience()
        self.service: Final = service
        self.breaker: Final = process.breaker(service)
        self._process = process
        self._timeout = timeout_seconds
        self._policy = policy or RETRY_PRESETS[service_kind(service)]
        self._unavailable: ErrorClasses = (OSError, TimeoutError, *unavailable)
        self._throttle = throttle

    async def call(self, attempt: Callable[[], Awaitable[T]], *, key: str = "", repeatable: bool = True) -> T:
        """Await `attempt` until it succeeds, within reason.

        Args:
            attempt: makes one call.
            key: what the throttle counts apart.
            repeatable: whether doing it twice does no harm. If not, it is tried again only while nothing was sent.

        Raises:
            DependencyUnavailableError: the service is down or silent; with `repeatable=False`, nothing was done.
            BreakerOpenError: it was not asked, since it was down a moment ago.
            OutcomeUnknownError: not `repeatable`, and it was sent and not answered: it may have been done.
            RateLimitedError: beyond the throttle.
            Exception: what the attempt raised else.
        """

        doubt = _Doubt()

        async def once() -> T:
            if self._throttle is not None:
                await self._throttle.acquire(key)
            with self.breaker.guarding():
                return await self._timed(attempt, doubt)

        def again(error: BaseException) -> bool:
            return self._policy.covers(error) and (repeatable or not doubt.unclear)

        options = RetryOptions(
            budget=self._process.budget(self.service),
            metrics=self._process.retry_metrics(self.service),
            when=again,
        )
        try:
            return await retrying(once, self._policy, dependency=self.service, options=options)
        except DependencyUnavailableError as error:
            if repeatable or not doubt.unclear:
                raise
            raise OutcomeUnknownError(
                f"it may have been done: {error.message}",
                hint="find out whether it was done before it is tried again",
            ) from error

    async def _timed(self, attempt: Callable[[], Awaitable[T]], doubt: _Doubt) -> T:
        doubt.unclear = True
        try:
            async with asyncio.timeout(self._timeout):
                result = await attempt()
        except self._unavailable as error:
            doubt.unclear = not _was_not_sent(error)
            late = f"did not answer within {self._timeout:g} s"
            # The text of a client's error may hold a URL with credentials.
            how = late if isinstance(error, TimeoutError) else f"does not answer: {type(error).__name__}"
            raise DependencyUnavailableError(f"{self.service} {how}", dependency=self.service) from error
        except Exception:
            doubt.unclear = False  # it answered, or the caller says that nothing was done
            raise
        return result


class _Doubt:
    """Whether the last attempt may have been done although nobody knows. Cut off in its middle, it may."""

    unclear = False


def _was_not_sent(error: BaseException) -> bool:
    """Return whether a failure came before anything was sent: nobody listens."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, ConnectionRefusedError | socket.gaierror) or type(found).__name__ in _CONNECT_ERRORS:
            return True
        found = found.__cause__
    return False
