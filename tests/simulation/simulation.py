"""One run: a fleet, a load and a series of accidents, all drawn from one seed."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable
from typing import Any

import msgspec
from tests.simulation.checker import Checker
from tests.simulation.dead_letter_desk import DeadLetterDesk
from tests.simulation.member import Process, SteppedParts, World
from tests.simulation.workload import (
    ANSWERS,
    COMMANDS,
    CONTROL,
    PARTITIONS,
    REALM,
    Input,
    Shape,
    draw_inputs,
    encode,
    spec_of,
    with_duplicates,
)

from omnibase_infra.shared.core.errors import DependencyUnavailableError
from omnibase_infra.shared.testing.simulated_kafka import Commit, SimulatedCluster, SimulatedCoordinator
from omnibase_infra.shared.testing.simulated_store import SimulatedDatabase
from omnibase_infra.shared.testing.virtual_loop import RunawayError, VirtualScheduler, virtual_time

SETTLE_SECONDS = 300.0
SESSION_SECONDS = 1.5
# A run that has failed already need not go on for long.
MANY_PROBLEMS = 20
TROUBLED_SECONDS = 20.0


class Scenario(msgspec.Struct, frozen=True):
    """What a seed stands for."""

    seed: int
    shape: Shape
    inputs: int
    seconds: float
    members: int
    accidents: int
    shuffled: bool
    max_records: int
    max_parked: int
    gap: float
    producer_failures: float
    producer_late: float
    commit_failures: float
    unavailable: float
    transient: float
    busy: float
    lost_commits: float
    redriven: float

    @property
    def chancy(self) -> bool:
        """Return whether records may fail by chance, so that a good one may use up its attempts."""
        return self.transient > 0 or (self.shape.batch_max > 1)


def draw(seed: int) -> Scenario:
    """Return the scenario of a seed."""
    chance = random.Random(seed)

    def often(value: Any, otherwise: Any = 0.0, share: float = 0.3) -> Any:
        return value if chance.random() < share else otherwise

    shape = Shape(
        batch_max=chance.choice((1, 1, 4)),
        concurrency=chance.choice((1, 2, 8)),
        linger=often(0.01, 0.0, 0.2),
        in_lane=chance.choice((1, 2, 3)),
        tiers=chance.choice(((), (), (0.5,), (0.5, 2.0), (0.5, 2.0), (5.0, 60.0))),
        timeout=10.0,
        hold=chance.random() < 0.25,
    )
    return Scenario(
        seed=seed,
        shape=shape,
        inputs=chance.choice((15, 25, 40)),
        seconds=chance.choice((0.5, 3.0, 8.0)),
        members=chance.choice((1, 2, 2, 3)),
        accidents=chance.choice((0, 1, 2, 4, 8)),
        shuffled=chance.random() < 0.3,
        max_records=often(chance.choice((1, 5)), 20_000, 0.2),
        max_parked=often(chance.choice((1, 4)), 20_000, 0.3),
        gap=often(0.2),
        producer_failures=often(chance.choice((0.1, 0.4))),
        producer_late=often(0.05),
        commit_failures=often(chance.choice((0.1, 0.5))),
        unavailable=often(0.05),
        transient=often(0.05, 0.0, 0.2),
        busy=often(0.05),
        lost_commits=often(0.1),
        redriven=1.0 if shape.hold else often(0.7, 0.0, 0.4),
    )


class Simulation:
    """Runs one scenario to its end. Use `run`."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.scheduler = VirtualScheduler(scenario.seed)
        self.chance = self.scheduler.random
        self.spec = spec_of(scenario.shape)
        self.group = REALM.group(self.spec.worker, self.spec.major)
        self.cluster = SimulatedCluster(self.scheduler)
        self.cluster.gap = scenario.gap
        sources = [f"{REALM}.{topic}" for topic in (COMMANDS, CONTROL)]
        retries = [topic.physical(REALM) for topic in self.spec.retry_topics.values()]
        for topic in (*sources, *retries, f"{REALM}.{ANSWERS}", f"{REALM}.{self.spec.dead_letter_topic}"):
            self.cluster.create(topic, PARTITIONS)
        self.sources, self.retries = sources, retries
        self.coordinator = SimulatedCoordinator(self.cluster, self.group, sources)
        self.database = SimulatedDatabase(self.scheduler)
        self.inputs = draw_inputs(self.chance, scenario.inputs, scenario.seconds, scenario.shape)
        self.checker = Checker(self.cluster, self.spec, self.group, self.inputs, chancy=scenario.chancy)
        self.database.on_effect = self.checker.effect
        first = {place: Commit(0, "") for topic in (*sources, *retries) for place in self.cluster.places(topic)}
        self.cluster.commit(self.group, first)
        self.world = World(
            self.scheduler,
            self.cluster,
            self.coordinator,
            self.database,
            self.inputs,
            self.checker.effect,
            self.checker.assigned,
        )
        self.desk: DeadLetterDesk | None = None
        if scenario.redriven:
            self.desk = DeadLetterDesk(
                self.cluster,
                self.spec,
                self.checker,
                redriven_share=self.chance.choice((0.3, 0.7)),
                mend=self.world.mended.add,
            )
        self.processes: list[Process] = []
        self.loop = self.cluster.loop
        self._started = 0
        self._healed = False
        self._stopping = False
        self._to_publish = 0

    # -- the run ----------------------------------------------------------------------------------------------------

    def play(self) -> None:
        """Play the load and the accidents, let everything settle, stop the fleet, and check."""
        scenario = self.scenario
        self.cluster.on_append.append(self._wake)
        publications = with_duplicates(self.chance, self.inputs, scenario.seconds)
        self._to_publish = len(publications)
        for one in publications:
            self.loop.call_at(one.at, self._publish, one)
        for _ in range(scenario.members):
            self._start_process()
        self._set_failures()
        accidents: list[Callable[[], None]] = [
            self._crash, self._crash, self._stop, self._join, self._freeze, self._freeze, self._cut_off,
            self._broker_outage, self._database_outage, self._stir, self._stir,
        ]  # fmt: skip
        for _ in range(scenario.accidents):
            accident = self.chance.choice(accidents)
            self.loop.call_at(self.chance.uniform(0.05, scenario.seconds + 2.0), accident)
        self._run(scenario.seconds + 2.0)
        self._heal()
        # Longer than the tiers of one key whose every record fails, one after the other.
        deadline = self.scheduler.now + SETTLE_SECONDS + 2 * scenario.inputs * sum(scenario.shape.tiers)
        if not self._settle(deadline):
            self.checker.problem(f"not settled: {self._state()}")
        self._stop_all()
        self.checker.finish()
        self.checker.problems += self.scheduler.faults

    def _run(self, until: float) -> None:
        while self.scheduler.now < until:
            self.scheduler.run_until(lambda: False, min(until, self.scheduler.now + 0.5))
            self._tend()

    def _settle(self, deadline: float) -> bool:
        """Wait until everything published is committed."""
        while self._to_publish or self._lag() or (self.desk is not None and self.desk.pending):
            if self.checker.problems:
                deadline = min(deadline, self.scheduler.now + TROUBLED_SECONDS)
            if self.scheduler.now >= deadline or len(self.checker.problems) > MANY_PROBLEMS:
                return False
            self.scheduler.run_until(lambda: False, self.scheduler.now + 0.5)
            self._tend()
        return True

    def _lag(self) -> int:
        return sum(self.cluster.lag(self.group, topic) for topic in (*self.sources, *self.retries))

    def _state(self) -> str:
        lag = {
            f"{topic}[{number}]": (
                self.cluster.position(self.group, (topic, number)),
                self.cluster.logs[topic, number].end,
            )
            for topic in (*self.sources, *self.retries)
            for number in range(PARTITIONS)
        }
        return f"{lag}, {[(one.name, one.alive, one.leftovers()) for one in self.processes if one.alive]}"

    def _stop_all(self) -> None:
        # Those that worked on something twice end that, too; then nothing is left in memory.
        self.scheduler.run_until(
            lambda: not any(any(one.leftovers().values()) for one in self.processes if one.alive),
            self.scheduler.now + (TROUBLED_SECONDS if self.checker.problems else SETTLE_SECONDS),
        )
        self._stopping = True
        for process in self.processes:
            if process.alive:
                left = {what: count for what, count in process.leftovers().items() if count}
                if left:
                    self.checker.problem(f"{process.name} still holds {left} when everything is committed")
                process.stop()
        deadline = self.scheduler.now + 60.0
        if not self.scheduler.run_until(lambda: not any(one.alive for one in self.processes), deadline):
            self.checker.problem(f"not stopped: {[one.name for one in self.processes if one.alive]}")
        for process in self.processes:
            self._note_error(process)

    # -- processes --------------------------------------------------------------------------------------------------

    def _start_process(self) -> None:
        if self._stopping:
            return
        scenario = self.scenario
        self._started += 1
        name = f"p{self._started}"
        self.checker.note(f"start {name}")
        process = Process(
            self.world,
            self.spec,
            name,
            max_records=scenario.max_records,
            max_parked=scenario.max_parked,
            grace=self.chance.choice((1.0, 5.0)),
            budget=self.chance.choice((0.2, 2.0)),
            shuffled=scenario.shuffled,
        )
        self.processes.append(process)
        self._set_failures()

    def _running(self) -> list[Process]:
        return [one for one in self.processes if one.alive and not one.loop.frozen]

    def _tend(self) -> None:
        """Start processes that ended by themselves again, and keep one running."""
        for process in self.processes:
            if process.ended and process.error is not None:
                self._note_error(process)
        if not any(one.alive for one in self.processes):
            self._start_process()

    def _note_error(self, process: Process) -> None:
        error, process.error = process.error, None
        if error is None:
            return
        self.checker.note(f"{process.name} ended with {error!r}")
        if process.consumer is not None:
            self.coordinator.expel(process.consumer)
        if not isinstance(error, DependencyUnavailableError):
            self.checker.problem(f"{process.name} ended with {error!r}")

    def _wake(self, record: Any) -> None:
        for process in self.processes:
            consumer = process.consumer
            if process.alive and consumer is not None and (record.topic, record.partition) in consumer.positions:
                process.wake()

    def _set_failures(self) -> None:
        scenario, on = self.scenario, not self._healed
        self.database.unavailable = scenario.unavailable * on
        self.database.transient = scenario.transient * on
        self.database.busy = scenario.busy * on
        self.database.lost_commits = scenario.lost_commits * on
        for process in self.processes:
            process.producer.failures = scenario.producer_failures * on
            process.producer.late = scenario.producer_late * on
            if process.consumer is not None:
                process.consumer.commit_failures = scenario.commit_failures * on

    def _publish(self, one: Input) -> None:
        if self.cluster.away:
            self.loop.call_later(0.2, self._publish, one)
            return
        self._to_publish -= 1
        value, headers = encode(one)
        self.cluster.gap, gap = self.scenario.gap, self.cluster.gap
        record = self.cluster.append(f"{REALM}.{one.topic}", None, one.key, value, headers)
        self.cluster.gap = gap
        self.checker.publish(one, record)

    # -- accidents --------------------------------------------------------------------------------------------------

    def _crash(self) -> None:
        if running := [one for one in self.processes if one.alive]:
            victim = self.chance.choice(running)
            self.checker.note(f"crash {victim.name}")
            victim.kill()
            consumer = victim.consumer
            if consumer is not None:
                self.loop.call_later(self.chance.uniform(0.0, SESSION_SECONDS), self.coordinator.expel, consumer)
            self.loop.call_later(self.chance.uniform(0.0, 2.0), self._start_process)

    def _stop(self) -> None:
        if running := self._running():
            leaver = self.chance.choice(running)
            self.checker.note(f"stop {leaver.name}")
            leaver.stop()
            self.loop.call_later(self.chance.uniform(0.0, 2.0), self._start_process)

    def _join(self) -> None:
        if len(self._running()) < 4:
            self._start_process()

    def _freeze(self) -> None:
        """Stop a process as SIGSTOP does; for longer than its session, others get what it has."""
        if running := self._running():
            victim = self.chance.choice(running)
            seconds = self.chance.choice((0.3, 1.0, 3.0, 8.0))
            self.checker.note(f"freeze {victim.name} for {seconds} s")
            victim.loop.frozen = True
            if seconds > SESSION_SECONDS and victim.consumer is not None:
                self.loop.call_later(SESSION_SECONDS, self.coordinator.expel, victim.consumer)
            self.loop.call_later(seconds, self._thaw, victim)

    def _thaw(self, victim: Process) -> None:
        victim.loop.frozen = False
        self.checker.note(f"thaw {victim.name}")

    def _cut_off(self) -> None:
        """Cut a member off from the coordinator only: it works on while others get its partitions."""
        if running := [one for one in self._running() if one.consumer is not None and not one.consumer.fenced]:
            victim = self.chance.choice(running)
            consumer = victim.consumer
            assert consumer is not None
            self.checker.note(f"cut off {victim.name}")
            consumer.cut_off = True
            self.coordinator.expel(consumer)
            self.loop.call_later(self.chance.uniform(0.1, 4.0), self._connect, victim)

    def _connect(self, victim: Process) -> None:
        if victim.consumer is not None:
            victim.consumer.cut_off = False
            victim.wake()

    def _broker_outage(self) -> None:
        self.checker.note("brokers away")
        self.cluster.away = True
        self.loop.call_later(self.chance.choice((0.2, 2.0, 5.0)), self._brokers_back)

    def _brokers_back(self) -> None:
        self.checker.note("brokers back")
        self.cluster.away = False

    def _database_outage(self) -> None:
        self.checker.note("database away")
        self.database.away = True
        self.loop.call_later(self.chance.choice((0.2, 2.0, 5.0)), self._database_back)

    def _database_back(self) -> None:
        self.checker.note("database back")
        self.database.away = False

    def _stir(self) -> None:
        self.checker.note("rebalance")
        self.coordinator.rebalance(stir=0.7)

    def _heal(self) -> None:
        """End all accidents; what was frozen or cut off comes back by itself."""
        self.checker.note("healed")
        self._healed = True
        self._set_failures()


class Result(msgspec.Struct, frozen=True):
    """How a run went.

    Attributes:
        digest: equal for equal runs.
    """

    scenario: Scenario
    problems: list[str]
    trace: list[str]
    digest: str


def run(seed: int, scenario: Scenario | None = None) -> Result:
    """Play a seed."""
    scenario = scenario or draw(seed)
    simulation = Simulation(scenario)
    with virtual_time(simulation.scheduler, seed), SteppedParts():
        try:
            simulation.play()
        except (RunawayError, AssertionError) as error:
            simulation.checker.problem(f"{type(error).__name__}: {error}")
        finally:
            problems = list(simulation.checker.problems)
            trace = list(simulation.checker.trace)
            for process in simulation.processes:
                process.give_up()
            simulation.scheduler.end()
    digest = hashlib.sha256("\n".join(trace).encode()).hexdigest()[:16]
    return Result(scenario, problems, trace, digest)
