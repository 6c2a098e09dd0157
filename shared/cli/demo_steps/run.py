"""The course of the demo, from starting servers to the report."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec
import typer

from omnibase_infra.shared.cli.console import quiet
from omnibase_infra.shared.cli.demo_steps.bad_input import BadInputOutcome, BadInputs
from omnibase_infra.shared.cli.demo_steps.load import Load, LoadReport
from omnibase_infra.shared.cli.demo_steps.narration import Narrator, Step
from omnibase_infra.shared.cli.demo_steps.observation import Observer, observing, read_everything
from omnibase_infra.shared.cli.demo_steps.plan import OPERATION, DemoPlan
from omnibase_infra.shared.cli.demo_steps.proofs import Evidence, Proof, prove, repeated_answers
from omnibase_infra.shared.cli.demo_steps.report import DemoReport
from omnibase_infra.shared.cli.demo_steps.stage import Stage, prepared_stage
from omnibase_infra.shared.cli.demo_steps.worker_processes import WorkerProcess, WorkerProcesses, WorkerReport
from omnibase_infra.shared.cli.demo_steps.worker_processes import worker_processes as provided_workers
from omnibase_infra.shared.cli.infra_progress import show_progress
from omnibase_infra.shared.client.fleet_client import FleetClient
from omnibase_infra.shared.core.naming import TopicName
from omnibase_infra.shared.local_services import up

WORKERS: Final = 2
_LOGS: Final = "demo"
_KEPT_LOG_FOLDERS: Final = 5


class _Findings(msgspec.Struct, frozen=True, kw_only=True):
    """What a run found, before everything is removed."""

    load: LoadReport
    proofs: Sequence[Proof]
    repeated_answers: int
    bad_inputs: Sequence[BadInputOutcome]
    workers: Sequence[WorkerReport]


def run_demo(plan: DemoPlan) -> DemoReport:
    """Run the whole demo and return its report.

    Raises:
        OmnibaseError: it could not be run to its end; what it made is removed all the same.
        typer.Exit: SIGTERM or SIGHUP ended it, after the same removal.
    """
    narrator = Narrator()
    narrator.say(f"demo: {plan.commands:,} commands over {plan.keys:,} keys, {WORKERS} workers, one of them is killed")
    with narrator.step("start Kafka and PostgreSQL") as step, show_progress() as progress:
        step.outcome = _addresses(up(plan.state, progress=progress))
    ended_by: list[int] = []
    try:
        with narrator.live():
            return asyncio.run(_run(plan, narrator, ended_by))
    except asyncio.CancelledError:
        # Ctrl-C comes as a KeyboardInterrupt instead.
        raise typer.Exit(128 + ended_by[0]) from None


async def _run(plan: DemoPlan, narrator: Narrator, ended_by: list[int]) -> DemoReport:
    _cancel_on_signals(narrator, ended_by)
    async with prepared_stage(plan, narrator) as stage:
        logs = _log_folder(plan.state, stage.realm)
        findings = await _perform(plan, stage, logs, narrator)
    return DemoReport(
        realm=stage.realm,
        database=plan.database,
        kept=plan.keep,
        commands=plan.commands,
        keys=plan.keys,
        load=findings.load,
        proofs=findings.proofs,
        repeated_answers=findings.repeated_answers,
        bad_inputs=findings.bad_inputs,
        workers=findings.workers,
        steps=narrator.times,
        seconds=round(sum(item.seconds for item in narrator.times), 3),
        logs=str(logs),
    )


async def _perform(plan: DemoPlan, stage: Stage, logs: Path, narrator: Narrator) -> _Findings:
    """Run the workers through load, kill, bad input and stop; look at what they left."""
    bad = BadInputs(stage)
    async with (
        provided_workers(stage.settings, plan.state, logs) as workers,
        FleetClient(stage.settings, log=quiet) as client,
    ):
        victim = await _start_workers(workers, stage, narrator)
        async with observing(client) as observer:
            load = Load(plan, client, observer, workers)
            report = await _send_load(load, victim, narrator)
            await _send_bad_input(bad, observer, narrator)
            await _await_successor(workers, stage, narrator)
        with narrator.step("stop the workers by SIGTERM") as step:
            stopped = await workers.stop()
            step.outcome = ", ".join(f"{worker.name} exit code {worker.exit_code}" for worker in stopped)
        with narrator.step("read topics and tables, and prove") as step:
            observation = await read_everything(client)
            evidence = Evidence(
                sent=load.sent,
                expected=load.orders.expected(),
                stored=await stage.stored_events(),
                observation=observation,
                bad_inputs=bad.outcomes(observation),
                others=bad.others(observation),
                good_is_done=bad.good_is_done(observation),
                stopped=stopped,
            )
            proofs = prove(evidence)
            step.outcome = f"{sum(proof.holds for proof in proofs)} of {len(proofs)} hold"
    return _Findings(
        load=report,
        proofs=proofs,
        repeated_answers=repeated_answers(load.sent, observation),
        bad_inputs=evidence.bad_inputs,
        workers=workers.reports(),
    )


async def _start_workers(workers: WorkerProcesses, stage: Stage, narrator: Narrator) -> WorkerProcess:
    """Start the first workers, wait until they share the work, and return the one that has most of the commands."""
    with narrator.step(f"start {WORKERS} workers") as step:
        started = [workers.start() for _ in range(WORKERS)]
        step.say(", ".join(f"{worker.name} pid {worker.pid}" for worker in started))
        shares = await _shares(workers, stage, step)
    return started[shares.index(max(shares))]


async def _await_successor(workers: WorkerProcesses, stage: Stage, narrator: Narrator) -> None:
    """Wait until the worker that was started after the kill works, too: what ends while it starts has no grace."""
    with narrator.step("wait until the new worker has its share") as step:
        await _shares(workers, stage, step)


async def _shares(workers: WorkerProcesses, stage: Stage, step: Step) -> list[int]:
    """Wait until all partitions are shared out; return how many of the commands' topic each worker has."""
    topics = stage.partitions()
    operation = next(item for item in stage.spec.operations if item.name == OPERATION)
    commands = TopicName.parse(operation.topic).physical(stage.settings.realm)
    shares = [share[commands] for share in await workers.wait_until_shared_out(topics)]
    step.outcome = f"ready, with {' and '.join(map(str, shares))} of the {topics[commands]} partitions of commands"
    return shares


async def _send_load(load: Load, victim: WorkerProcess, narrator: Narrator) -> LoadReport:
    with narrator.step("send commands, kill a worker half-way") as step:
        report = await load.run(victim, step)
        step.outcome = f"{len(load.sent):,} commands answered"
    return report


async def _send_bad_input(bad: BadInputs, observer: Observer, narrator: Narrator) -> None:
    with narrator.step(f"send {len(bad.inputs)} kinds of bad input") as step:
        await bad.send(observer)
        outcomes = bad.outcomes(observer.seen)
        for outcome in outcomes:
            step.say(f"{outcome.what}: {outcome.went_to} {outcome.code}")
        step.outcome = f"{sum(outcome.holds for outcome in outcomes)} of {len(outcomes)} went where they belong"


def _addresses(variables: Mapping[str, str]) -> str:
    """Return where the servers are, without secrets."""
    _, _, postgres = urlsplit(variables.get("OMNIBASE_POSTGRES_DSN", "")).netloc.rpartition("@")
    return f"Kafka {variables.get('OMNIBASE_KAFKA_BOOTSTRAP_SERVERS')}, PostgreSQL {postgres}"


def _cancel_on_signals(narrator: Narrator, ended_by: list[int]) -> None:
    """Let SIGTERM and SIGHUP end the run as Ctrl-C does: with everything removed."""
    task = asyncio.current_task()
    assert task is not None

    def end(number: int) -> None:
        ended_by.append(number)
        if number == signal.SIGHUP:
            narrator.mute()
        task.cancel()

    for number in (signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, end, number)


def _log_folder(state: Path, realm: str) -> Path:
    """Make the folder for this run's logs, and remove those of all but the latest runs."""
    earlier = sorted((state / _LOGS).glob("*/"), key=lambda folder: folder.stat().st_mtime, reverse=True)
    for folder in earlier[_KEPT_LOG_FOLDERS - 1 :]:
        shutil.rmtree(folder)
    folder = state / _LOGS / realm
    folder.mkdir(parents=True)
    return folder
