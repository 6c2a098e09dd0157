"""The PostgreSQL adapter's contract: its interface, and its statements on a real server with its own migrations."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from omnibase_infra.shared.contracts.loader import load_contract
from omnibase_infra.shared.contracts.model import Contract
from omnibase_infra.shared.contracts.statement_checks import names_by_operation
from omnibase_infra.shared.contracts.statement_file import StatementFile
from omnibase_infra.shared.testing.postgres_fixtures import PostgresDatabase


@pytest.fixture(scope="module")
def contract() -> Contract:
    root = Path(__file__).parents[3]
    return load_contract(root / "workers/postgres_adapter/v1_0_0/contract.yaml")


@pytest.fixture(scope="module")
def statements(contract: Contract) -> dict[str, StatementFile]:
    return names_by_operation(contract.statements, contract.operation("execute_statement").statements)


def test_it_takes_commands_on_one_topic_and_health_checks_on_another(contract: Contract) -> None:
    topics = {operation.name: str(operation.topic) for operation in contract.operations}
    requests, control = "onex.cmd.postgres-adapter.requests.v1", "onex.cmd.postgres-adapter.control.v1"
    assert topics == {
        "execute_statement": requests,
        "execute_transaction": requests,
        "query": requests,
        "health_check": control,
    }
    assert str(contract.answer_topic) == "onex.evt.postgres-adapter.results.v1"
    assert contract.event_bus.partitions == 6


def test_effects_happen_once_and_statements_run_in_batches(contract: Contract) -> None:
    assert contract.delivery.guarantee == "effectively_once"
    batch = contract.operation("execute_statement").batch
    assert batch is not None
    assert batch.max == 500
    assert contract.operation("health_check").needs == ()


def test_its_statements_are_the_examples_of_an_order_store(statements: dict[str, StatementFile]) -> None:
    assert {name: statement.cardinality for name, statement in statements.items()} == {
        "amend_order": "one",
        "append_order_event": "one",
        "cancel_order": "exec",
        "get_order": "one",
        "insert_order": "one",
        "list_order_events": "many",
        "list_orders_by_customer": "many",
        "summarise_customer": "one",
        "upsert_order": "one",
    }


async def test_every_statement_fits_the_schema_of_the_migrations(
    statements: dict[str, StatementFile], postgres_migration_applied: PostgresDatabase
) -> None:
    connection = await asyncpg.connect(postgres_migration_applied.dsn)
    try:
        for statement in statements.values():
            prepared = await connection.prepare(statement.sql)
            columns = [attribute.name for attribute in prepared.get_attributes()]
            assert len(prepared.get_parameters()) == len(statement.params), statement.name
            assert bool(columns) is (statement.cardinality != "exec"), statement.name
            assert set(statement.columns) <= set(columns), statement.name
    finally:
        await connection.close()


async def test_an_order_lives_through_all_statements(
    statements: dict[str, StatementFile], postgres_migration_applied: PostgresDatabase
) -> None:
    connection = await asyncpg.connect(postgres_migration_applied.dsn)
    order_id, customer = uuid4(), f"customer-{uuid4()}"

    async def run(name: str, **parameters: Any) -> list[asyncpg.Record]:
        statement = statements[name]
        assert parameters.keys() == set(statement.params)
        return list(await connection.fetch(statement.sql, *(parameters[param] for param in statement.params)))

    try:
        stored = {
            "order_id": order_id,
            "customer_id": customer,
            "sku": "A-1",
            "quantity": 3,
            "unit_price": Decimal("2.50"),
        }
        inserted = (await run("insert_order", **stored, note=None))[0]
        assert (inserted["total"], inserted["status"], inserted["revision"]) == (Decimal("7.50"), "open", 1)
        with pytest.raises(asyncpg.UniqueViolationError):
            await run("insert_order", **stored, note=None)
        amended = (await run("amend_order", order_id=order_id, quantity=4, note="more"))[0]
        assert (amended["quantity"], amended["note"], amended["revision"]) == (4, "more", 2)
        replaced = (await run("upsert_order", **{**stored, "quantity": 5}, note=None))[0]
        assert (replaced["quantity"], replaced["note"], replaced["revision"]) == (5, None, 3)
        other = (await run("upsert_order", **{**stored, "order_id": uuid4()}, note="new"))[0]
        assert other["revision"] == 1
        totals = (await run("summarise_customer", customer_id=customer))[0]
        assert (totals["orders"], totals["total"]) == (2, Decimal("20.00"))
        assert await run("cancel_order", order_id=order_id) == []
        assert (await run("get_order", order_id=order_id))[0]["status"] == "cancelled"
        assert await run("amend_order", order_id=order_id, quantity=1, note=None) == []
        orders = await run("list_orders_by_customer", customer_id=customer, max_rows=10)
        assert [order["order_id"] for order in orders] == [order_id, other["order_id"]]
        assert len(await run("list_orders_by_customer", customer_id=customer, max_rows=1)) == 1
    finally:
        await connection.close()


async def test_positions_of_events_tell_the_order_in_which_they_were_stored_repeats_included(
    statements: dict[str, StatementFile], postgres_migration_applied: PostgresDatabase
) -> None:
    connection = await asyncpg.connect(postgres_migration_applied.dsn)
    order_id = uuid4()
    try:
        for sequence in (1, 2, 2, 3):
            await connection.fetchrow(statements["append_order_event"].sql, order_id, sequence, "amended", None)
        events = await connection.fetch(statements["list_order_events"].sql, order_id)
        assert [event["sequence"] for event in events] == [1, 2, 2, 3]
        assert sorted({event["position"] for event in events}) == [event["position"] for event in events]
    finally:
        await connection.close()
