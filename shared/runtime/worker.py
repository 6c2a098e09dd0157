"""A worker: the parts of a record's path put together, started in order, watched, and stopped in reverse."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import Consumer, KafkaError

from omnibase_infra.shared.core.errors import RecordRefusedError
from omnibase_infra.shared.core.naming import TopicName
from omnibase_infra.shared.core.ports import EffectStore, RecordProducer, WorkerNode
from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.kafka.lasting_trouble import BrokersAnswer
from omnibase_infra.shared.kafka.producer_counters import ProducerHealth
from omnibase_infra.shared.kafka.statistics import ClientStatistics
from omnibase_infra.shared.observability.log_events import LogEvent
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.observability.worker_metrics import WorkerMetrics
from omnibase_infra.shared.runtime.assignment import RetryTopic
from omnibase_infra.shared.runtime.client_watch import OUTSIDE_SECONDS, STUCK_SECONDS, ClientWatch
from omnibase_infra.shared.runtime.consumer_thread import ConsumerThread
from omnibase_infra.shared.runtime.dead_letters import TooManyDeadLettersError
from omnibase_infra.shared.runtime.detours import Detours
from omnibase_infra.shared.runtime.flow_control import FlowControl
from omnibase_infra.shared.runtime.intake import Ignored
from omnibase_infra.shared.runtime.kafka_health import KafkaHealth
from omnibase_infra.shared.runtime.records import PartitionWork, Record
from omnibase_infra.shared.runtime.topic_watch import TopicIds, TopicWatch
from omnibase_infra.shared.runtime.transactional_commits import TransactionSupport
from omnibase_infra.shared.runtime.worker_parts import build_parts

if TYPE_CHECKING:  # loads the tracing library
    from omnibase_infra.shared.observability.tracer_factory import Tracing

_EXECUTOR: Final = "executor"
POLL_STALE_SECONDS: Final = 30.0
_DRAIN_LOOK_SECONDS: Final = 0.005
# To commit and leave the group after the drain; the second is for those who do not want to wait.
_LEAVE_SECONDS: Final = 15.0
_LEAVE_AT_ONCE_SECONDS: Final = 3.0

MakeConsumer = Callable[
    [Callable[[ClientStatistics], None], Callable[[KafkaError], None], Callable[..., None]], Consumer
]


class Worker:
    """One process of a node: a consumer-group member. `run` returns when it was asked to stop, or raises.

    Implements `HealthSource` for the endpoints and `consumer_thread.Loop` for the consumer thread.
    """

    def __init__(  # noqa: PLR0913 - what surrounds a worker
        self,
        node: WorkerNode,
        settings: Settings,
        *,
        producer: RecordProducer | TransactionSupport,
        stores: Mapping[str, EffectStore],
        make_consumer: MakeConsumer,
        registry: MetricsRegistry,
        log: Any,
        brokers_answer: BrokersAnswer | None = None,
        topic_ids: TopicIds | None = None,
        producer_is_cut_off: Callable[[], bool] = lambda: False,
        producer_health: Callable[[], ProducerHealth] | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        """Args:
        node: what runs.
        settings: of the process.
        producer: sends outputs; of a transactional worker, what runs its transactions.
        stores: by dependency.
        make_consumer: from callbacks for statistics, errors and commits.
        registry: of the metrics.
        log: structured.
        brokers_answer: asks a broker by a client of its own; None leaves clients that are stuck alone.
        topic_ids: asks for the ids of the worker's topics; None leaves topics that are made anew unseen.
        producer_is_cut_off: whether the producer has records to send and no connection.
        producer_health: its state, for the endpoints.
        tracing: makes spans of records; None traces nothing.
        """
        self.spec = node.spec
        self._settings = settings
        self._realm = settings.realm
        self._group = self._realm.group(self.spec.worker, self.spec.major)
        self._topics = {topic.physical(self._realm): topic for topic in map(TopicName.parse, self.spec.subscribe)}
        self._make_consumer = make_consumer
        self._registry = registry
        self._log = log
        self.instruments = WorkerMetrics(registry, self.spec)
        self._flow = FlowControl(settings.max_in_flight_records, settings.max_in_flight_bytes)
        parts = build_parts(
            node,
            settings,
            producer=producer,
            stores=stores,
            metrics=self.instruments,
            log=log,
            on_left=self._flow.left,
            on_dependency=self._dependency_changed,
            on_late_death=self._died_late,
            tracing=tracing,
        )
        self._lanes, self._intake, self._dependencies = parts.lanes, parts.intake, parts.dependencies
        self._parking, self._careful, self._executor = parts.parking, parts.careful, parts.executor
        self._make_commits = parts.make_commits
        self._brokers_answer = brokers_answer
        self._topic_watch = TopicWatch(topic_ids, self._hold_commits, log) if topic_ids is not None else None
        self._producer_is_cut_off = producer_is_cut_off
        self._kafka = KafkaHealth(self.instruments, self._realm, self._topics, producer_health)
        self._thread: ConsumerThread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop = asyncio.Event()
        self._failure: BaseException | None = None
        self._kafka_problem = "not connected yet"
        self._drain_at_once = False
        self._was_ready = False
        self._blocked_seconds: Callable[[], float] = lambda: 0.0

    # -- life cycle -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Consume until `request_stop`, then drain, commit and leave the group.

        Raises:
            OmnibaseError: what stopped the worker: a missing topic or offset, too many dead letters, …
        """
        self._loop = asyncio.get_running_loop()
        consumer = self._make_consumer(self._statistics, self._client_error, self._on_commit)
        self._thread = ConsumerThread(
            consumer,
            topics=self._topics,
            group=self._group,
            loop=self,
            flow=self._flow,
            metrics=self.instruments,
            log=self._log,
            retries={
                physical: RetryTopic(retry, retry.physical(self._realm))
                for physical, topic in self._topics.items()
                for retry in (self.spec.retry_topics[topic],)
            },
            open_parking=self._parking.open,
            make_commits=self._make_commits,
            topic_ids=dict if self._topic_watch is None else self._topic_watch.ids,
            topics_seen_since=(lambda _: True) if self._topic_watch is None else self._topic_watch.seen_since,
        )
        self._parking.seek = self._thread.seek
        self._careful.commit_now = self._thread.commit_now
        self._careful.hurry = self._hurry
        tasks = [
            self._start(self._executor.run(), _EXECUTOR),
            self._start(self._dependencies.watch(), "dependencies"),
            self._start(Detours(self.spec, self._lanes, self._parking, self._dependencies).run(), "detours"),
        ]
        if self._topic_watch is not None:
            tasks.append(self._start(self._topic_watch.run(), "topics"))
        if self._brokers_answer is not None:
            tasks.append(self._start(ClientWatch(self._brokers_answer).run(self._client_troubles), "clients"))
        self._thread.start()
        try:
            await self._stop.wait()
        finally:
            await self._shut_down(tasks)
        if self._failure is not None:
            raise self._failure

    def request_stop(self) -> None:
        """Stop gracefully; a second call ends the drain at once. Event loop."""
        if self._stop.is_set():
            self._drain_at_once = True
        else:
            self._log.info(LogEvent.WORKER_STOPPING, in_flight=self._flow.records)
            self._stop.set()

    def watched_by(self, blocked_seconds: Callable[[], float]) -> None:
        """Let a watchdog say how long the event loop has been blocked, for liveness."""
        self._blocked_seconds = blocked_seconds

    async def _shut_down(self, tasks: Sequence[asyncio.Task[None]]) -> None:
        assert self._thread is not None
        self._thread.stop()
        if not await self._has_left(self._thread):
            # Nothing unfinished was committed, so whoever owns the partitions next runs it again.
            self._log.error(LogEvent.DRAIN_TIMEOUT, what="the consumer did not close, the brokers may be away")
        for task in tasks:
            task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                self._note_failure(result)

    async def _has_left(self, thread: ConsumerThread) -> bool:
        """Wait for the consumer thread; return whether it ended in time. A second signal shortens the time."""
        deadline = time.monotonic() + self._settings.shutdown_grace_seconds + _LEAVE_SECONDS
        hurried = False
        while thread.is_alive():
            if self._drain_at_once and not hurried:
                hurried, deadline = True, min(deadline, time.monotonic() + _LEAVE_AT_ONCE_SECONDS)
            if time.monotonic() >= deadline:
                return False
            # Not a join in another thread: a second signal could not end that.
            await asyncio.sleep(_DRAIN_LOOK_SECONDS)
        return True

    def _start(self, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._task_ended)
        return task

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            # What is left of the records under way was cancelled with their executor: nothing to wait for.
            self._drain_at_once = task.get_name() == _EXECUTOR or self._drain_at_once
            self._note_failure(error)

    def _note_failure(self, error: BaseException) -> None:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        if self._failure is None:
            self._failure = error
        self._stop.set()

    def _died_late(self) -> None:
        """Count a dead letter that the consumer thread made. Consumer thread."""

        def count() -> None:
            try:
                self._executor.died_late()
            except TooManyDeadLettersError as error:
                self._note_failure(error)

        self._call(count)

    # -- what the consumer thread calls (`consumer_thread.Loop`) ----------------------------------------------------

    def received(self, records: list[Record], read_to: Sequence[tuple[PartitionWork, int]]) -> None:
        """Take a batch."""
        self._call(self._admit, records, read_to)

    def received_parked(self, records: list[Record]) -> None:
        """Take records of retry partitions."""
        self._call(self._parking.read, records)

    def reached_end(self, work: PartitionWork, offset: int) -> None:
        """Note that a partition was read to its end."""
        self._call(self._parking.reached_end, work, offset)

    def drain(self, works: Sequence[PartitionWork]) -> None:
        """Wait, within the budget, for what runs of these partitions; drop what has not started."""
        assert self._loop is not None
        budget = self._settings.shutdown_grace_seconds if self._stop.is_set() else self._settings.revoke_budget_seconds
        future = asyncio.run_coroutine_threadsafe(self._drain(works, budget), self._loop)
        try:
            future.result(budget + 1.0)
        except TimeoutError:
            # The loop itself is blocked. Nothing unfinished is committed, so the next owner runs it again.
            future.cancel()
            self._log.error(LogEvent.DRAIN_TIMEOUT, what="the event loop is blocked", seconds=budget)

    def lose(self, works: Sequence[PartitionWork]) -> None:
        """Drop all work of partitions that another member may own already."""
        self._call(self._give_up, works)

    def assignment_changed(self, new: Sequence[PartitionWork]) -> None:
        """Look at readiness again; whoever got an assignment talks to a coordinator."""
        self._call(self._careful.watch, new)
        self._call(self._kafka_is, "")

    def failed(self, error: BaseException) -> None:
        """Stop the worker with the consumer thread's error."""
        self._call(self._note_failure, error)

    def _call(self, function: Callable[..., Any], *arguments: Any) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._guarded, function, *arguments)

    def _guarded(self, function: Callable[..., Any], *arguments: Any) -> None:
        """Call what the thread asked for; a fault of ours ends the worker, or a partition would stand still silently."""
        try:
            function(*arguments)
        except Exception as error:  # noqa: BLE001 - becomes the worker's failure
            self._drain_at_once = True
            self._note_failure(error)

    def _give_up(self, works: Sequence[PartitionWork]) -> None:
        self._lanes.close(works)
        self._careful.forget(works)

    def _hold_commits(self, held: bool) -> None:
        if self._thread is not None:
            self._thread.hold_commits(held)

    def _hurry(self, hurried: bool) -> None:
        if self._thread is not None:
            self._thread.hurried = hurried

    async def _drain(self, works: Sequence[PartitionWork], budget: float) -> None:
        self._give_up(works)
        deadline = time.monotonic() + budget
        while any(work.running for work in works):
            if time.monotonic() >= deadline or self._drain_at_once:
                running = sum(work.running for work in works)
                self._log.warning(
                    LogEvent.DRAIN_TIMEOUT, what="work still running is left to the next owner", running=running
                )
                return
            await asyncio.sleep(_DRAIN_LOOK_SECONDS)

    def _admit(self, records: list[Record], read_to: Sequence[tuple[PartitionWork, int]]) -> None:
        admit, submit = self._intake.admit, self._lanes.submit
        ignored: list[Record] = []
        for record in records:
            try:
                admit(record)
            except RecordRefusedError as error:
                self._executor.refuse(record, error)
            except Ignored:
                ignored.append(record)
            except Exception as error:  # noqa: BLE001 - a fault of ours must not lose the rest of the batch
                self._executor.refuse(record, error)
            else:
                submit(record)
        for work, offset in read_to:
            if work.parking is not None:
                work.parking.source_read_to(offset)
        self._show_in_flight()
        if ignored:
            for record in ignored:
                topic = self.instruments.topics[record.work.topic]
                topic.ignored.inc()
                topic.finished.inc()
            self._lanes.finish(ignored)

    def _show_in_flight(self) -> None:
        self.instruments.in_flight_records.set(self._flow.records)
        self.instruments.in_flight_bytes.set(self._flow.bytes)

    # -- health (`HealthSource`) -----------------------------------------------------------------------------------

    def live(self) -> tuple[bool, str]:
        """Return whether the loop turns and the consumer thread polls."""
        blocked = self._blocked_seconds()
        if blocked > POLL_STALE_SECONDS:
            return False, f"the event loop has been blocked for {blocked:.0f} s"
        thread = self._thread
        if thread is not None and not self._stop.is_set():
            age = time.monotonic() - thread.polled_at
            if age > self._settings.revoke_budget_seconds + POLL_STALE_SECONDS:
                return False, f"the consumer thread has not polled for {age:.0f} s"
        return True, "ok"

    def ready(self) -> tuple[bool, dict[str, str]]:
        """Return whether requests are being worked on, and the state of each thing that takes."""
        assigned = self._thread is not None and self._thread.assigned
        states = {
            "worker": "stopping" if self._stop.is_set() else "ok",
            "kafka": self._kafka_problem or "ok",
            "assignment": "ok" if assigned else "waiting for the group",
            "retries": self._describe_retries(),
            **self._dependencies.describe(),
        }
        return all(state == "ok" for state in states.values()), states

    def _describe_retries(self) -> str:
        works = list(self._thread.works.values()) if self._thread is not None else []
        unread = sum(work.is_retry and work.parking is not None and not work.parking.folded for work in works)
        return f"reading what is parked of {unread} partitions" if unread else "ok"

    def info(self) -> dict[str, Any]:
        """Return contract, version and assignment."""
        works = list(self._thread.works.values()) if self._thread is not None else []
        return {
            "node": self.spec.node,
            "worker": self.spec.worker,
            "version": self.spec.version,
            "contract_sha256": self.spec.contract_sha256,
            "realm": str(self._realm),
            "group": self._group,
            "guarantee": self.spec.guarantee,
            "operations": [operation.name for operation in self.spec.operations],
            "in_flight": {"records": self._flow.records, "bytes": self._flow.bytes},
            "assignment": [self._kafka.describe_partition(work) for work in works if not work.is_retry],
            "kafka": self._kafka.describe(),
            "dependencies": self._dependencies.details(),
        }

    def exposition(self, *, openmetrics: bool = False) -> bytes:
        """Return the metrics as Prometheus reads them, or as OpenMetrics."""
        self._show_in_flight()  # when nothing comes in any more, nothing else would say that it has become less
        self._kafka.show()
        return self._registry.exposition(openmetrics=openmetrics)

    # -- surroundings ----------------------------------------------------------------------------------------------

    def _kafka_is(self, problem: str) -> None:
        """Note whether a broker answers: the client's own connections say so, nothing is asked for it."""
        if bool(problem) != bool(self._kafka_problem):
            if problem:
                self._log.warning(LogEvent.DEPENDENCY_UNAVAILABLE, dependency="kafka", error=problem)
            else:
                self._log.info(LogEvent.DEPENDENCY_AVAILABLE, dependency="kafka")
        self._kafka_problem = problem
        self._note_readiness()

    def _client_troubles(self) -> dict[str, float]:
        """Return what is wrong with the Kafka clients, each with the seconds that it may be so."""
        troubles: dict[str, float] = {}
        if self._kafka_problem:
            troubles["the consumer has had no connection"] = STUCK_SECONDS
        if self._producer_is_cut_off():
            troubles["the producer has had no connection"] = STUCK_SECONDS
        if self._thread is not None and not self._thread.assigned:
            troubles["the group has not taken this member in"] = OUTSIDE_SECONDS
        return troubles

    def _note_readiness(self) -> None:
        ready, states = self.ready()
        if ready and not self._was_ready:
            self._log.info(LogEvent.WORKER_READY, assignment=self._thread.owned if self._thread else 0)
        elif self._was_ready and not ready and not self._stop.is_set():
            self._log.warning(
                LogEvent.WORKER_NOT_READY, **{name: state for name, state in states.items() if state != "ok"}
            )
        self._was_ready = ready

    def _dependency_changed(self) -> None:
        self._flow.blocked_topics = blocked = self._dependencies.blocked_topics()
        self._parking.stand_still(blocked)
        self._note_readiness()

    def _statistics(self, statistics: ClientStatistics) -> None:
        """Take lag and connections from the client's report. Consumer thread."""
        self._kafka.took(statistics)
        self._call(self._kafka_is, "" if statistics.connected_brokers() else "no broker connection is up")
        self._call(self._careful.look)  # an idle worker has nothing else that tells it

    def _client_error(self, error: KafkaError) -> None:
        """Take the news that no broker is left, which comes sooner than the next report. Consumer thread."""
        self._kafka.failed(error)
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self._call(self._kafka_is, f"no broker answers: {error.str()}")

    def _on_commit(self, error: Any, offsets: Any) -> None:
        if self._thread is not None:
            self._thread.on_commit(error, offsets)
