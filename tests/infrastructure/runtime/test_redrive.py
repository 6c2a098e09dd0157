"""Redriving on a real broker: one transaction or nothing, one operator at a time, resumable, paced, and nothing twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import msgspec
import pytest
from confluent_kafka import Message, TopicPartition
from confluent_kafka.admin import AdminClient

from omnibase_infra.shared.core.errors import (
    CorruptLogError,
    DeliveryError,
    DependencyUnavailableError,
    TopicMissingError,
)
from omnibase_infra.shared.core.ids import original_id
from omnibase_infra.shared.core.naming import TopicName, resolutions_topic
from omnibase_infra.shared.core.ports import OutboundRecord
from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.core.worker_spec import WorkerSpec
from omnibase_infra.shared.kafka.admin import KafkaTopicAdmin
from omnibase_infra.shared.runtime.dead_letter_filter import DeadLetterFilter, grouped
from omnibase_infra.shared.runtime.dead_letter_log import DeadLetterLog
from omnibase_infra.shared.runtime.redrive import RedriveOrder, RedriveReport, RedriveRun
from omnibase_infra.shared.runtime.redrive_records import RedriveRecords
from omnibase_infra.shared.runtime.redrive_selection import make_selection
from omnibase_infra.shared.runtime.redrive_transaction import RedriveFencedError, RedriveTransactions
from omnibase_infra.shared.testing.dead_letter_load import (
    SIX_FAILURES,
    DeadLetterRecord,
    dead_command,
    write_dead_letters,
    write_records,
)
from omnibase_infra.shared.testing.kafka_fixtures import ConsumerFactory, RecordedLog
from omnibase_infra.shared.testing.manual_clock import ManualClock
from omnibase_infra.shared.testing.sample_fleet import order_store
from omnibase_infra.topics.provisioning import provision
from omnibase_infra.topics.topic_registry import TopicRegistry

SPEC = order_store()
RETRY = "onex.retry.order-store.requests.v1"
RESOLUTIONS = "onex.dlq.order-store.resolutions.v1"
ACTIONS = "onex.evt.order-store.dead-letter-actions.v1"
OPEN = DeadLetterFilter()


class Desk:
    """An operator's desk: dead letters are written, read, redriven, and the topics looked into."""

    def __init__(self, settings: Settings, consumers: ConsumerFactory) -> None:
        self.settings = settings
        self.realm = settings.realm
        self.spec: WorkerSpec = SPEC
        self._consumers = consumers

    def give_up(self, *numbers: int, **where: Any) -> list[DeadLetterRecord]:
        """Write dead letters of the worker."""
        records = [dead_command(self.spec, self.realm, number, **where) for number in numbers]
        write_dead_letters(self.settings, self.spec, records)
        return records

    def log(self) -> DeadLetterLog:
        return DeadLetterLog(self.settings, self.spec, log=RecordedLog())

    def transactions(self, **options: Any) -> RedriveTransactions:
        return RedriveTransactions(self.settings, self.spec, log=RecordedLog(), **options)

    def run(
        self,
        wanted: DeadLetterFilter = OPEN,
        *,
        limit: int | None = None,
        clock: ManualClock | None = None,
        wait: Callable[[float], bool] = lambda _: False,
        transactions: RedriveTransactions | None = None,
        **order: Any,
    ) -> RedriveReport:
        """Redrive or discard what a filter means."""
        with self.log() as log:
            counts = log.partition_counts(list(self.spec.retry_topics.values()))
            records = RedriveRecords(self.spec, self.realm, counts)
            snapshot = log.read()
            selection = make_selection(snapshot, snapshot.select(wanted), records.refusal, limit)
            asked = RedriveOrder(**({"action": "redrive", "redrive_id": original_id(), "by": "ann"} | order))
            with transactions or self.transactions() as entered:
                run = RedriveRun(self.spec, self.realm, log, entered, records, clock=clock or ManualClock(), wait=wait)
                return run.run(asked, snapshot, selection)

    def states(self) -> Counter[str]:
        with self.log() as log:
            return Counter(state for _, state in log.read())

    def records(self, topic: str) -> list[Message]:
        """Return what a reader of committed records finds in a topic."""
        return self._consumers.read(TopicName.parse(topic).physical(self.realm))

    def retried(self) -> list[bytes]:
        """Return the values on the retry topic of the requests."""
        return [message.value() or b"" for message in self.records(RETRY)]

    def events(self) -> list[dict[str, Any]]:
        return [msgspec.json.decode(message.value() or b"") for message in self.records(ACTIONS)]


def text_headers(message: Message) -> dict[str, str]:
    headers: Any = message.headers() or []
    return {name: (value or b"").decode() for name, value in headers}


@pytest.fixture
def desk(kafka_settings: Settings, kafka_consumer_factory: ConsumerFactory) -> Desk:
    """A worker's topics in the test's realm."""
    admin = KafkaTopicAdmin(kafka_settings, log=RecordedLog())
    registry = TopicRegistry.from_specs([SPEC], kafka_settings.realm)
    assert provision(admin, registry.catalogue, kafka_settings.realm).is_complete
    return Desk(kafka_settings, kafka_consumer_factory)


def test_a_redriven_record_has_its_own_bytes_and_headers_that_say_what_it_is(desk: Desk) -> None:
    (given_up,) = desk.give_up(7, partition=2)

    report = desk.run()

    (message,) = desk.records(RETRY)
    assert (message.key(), message.value(), message.partition()) == (given_up.key, given_up.value, 2)
    group = desk.realm.group("order-store", 1)
    assert text_headers(message) == {
        "content-type": "application/cloudevents+json",
        "onex-original-topic": f"{desk.realm}.onex.cmd.order-store.requests.v1",
        "onex-original-partition": "2",
        "onex-original-offset": "7",
        "onex-original-timestamp": "1780000000007",
        "onex-worker": "order-store",
        "onex-group": group,
        "onex-attempt": "0",
        "onex-first-failed-at": dict(given_up.headers)["onex-first-failed-at"].decode(),  # type: ignore[union-attr]
        "onex-redrive-id": report.redrive_id,
        "onex-redrive-group": group,
    }
    assert (report.resolved, report.ending) == (1, "finished")


def test_what_was_redriven_is_resolved_and_not_redriven_again(desk: Desk) -> None:
    desk.give_up(*range(20))

    first, second = desk.run(), desk.run()

    assert (first.resolved, second.resolved) == (20, 0)
    assert desk.states() == {"redriven": 20}
    assert len(desk.retried()) == 20


def test_the_resolution_says_who_did_what_and_when(desk: Desk) -> None:
    desk.give_up(3)

    report = desk.run(action="discard", reason="a test order", by="bob")

    (message,) = desk.records(RESOLUTIONS)
    assert message.key() == b"0/0"
    resolution = msgspec.json.decode(message.value() or b"")
    assert {name: resolution[name] for name in ("action", "redrive_id", "by", "at", "reason")} == {
        "action": "discarded",
        "redrive_id": report.redrive_id,
        "by": "bob",
        "at": "2025-06-15T15:06:40.000000Z",
        "reason": "a test order",
    }


def test_a_discarded_dead_letter_lets_the_key_go_that_was_held_behind_it(desk: Desk) -> None:
    (given_up,) = desk.give_up(5, partition=1)

    desk.run(action="discard", reason="obsolete")

    (marker,) = desk.records(RETRY)
    assert (marker.key(), marker.value(), marker.partition()) == (given_up.key, None, 1)
    headers = text_headers(marker)
    assert (headers["onex-parked-state"], headers["onex-original-offset"]) == ("released", "5")
    assert "onex-redrive-id" not in headers
    assert desk.states() == {"discarded": 1}


def test_events_tell_who_did_what_to_which(desk: Desk) -> None:
    desk.give_up(*range(4))

    report = desk.run(DeadLetterFilter(keys=(b"key-1", b"key-2")), filters={"key": ["key-1", "key-2"]})

    started, resolved, finished = desk.events()
    assert [event["type"] for event in (started, resolved, finished)] == [
        "onex.evt.order-store.dead-letter-action-started.v1",
        "onex.evt.order-store.dead-letters-resolved.v1",
        "onex.evt.order-store.dead-letter-action-finished.v1",
    ]
    assert {event["correlationid"] for event in (started, resolved, finished)} == {report.redrive_id}
    assert started["data"] == {
        "action": "redrive",
        "redrive_id": report.redrive_id,
        "by": "ann",
        "filters": {"key": ["key-1", "key-2"]},
        "selected": 2,
        "refused": 0,
    }
    assert (resolved["data"]["places"], resolved["data"]["resolved"]) == (["0/1-2"], 2)
    assert (finished["data"]["resolved"], finished["data"]["ending"]) == (2, "finished")


def test_a_dead_letter_that_a_crashed_worker_wrote_twice_runs_once(desk: Desk) -> None:
    desk.give_up(1, 2, 1)

    report = desk.run()

    assert report.resolved == 3
    assert desk.states() == {"redriven": 3}
    assert len(desk.retried()) == 2


def test_one_that_is_written_twice_later_is_known_as_redriven(desk: Desk) -> None:
    desk.give_up(1)
    desk.run()
    desk.give_up(1)

    assert desk.states() == {"redriven": 2}
    assert desk.run().resolved == 0


def test_one_whose_redrive_failed_is_open_again(desk: Desk) -> None:
    desk.give_up(1)
    first = desk.run()
    desk.give_up(1, redrive_id=first.redrive_id)

    assert desk.states() == {"redriven": 1, "open": 1}
    second = desk.run()
    ids = [text_headers(message)["onex-redrive-id"] for message in desk.records(RETRY)]
    assert ids == [first.redrive_id, second.redrive_id]


def test_what_is_no_dead_letter_of_this_worker_is_refused_with_the_reason(desk: Desk) -> None:
    foreign = dead_command(SPEC, desk.realm, 1, topic="onex.cmd.billing.requests.v1")
    nameless = DeadLetterRecord(b"key", b"{}", [])
    beyond = dead_command(SPEC, desk.realm, 2, partition=99)
    write_dead_letters(desk.settings, SPEC, [foreign, nameless, beyond])

    with desk.log() as log:
        records = RedriveRecords(SPEC, desk.realm, log.partition_counts(list(SPEC.retry_topics.values())))
        snapshot = log.read()
        selection = make_selection(snapshot, snapshot.letters, records.refusal)
    reasons = [item.reason for item in selection.refused]
    assert "is no topic that order-store reads" in reasons[0]
    assert "its headers do not say where it came from" in reasons[1]
    assert f"{RETRY} has 3 partitions, none for" in reasons[2]
    assert selection.chosen == ()
    assert desk.run(action="discard", reason="nobody's").resolved == 0


def test_records_of_a_key_go_back_in_the_order_in_which_they_came(desk: Desk) -> None:
    """Record 1 died last, after a delay; 11 and 21 share its key and wait for it, 2 does not."""
    desk.give_up(11, 2, 21, 1, 12)

    desk.run()

    numbers = [msgspec.json.decode(value)["data"]["number"] for value in desk.retried()]
    assert numbers == [2, 1, 11, 21, 12]


def test_more_than_one_transaction_is_written_in_order(desk: Desk) -> None:
    records = desk.give_up(*range(1_234))

    report = desk.run()

    assert report.resolved == 1_234
    assert desk.retried() == [record.value for record in records]
    resolved = [event["data"]["resolved"] for event in desk.events() if "resolved.v1" in event["type"]]
    assert resolved == [500, 500, 234]


def test_a_limit_takes_the_oldest(desk: Desk) -> None:
    records = desk.give_up(*range(30))

    assert desk.run(limit=12).resolved == 12
    assert desk.retried() == [record.value for record in records[:12]]
    assert desk.states() == {"redriven": 12, "open": 18}


def test_interrupted_in_the_middle_and_run_again_nothing_is_lost_and_nothing_twice(desk: Desk) -> None:
    records = desk.give_up(*range(2_000))
    steps = iter([False, False, True])

    first = desk.run(wait=lambda _: next(steps))
    assert (first.resolved, first.left, first.ending) == (1_000, 1_000, "interrupted")
    assert desk.states() == {"redriven": 1_000, "open": 1_000}
    second = desk.run()

    assert (second.resolved, second.left, second.ending) == (1_000, 0, "finished")
    assert desk.retried() == [record.value for record in records]
    endings = [event["data"].get("ending") for event in desk.events() if "finished" in event["type"]]
    assert endings == ["interrupted", "finished"]


def test_a_rate_is_kept_by_waiting_between_small_transactions(desk: Desk) -> None:
    desk.give_up(*range(100))
    clock = ManualClock()
    waited: list[float] = []

    def wait(seconds: float) -> bool:
        waited.append(seconds)
        clock.advance(seconds)
        return False

    desk.run(rate=40.0, clock=clock, wait=wait)

    # A quarter of a second's worth at a time; the first at once.
    assert waited == [0.0, *[pytest.approx(0.25)] * 9]
    sizes = [event["data"]["resolved"] for event in desk.events() if "resolved.v1" in event["type"]]
    assert sizes == [10] * 10


def test_a_rate_below_one_is_one_record_at_a_time(desk: Desk) -> None:
    desk.give_up(1, 2)
    waited: list[float] = []
    clock = ManualClock()

    def wait(seconds: float) -> bool:
        waited.append(seconds)
        clock.advance(seconds)
        return False

    desk.run(rate=0.1, clock=clock, wait=wait)

    assert waited == [0.0, pytest.approx(10.0)]


def test_a_second_operator_stops_the_first_who_is_told_so(desk: Desk) -> None:
    records = desk.give_up(*range(1_500))
    second: list[RedriveReport] = []

    def wait(_: float) -> bool:
        # After its first transaction: another operator comes, and does all that is left.
        if desk.states()["redriven"] == 500 and not second:
            second.append(desk.run())
        return False

    with pytest.raises(RedriveFencedError, match="another redrive of this worker is running"):
        desk.run(wait=wait)

    assert second[0].resolved == 1_000
    assert desk.states() == {"redriven": 1_500}
    assert desk.retried() == [record.value for record in records]


def test_what_another_did_between_reading_and_beginning_is_left_alone(desk: Desk) -> None:
    desk.give_up(*range(10))

    class Later(RedriveTransactions):
        def __enter__(self) -> Self:
            desk.run(limit=4)
            super().__enter__()
            return self

    report = desk.run(transactions=Later(desk.settings, SPEC, log=RecordedLog()))

    assert (report.already, report.resolved) == (4, 6)
    assert len(desk.retried()) == 10


KILLED = """
import os, signal, sys
from omnibase_infra.shared.core.ports import OutboundRecord
from omnibase_infra.shared.core.settings import load_settings
from omnibase_infra.shared.kafka.transaction_client import TransactionClient
from omnibase_infra.shared.runtime.redrive_transaction import RedriveTransactions
from omnibase_infra.shared.testing.sample_fleet import order_store

# All records are confirmed by then, and the transaction is not committed.
TransactionClient.commit = lambda self: os.kill(os.getpid(), signal.SIGKILL)
with RedriveTransactions(load_settings(), order_store(), log=lambda *_, **__: None) as transactions:
    transactions.write([OutboundRecord(topic, b"half", b"key", partition=0) for topic in sys.argv[1:]])
"""


def environment_of(settings: Settings) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("OMNIBASE_")}
    return own | {
        "OMNIBASE_ENV": settings.env,
        "OMNIBASE_TENANT": settings.tenant,
        "OMNIBASE_KAFKA_BOOTSTRAP_SERVERS": settings.kafka_bootstrap_servers or "",
    }


def test_a_process_killed_before_it_commits_leaves_nothing_and_the_next_goes_on(desk: Desk, tmp_path: Path) -> None:
    records = desk.give_up(*range(3))
    script = tmp_path / "killed.py"
    script.write_text(KILLED)

    ended = subprocess.run(
        [sys.executable, str(script), RETRY, RESOLUTIONS, ACTIONS],
        env=environment_of(desk.settings),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr.decode()

    # Entering aborts what it left open, so that nobody waits for it, and nobody ever sees a half.
    assert desk.run().resolved == 3
    assert desk.retried() == [record.value for record in records]
    assert [message.key() for message in desk.records(RESOLUTIONS)] == [b"0/0", b"0/1", b"0/2"]
    assert len(desk.events()) == 3


def test_a_transaction_that_cannot_be_written_leaves_nothing_of_itself(desk: Desk) -> None:
    desk.give_up(1)
    big = dead_command(SPEC, desk.realm, 2, payload="x" * 1_300_000)
    desk.give_up(3)
    assert len(big.value or b"") > 1_300_000

    with desk.transactions() as transactions:
        small = OutboundRecord(RETRY, b"small", b"key", partition=0)
        with pytest.raises(DeliveryError, match="taken back"):
            transactions.write([small, OutboundRecord(RETRY, big.value, big.key, partition=0)])
        assert desk.retried() == []
        # The writer is still of use.
        transactions.write([small])
    assert desk.retried() == [b"small"]


def test_resolutions_of_dead_letters_that_are_gone_are_forgotten(desk: Desk) -> None:
    desk.give_up(*range(6))
    desk.run(limit=4)
    _remove_before(desk, 3)

    desk.run()

    tombstones = [message.key() for message in desk.records(RESOLUTIONS) if message.value() is None]
    assert tombstones == [b"0/0", b"0/1", b"0/2"]
    assert desk.states() == {"redriven": 3}


def _remove_before(desk: Desk, offset: int) -> None:
    topic = SPEC.dead_letter_topic.physical(desk.realm)
    client = AdminClient({"bootstrap.servers": desk.settings.kafka_bootstrap_servers or ""})
    for future in client.delete_records([TopicPartition(topic, 0, offset)]).values():
        future.result(20)


def test_dead_letters_that_retention_removes_meanwhile_are_counted_as_gone(desk: Desk) -> None:
    desk.give_up(*range(5))
    removed: list[int] = []

    def wait(_: float) -> bool:
        if not removed:
            removed.append(2)
            _remove_before(desk, 2)
        return False

    report = desk.run(wait=wait)

    assert (report.resolved, report.gone) == (3, 2)
    assert len(desk.retried()) == 3


def test_a_topic_of_resolutions_that_holds_something_else_stops_everything(desk: Desk) -> None:
    topic = resolutions_topic("order-store", 1).physical(desk.realm)
    write_records(desk.settings, topic, [DeadLetterRecord(b"0/0", b"who knows", [])])

    with desk.log() as log, pytest.raises(CorruptLogError, match=r"resolutions\.v1\[0\]@0 is no resolution"):
        log.read()


def test_a_missing_topic_is_named(kafka_settings: Settings) -> None:
    log = DeadLetterLog(kafka_settings, order_store(), log=RecordedLog())
    with log, pytest.raises(TopicMissingError, match=r"dead-letters\.v1 does not exist"):
        log.read()


def _six_kinds(desk: Desk, count: int) -> Sequence[DeadLetterRecord]:
    return [dead_command(SPEC, desk.realm, n, failure=SIX_FAILURES[n % 6]) for n in range(count)]


@pytest.mark.slow
@pytest.mark.demanding
@pytest.mark.timeout(600)
def test_a_hundred_thousand_are_read_and_grouped_in_seconds_and_redriven_with_an_interruption(desk: Desk) -> None:
    records = _six_kinds(desk, 100_000)
    write_dead_letters(desk.settings, SPEC, records)

    clock = ManualClock()
    with desk.log() as log:
        # Seconds of a processor, which other tests beside this one do not change.
        began = time.process_time()
        snapshot = log.read()
        groups = grouped(iter(snapshot))
        assert time.process_time() - began < 12
    assert len(snapshot.letters) == 100_000
    assert [(group.count, group.open) for group in groups] == [(16_667, 16_667)] * 4 + [(16_666, 16_666)] * 2

    stops = iter([False] * 90 + [True])
    first = desk.run(clock=clock, wait=lambda _: next(stops))
    assert (first.resolved, first.ending) == (45_000, "interrupted")
    assert desk.run(clock=clock).resolved == 55_000
    assert desk.retried() == [record.value for record in records]
    assert desk.states() == {"redriven": 100_000}


def test_every_step_waits_for_no_longer_than_it_was_told(kafka_settings: Settings) -> None:
    nowhere = kafka_settings.model_copy(update={"kafka_bootstrap_servers": "127.0.0.1:1"})
    transactions = RedriveTransactions(nowhere, order_store(), log=RecordedLog(), patience_seconds=0.1)

    with pytest.raises(DependencyUnavailableError, match="no Kafka broker"), transactions:
        raise AssertionError("entered without a broker")
