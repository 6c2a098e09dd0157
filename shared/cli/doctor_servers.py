"""Checks that ask Kafka and PostgreSQL. They change nothing."""

from __future__ import annotations

import asyncio
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from omnibase_infra.shared.cli.console import quiet
from omnibase_infra.shared.cli.doctor_report import CheckResult, listed, ok, skipped, wrong
from omnibase_infra.shared.core.settings import Settings, require_postgres
from omnibase_infra.shared.core.worker_spec import WorkerSpec
from omnibase_infra.shared.registry.nodes import NodeVersion, find_node, load_spec, node_names

if TYPE_CHECKING:
    from omnibase_infra.shared.postgres.statements import Statement, StatementProblem
    from omnibase_infra.topics.changes import Action
    from omnibase_infra.topics.provisioning import DriftReport

# Soon enough for somebody who waits; a broker that answers does so in milliseconds.
_ANSWER_SECONDS: Final = 5.0


def kafka(settings: Settings) -> Iterator[CheckResult]:
    """Look whether a broker answers."""
    from confluent_kafka import libversion

    from omnibase_infra.shared.kafka.topic_check import missing_topics

    missing_topics(settings, [], log=quiet, timeout_seconds=_ANSWER_SECONDS)
    yield ok("kafka", f"{settings.kafka_bootstrap_servers} answers (librdkafka {libversion()[0]})")


def topics_and_offsets(settings: Settings, specs: Sequence[WorkerSpec]) -> Iterator[CheckResult]:
    """Look whether topics and first offsets are as the contracts want them, and who consumes."""
    from omnibase_infra.shared.kafka.admin import KafkaTopicAdmin
    from omnibase_infra.topics.changes import CommitFirstOffsets
    from omnibase_infra.topics.provisioning import check
    from omnibase_infra.topics.topic_registry import TopicRegistry, replication_factor

    fleet = [load_spec(name) for name in node_names()]
    registry = TopicRegistry.from_specs(fleet, settings.realm, replication_factor(settings))
    catalogue = registry.catalogue.of_workers([spec.worker for spec in specs])
    admin = KafkaTopicAdmin(settings, log=quiet)
    drift = check(admin, catalogue, settings.realm, registry.catalogue)
    commits = [action for action in drift.plan.actions if isinstance(action, CommitFirstOffsets)]
    others = [action for action in drift.plan.actions if not isinstance(action, CommitFirstOffsets)]
    if others:
        yield wrong("topics", listed([_in_words(action) for action in others]), "run `omninode topics apply`")
    else:
        yield ok("topics", f"{len(catalogue.entries)} are as the contracts say{_strays(drift)}")
    if commits:
        message = listed([f"{one.group} has none on {one.topic}" for one in commits])
        yield wrong("offsets", message, "run `omninode topics apply`")
    for refusal in drift.plan.refusals:
        yield wrong("offsets", f"{refusal.subject}: {refusal.reason}", refusal.hint)
    if not commits and not drift.plan.refusals:
        yield ok("offsets", "every group has the ones it needs")
    for spec in specs:
        members = admin.group(settings.realm.group(spec.worker, spec.major), []).members
        running = f"{members} running" if members else f"none running (`omninode run {spec.node}` starts one)"
        yield ok("workers", f"{spec.worker}: {running}")


def _in_words(action: Action) -> str:
    from omnibase_infra.topics.changes import AddPartitions, AlterConfig, CreateTopic

    match action:
        case CreateTopic():
            return f"{action.topic} does not exist"
        case AddPartitions():
            return f"{action.topic} has {action.before} partitions instead of {action.after}"
        case AlterConfig():
            return f"{action.topic} has another {', '.join(action.changes)}"
        case _:
            return f"{action.group} has no offsets on {action.topic}"


def _strays(drift: DriftReport) -> str:
    return f"; no contract lists {listed(drift.stray)}" if drift.stray else ""


def postgres(settings: Settings) -> Iterator[CheckResult]:
    """Look whether PostgreSQL lets us in."""
    yield ok("postgres", f"answers, version {asyncio.run(_server_version(settings))}")


async def _server_version(settings: Settings) -> str:
    from omnibase_infra.shared.postgres.connection_pool import PostgresConnectionPool

    async with (
        PostgresConnectionPool.from_settings(settings, application_name="omninode doctor", minimum=0) as pool,
        pool.acquire() as connection,
    ):
        return str(await connection.fetchval("SHOW server_version"))


def migrations(settings: Settings, specs: Sequence[WorkerSpec]) -> Iterator[CheckResult]:
    """Look whether every migration of the inbox, the outbox and the nodes was applied."""
    from omnibase_infra.shared.postgres.migrations import infrastructure_migrations, migrate, read_migrations

    plan = [infrastructure_migrations()]
    plan += [read_migrations(spec.node, find_node(spec.node, spec.version).folder / "migrations") for spec in specs]
    steps = asyncio.run(migrate(require_postgres(settings), plan, dry_run=True))
    pending = [f"{step.scope}/{step.name}" for step in steps if step.state == "pending"]
    if pending:
        yield wrong("migrations", f"not applied: {listed(pending)}", "run `omninode migrate`")
    else:
        yield ok("migrations", f"{len(steps)} are applied")


def statements(settings: Settings, specs: Sequence[WorkerSpec]) -> Iterator[CheckResult]:
    """Look whether the statements of each node can be prepared in the database as it is."""
    for spec in specs:
        found = statements_of(find_node(spec.node, spec.version))
        if not found:
            yield skipped("statements", f"{spec.node} has none")
            continue
        problems = asyncio.run(_verify(settings, found))
        if problems:
            message = listed([f"{one.statement}: {one.message}" for one in problems])
            yield wrong("statements", f"{spec.node}: {message}", f"run `omninode migrate {spec.node}`")
        else:
            yield ok("statements", f"{spec.node}: {len(found)} fit the database")


async def _verify(settings: Settings, found: Sequence[Statement]) -> list[StatementProblem]:
    from omnibase_infra.shared.postgres.connection_pool import PostgresConnectionPool
    from omnibase_infra.shared.postgres.statements import verify_statements

    async with (
        PostgresConnectionPool.from_settings(settings, application_name="omninode doctor", minimum=0) as pool,
        pool.acquire() as connection,
    ):
        return await verify_statements(connection, found)


def statements_of(node: NodeVersion) -> list[Statement]:
    """Return the statements that the processors of a generated node hold, each once."""
    found: dict[str, Statement] = {}
    for module in pkgutil.iter_modules(node.module("processors").__path__):
        for value in vars(node.module(f"processors.{module.name}")).values():
            found |= {statement.name: statement for statement in _statements_in(value)}
    return [found[name] for name in sorted(found)]


def _statements_in(value: Any) -> Iterator[Statement]:
    from omnibase_infra.shared.postgres.statements import BoundStatement, Statement

    if isinstance(value, Statement):
        yield value
    elif isinstance(value, BoundStatement):
        yield value.statement
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _statements_in(item)
