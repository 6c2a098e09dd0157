from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from omnibase_infra.shared.core.errors import DependencyUnavailableError
from omnibase_infra.shared.postgres.migrations import (
    Migration,
    MigrationError,
    MigrationStep,
    infrastructure_migrations,
    migrate,
    newest_node_folders,
    read_migrations,
)
from omnibase_infra.shared.testing.postgres_fixtures import PostgresDatabase, PostgresServer, fresh_database


@pytest.fixture
def database(postgres_container: PostgresServer) -> Iterator[PostgresDatabase]:
    """A database in which nothing has been migrated."""
    with fresh_database(postgres_container) as fresh:
        yield fresh


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, "0001_orders.sql", "CREATE TABLE orders (id int);\nCREATE INDEX orders_by_id ON orders (id);")
    write(tmp_path, "0002_customers.sql", "CREATE TABLE customers (id int);")
    return tmp_path


def write(folder: Path, name: str, sql: str) -> None:
    (folder / name).write_text(sql, encoding="utf-8")


def nodes(folder: Path) -> list[Migration]:
    return read_migrations("order_store", folder)


def states(steps: list[MigrationStep]) -> list[tuple[str, str]]:
    return [(step.name, step.state) for step in steps]


async def fetch(database: PostgresDatabase, sql: str) -> list[tuple[object, ...]]:
    connection = await database.connect()
    try:
        return [tuple(row) for row in await connection.fetch(sql)]
    finally:
        await connection.close()


async def tables(database: PostgresDatabase) -> set[object]:
    rows = await fetch(database, "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
    return {name for (name,) in rows}


async def test_an_empty_database_gets_everything_in_order_and_it_is_recorded(
    database: PostgresDatabase, folder: Path
) -> None:
    reported: list[MigrationStep] = []
    steps = await migrate(database.dsn, [infrastructure_migrations(), nodes(folder)], report=reported.append)
    assert states(steps) == [
        *((migration.name, "applied") for migration in infrastructure_migrations()),
        ("0001_orders.sql", "applied"),
        ("0002_customers.sql", "applied"),
    ]
    assert reported == steps
    assert all(step.seconds > 0 for step in steps)
    assert await tables(database) == {"orders", "customers"}
    recorded = await fetch(database, "SELECT scope, name, sha256 FROM omnibase.migration ORDER BY scope, name")
    expected = [(m.scope, m.name, m.sha256) for m in [*infrastructure_migrations(), *nodes(folder)]]
    assert recorded == expected


async def test_doing_it_again_changes_nothing(database: PostgresDatabase, folder: Path) -> None:
    await migrate(database.dsn, [nodes(folder)])
    before = await fetch(database, "SELECT * FROM omnibase.migration")
    steps = await migrate(database.dsn, [nodes(folder)])
    assert {step.state for step in steps} == {"current"}
    assert await fetch(database, "SELECT * FROM omnibase.migration") == before


async def test_a_new_file_is_applied_alone(database: PostgresDatabase, folder: Path) -> None:
    await migrate(database.dsn, [nodes(folder)])
    write(folder, "0003_more.sql", "ALTER TABLE orders ADD note text")
    steps = await migrate(database.dsn, [nodes(folder)])
    assert [step.state for step in steps] == ["current", "current", "applied"]


async def test_processes_that_migrate_at_the_same_time_apply_each_file_once(
    database: PostgresDatabase, folder: Path
) -> None:
    plan = [infrastructure_migrations(), nodes(folder)]
    results = await asyncio.gather(*(migrate(database.dsn, plan) for _ in range(6)))
    applied = [step.name for steps in results for step in steps if step.state == "applied"]
    assert sorted(applied) == sorted(migration.name for own in plan for migration in own)


async def test_a_changed_file_is_refused_and_named(database: PostgresDatabase, folder: Path) -> None:
    await migrate(database.dsn, [nodes(folder)])
    write(folder, "0001_orders.sql", "CREATE TABLE orders (id bigint);")
    write(folder, "0003_more.sql", "CREATE TABLE more (id int)")
    with pytest.raises(MigrationError, match=r"0001_orders\.sql: changed after it was applied"):
        await migrate(database.dsn, [nodes(folder)])
    assert "more" not in await tables(database)


async def test_line_ends_are_no_change(database: PostgresDatabase, folder: Path) -> None:
    await migrate(database.dsn, [nodes(folder)])
    path = folder / "0001_orders.sql"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert {step.state for step in await migrate(database.dsn, [nodes(folder)])} == {"current"}


async def test_a_file_that_sorts_before_an_applied_one_is_refused(database: PostgresDatabase, folder: Path) -> None:
    first, second = nodes(folder)
    await migrate(database.dsn, [[second]])
    with pytest.raises(MigrationError, match=r"0001_orders\.sql: not applied, but 0002_customers\.sql is"):
        await migrate(database.dsn, [[first, second]])


async def test_a_database_ahead_of_this_release_is_left_alone(database: PostgresDatabase, folder: Path) -> None:
    await migrate(database.dsn, [nodes(folder)])
    (folder / "0002_customers.sql").unlink()
    steps = await migrate(database.dsn, [nodes(folder)])
    assert states(steps) == [("0001_orders.sql", "current"), ("0002_customers.sql", "ahead")]


async def test_a_failing_file_is_located_rolled_back_whole_and_can_be_repaired(
    database: PostgresDatabase, folder: Path
) -> None:
    write(folder, "0003_bad.sql", "CREATE TABLE made (id int);\n\nALTER TABLE nowhere ADD note text;")
    with pytest.raises(MigrationError, match=r'0003_bad\.sql: relation "nowhere" does not exist \(42P01\)'):
        await migrate(database.dsn, [nodes(folder)])
    assert await tables(database) == {"orders", "customers"}
    write(folder, "0003_bad.sql", "CREATE TABLE made (id int);")
    assert (await migrate(database.dsn, [nodes(folder)]))[-1].state == "applied"


async def test_a_syntax_error_is_located_by_its_line(database: PostgresDatabase, tmp_path: Path) -> None:
    write(tmp_path, "0001_typo.sql", "CREATE TABLE a (id int);\n\nCREATE TABEL b (id int);\n")
    with pytest.raises(MigrationError, match=r"0001_typo\.sql:3: syntax error"):
        await migrate(database.dsn, [read_migrations("x", tmp_path)])


async def test_a_dry_run_says_what_is_pending_and_changes_nothing(database: PostgresDatabase, folder: Path) -> None:
    steps = await migrate(database.dsn, [nodes(folder)], dry_run=True)
    assert {step.state for step in steps} == {"pending"}
    assert await fetch(database, "SELECT 1 FROM pg_namespace WHERE nspname = 'omnibase'") == []
    await migrate(database.dsn, [nodes(folder)[:1]])
    steps = await migrate(database.dsn, [nodes(folder)], dry_run=True)
    assert [step.state for step in steps] == ["current", "pending"]


async def test_waiting_for_another_process_ends(database: PostgresDatabase, folder: Path) -> None:
    plan = [nodes(folder)]
    write(folder, "0003_slow.sql", "SELECT pg_sleep(30)")
    slow = asyncio.create_task(migrate(database.dsn, [nodes(folder)]))
    async with asyncio.timeout(10):
        while not await fetch(database, "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%pg_sleep(30)'"):
            await asyncio.sleep(0.02)
    with pytest.raises(MigrationError, match="another process"):
        await migrate(database.dsn, plan, lock_timeout=0.1)
    slow.cancel()
    await asyncio.wait([slow])
    # The cancelled one holds the lock no longer, and left nothing of its third file.
    assert [step.state for step in await migrate(database.dsn, plan)] == ["current", "current"]


async def test_a_migration_that_takes_too_long_is_stopped(database: PostgresDatabase, tmp_path: Path) -> None:
    write(tmp_path, "0001_slow.sql", "SELECT pg_sleep(30)")
    with pytest.raises(MigrationError, match="57014"):
        await migrate(database.dsn, [read_migrations("x", tmp_path)], statement_timeout=0.2)


async def test_a_server_that_is_down_is_an_outage(unused_tcp_port: int) -> None:
    with pytest.raises(DependencyUnavailableError):
        await migrate(f"postgresql://u:p@127.0.0.1:{unused_tcp_port}/db", [infrastructure_migrations()])


@pytest.mark.parametrize("name", ["1_orders.sql", "0001-orders.sql", "0001_Orders.sql", "orders.sql"])
def test_a_file_name_that_does_not_sort_is_refused(tmp_path: Path, name: str) -> None:
    write(tmp_path, name, "SELECT 1")
    with pytest.raises(MigrationError, match=r"expected a name like 0001_orders\.sql"):
        read_migrations("x", tmp_path)


@pytest.mark.parametrize(
    "names", [["0002_a.sql"], ["0001_a.sql", "0003_b.sql"], ["0001_a.sql", "0001_b.sql"], ["0000_a.sql"]]
)
def test_numbers_start_at_one_and_leave_no_gaps(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        write(tmp_path, name, "SELECT 1")
    with pytest.raises(MigrationError, match="expected number"):
        read_migrations("x", tmp_path)


@pytest.mark.parametrize(
    "sql",
    ["BEGIN; SELECT 1; COMMIT;", "SELECT 1;\n  commit;", "/* x */ ROLLBACK", "START   TRANSACTION;", "SELECT 1; end"],
)
def test_a_file_that_controls_transactions_is_refused(tmp_path: Path, sql: str) -> None:
    write(tmp_path, "0001_a.sql", sql)
    with pytest.raises(MigrationError, match="is not allowed"):
        read_migrations("x", tmp_path)


def test_words_of_transactions_inside_functions_and_texts_are_no_such_words(tmp_path: Path) -> None:
    sql = (
        "CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM 1; END $$;\n"
        "COMMENT ON FUNCTION f() IS 'a; commit'; -- ; rollback\nSELECT CASE WHEN true THEN 1 END;"
    )
    write(tmp_path, "0001_a.sql", sql)
    assert read_migrations("x", tmp_path)[0].sql == sql


def test_a_folder_that_is_not_there_has_no_migrations(tmp_path: Path) -> None:
    assert read_migrations("x", tmp_path / "migrations") == []


def test_the_newest_version_of_each_node_is_taken(tmp_path: Path) -> None:
    for place in ("b_node/v1_0_0", "b_node/v1_10_0", "b_node/v1_9_0", "a_node/v2_0_0"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "contract.yaml").touch()
    (tmp_path / "not_a_node" / "v1_0_0").mkdir(parents=True)
    assert newest_node_folders(tmp_path) == {
        "a_node": tmp_path / "a_node/v2_0_0",
        "b_node": tmp_path / "b_node/v1_10_0",
    }


async def test_the_tables_of_all_nodes_are_in_the_migrated_test_database(
    postgres_migration_applied: PostgresDatabase,
) -> None:
    rows = await fetch(postgres_migration_applied, "SELECT DISTINCT scope FROM omnibase.migration")
    assert {("omnibase",), ("postgres_adapter",)} <= set(rows)
