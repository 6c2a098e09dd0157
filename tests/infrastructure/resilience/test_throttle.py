"""Calls out wait for a place or are refused, per key, in one process or counted together in a store."""

from __future__ import annotations

import asyncio

import pytest
from limits.storage import storage_from_string

from omnibase_infra.shared.core.errors import ConfigurationError, DependencyUnavailableError, RateLimitedError
from omnibase_infra.shared.core.worker_spec import OnLimit, RateLimitSpec
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.observability.worker_metrics import ThrottleMetrics
from omnibase_infra.shared.resilience import shared_window
from omnibase_infra.shared.resilience.throttle import Throttle
from omnibase_infra.shared.testing.manual_clock import ManualClock


def _limit(count: int, burst: int | None = None, on_limit: OnLimit = "wait", seconds: int = 1) -> RateLimitSpec:
    return RateLimitSpec(per="client", count=count, seconds=seconds, burst=burst or count, on_limit=on_limit)


async def test_the_burst_passes_at_once_and_the_rest_at_the_limits_rate() -> None:
    throttle = Throttle("carrier", _limit(100, burst=3), clock=ManualClock())  # all come at one moment
    loop = asyncio.get_running_loop()
    started = loop.time()
    waits = await asyncio.gather(*(throttle.acquire("a") for _ in range(8)))
    assert waits[:3] == [0, 0, 0]
    assert waits[3:] == pytest.approx([0.01, 0.02, 0.03, 0.04, 0.05], abs=1e-9)
    assert loop.time() - started >= 0.045


async def test_keys_are_counted_apart() -> None:
    throttle = Throttle("carrier", _limit(1, on_limit="refuse"), clock=ManualClock())
    assert await throttle.acquire("a") == await throttle.acquire("b") == 0
    with pytest.raises(RateLimitedError):
        await throttle.acquire("a")


async def test_refusing_names_the_limit_and_when_there_is_room() -> None:
    registry = MetricsRegistry(process_metrics=False)
    metrics = ThrottleMetrics(registry, "shop", "carrier")
    throttle = Throttle("carrier", _limit(2, on_limit="refuse"), metrics=metrics, clock=ManualClock())
    assert [await throttle.acquire(), await throttle.acquire()] == [0, 0]
    with pytest.raises(RateLimitedError, match=r"more than 2 calls to carrier in 1 s \(there is room in 0\.5 s\)"):
        await throttle.acquire()
    assert (
        b'omnibase_throttled_total{decision="refuse",dependency="carrier",worker="shop"} 1.0' in registry.exposition()
    )


async def test_who_would_wait_too_long_is_refused_and_takes_no_place() -> None:
    throttle = Throttle("carrier", _limit(20, burst=1), longest_wait=0.06, clock=ManualClock())
    await throttle.acquire()
    first = asyncio.create_task(throttle.acquire())
    await asyncio.sleep(0)
    with pytest.raises(RateLimitedError):
        await throttle.acquire()
    assert await first > 0


# -- a store that processes share ---------------------------------------------------------------------------------------


async def test_processes_that_name_one_store_share_the_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """`memory://` stands for a store; that both throttles use one is what makes them two processes here."""
    stores: dict[str, object] = {}
    make = storage_from_string
    monkeypatch.setattr(
        shared_window, "storage_from_string", lambda uri, **options: stores.setdefault(uri, make(uri, **options))
    )
    one, other = (Throttle("carrier", _limit(4, on_limit="refuse", seconds=600), store="memory://") for _ in range(2))
    for throttle in (one, other, one, other):
        assert await throttle.acquire("a") == 0
    for throttle in (one, other):
        with pytest.raises(RateLimitedError):
            await throttle.acquire("a")
    assert await other.acquire("b") == 0


async def test_waiting_for_a_place_in_a_store_ends_when_its_window_moves() -> None:
    throttle = Throttle("carrier", _limit(2), store="memory://", longest_wait=30.0)
    loop = asyncio.get_running_loop()
    started = loop.time()
    waits = [await throttle.acquire() for _ in range(4)]
    assert loop.time() - started >= 0.4, "the third has to wait for the window to move"
    assert sum(waits) <= loop.time() - started


async def test_a_store_that_is_down_is_an_outage_and_not_a_free_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    throttle = Throttle("carrier", _limit(2), store="memory://")
    window = throttle._window
    assert window is not None

    async def fails(*_: object) -> bool:
        raise OSError("redis://user:secret@host is gone")

    monkeypatch.setattr(window._strategy, "hit", fails)
    with pytest.raises(DependencyUnavailableError, match="rate limits does not answer: OSError") as raised:
        await throttle.acquire()
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("uri", ["nosuch://host", "redis://user:secret@127.0.0.1:1/0"])
def test_a_store_that_cannot_be_used_is_refused_at_once(uri: str) -> None:
    with pytest.raises(ConfigurationError, match="the store for shared rate limits") as raised:
        Throttle("carrier", _limit(2), store=uri)
    assert "secret" not in str(raised.value)
    assert raised.value.hint


def test_a_store_knows_no_burst() -> None:
    with pytest.raises(ConfigurationError, match="a shared store counts windows"):
        Throttle("carrier", _limit(2, burst=10), store="memory://")
