"""A record that fails waits in the retry topic with its key, others flow; its end is written after its outputs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from omnibase_infra.shared.core import envelope as envelopes
from omnibase_infra.shared.core.errors import DeliveryError
from omnibase_infra.shared.core.headers import STRUCTURED_HEADERS, TransportHeader
from omnibase_infra.shared.core.naming import Realm, TopicName
from omnibase_infra.shared.core.payload import decode_payload
from omnibase_infra.shared.core.ports import BatchContext, IsolationLevel, OutboundRecord
from omnibase_infra.shared.core.worker_spec import DeadLetterSpec, OperationSpec, RetrySpec, WorkerSpec
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.observability.structured_logger import get_logger
from omnibase_infra.shared.observability.worker_metrics import WorkerMetrics
from omnibase_infra.shared.resilience.circuit_breaker_factory import CircuitBreakerFactory
from omnibase_infra.shared.resilience.retry_policy import RetryPolicy
from omnibase_infra.shared.runtime.answers import Answers
from omnibase_infra.shared.runtime.careful import Careful
from omnibase_infra.shared.runtime.dead_letters import DeadLetters
from omnibase_infra.shared.runtime.delivery import Delivery
from omnibase_infra.shared.runtime.dependencies import Dependencies
from omnibase_infra.shared.runtime.execution import Execution
from omnibase_infra.shared.runtime.executor import Executor
from omnibase_infra.shared.runtime.intake import Intake
from omnibase_infra.shared.runtime.lanes import Lane, Lanes
from omnibase_infra.shared.runtime.parking import Parking
from omnibase_infra.shared.runtime.records import Headers, PartitionWork, Record
from omnibase_infra.shared.runtime.refusal_answers import RefusalAnswers

REALM = Realm("test")
COMMANDS = "onex.cmd.shop.requests.v1"
ANSWERS = "onex.evt.shop.results.v1"
DEAD = "onex.dlq.shop.dead-letters.v1"
ORDER_TYPE = "onex.cmd.shop.order.v1"
GROUP = "test.shop"
OURS = {header.value for header in TransportHeader}
ORDER = OperationSpec(
    name="order",
    topic=COMMANDS,
    event_type=ORDER_TYPE,
    completed_type="onex.evt.shop.order-completed.v1",
    failed_type="onex.evt.shop.order-failed.v1",
    answer_topic=ANSWERS,
    guarantee="at_least_once",
    batch_max=10,
    concurrency=2,
)


class Order(msgspec.Struct, frozen=True):
    """The request and the response."""

    number: int


class Broker:
    """Keeps what was sent, in order, and hands what goes to the retry topic back to whoever reads it.

    Attributes:
        refuses: says of each record whether the broker refuses it.
    """

    def __init__(self, retry_topic: str) -> None:
        self.retry_topic = retry_topic
        self.sent: list[OutboundRecord] = []
        self.refuses: Callable[[OutboundRecord], bool] = lambda record: False
        self.readers: list[Callable[[int, OutboundRecord], None]] = []

    @property
    def retries(self) -> list[OutboundRecord]:
        return [record for record in self.sent if record.topic == self.retry_topic]

    async def send(self, records: Sequence[OutboundRecord]) -> None:
        errors: dict[int, str] = {}
        for index, record in enumerate(records):
            if self.refuses(record):
                errors[index] = "timed out"
                continue
            offset = len(self.retries)
            self.sent.append(record)
            if record.topic == self.retry_topic:
                for read in self.readers:
                    asyncio.get_running_loop().call_soon(read, offset, record)
        await asyncio.sleep(0)
        if errors:
            raise DeliveryError("not confirmed", errors=errors)


class Shop:
    """A worker's inside without Kafka: source records in, the retry topic read back as it is written."""

    def __init__(self, broker: Broker | None = None, *, start: int = 0, **spec: Any) -> None:
        operation = spec.pop("operation", ORDER)
        surroundings: dict[str, Any] = {
            "retry": RetrySpec(in_lane=1, tiers=(0.05, 0.05)),
            "dead_letters": DeadLetterSpec(consecutive=50, ratio=1.0),
        }
        self.spec = WorkerSpec(
            generation=1,
            node="shop",
            worker="shop",
            class_name="NodeShopEffect",
            version="1.0.0",
            contract_sha256="0" * 64,
            description="",
            node_type="effect",
            subscribe=(COMMANDS,),
            publish=(ANSWERS,),
            operations=(operation,),
            **(surroundings | spec),
        )
        topic = TopicName.parse(COMMANDS)
        retry = self.spec.retry_topics[topic]
        self.broker = broker or Broker(str(retry))
        self.failing: dict[int, int] = {}  # how often each number fails still
        self.ran: list[int] = []
        self.lanes = Lanes(lambda records, size: None)
        metrics = WorkerMetrics(MetricsRegistry(process_metrics=False), self.spec)
        dependencies = Dependencies(self.spec, {}, CircuitBreakerFactory(metrics.dependencies), lambda: None)
        self.lane = Lane(operation, self, dependencies.gate(()))
        self.lanes.add(self.lane)
        self.intake = Intake(self.spec, REALM, self.lanes.by_operation, self.lane)
        delivery = Delivery(self.broker, RetryPolicy(attempts=3, base=0.001, cap=0.002), lambda error: None)
        dead_letters = DeadLetters(self.spec, GROUP)
        answers = Answers(self.spec, REALM)
        self.parking = self.lanes.parking = Parking(
            self.spec,
            GROUP,
            lanes=self.lanes,
            intake=self.intake,
            delivery=delivery,
            dead_letters=dead_letters,
            refuse=lambda record, error: self.executor.refuse(record, error),  # noqa: PLW0108 - made below
            metrics=metrics,
            log=get_logger(),
            max_records=1000,
            max_bytes=1_000_000,
        )
        self.executor = Executor(
            self.spec,
            lanes=self.lanes,
            execution=Execution(self.spec, answers, {}),
            delivery=delivery,
            dead_letters=dead_letters,
            refusal_answers=RefusalAnswers(self.spec, REALM, answers),
            retry=RetryPolicy.from_spec(self.spec.retry),
            metrics=metrics,
            log=get_logger(),
            parking=self.parking,
            careful=Careful(get_logger()),
        )
        self.source = PartitionWork(topic, topic.physical(REALM), 0, start=start)
        self.retry = PartitionWork(retry, retry.physical(REALM), 0, source=topic, start=0)
        self.place = self.parking.open(self.source, self.retry, start=start, folded=not self.broker.retries)
        self.next_offset = start
        self.broker.readers = [self.read]

    # -- the handler ------------------------------------------------------------------------------------------------

    def decode(self, data: msgspec.Raw) -> Order:
        return decode_payload(msgspec.json.Decoder(Order), data)

    def isolation(self, requests: Sequence[Order]) -> IsolationLevel | None:
        return None

    async def run(self, requests: Sequence[Order], context: BatchContext) -> Sequence[Order]:
        for request in requests:
            if self.failing.get(request.number, 0) > 0:
                if len(requests) == 1:
                    self.failing[request.number] -= 1
                raise RuntimeError("not now")
        self.ran += [request.number for request in requests]
        return requests

    # -- records ------------------------------------------------------------------------------------------------------

    def submit(self, number: int, key: bytes | None = b"a", headers: Headers | None = None) -> Record:
        """Let a command come from the source."""
        record = Record(self.source, self.next_offset, 1_700_000_000_000, key, command(number), headers)
        self.next_offset += 1
        self.intake.admit(record)
        self.source.enter([record])
        self.lanes.submit(record)
        self.place.source_read_to(self.next_offset)
        return record

    def read(self, offset: int, record: OutboundRecord) -> None:
        """Let a record come from the retry partition."""
        if offset > self.retry.last_entered:
            headers = [(name, value) for name, value in record.headers or ()]
            consumed = Record(self.retry, offset, 0, record.key, record.value, headers)
            self.retry.enter([consumed])
            self.parking.read([consumed])

    def read_all(self) -> None:
        """Let the retry partition be read from its beginning to its end, as after an assignment."""
        for offset, record in enumerate(self.broker.retries):
            self.read(offset, record)
        self.parking.reached_end(self.retry, len(self.broker.retries))

    async def append(self, *records: OutboundRecord) -> None:
        """Write to the retry topic as `omninode dlq` does."""
        await self.broker.send(records)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.executor.run())
        try:
            yield
            if task.done():
                await task
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError, BaseExceptionGroup):
                await task

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                await asyncio.sleep(0.002)

    async def all_done(self) -> None:
        """Wait until all of both partitions can be committed."""
        await self.until(
            lambda: self.source.advance() == self.next_offset and self.retry.advance() == len(self.broker.retries)
        )

    # -- what was written ---------------------------------------------------------------------------------------------

    @property
    def answers(self) -> list[envelopes.Envelope]:
        return [envelopes.decode(record.value) for record in self.broker.sent if record.topic == ANSWERS]

    @property
    def dead(self) -> list[OutboundRecord]:
        return [record for record in self.broker.sent if record.topic == DEAD]

    @property
    def states(self) -> list[str]:
        """Return what lies in the retry topic: "parked", "done", "retry", … each with its original offset."""
        return [
            f"{ours(record).get(TransportHeader.PARKED_STATE, 'parked')} {ours(record)[TransportHeader.ORIGINAL_OFFSET]}"
            for record in self.broker.retries
        ]


def command(number: int) -> bytes:
    data = envelopes.encode_data({"number": number})
    return envelopes.encode(envelopes.original(source="/outside", event_type=ORDER_TYPE, data=data))


def ours(record: OutboundRecord) -> dict[str, str]:
    return {name: (value or b"").decode() for name, value in record.headers or () if name in OURS}


def from_desk(
    shop: Shop, offset: int, redrive_id: str, *, state: str = "", value: bytes | None = None
) -> OutboundRecord:
    """Return a redriven record, or a marker, as `omninode dlq` writes it."""
    headers: Headers = [
        (TransportHeader.ORIGINAL_TOPIC.value, shop.source.physical.encode()),
        (TransportHeader.ORIGINAL_PARTITION.value, b"0"),
        (TransportHeader.ORIGINAL_OFFSET.value, str(offset).encode()),
        (TransportHeader.GROUP.value, GROUP.encode()),
        (TransportHeader.REDRIVE_ID.value, redrive_id.encode()),
    ]
    headers.append(
        (TransportHeader.PARKED_STATE.value, state.encode())
        if state
        else (TransportHeader.REDRIVE_GROUP.value, GROUP.encode())
    )
    return OutboundRecord(shop.broker.retry_topic, value, b"a", headers, partition=0)


HOLD: dict[str, Any] = {"dead_letters": DeadLetterSpec(consecutive=50, ratio=1.0, then="hold")}


async def test_a_failing_record_is_parked_with_its_key_behind_it_while_others_flow() -> None:
    shop = Shop()
    shop.failing[0] = 2
    async with shop.running():
        for number in range(4):
            shop.submit(number, b"a")
        for number in range(10, 30):
            shop.submit(number, b"b%d" % number)
        await shop.until(lambda: len(shop.ran) == 20)
        assert set(shop.ran) == set(range(10, 30))
        await shop.all_done()
    assert [number for number in shop.ran if number < 10] == [0, 1, 2, 3]
    assert len(shop.answers) == 24
    assert not shop.dead
    assert shop.states[0] == "parked 0"


async def test_a_parked_record_counts_as_finished_in_its_source_at_once() -> None:
    shop = Shop(retry=RetrySpec(in_lane=1, tiers=(60.0,)))
    shop.failing[0] = 1
    async with shop.running():
        shop.submit(0)
        shop.submit(1)
        await shop.until(lambda: shop.source.advance() == 2)
    assert shop.ran == []
    assert shop.retry.advance() == 0
    assert shop.states == ["parked 0", "parked 1"]


async def test_a_record_that_the_retry_topic_does_not_take_stays_unfinished_until_it_does() -> None:
    shop = Shop()
    shop.failing[0] = 1
    shop.broker.refuses = lambda record: record.topic == shop.broker.retry_topic
    async with shop.running():
        shop.submit(0)
        shop.submit(1)
        shop.submit(2, b"b")
        await shop.until(lambda: shop.ran == [2])
        assert shop.source.advance() == 0
        shop.broker.refuses = lambda record: False
        await shop.all_done()
    assert shop.ran == [2, 0, 1]


async def test_a_dead_letter_from_the_retry_topic_has_the_original_place_and_each_of_our_headers_once() -> None:
    shop = Shop()
    shop.failing[7] = 99
    own: Headers = [*STRUCTURED_HEADERS, ("theirs", b"1"), ("theirs", b"2"), ("empty", None)]
    async with shop.running():
        shop.submit(0, b"b")
        letter_of = shop.submit(7, b"a", own)
        value = letter_of.value
        shop.submit(8, b"a")
        await shop.all_done()
    (letter,) = shop.dead
    names = [name for name, _ in letter.headers or () if name in OURS]
    assert len(names) == len(set(names))
    assert [header for header in letter.headers or () if header[0] not in OURS] == own
    assert (letter.key, letter.value) == (b"a", value)
    headers = ours(letter)
    assert headers[TransportHeader.ORIGINAL_TOPIC] == shop.source.physical
    assert headers[TransportHeader.ORIGINAL_OFFSET] == "1"
    assert headers[TransportHeader.ORIGINAL_TIMESTAMP] == "1700000000000"
    assert headers[TransportHeader.ATTEMPT] == "3"
    assert headers[TransportHeader.FIRST_FAILED_AT] < headers[TransportHeader.FAILED_AT]
    assert shop.ran == [0, 8]
    assert shop.states == ["parked 1", "parked 2", "retry 1", "done 1", "done 2"]


async def test_what_a_parked_record_gave_is_delivered_before_it_is_marked_done() -> None:
    shop = Shop()
    shop.failing[0] = 1
    shop.broker.refuses = lambda record: record.topic == ANSWERS
    async with shop.running():
        shop.submit(0)
        shop.submit(1)
        await shop.until(lambda: 0 in shop.ran)
        await asyncio.sleep(0.05)
        assert "done 0" not in shop.states
        assert shop.ran == [0], "the next of the key waits for the outputs of the one before"
        shop.broker.refuses = lambda record: False
        await shop.all_done()
    assert shop.ran == [0, 1]
    first_answer = next(index for index, record in enumerate(shop.broker.sent) if record.topic == ANSWERS)
    done = next(
        index
        for index, record in enumerate(shop.broker.sent)
        if ours(record).get(TransportHeader.PARKED_STATE) == "done"
    )
    assert first_answer < done


async def test_a_parked_record_that_ended_is_not_run_by_the_next_owner_and_one_that_waits_is() -> None:
    first = Shop(retry=RetrySpec(in_lane=1, tiers=(0.02, 60.0)))
    first.failing |= {0: 1, 5: 9}
    async with first.running():
        for number, key in ((0, b"a"), (1, b"a"), (5, b"b"), (6, b"b")):
            first.submit(number, key)
        await first.until(lambda: "retry 2" in first.states and "done 0" in first.states)
        await first.until(lambda: first.ran == [0, 1])
    second = Shop(first.broker, start=4, retry=RetrySpec(in_lane=1, tiers=(0.02, 0.02)))
    async with second.running():
        second.read_all()
        await second.all_done()
    assert second.ran == [5, 6]


async def test_a_null_key_and_records_without_order_are_parked_alone() -> None:
    shop = Shop(retry=RetrySpec(in_lane=1, tiers=(60.0,)))
    shop.failing |= {0: 1, 1: 1}
    async with shop.running():
        for number in range(6):
            shop.submit(number, None)
        await shop.until(lambda: shop.source.advance() == 6)
    assert sorted(shop.ran) == [2, 3, 4, 5]
    assert sorted(shop.states) == ["parked 0", "parked 1"]
    unordered = Shop(
        operation=msgspec.structs.replace(ORDER, ordering="none"), retry=RetrySpec(in_lane=1, tiers=(60.0,))
    )
    unordered.failing[0] = 1
    async with unordered.running():
        for number in range(4):
            unordered.submit(number, b"a")
        await unordered.until(lambda: unordered.source.advance() == 4)
    assert sorted(unordered.ran) == [1, 2, 3]
    assert unordered.states == ["parked 0"]


async def test_a_held_key_waits_for_a_release() -> None:
    shop = Shop(**HOLD)
    shop.failing[0] = 99
    async with shop.running():
        for number in range(3):
            shop.submit(number)
        shop.submit(10, b"b")
        await shop.until(lambda: shop.source.advance() == 4 and "held 0" in shop.states)
        await asyncio.sleep(0.1)
        assert shop.ran == [10]
        assert len(shop.dead) == 1
        await shop.append(from_desk(shop, 0, "", state="released"))
        await shop.all_done()
    assert shop.ran == [10, 1, 2]


async def test_a_held_key_waits_for_a_redrive_of_its_dead_record_which_runs_first() -> None:
    shop = Shop(**HOLD)
    shop.failing[0] = 3
    async with shop.running():
        for number in range(3):
            shop.submit(number)
        await shop.until(lambda: "held 0" in shop.states and shop.source.advance() == 3)
        await shop.append(from_desk(shop, 0, "r1", value=command(100)))
        await shop.all_done()
    assert shop.ran == [100, 1, 2]
    assert len({answer.id for answer in shop.answers}) == 4, "failed, redriven, and two others"


async def test_the_next_owner_holds_the_key_too() -> None:
    first = Shop(**HOLD)
    first.failing[0] = 99
    async with first.running():
        first.submit(0)
        first.submit(1)
        await first.until(lambda: first.source.advance() == 2 and "held 0" in first.states)
    second = Shop(first.broker, start=2, **HOLD)
    async with second.running():
        second.read_all()
        second.submit(2)
        await second.until(lambda: second.source.advance() == 3)
        assert second.ran == []
        await second.append(from_desk(second, 0, "", state="released"))
        await second.all_done()
    assert second.ran == [1, 2]


async def test_a_redriven_record_that_cannot_be_read_is_a_dead_letter_again_and_its_key_goes_on() -> None:
    shop = Shop()
    async with shop.running():
        await shop.append(from_desk(shop, 0, "r1", value=b"{ not an envelope"))
        shop.next_offset = 1
        shop.submit(1)
        await shop.until(lambda: len(shop.dead) == 1 and shop.ran == [1])
    headers = ours(shop.dead[0])
    assert headers[TransportHeader.ORIGINAL_OFFSET] == "0"
    assert headers[TransportHeader.REDRIVE_ID] == "r1"
    assert "done 0" in shop.states


async def test_a_redriven_command_that_is_refused_again_is_answered_once_more_before_it_is_marked_done() -> None:
    shop = Shop()
    stray = msgspec.structs.replace(envelopes.decode(command(0)), replyto="onex.evt.nobody.results.v1")
    async with shop.running():
        for redrive in ("r1", "r2"):
            await shop.append(from_desk(shop, 0, redrive, value=envelopes.encode(stray)))
        await shop.until(lambda: len(shop.dead) == 2 and shop.retry.advance() == 4)
    assert [answer.causationid for answer in shop.answers] == [stray.id] * 2
    assert len({answer.id for answer in shop.answers}) == 2
    ends = [index for index, record in enumerate(shop.broker.sent) if ours(record).get(TransportHeader.PARKED_STATE)]
    first_answer = next(index for index, record in enumerate(shop.broker.sent) if record.topic == ANSWERS)
    assert first_answer < ends[0]


async def test_a_refused_head_found_at_an_assignment_is_a_dead_letter_and_the_next_of_its_key_runs() -> None:
    broker = Shop().broker
    writer = Shop(broker)
    broker.sent += [
        from_desk(writer, 0, "r1", value=b"junk"),
        from_desk(writer, 1, "r1", value=command(1)),
    ]
    shop = Shop(broker, start=5)
    async with shop.running():
        shop.read_all()
        await shop.until(lambda: len(shop.dead) == 1 and shop.ran == [1])
        await shop.until(lambda: shop.retry.advance() == len(broker.retries))


async def test_garbage_in_the_retry_topic_is_a_dead_letter_and_holds_nothing_up() -> None:
    shop = Shop()
    async with shop.running():
        await shop.append(OutboundRecord(shop.broker.retry_topic, b"x", b"a", [("who", b"knows")], partition=0))
        shop.submit(0)
        await shop.all_done()
    assert shop.ran == [0]
    (letter,) = shop.dead
    assert ours(letter)[TransportHeader.ERROR_CODE] == "invalid-envelope"
    assert ours(letter)[TransportHeader.ORIGINAL_TOPIC] == shop.retry.physical


async def test_another_groups_entries_are_left_alone() -> None:
    shop = Shop()
    entry = from_desk(shop, 0, "r1", value=command(1))
    headers = [
        (name, b"another" if name == TransportHeader.REDRIVE_GROUP else value) for name, value in entry.headers or ()
    ]
    async with shop.running():
        await shop.append(OutboundRecord(entry.topic, entry.value, entry.key, headers, partition=0))
        await shop.until(lambda: shop.retry.advance() == 1)
    assert shop.ran == []
    assert not shop.dead


async def test_delays_stand_still_while_the_topic_waits_for_a_dependency() -> None:
    shop = Shop(retry=RetrySpec(in_lane=1, tiers=(0.2,)))
    shop.failing[0] = 1
    async with shop.running():
        shop.submit(0)
        await shop.until(lambda: shop.states == ["parked 0"])
        shop.parking.stand_still(frozenset({COMMANDS}))
        await asyncio.sleep(0.4)
        assert shop.ran == []
        shop.parking.stand_still(frozenset())
        await shop.all_done()
    assert shop.ran == [0]


async def test_a_partition_given_up_while_a_record_is_being_parked_is_finished_by_that_and_runs_nothing_more() -> None:
    shop = Shop()
    shop.failing[0] = 1
    shop.broker.refuses = lambda record: record.topic == shop.broker.retry_topic
    async with shop.running():
        shop.submit(0)
        await shop.until(lambda: shop.failing[0] == 0)
        shop.lanes.close([shop.source, shop.retry])
        shop.broker.refuses = lambda record: False
        await shop.until(lambda: shop.source.running == 0)
        await asyncio.sleep(0.1)
    assert shop.source.advance() == 1
    assert shop.ran == []
    assert shop.place.size == 0


async def test_no_record_of_the_retry_topic_is_counted_in_memory_when_all_have_ended() -> None:
    shop = Shop()
    shop.failing |= {0: 2, 5: 99}
    async with shop.running():
        for number in range(10):
            shop.submit(number, b"k%d" % (number % 3))
        await shop.all_done()
        await shop.until(lambda: shop.place.size == 0)
    assert (shop.parking._records, shop.parking._bytes) == (0, 0)
    assert not shop.place.keys
    assert shop.source.busy == {}
