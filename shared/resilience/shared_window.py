"""A rate limit that several processes count together, in a store that the library `limits` knows: Redis, Memcached, ...

Loaded only where a store is named; its client (`redis`, `memcachio`, ...) is the user's to install.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Final, TypeVar
from urllib.parse import urlsplit

from limits import RateLimitItem, RateLimitItemPerSecond
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from limits.errors import ConfigurationError as UnknownSchemeError
from limits.storage import storage_from_string

from omnibase_infra.shared.core.errors import ConfigurationError, DependencyUnavailableError
from omnibase_infra.shared.core.worker_spec import RateLimitSpec

T = TypeVar("T")

DEPENDENCY: Final = "rate-limit-store"
ANSWER_SECONDS: Final = 2.0
# Between two looks at a full window: its counters are approximate, and other processes look as well.
SHORTEST_WAIT_SECONDS: Final = 0.01


class SharedWindow:
    """A sliding window: at most `count` in any `seconds`, approximated from two counters. Event loop.

    Args:
        uri: of the store, as `limits` writes it, with or without `async+`; may hold a password.
        limit: count and seconds.

    Raises:
        ConfigurationError: no such kind of store, or its client is not installed. The message holds no password.
    """

    def __init__(self, uri: str, limit: RateLimitSpec) -> None:
        scheme = urlsplit(uri).scheme.removeprefix("async+")
        try:
            storage = storage_from_string(f"async+{uri.removeprefix('async+')}", wrap_exceptions=True)
        except UnknownSchemeError as error:
            raise ConfigurationError(
                f"the store for shared rate limits is of a kind nobody knows: {scheme!r}",
                hint="use redis://, memcached:// or another kind that the library `limits` has an asynchronous client for",
            ) from error
        except Exception as error:  # noqa: BLE001 - the client's own; which ones depends on the store
            # Not `from`: the error of a client may show the URI.
            raise ConfigurationError(
                f"the store for shared rate limits ({scheme}) cannot be used: {type(error).__name__}",
                hint=f"install the client that `limits` needs for {scheme}, and look at the URI",
            ) from None
        self._item: RateLimitItem = RateLimitItemPerSecond(
            limit.count, limit.seconds, namespace=f"omnibase-{limit.per}"
        )
        self._strategy = SlidingWindowCounterRateLimiter(storage)

    async def take(self, key: str) -> bool:
        """Take a place and return true, or return false where there is none.

        Raises:
            DependencyUnavailableError: the store does not answer.
        """
        return await _answered(self._strategy.hit(self._item, key))

    async def seconds_until_free(self, key: str) -> float:
        """Return after how long asking again is worth it.

        Raises:
            DependencyUnavailableError: the store does not answer.
        """
        stats = await _answered(self._strategy.get_window_stats(self._item, key))
        return (
            max(SHORTEST_WAIT_SECONDS, stats.reset_time - time.time()) if stats.remaining < 1 else SHORTEST_WAIT_SECONDS
        )


async def _answered(question: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            return await question
    except Exception as error:  # the clients' own; which ones depends on the store
        raise DependencyUnavailableError(
            f"the store for shared rate limits does not answer: {type(error).__name__}", dependency=DEPENDENCY
        ) from error
