"""The load: order events over many keys, a worker killed in the middle of it, and how long that was felt."""

from __future__ import annotations

import time
import uuid
from typing import Final

import msgspec

from omnibase_infra.shared.cli.demo_steps.narration import Step
from omnibase_infra.shared.cli.demo_steps.observation import Observer
from omnibase_infra.shared.cli.demo_steps.plan import NODE, OPERATION, DemoPlan, with_log
from omnibase_infra.shared.cli.demo_steps.worker_processes import WorkerProcess, WorkerProcesses
from omnibase_infra.shared.client.fleet_client import Command, FleetClient

BATCH: Final = 250
# Without a new answer for that long nothing moves any more: a takeover takes the session time-out and a rebalance.
STALLED_SECONDS: Final = 60.0


class Orders:
    """The events of all orders, round robin: each order's are numbered 1, 2, 3 …"""

    def __init__(self, commands: int, keys: int) -> None:
        self._orders = [str(uuid.uuid4()) for _ in range(keys)]
        self._commands = commands

    def commands(self, first: int, last: int) -> list[Command]:
        """Return the commands from one number to before another, counted from 0."""
        return [self._command(number) for number in range(first, last)]

    def expected(self) -> dict[str, list[int]]:
        """Return what must be stored in the end: every order's sequences, in order."""
        whole, rest = divmod(self._commands, len(self._orders))
        counts = [whole + (number < rest) for number in range(len(self._orders))]
        return {order: list(range(1, count + 1)) for order, count in zip(self._orders, counts, strict=True)}

    def _command(self, number: int) -> Command:
        round_number, index = divmod(number, len(self._orders))
        order = self._orders[index]
        event = {"order_id": order, "sequence": round_number + 1, "kind": "amended", "quantity": 1 + number % 9}
        return Command(payload={"statement": "append_order_event", "parameters": event}, key=order)


class LoadReport(msgspec.Struct, frozen=True, kw_only=True):
    """How the load went. Seconds count from the first command.

    Attributes:
        commands_per_second: answers until a worker was killed, by the time since the first commands were confirmed.
        killed_after: answers that had been seen then.
        in_flight: commands sent and not answered then.
        recovery_seconds: from the kill until every command sent before it was answered.
        seconds: until all commands were answered.
    """

    commands_per_second: float
    killed_after: int
    in_flight: int
    recovery_seconds: float
    seconds: float


class Load:
    """Publishes the commands and kills a worker half-way."""

    def __init__(self, plan: DemoPlan, client: FleetClient, observer: Observer, workers: WorkerProcesses) -> None:
        self.orders = Orders(plan.commands, plan.keys)
        self.sent: set[str] = set()
        self._total = plan.commands
        self._batch = min(BATCH, max(1, plan.commands // 20))
        # So that half-way for the publisher is also about half-way for the workers.
        self._ahead = plan.commands // 4
        self._client = client
        self._observer = observer
        self._workers = workers

    async def run(self, victim: WorkerProcess, step: Step) -> LoadReport:
        """Send everything, kill `victim` half-way and start another, wait for all answers.

        Raises:
            DemoError: a worker ended by itself, or answers stopped coming; shows the ends of logs.
            DeliveryError: the broker did not confirm commands.
        """
        seen, began = self._observer.seen, time.monotonic()
        seen.last_new = began
        note = f"{len(self._workers.running)} workers"
        await self._publish(self._batch, step, note, self._ahead)
        warm = time.monotonic()
        await self._publish(self._total // 2, step, note, self._ahead)
        while self.sent <= seen.answers.keys() and len(self.sent) < self._total:
            # Workers that are this fast have nothing in hand that could be lost.
            await self._publish(min(len(self.sent) + self._batch, self._total), step, note, self._ahead)
        victim.kill_soon()
        answered, working = len(seen.answers), time.monotonic() - warm
        in_flight = seen.await_answers(set(self.sent))
        await victim.kill()
        successor = self._workers.start()
        step.say(
            f"killed {victim.name} (SIGKILL, pid {victim.pid}) with {in_flight:,} commands in flight; "
            f"started {successor.name} (pid {successor.pid})"
        )
        note = f"{victim.name} is dead, its partitions wait"
        await self._publish(self._total, step, note, self._total)
        while seen.caught_up_seconds is None:
            await self._look(step, note)
        step.say(f"its work was taken over and done {seen.caught_up_seconds:.1f} s after the kill")
        while not self.sent <= seen.answers.keys():
            await self._look(step, f"{len(self._workers.running)} workers")
        return LoadReport(
            commands_per_second=round(answered / working, 1),
            killed_after=answered,
            in_flight=in_flight,
            recovery_seconds=round(seen.caught_up_seconds, 3),
            seconds=round(time.monotonic() - began, 3),
        )

    async def _publish(self, until: int, step: Step, note: str, ahead: int) -> None:
        """Send commands up to a number, while no more than `ahead` wait for answers."""
        while (first := len(self.sent)) < until:
            last = min(first + self._batch, until)
            while last - len(self._observer.seen.answers) > ahead:
                await self._look(step, note)
            envelopes = await self._client.publish_many(NODE, OPERATION, self.orders.commands(first, last))
            self.sent |= {envelope.id for envelope in envelopes}
            self._show(step, note)

    async def _look(self, step: Step, note: str) -> None:
        """Let the observer read, and make sure that something moves."""
        self._show(step, note)
        await self._observer.wait_a_moment()
        self._workers.require_running()
        seen = self._observer.seen
        if time.monotonic() - seen.last_new > STALLED_SECONDS:
            missing = len(self.sent) - len(seen.answers)
            message = f"no answer came for {STALLED_SECONDS:g} s; {missing:,} commands are not answered"
            raise with_log(message, *(worker.log for worker in self._workers.running))

    def _show(self, step: Step, note: str) -> None:
        step.at(len(self._observer.seen.answers), self._total, note)
