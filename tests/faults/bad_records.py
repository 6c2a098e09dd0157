"""Records that nobody can read, that are too large, and a dead-letter topic that is not there for them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from confluent_kafka.admin import AdminClient
from tests.faults.arena import Arena
from tests.faults.checker import Input
from tests.faults.scenario import Scenario

from omnibase_infra.shared.core import envelope as envelopes
from omnibase_infra.shared.testing.fleet import eventually

_DEEP: Final = 100
_MANY: Final = 20_000
_REQUEST_SECONDS: Final = 20.0


async def poison(arena: Arena) -> None:
    """Every kind of bad input of the wire page, between good records of the same keys."""
    await arena.start_workers()
    for name, value in bad_values(arena).items():
        await arena.load.publish(30, per_second=10_000)
        await arena.load.send_poison(name, value, b"key-001")
        arena.expected_dead += 1
    for name, value in forbidden_commands(arena).items():
        await arena.load.publish(30, per_second=10_000)
        await arena.load.send_poison(name, value, b"key-001", is_command=True)
        arena.expected_dead += 1
    await arena.fleet.send_raw(None, b"key-001")  # a tombstone, which is nobody's command
    for refused in refused_commands(arena):
        await arena.fleet.send([refused])
        arena.load.inputs.append(Input(refused.id))
        arena.expected_refused += 1
    await arena.load.publish(100, per_second=10_000)


def bad_values(arena: Arena) -> Mapping[str, bytes]:
    """Return records without a readable envelope, which end as dead letters, by what is wrong with them."""
    changed = _poisoned(arena)
    deep: Any = "deep"
    for _ in range(_DEEP):
        deep = [deep]
    return {
        "empty": b"",
        "not json": b"\x00\x01\x02 not json",
        "not utf-8": b'{"id": "\xff\xfe"}',
        "cut off": changed()[:-5],
        "json and no envelope": b'{"hello": "world"}',
        "a list": b"[1, 2, 3]",
        "without an id": changed(id=None),
        "without a type": changed(type=None),
        "another specversion": changed(specversion="0.3"),
        "an id that is a number": changed(id=5),
        "too deep": changed(id="deep", data=deep),
        "too many fields": changed(id="many", data={f"field-{number}": 0 for number in range(_MANY)}),
        "not a number": changed(id="nan", data={}).replace(b"{}", b'{"key": NaN}'),
        "a key twice": changed(id="twice", data={}).replace(b"{}", b'{"key": "a", "key": "b"}'),
        "half a surrogate": changed(id="half", data={}).replace(b"{}", b'{"key": "\\ud800"}'),
    }


def forbidden_commands(arena: Arena) -> Mapping[str, bytes]:
    """Return commands that no operation may see, by their ids: each ends as a dead letter, and is answered `failed`."""
    changed = _poisoned(arena)
    wrongs: Mapping[str, Mapping[str, str]] = {
        "another realm": {"source": "/omnibase/prod/client"},
        "another tenant": {"tenantid": "somebody-else"},
        "a reply topic of nobody": {"replyto": "onex.evt.somebody-else.results.v1"},
        "a version of the future": {"type": "onex.cmd.fault-probe.probe.v9"},
        "a type that is no name": {"type": "com.example.probe"},
    }
    return {name: changed(id=name, **wrong) for name, wrong in wrongs.items()}


def _poisoned(arena: Arena) -> Callable[..., bytes]:
    """Return what gives a good command's bytes with attributes replaced, or removed by None."""
    good = json.loads(envelopes.encode(arena.load.command("poisoned")))

    def changed(**changes: Any) -> bytes:
        return json.dumps({name: value for name, value in (good | changes).items() if value is not None}).encode()

    return changed


def refused_commands(arena: Arena) -> list[envelopes.Envelope]:
    """Return commands that can be read, and are answered `failed` instead of run."""
    fleet = arena.fleet
    unknown = envelopes.original(
        source=arena.settings.realm.source("client"),
        event_type="onex.cmd.fault-probe.no-such-thing.v1",
        data=envelopes.encode_data({}),
        subject="key-002",
    )
    return [
        fleet.command("probe", {"key": "key-002"}, subject="key-002"),
        fleet.command("probe", {"key": "key-002", "sequence": "many"}, subject="key-002"),
        fleet.command("probe", {"key": "key-002", "sequence": 0}, subject="key-002"),
        fleet.command("probe", {"key": "x", "sequence": 1}, subject="key-002", expirytime="2020-01-01T00:00:00Z"),
        unknown,
    ]


async def near_the_size_limit(arena: Arena) -> None:
    """Records just below the limit, all kinds of bytes in them; they come back in no answer, and fit."""
    await arena.start_workers()
    limit = arena.fleet.spec.max_record_bytes
    bare = len(envelopes.encode(arena.fleet.command("probe", {"key": "large-0", "sequence": 1, "padding": ""})))
    for spare in (200, 300, 1_000, 100_000):
        wish = {"padding": "x" * (limit - bare - spare)}
        await arena.load.send([arena.load.command(f"large-{number}", wish) for number in range(8)])
    failing = {"padding": "y" * (limit - bare - 400), "action": "fail"}
    await arena.load.send([arena.load.command(f"large-{number}", failing) for number in range(4)])
    arena.expected_dead = 4
    await arena.load.publish(200)


async def dead_letter_topic_missing(arena: Arena) -> None:
    """The dead-letter topic goes away under the worker: what belongs there waits, is not lost, and gets there later."""
    await arena.start_workers()
    await arena.load.publish(300)
    name = arena.fleet.physical(str(arena.fleet.spec.dead_letter_topic))
    admin = AdminClient({"bootstrap.servers": arena.brokers.direct, "log_level": 0})
    await asyncio.to_thread(admin.delete_topics([name])[name].result, _REQUEST_SECONDS)
    for number in range(5):
        await arena.load.send_poison(f"homeless {number}", b"no json", f"key-{number:03d}".encode())
    await arena.load.publish(300)
    await eventually(lambda: arena.alarm_seen("log delivery_failed"), "the worker says so", 60)
    report = await arena.report()
    assert report is not None
    assert report.lost == ()
    await asyncio.to_thread(arena.fleet.provision)
    arena.expected_dead = 5
    arena.healed()


SCENARIOS: Final = (
    Scenario(name="bad input of every kind", run=poison, alarm="log record_refused", short=True),
    Scenario(name="records near the size limit", run=near_the_size_limit, bound=40),
    Scenario(
        name="dead-letter topic missing, then made",
        run=dead_letter_topic_missing,
        bound=60,
        alarm="log delivery_failed",
    ),
)
