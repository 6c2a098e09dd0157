"""`omninode status`: the fleet at a glance, as its Kafka cluster sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

import typer

from omnibase_infra.shared.cli import console, exit_codes
from omnibase_infra.shared.core.errors import TopicMissingError, UnknownNodeError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from omnibase_infra.shared.core.settings import Settings
    from omnibase_infra.shared.core.worker_spec import WorkerSpec
    from omnibase_infra.shared.models.infrastructure.model_service_status import ModelServiceStatus
    from omnibase_infra.topics.catalogue import Reader
    from omnibase_infra.topics.fleet_status import OpenDeadLetters, WorkerStatus

_REQUEST_SECONDS: Final = 10.0
# More than these are not read one by one to find the open ones: a glance takes a second, not a minute.
_COUNTED_DEAD_LETTERS: Final = 20_000


def status(
    nodes: Annotated[
        list[str] | None, typer.Argument(help="Only these workers or nodes; default: all.", metavar="[NODE]...")
    ] = None,
    timeout: Annotated[str, typer.Option("--timeout", help="How long all answers may take.")] = "30s",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Show of each worker its consumer group, processes, lag, retries and open dead letters, and what is wrong.

    Exit codes: 0 all is well, 1 the cluster cannot be asked, 2 wrong node or settings, 3 something is wrong: a topic is
    missing, offsets do not fit, records wait for a worker that does not run, dead letters are open.
    """
    from omnibase_infra.shared.cli.process_settings import load_process_settings
    from omnibase_infra.shared.kafka.admin import KafkaTopicAdmin
    from omnibase_infra.topics.fleet_status import fleet_status
    from omnibase_infra.topics.topic_registry import TopicRegistry

    with console.reported_errors():
        seconds = console.parse_seconds("--timeout", timeout)
        settings = load_process_settings()
        specs = _fleet()
        chosen = _chosen(nodes or (), specs)
        registry = TopicRegistry.from_specs(specs, settings.realm)
        admin = KafkaTopicAdmin(settings, log=console.quiet, timeout_seconds=min(seconds, _REQUEST_SECONDS))
        counter = _dead_letter_counter(settings, specs)
        found = fleet_status(admin, registry, counter, workers=chosen, timeout_seconds=seconds)
    if as_json:
        console.print_json([_plain(worker) for worker in found])
    else:
        _print(found)
    healthy = not any(worker.problems for worker in found)
    raise typer.Exit(exit_codes.OK if healthy else exit_codes.UNHEALTHY)


def _fleet() -> list[WorkerSpec]:
    from omnibase_infra.shared.registry.nodes import load_spec, node_versions

    return [load_spec(item.node, ".".join(map(str, item.version))) for item in node_versions()]


def _chosen(nodes: Sequence[str], specs: Sequence[WorkerSpec]) -> set[str]:
    known: Mapping[str, str] = {name: spec.worker for spec in specs for name in (spec.worker, spec.node)}
    if unknown := [node for node in nodes if node not in known]:
        names = ", ".join(sorted(set(known.values()))) or "none"
        raise UnknownNodeError(f"there is no node {unknown[0]!r}; there are: {names}")
    return {known[node] for node in nodes}


def _dead_letter_counter(settings: Settings, specs: Sequence[WorkerSpec]) -> OpenDeadLetters:
    """Return what counts the open dead letters of a group: by the newest version of its major."""
    newest = {(spec.worker, spec.major): spec for spec in specs}

    def count(reader: Reader, kept: int) -> int | None:
        from omnibase_infra.shared.runtime.dead_letter_log import DeadLetterLog

        if kept > _COUNTED_DEAD_LETTERS:
            return None
        try:
            with DeadLetterLog(settings, newest[reader.worker, reader.major], log=console.quiet) as log:
                return sum(state == "open" for _, state in log.read())
        except TopicMissingError:
            return None  # that of the resolutions; it is listed as missing

    return count


def _print(found: Sequence[WorkerStatus]) -> None:
    console.print_table(
        ("worker", "version", "group", "processes", "lag", "retry", "dead letters"),
        (
            (
                worker.worker,
                f"v{worker.major}",
                worker.state,
                worker.members,
                worker.lag,
                worker.retry_lag,
                worker.open_dead_letters if worker.open_dead_letters is not None else f"up to {worker.dead_letters}",
            )
            for worker in found
        ),
    )
    typer.echo()
    console.print_table(
        ("worker", "topic", "partitions", "lag"),
        ((worker.worker, topic.topic, topic.partitions, topic.lag) for worker in found for topic in worker.topics),
    )
    for worker in found:
        for problem in worker.problems:
            console.note(f"{worker.worker} v{worker.major}: {problem}")


def _plain(worker: WorkerStatus) -> dict[str, object]:
    import msgspec

    return {
        **msgspec.structs.asdict(worker),
        "lag": worker.lag,
        "retry_lag": worker.retry_lag,
        "problems": worker.problems,
        "status": _service_status(worker),
    }


def _service_status(worker: WorkerStatus) -> ModelServiceStatus:
    """Return the worker in the form that its own `/readyz` has: degraded while it works and something is wrong."""
    from omnibase_infra.shared.core.clock import SystemClock, rfc3339
    from omnibase_infra.shared.models.infrastructure.model_service_status import USABLE, ModelServiceStatus

    waiting = worker.lag + worker.retry_lag
    works = not worker.missing_topics and (worker.members > 0 or not waiting)
    checks = {"group": USABLE if worker.members else f"{worker.state}, no process runs"}
    checks |= dict.fromkeys(worker.missing_topics, "does not exist")
    for topic in worker.topics:
        off = ", ".join(f"{count} partitions {standing}" for standing, count in topic.standings.items())
        checks.setdefault(topic.topic, off or USABLE)
    return ModelServiceStatus(
        service=worker.worker,
        version=f"v{worker.major}",
        status="unhealthy" if not works else "degraded" if worker.problems else "healthy",
        ready=works and worker.members > 0,
        checked_at=rfc3339(SystemClock().time()),
        not_usable=tuple(name for name, state in checks.items() if state != USABLE),
        checks=checks,
        problems=worker.problems,
    )
