"""One process of the simulated fleet: the real worker on simulated Kafka and database, stepped in virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from confluent_kafka import TopicPartition
from tests.simulation.workload import REALM, Effect, Handler, Input, Node

from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.core.worker_spec import WorkerSpec
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.observability.worker_metrics import WorkerMetrics
from omnibase_infra.shared.runtime import consumer_thread, dependencies, parking
from omnibase_infra.shared.runtime import worker as worker_module
from omnibase_infra.shared.runtime.consumer_thread import ConsumerThread
from omnibase_infra.shared.runtime.records import PartitionWork
from omnibase_infra.shared.runtime.worker import Worker
from omnibase_infra.shared.testing.simulated_consumer import SimulatedConsumer
from omnibase_infra.shared.testing.simulated_kafka import Place, SimulatedCluster, SimulatedCoordinator
from omnibase_infra.shared.testing.simulated_producer import SimulatedProducer
from omnibase_infra.shared.testing.simulated_store import SimulatedDatabase, SimulatedStore
from omnibase_infra.shared.testing.virtual_loop import ProcessKilled, SilentLog, VirtualLoop, VirtualScheduler

BUSY_TURN_SECONDS = (0.0005, 0.02)
IDLE_TURN_SECONDS = 0.1
LONGEST_TURN_SECONDS = 2.0
PING_SECONDS = 2.0
TICK_SECONDS = 0.5


class World:
    """What all processes share."""

    def __init__(
        self,
        scheduler: VirtualScheduler,
        cluster: SimulatedCluster,
        coordinator: SimulatedCoordinator,
        database: SimulatedDatabase,
        inputs: Sequence[Input],
        on_effect: Callable[[Effect], None],
        on_assign: Callable[[str, list[Place]], None],
    ) -> None:
        self.scheduler = scheduler
        self.cluster = cluster
        self.coordinator = coordinator
        self.database = database
        self.inputs = inputs
        self.on_effect = on_effect
        self.on_assign = on_assign
        self.failed: Counter[int] = Counter()
        self.mended: set[int] = set()


class VirtualRoom:
    """Stands in for the event that the consumer thread waits on: it never waits, the next turn comes later instead."""

    def __init__(self) -> None:
        self._set = True

    def set(self) -> None:
        self._set = True

    def clear(self) -> None:
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def wait(self, seconds: float | None = None) -> bool:
        return self._set


class SteppedThread(ConsumerThread):
    """The consumer thread, whose turns are callbacks of the process's loop."""

    def __init__(self, consumer: SimulatedConsumer, *, loop: SteppedWorker, **surroundings: Any) -> None:
        process = loop.process
        super().__init__(consumer, loop=loop, clock=process.loop.time, **surroundings)  # type: ignore[arg-type]
        self._process = process
        self._has_ended = False
        self._in_turn = True  # until it has begun, nothing else may schedule a turn
        self._timer: asyncio.TimerHandle | None = None
        self._idle = IDLE_TURN_SECONDS

    def start(self) -> None:
        self._process.loop.call_later(0.0, self._begin)

    def is_alive(self) -> bool:
        return not self._has_ended

    def stop(self) -> None:
        super().stop()
        if not self._in_turn:
            self._next(0.0)

    def wake(self) -> None:
        """Take the next turn soon."""
        if self._timer is not None and self._timer.when() - self._process.loop.time() > BUSY_TURN_SECONDS[1]:
            self._next(self._process.scheduler.random.uniform(*BUSY_TURN_SECONDS))

    def _next(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._process.loop.call_later(seconds, self._virtual_turn)

    def _begin(self) -> None:
        if self._process.scheduler.over:
            return
        if self._guarded(self._subscribe):
            self._next(0.0)

    def _subscribe(self) -> None:
        self._consumer.subscribe(
            list(self._topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )

    def _on_assign(self, consumer: Any, partitions: list[TopicPartition]) -> None:
        self._process.world.on_assign(self._process.name, [(one.topic, one.partition) for one in partitions])
        super()._on_assign(consumer, partitions)

    def _virtual_turn(self) -> None:
        self._timer = None
        if self._stop_requested.is_set():
            self._end()
            return
        before = self._unfinished()
        if not self._guarded(self._turn) or self._process.loop.dead:
            return
        consumer: Any = self._consumer
        if self._stop_requested.is_set() or consumer.has_something():
            self._idle = IDLE_TURN_SECONDS
            self._next(self._process.scheduler.random.uniform(*BUSY_TURN_SECONDS))
        else:
            quiet = before == self._unfinished()
            self._idle = min(self._idle * 2, LONGEST_TURN_SECONDS) if quiet else IDLE_TURN_SECONDS
            self._next(self._idle)

    def _unfinished(self) -> int:
        return sum(work.unfinished for work in self.works.values())

    def seek(self, work: PartitionWork, offset: int) -> None:
        super().seek(work, offset)
        self._process.loop.call_soon(self.wake)

    def commit_now(self, works: Sequence[PartitionWork], committed: Callable[[bool], None]) -> None:
        super().commit_now(works, committed)
        self._process.loop.call_soon(self.wake)

    def _guarded(self, act: Callable[[], None]) -> bool:
        """Act as the thread does: an error is reported and ends it."""
        self._in_turn = True
        try:
            act()
        except ProcessKilled:
            return False
        except BaseException as error:  # noqa: BLE001 - reported, as the thread does
            self._loop.failed(consumer_thread._named(error))
            self._end()
            return False
        finally:
            self._in_turn = False
        return True

    def _end(self) -> None:
        self._in_turn = True
        try:
            self._close()
        except ProcessKilled:
            return
        except BaseException as error:  # noqa: BLE001 - reported, as the thread does
            self._loop.failed(consumer_thread._named(error))
        self._has_ended = True


class SteppedWorker(Worker):
    """The worker, whose drain lets virtual time pass instead of waiting for another thread."""

    process: Process

    def drain(self, works: Sequence[PartitionWork]) -> None:
        budget = self._settings.shutdown_grace_seconds if self._stop.is_set() else self._settings.revoke_budget_seconds
        scheduler = self.process.scheduler
        loop = self.process.loop
        future = asyncio.run_coroutine_threadsafe(self._drain(works, budget), loop)
        scheduler.run_until(lambda: future.done() or loop.dead, scheduler.now + budget + 1.0)
        while loop.frozen and not loop.dead:
            scheduler.step()
        if loop.dead:
            raise ProcessKilled
        if future.done():
            future.result()
        else:
            future.cancel()


@lru_cache
def _instruments(spec: WorkerSpec) -> WorkerMetrics:
    return WorkerMetrics(MetricsRegistry(process_metrics=False), spec)


@lru_cache
def _settings(max_records: int, max_parked: int, grace: float, budget: float) -> Settings:
    values = {
        "max_in_flight_records": max_records,
        "max_parked_records": max_parked,
        "shutdown_grace_seconds": grace,
        "revoke_budget_seconds": budget,
    }
    return Settings.model_validate({"env": "test", **values})


class Process:
    """A running worker. It ends by itself, by `stop`, or by `kill`."""

    def __init__(
        self,
        world: World,
        spec: WorkerSpec,
        name: str,
        *,
        max_records: int = 20_000,
        max_parked: int = 20_000,
        grace: float = 5.0,
        budget: float = 2.0,
        shuffled: bool = False,
    ) -> None:
        self.world = world
        self.name = name
        self.scheduler = world.scheduler
        self.loop = VirtualLoop(world.scheduler, name, shuffled=shuffled)  # type: ignore[abstract]  # in typeshed only
        self.producer = SimulatedProducer(world.cluster, REALM, self.loop)
        self.store = SimulatedStore(world.database, self.loop)
        self.consumer: SimulatedConsumer | None = None
        self.ended = False
        self.error: BaseException | None = None
        handler = Handler(world.inputs, world.failed, world.mended, name, world.on_effect, world.scheduler)
        self.worker = SteppedWorker(
            Node(spec, handler),
            _settings(max_records, max_parked, grace, budget),
            producer=self.producer,
            stores={"postgres": self.store},
            make_consumer=self._make_consumer,  # type: ignore[arg-type]
            registry=MetricsRegistry(process_metrics=False),
            log=SilentLog(),
        )
        self.worker.process = self
        self.worker._flow._room = VirtualRoom()  # type: ignore[assignment]
        self.loop.call_soon(self._start)

    @property
    def thread(self) -> SteppedThread | None:
        thread = self.worker._thread
        assert thread is None or isinstance(thread, SteppedThread)
        return thread

    @property
    def alive(self) -> bool:
        """Return whether it runs."""
        return not self.ended and not self.loop.dead

    def wake(self) -> None:
        """Let the consumer poll soon."""
        if self.thread is not None and not self.loop.dead:
            self.thread.wake()

    def stop(self) -> None:
        """Send SIGTERM."""
        if self.alive:
            self.loop.call_soon_threadsafe(self.worker.request_stop)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.producer.die()
        if self.consumer is not None:
            self.consumer.killed = True
        self.scheduler.kill(self.loop)
        self.world.database.abandon(self.store)

    def give_up(self) -> None:
        """Let a worker that is cancelled not wait for its consumer thread, which does nothing more."""
        if self.consumer is not None:
            self.consumer.killed = True
        if self.thread is not None:
            self.thread._has_ended = True

    def leftovers(self) -> Mapping[str, int]:
        """Return what is still in memory; all of it is zero when everything is done."""
        works = list(self.thread.works.values()) if self.thread is not None else []
        for work in works:
            work.advance()
        return {
            "records in flight": self.worker._flow.records,
            "bytes in flight": self.worker._flow.bytes,
            "ledger": sum(work.unfinished for work in works),
            "busy keys": sum(len(work.busy) for work in works),
            "running": sum(work.running for work in works),
            "runnable": sum(len(lane) for lane in self.worker._lanes.by_operation.values()),
        }

    def _start(self) -> None:
        if self.scheduler.over:
            return  # killed before it began
        self.loop.create_task(self.worker.run(), name=self.name).add_done_callback(self._note_end)

    def _note_end(self, task: asyncio.Task[None]) -> None:
        self.ended = True
        self.error = None if task.cancelled() else task.exception()
        if self.consumer is not None and not self.consumer.closed:
            # The process ends with its consumer open: the session runs out later.
            self.consumer.killed = True

    def _make_consumer(self, statistics: Any, error: Any, on_commit: Callable[..., None]) -> SimulatedConsumer:
        self.consumer = SimulatedConsumer(
            self.world.coordinator, self.name, wake=self.wake, on_commit=on_commit, partition_eof=True
        )
        return self.consumer


class SteppedParts:
    """Puts the stepped thread and shared instruments in place of the worker's own, and back."""

    def __init__(self) -> None:
        self._before: list[tuple[Any, str, Any]] = []

    def __enter__(self) -> None:
        self._put(worker_module, "ConsumerThread", SteppedThread)
        self._put(worker_module, "WorkerMetrics", lambda registry, spec: _instruments(spec))
        # Hours pass in a run: what is looked at all the time is looked at less often.
        self._put(dependencies, "PING_SECONDS", PING_SECONDS)
        self._put(parking, "TICK_SECONDS", TICK_SECONDS)

    def _put(self, module: Any, name: str, value: Any) -> None:
        self._before.append((module, name, getattr(module, name)))
        setattr(module, name, value)

    def __exit__(self, *_: object) -> None:
        while self._before:
            setattr(*self._before.pop())
