"""ONEXContainer: services by type, clear errors, closed in reverse order."""

from __future__ import annotations

import subprocess
import sys

import pytest

from omnibase_infra.shared.core.errors import ConfigurationError
from omnibase_infra.shared.registry.container import ONEXContainer, ServiceCloseError, ServiceMissingError


class Pool:
    pass


class Cache:
    def __init__(self, pool: Pool) -> None:
        self.pool = pool


async def test_a_registered_value_is_returned_as_it_is() -> None:
    async with ONEXContainer() as container:
        pool = Pool()
        container.register_value(Pool, pool)
        assert container.get(Pool) is pool
        assert Pool in container
        assert Cache not in container


async def test_a_factory_runs_once_on_first_use_and_gets_the_container() -> None:
    made: list[Cache] = []

    def make(container: ONEXContainer) -> Cache:
        made.append(Cache(container.get(Pool)))
        return made[-1]

    async with ONEXContainer() as container:
        container.register_factory(Cache, make)
        container.register_value(Pool, Pool())
        assert made == []
        assert container.get(Cache) is container.get(Cache)
        assert len(made) == 1
        assert made[0].pool is container.get(Pool)


async def test_services_close_in_reverse_order_of_their_making() -> None:
    closed: list[str] = []

    async def close_pool() -> None:
        closed.append("pool")

    async def close_cache(_: Cache) -> None:
        closed.append("cache")

    container = ONEXContainer()
    container.register_value(Pool, Pool(), close=close_pool)
    container.register_factory(Cache, lambda c: Cache(c.get(Pool)), close=close_cache)
    container.get(Cache)
    await container.aclose()
    await container.aclose()
    assert closed == ["cache", "pool"]


async def test_a_factory_that_never_ran_is_not_closed() -> None:
    async def close(_: Cache) -> None:
        raise AssertionError("must not run")

    async with ONEXContainer() as container:
        container.register_factory(Cache, lambda c: Cache(c.get(Pool)), close=close)


async def test_a_failing_close_does_not_keep_others_from_closing_and_is_reported() -> None:
    closed: list[str] = []

    async def fails() -> None:
        raise OSError("gone")

    async def works() -> None:
        closed.append("first")

    container = ONEXContainer()
    container.register_value(Pool, Pool(), close=works)
    container.register_value(Cache, Cache(Pool()), close=fails)
    with pytest.raises(ServiceCloseError, match=r"closing Cache failed: OSError\('gone'\)"):
        await container.aclose()
    assert closed == ["first"]


async def test_a_missing_service_is_named_with_who_needs_it_and_what_there_is() -> None:
    async with ONEXContainer() as container:
        container.register_value(Pool, Pool())
        with pytest.raises(ServiceMissingError, match=r"order_store needs the service Cache.*registered: Pool"):
            container.get(Cache, needed_by="order_store")


async def test_registering_twice_is_refused() -> None:
    async with ONEXContainer() as container:
        container.register_value(Pool, Pool())
        with pytest.raises(ConfigurationError, match="Pool is registered twice"):
            container.register_value(Pool, Pool())


async def test_a_closed_container_gives_nothing_any_more() -> None:
    container = ONEXContainer()
    container.register_value(Pool, Pool())
    await container.aclose()
    with pytest.raises(ConfigurationError, match="the container is closed"):
        container.get(Pool)


def test_importing_the_container_brings_no_web_framework() -> None:
    code = (
        "import sys, omnibase_infra.shared.registry.container;"
        "assert not {'aiohttp', 'fastapi', 'flask', 'starlette'} & set(sys.modules), sorted(sys.modules);"
        "assert 'svcs.aiohttp' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
