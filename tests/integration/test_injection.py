"""An injection corpus through every parameter of every operation of every node: it comes out unchanged, nothing else happens."""

from __future__ import annotations

import copy
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import asyncpg
import msgspec
import pytest
from msgspec import inspect
from tests.integration.injection_corpus import CORPUS, REFUSED, TRACE

from omnibase_infra.shared.core.envelope import Envelope
from omnibase_infra.shared.core.naming import Realm
from omnibase_infra.shared.core.settings import require_postgres
from omnibase_infra.shared.registry.nodes import load_models, load_spec, node_names
from omnibase_infra.shared.testing.fleet import Fleet, running_fleet
from omnibase_infra.shared.testing.kafka_fixtures import KafkaServer
from omnibase_infra.shared.testing.postgres_fixtures import PostgresDatabase

Path_ = tuple[str | int, ...]
ROLE: Final = "injection_reader"
# What an operation asks that a sample by type alone would not: a statement that gives its parameter back.
EXAMPLES: Final = {"query": [{"sql": "SELECT $1::text AS value", "parameters": ["x"], "max_rows": 10}]}
# Everything that a statement of the corpus could have changed, apart from rows of the node's own tables.
SNAPSHOT: Final = (
    "SELECT relnamespace::regnamespace::text, relname, relkind::text FROM pg_class WHERE relnamespace::regnamespace::text !~ '^(pg_|information_schema|omnibase)'",
    "SELECT rolname, rolsuper FROM pg_roles",
    "SELECT p.proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'public'",
    "SELECT extname FROM pg_extension",
    "SELECT setconfig FROM pg_db_role_setting",
    "SELECT oid::text FROM pg_largeobject_metadata",
    "SELECT value, secret FROM canary",
    "SELECT current_database(), pg_postmaster_start_time()::text",
)


SCALARS: Final[dict[type[inspect.Type], Any]] = {
    inspect.FloatType: 1.5,
    inspect.DecimalType: 1,
    inspect.BoolType: True,
    inspect.UUIDType: str(uuid.UUID(int=0)),
    inspect.DateTimeType: "2026-01-01T00:00:00Z",
}


def samples(kind: inspect.Type) -> list[Any]:
    """Return JSON that fits a payload type: one for each variant there is."""
    match kind:
        case inspect.StructType():
            return _struct_samples(kind)
        case inspect.UnionType(types=types):
            return [one for each in types if not isinstance(each, inspect.NoneType) for one in samples(each)]
        case inspect.ListType(item_type=item) | inspect.VarTupleType(item_type=item):
            return [[one] for one in samples(item)]
        case inspect.DictType(value_type=value):
            return [{"key": one} for one in samples(value)]
        case inspect.LiteralType(values=values):
            return [values[0]]
        case inspect.EnumType(cls=cls):
            return [msgspec.to_builtins(next(iter(cls)))]
        case inspect.IntType(ge=least):
            return [max(1, least or 1)]
        case _:
            return [SCALARS.get(type(kind), "x")]


def _struct_samples(kind: inspect.StructType) -> list[Any]:
    choices = {field.encode_name: samples(field.type) for field in kind.fields}
    first = {name: values[0] for name, values in choices.items()}
    if kind.tag_field is not None:
        first = {kind.tag_field: kind.tag, **first}
    others = [first | {name: value} for name, values in choices.items() for value in values[1:]]
    return [first, *others]


def leaves(value: Any, path: Path_ = ()) -> Iterator[Path_]:
    """Yield the paths of all scalars."""
    match value:
        case dict():
            for key, one in value.items():
                yield from leaves(one, (*path, key))
        case list():
            for index, one in enumerate(value):
                yield from leaves(one, (*path, index))
        case _:
            yield path


def with_value(sample: Any, path: Path_, value: str) -> Any:
    """Return a copy with a value at a path, and ids of its own, so that no command meets another's rows."""
    changed = _with_own_ids(copy.deepcopy(sample), str(uuid.uuid4()))
    place = changed
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return changed


def _with_own_ids(value: Any, own: str) -> Any:
    match value:
        case dict():
            return {key: _with_own_ids(one, own) for key, one in value.items()}
        case list():
            return [_with_own_ids(one, own) for one in value]
        case _:
            return own if value == str(uuid.UUID(int=0)) else value


def values_at(answer: Any, key: str) -> Iterator[Any]:
    """Yield every value under a key, at any depth."""
    for name, one in answer.items() if isinstance(answer, dict) else enumerate(answer):
        if name == key:
            yield one
        if isinstance(one, dict | list):
            yield from values_at(one, key)


@pytest.fixture(params=node_names())
async def node_fleet(
    request: pytest.FixtureRequest,
    kafka_container: KafkaServer,
    postgres_migration_applied: PostgresDatabase,
    realm: Realm,
    tmp_path: Path,
) -> AsyncIterator[Fleet]:
    settings = kafka_container.settings(realm, postgres_dsn=postgres_migration_applied.dsn)
    async with running_fleet(load_spec(request.param), settings, tmp_path) as fleet:
        yield fleet


@pytest.fixture
async def database(node_fleet: Fleet) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(require_postgres(node_fleet.settings))
    await connection.execute(
        "CREATE TABLE canary (value text, secret text); INSERT INTO canary VALUES ('unchanged', 'of others');"
        f"DO $$ BEGIN CREATE ROLE {ROLE} NOLOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
    )
    yield connection
    await connection.close()


async def snapshot(connection: asyncpg.Connection) -> list[list[tuple[Any, ...]]]:
    return [sorted(tuple(row) for row in await connection.fetch(query)) for query in SNAPSHOT]


async def test_the_corpus_comes_out_as_it_went_in_and_nothing_else_happens(
    node_fleet: Fleet, database: asyncpg.Connection
) -> None:
    TRACE.unlink(missing_ok=True)
    fleet, requests = node_fleet, load_models(node_fleet.spec.node).REQUEST_MODELS
    before = await snapshot(database)
    worker = await fleet.start_ready(OMNIBASE_POSTGRES_QUERY_ROLE=ROLE)
    sent: dict[str, tuple[str, Path_, str]] = {}
    commands: dict[str, list[Envelope]] = {}
    for operation in fleet.spec.operations:
        kinds = EXAMPLES.get(operation.name) or samples(inspect.type_info(requests[operation.name]))
        for sample in kinds:
            for path in leaves(sample):
                for text in (*CORPUS, *REFUSED):
                    command = fleet.command(operation.name, with_value(sample, path, text))
                    sent[command.id] = operation.name, path, text
                    commands.setdefault(operation.topic, []).append(command)
    for topic, batch in commands.items():
        await fleet.send(batch, topic)
    answers = await fleet.answered(sent, seconds=120)

    came_back: Counter[str] = Counter()
    for identity, (operation_name, path, text) in sent.items():
        what = f"{operation_name} {path} {text[:60]!r}"
        (answer,) = answers[identity]
        payload = msgspec.json.decode(answer.data)
        if answer.type.endswith("-failed.v1"):
            assert payload["code"] not in ("internal-error", "dependency-unavailable"), f"{what}: {payload}"
            continue
        assert text not in REFUSED, what
        found = [row[0] for row in payload["rows"]] if operation_name == "query" else values_at(payload, str(path[-1]))
        for value in found:
            came_back[operation_name] += 1
            assert value == text, what
    assert all(count >= len(CORPUS) for count in came_back.values()), came_back
    if fleet.spec.node == "postgres_adapter":
        assert set(came_back) == {"execute_statement", "execute_transaction", "query"}
    assert await snapshot(database) == before
    assert not TRACE.exists()
    assert await database.fetchval("SELECT count(*) FROM canary WHERE value = 'unchanged'") == 1
    assert fleet.count_dead_letters() == 0
    assert worker.exit_code is None
    assert '"worker_failed"' not in {line["event"] for line in worker.lines()}


async def test_what_is_stored_is_what_was_sent(node_fleet: Fleet, database: asyncpg.Connection) -> None:
    """Looked at from the side of the database, by the example node's own tables."""
    if node_fleet.spec.node != "postgres_adapter":
        return
    await node_fleet.start_ready()
    rows = [(str(uuid.uuid4()), text) for text in CORPUS]
    commands = [
        node_fleet.command(
            "execute_statement",
            {
                "statement": "insert_order",
                "parameters": {
                    "order_id": order,
                    "customer_id": text,
                    "sku": text,
                    "note": text,
                    "quantity": 1,
                    "unit_price": 1,
                },
            },
        )
        for order, text in rows
    ]
    await node_fleet.send(commands)
    await node_fleet.answered([command.id for command in commands])
    stored = await database.fetch("SELECT order_id::text, customer_id, sku, note FROM orders.orders")
    assert {tuple(row) for row in stored} == {(order, text, text, text) for order, text in rows}
