"""Services start after what they depend on, stop in reverse, and a start that fails undoes what was started."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnibase_infra.shared.cli import exit_codes
from omnibase_infra.shared.cli.console import exit_code
from omnibase_infra.shared.core.errors import (
    ConfigurationError,
    DependencyUnavailableError,
    ServiceStartError,
    SettingsError,
)
from omnibase_infra.shared.registry.container import ONEXContainer, ServiceCloseError, ServiceMissingError
from omnibase_infra.shared.registry.service_registry import ServiceDefinition, ServiceOrderError, ServiceRegistry


class Pool:
    pass


class Cache:
    pass


class Front:
    pass


def _define(
    service: type[Any],
    journal: list[str],
    *depends_on: type[Any],
    fails: BaseException | None = None,
    stop_fails: Exception | None = None,
    **bounds: float,
) -> ServiceDefinition[Any]:
    async def start(_: Any) -> None:
        journal.append(f"start {service.__name__}")
        if fails is not None:
            raise fails

    async def stop(_: Any) -> None:
        journal.append(f"stop {service.__name__}")
        if stop_fails is not None:
            raise stop_fails

    return ServiceDefinition(service, lambda _: service(), depends_on=depends_on, start=start, stop=stop, **bounds)


async def test_services_start_after_what_they_depend_on_and_stop_in_reverse() -> None:
    journal: list[str] = []
    container = ONEXContainer()
    container.register_service(_define(Front, journal, Cache, Pool))
    container.register_service(_define(Cache, journal, Pool))
    container.register_service(_define(Pool, journal))
    await container.start()
    assert isinstance(container.get(Front), Front)
    await container.aclose()
    assert journal == ["start Pool", "start Cache", "start Front", "stop Front", "stop Cache", "stop Pool"]


async def test_a_service_is_made_from_those_it_depends_on() -> None:
    container = ONEXContainer()
    made: list[Pool] = []

    def make(inside: ONEXContainer) -> Cache:
        made.append(inside.get(Pool))
        return Cache()

    container.register_service(ServiceDefinition(Cache, make, depends_on=(Pool,)))
    container.register_service(ServiceDefinition(Pool, lambda _: Pool()))
    await container.start()
    assert made == [container.get(Pool)]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SettingsError("OMNIBASE_X is not set", hint="set it"), exit_codes.USAGE),
        (DependencyUnavailableError("nobody answers", dependency="cache"), exit_codes.FAILED),
        (OSError("no such host"), exit_codes.FAILED),
    ],
)
async def test_a_start_that_fails_stops_what_was_started_and_names_the_service(error: Exception, code: int) -> None:
    journal: list[str] = []
    container = ONEXContainer()
    container.register_service(_define(Pool, journal))
    container.register_service(_define(Cache, journal, Pool, fails=error))
    container.register_service(_define(Front, journal, Cache))
    with pytest.raises(ServiceStartError, match="Cache did not start: ") as caught:
        await container.start()
    assert journal == ["start Pool", "start Cache", "stop Pool"]
    assert caught.value.__cause__ is error
    assert caught.value.service == "Cache"
    assert exit_code(caught.value) == code
    await container.aclose()
    assert journal[-1] == "stop Pool"  # nothing is stopped twice


async def test_what_cannot_be_stopped_after_a_failed_start_is_named_too() -> None:
    journal: list[str] = []
    container = ONEXContainer()
    container.register_service(_define(Pool, journal, stop_fails=OSError("stuck")))
    container.register_service(_define(Cache, journal, Pool, fails=ValueError("bad")))
    with pytest.raises(ServiceStartError, match=r"Cache did not start: ValueError: bad; stopping Pool failed, too: OS"):
        await container.start()


async def test_a_start_that_hangs_is_ended_in_time() -> None:
    async def hang(_: Pool) -> None:
        await asyncio.Event().wait()

    container = ONEXContainer()
    container.register_service(ServiceDefinition(Pool, lambda _: Pool(), start=hang, start_seconds=0.01))
    with pytest.raises(ServiceStartError, match=r"Pool did not start: not done within 0\.01 s"):
        await container.start()


async def test_a_stop_that_hangs_does_not_keep_others_from_stopping() -> None:
    journal: list[str] = []

    async def hang(_: Cache) -> None:
        await asyncio.Event().wait()

    container = ONEXContainer()
    container.register_service(_define(Pool, journal))
    container.register_service(
        ServiceDefinition(Cache, lambda _: Cache(), depends_on=(Pool,), stop=hang, stop_seconds=0.01)
    )
    await container.start()
    with pytest.raises(ServiceCloseError, match=r"closing Cache failed: .*not done within 0\.01 s"):
        await container.aclose()
    assert journal == ["start Pool", "stop Pool"]


async def test_a_cancelled_start_stops_what_was_started_and_stays_cancelled() -> None:
    journal: list[str] = []
    reached = asyncio.Event()

    async def hang(_: Cache) -> None:
        reached.set()
        await asyncio.Event().wait()

    container = ONEXContainer()
    container.register_service(_define(Pool, journal))
    container.register_service(ServiceDefinition(Cache, lambda _: Cache(), depends_on=(Pool,), start=hang))
    task = asyncio.create_task(container.start())
    await reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert journal == ["start Pool", "stop Pool"]


async def test_a_service_that_is_not_started_says_so() -> None:
    container = ONEXContainer()
    container.register_service(ServiceDefinition(Pool, lambda _: Pool()))
    with pytest.raises(ServiceMissingError, match=r"no service Pool, and it is not started"):
        container.get(Pool)
    with pytest.raises(ConfigurationError, match="Pool is registered twice"):
        container.register_value(Pool, Pool())


async def test_a_value_counts_as_started() -> None:
    container = ONEXContainer()
    container.register_value(Pool, Pool())
    container.register_service(ServiceDefinition(Cache, lambda _: Cache(), depends_on=(Pool,)))
    await container.start()
    assert Cache in container


async def test_a_circle_is_shown_and_nothing_starts() -> None:
    journal: list[str] = []
    container = ONEXContainer()
    container.register_service(_define(Pool, journal, Front))
    container.register_service(_define(Cache, journal, Pool))
    container.register_service(_define(Front, journal, Cache))
    with pytest.raises(ServiceOrderError, match="Pool → Front → Cache → Pool"):
        await container.start()
    assert journal == []


async def test_a_dependency_that_nobody_registered_is_named_with_who_needs_it() -> None:
    container = ONEXContainer()
    container.register_service(ServiceDefinition(Cache, lambda _: Cache(), depends_on=(Pool,)))
    with pytest.raises(ServiceOrderError, match=r"Cache depends on Pool.*nobody registered it \(registered: Cache\)"):
        await container.start()


TYPES = [type(f"Service{number}", (), {}) for number in range(7)]


@given(edges=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=15), shuffled=st.permutations(range(7)))
def test_any_services_without_a_circle_start_after_all_they_depend_on(
    edges: list[tuple[int, int]], shuffled: list[int]
) -> None:
    needs: dict[int, set[int]] = {number: set() for number in range(7)}
    for one, other in edges:
        if one != other:
            needs[max(one, other)].add(min(one, other))
    registry = ServiceRegistry()
    for number in shuffled:
        depends_on = tuple(TYPES[needed] for needed in sorted(needs[number]))
        registry.add(ServiceDefinition(TYPES[number], lambda _: object(), depends_on=depends_on))
    order = [TYPES.index(definition.service) for definition in registry.start_order()]
    assert sorted(order) == list(range(7))
    assert all(order.index(needed) < order.index(number) for number in order for needed in needs[number])
