"""Credentials that end while a worker is under load: renewed, replaced and taken up, and no request is lost or doubled."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from omnibase_infra.shared.core.settings import require_postgres, variable
from omnibase_infra.shared.testing.fleet import Fleet, eventually
from omnibase_infra.shared.testing.openbao_fixtures import DynamicLogins

pytestmark = pytest.mark.timeout(150)

# Replaced after about seven seconds, two before the old login ends.
LOGIN_SECONDS = 6
LONGEST_SECONDS = 9
LOAD_SECONDS = 17.0
BATCH = 40


@pytest.fixture
async def surroundings(fleet: Fleet, dynamic_logins: DynamicLogins) -> AsyncIterator[dict[str, str]]:
    """Variables of a worker whose PostgreSQL login lasts a few seconds."""
    path = await asyncio.to_thread(
        lambda: dynamic_logins.role(ttl=f"{LOGIN_SECONDS}s", longest=f"{LONGEST_SECONDS}s", attributes="SUPERUSER")
    )
    role = await asyncio.to_thread(dynamic_logins.mount.approle, dynamic_logins.policy())
    settings = {**role, **dynamic_logins.settings(path)}
    settings["postgres_dsn"] = require_postgres(fleet.settings)  # the same server; the login is given apart
    yield {variable(name): value for name, value in settings.items()}
    fleet.stop_all()


async def test_logins_that_end_every_few_seconds_cost_no_request(fleet: Fleet, surroundings: dict[str, str]) -> None:
    worker = await fleet.start_ready(**surroundings)
    sent: list[str] = []
    ends = time.monotonic() + LOAD_SECONDS
    while time.monotonic() < ends:
        commands = [
            fleet.command(
                "execute_statement",
                {
                    "statement": "append_order_event",
                    "parameters": {"order_id": order, "sequence": 1, "kind": "placed", "quantity": 1},
                },
                subject=order,
            )
            for order in (str(uuid.uuid4()) for _ in range(BATCH))
        ]
        await fleet.send(commands)
        sent += [command.id for command in commands]
        await asyncio.sleep(0.1)

    answers = await fleet.answered(sent, seconds=60)
    assert [identity for identity in sent if len({one.id for one in answers[identity]}) != 1] == []
    failed = [one for identity in sent for one in answers[identity] if not one.type.endswith("-completed.v1")]
    assert [bytes(one.data) for one in failed] == []
    assert await fleet.fetch_value("SELECT count(*) FROM orders.order_events") == len(sent)
    changes = [line for line in worker.logged("secret_changed") if "OMNIBASE_POSTGRES_PASSWORD" in line["settings"]]
    assert len(changes) >= 2, "new credentials came while it worked"
    assert worker.logged("secret_renewal_failed") == []
    assert fleet.count_dead_letters() == 0
    logins = "SELECT count(DISTINCT usename) FROM pg_stat_activity WHERE usename LIKE 'v-%'"
    await eventually(lambda: _is_one(fleet, logins), "connections of logins before are closed", 30)
    assert await asyncio.to_thread(worker.terminate) == 0
    left = "SELECT count(*) FROM pg_roles WHERE rolname LIKE 'v-%' AND rolvaliduntil > now()"
    assert await fleet.fetch_value(left) == 0, "logins are given back at the end"
    assert Path(f"/proc/{worker.pid}").exists() is False


async def _is_one(fleet: Fleet, sql: str) -> bool:
    return bool(await fleet.fetch_value(sql) == 1)
