"""A commit says of which topic its offset is; for another one of the same name it is not used, nor is one made."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from omnibase_infra.shared.core.errors import TopicReplacedError
from omnibase_infra.shared.core.naming import Realm, TopicName
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.observability.structured_logger import get_logger
from omnibase_infra.shared.observability.worker_metrics import WorkerMetrics
from omnibase_infra.shared.runtime import consumer_thread, crash_record
from omnibase_infra.shared.runtime.commits import Commits
from omnibase_infra.shared.runtime.consumer_thread import ConsumerThread
from omnibase_infra.shared.runtime.crash_record import CrashRecord
from omnibase_infra.shared.runtime.flow_control import FlowControl
from omnibase_infra.shared.runtime.records import DONE, PartitionWork, Record
from omnibase_infra.shared.testing.sample_fleet import order_store
from omnibase_infra.shared.testing.scripted_consumer import Place, ScriptedConsumer, ScriptedMessage

REQUESTS = "dev.onex.cmd.order-store.requests.v1"
PLACE: Place = (REQUESTS, 0)


class Finishing:
    """The event loop's side: everything is finished at once."""

    def __init__(self) -> None:
        self.errors: list[BaseException] = []

    def received(self, records: list[Record], read_to: Sequence[tuple[PartitionWork, int]]) -> None:
        for record in records:
            record.stage = DONE

    def failed(self, error: BaseException) -> None:
        self.errors.append(error)

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_: None


class Member:
    """A consumer thread that knows the ids of its topics."""

    def __init__(self, ids: dict[str, str]) -> None:
        self.seen_at = 0.0
        self.slept = 0.0
        self.loop = Finishing()
        self.consumer = ScriptedConsumer({REQUESTS: 1})
        spec = order_store()
        self.thread = ConsumerThread(
            self.consumer,  # type: ignore[arg-type]  # the part of it that the thread uses
            topics={topic.physical(Realm("dev")): topic for topic in map(TopicName.parse, spec.subscribe)},
            group="dev.shop",
            loop=self.loop,
            flow=FlowControl(10, 10_000),
            metrics=WorkerMetrics(MetricsRegistry(process_metrics=False), spec),
            log=get_logger(),
            topic_ids=lambda: ids,
            topics_seen_since=lambda moment: self.seen_at >= moment,
            clock=lambda: time.monotonic() + self.slept,
        )
        self.consumer.on_commit = self.thread.on_commit

    def happened(self, *steps: Any) -> None:
        """Wait until the thread has done these, and a turn more, in which it commits."""
        done = threading.Event()
        self.consumer.then(*steps, lambda: None, lambda: None, done.set)
        assert done.wait(5)

    def starts(self) -> None:
        self.thread.start()
        self.consumer.assign(PLACE)
        self.happened()

    def stop(self) -> None:
        self.thread.stop()
        self.thread.join(5)
        assert not self.thread.is_alive()


Start = Callable[[dict[str, str]], Member]


@pytest.fixture
def member(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    monkeypatch.setattr(Commits, "seconds", 0.0)
    monkeypatch.setattr(consumer_thread, "POLL_SECONDS", 0.005)
    made: list[Member] = []

    def make(ids: dict[str, str]) -> Member:
        made.append(Member(ids))
        return made[-1]

    yield make
    for one in made:
        if one.thread.is_alive():
            one.stop()


def test_every_commit_says_of_which_topic_it_is(member: Start) -> None:
    one = member({REQUESTS: "new"})
    one.starts()
    assert one.consumer.metadata[PLACE] == '{"i":"new"}'
    one.happened(ScriptedMessage(REQUESTS, 0, 0))
    assert (one.consumer.offsets[PLACE], one.consumer.metadata[PLACE]) == (1, '{"i":"new"}')
    one.stop()
    assert one.consumer.metadata[PLACE] == "clean new"


@pytest.mark.parametrize("metadata", ["clean old", '{"i":"old"}', '{"d":1,"u":9,"i":"old"}'])
def test_an_offset_of_another_topic_of_the_same_name_stops_the_worker(member: Start, metadata: str) -> None:
    one = member({REQUESTS: "new"})
    one.consumer.offsets[PLACE], one.consumer.metadata[PLACE] = 5, metadata
    one.thread.start()
    one.consumer.assign(PLACE)
    one.thread.join(5)
    (error,) = one.loop.errors
    assert isinstance(error, TopicReplacedError)
    assert REQUESTS in str(error)
    assert "omninode offsets reset" in str(error)
    assert one.consumer.commits == []


@pytest.mark.parametrize("metadata", ["", "clean", "{}", '{"d":1,"u":9}', "set by hand", "clean new", '{"i":"new"}'])
def test_what_a_person_or_an_older_version_committed_is_taken_as_it_is(member: Start, metadata: str) -> None:
    one = member({REQUESTS: "new"})
    one.consumer.offsets[PLACE], one.consumer.metadata[PLACE] = 5, metadata
    one.starts()
    assert one.consumer.assigned[PLACE] == 5
    assert crash_record.topic_id(one.consumer.metadata[PLACE]) == "new"


def test_while_the_ids_are_not_known_an_earlier_one_is_kept(member: Start) -> None:
    one = member({})
    one.consumer.offsets[PLACE], one.consumer.metadata[PLACE] = 5, "clean old"
    one.starts()
    one.stop()
    assert one.consumer.metadata[PLACE] == "clean old"


def test_nothing_is_committed_while_a_topic_is_doubtful_not_even_at_the_end(member: Start) -> None:
    one = member({REQUESTS: "new"})
    one.starts()
    before = len(one.consumer.commits)
    one.thread.hold_commits(True)
    answers: list[bool] = []
    one.thread.commit_now(list(one.thread.works.values()), answers.append)
    one.happened(ScriptedMessage(REQUESTS, 0, 0))
    assert answers == [False]
    one.stop()
    assert len(one.consumer.commits) == before
    assert one.consumer.closed


def test_a_topic_that_was_not_gone_after_all_is_committed_again(member: Start) -> None:
    one = member({REQUESTS: "new"})
    one.starts()
    one.thread.hold_commits(True)
    one.happened(ScriptedMessage(REQUESTS, 0, 0))
    assert one.consumer.offsets[PLACE] == 0
    one.thread.hold_commits(False)
    one.happened()
    assert one.consumer.offsets[PLACE] == 1


def test_a_worker_that_was_frozen_reads_on_only_when_its_topics_were_seen_to_be_the_same(member: Start) -> None:
    one = member({REQUESTS: "new"})
    one.starts()
    one.slept += 2.0
    one.happened()
    assert one.consumer.paused == {PLACE}
    one.seen_at = time.monotonic() + one.slept
    one.happened()
    assert one.consumer.paused == set()


def test_a_worker_that_was_frozen_does_not_wait_for_brokers_that_say_nothing_for_ever(
    member: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer_thread, "LOOK_SECONDS", 0.0)
    one = member({REQUESTS: "new"})
    one.starts()
    one.slept += 2.0
    one.happened()
    one.happened()
    assert one.consumer.paused == set()


def test_a_worker_whose_turns_are_all_slow_gets_on(member: Start) -> None:
    one = member({REQUESTS: "new"})
    one.starts()

    paused: list[bool] = []

    def slow() -> None:
        paused.append(PLACE in one.consumer.paused)
        one.seen_at = time.monotonic() + one.slept  # a look began before this turn ends
        one.slept += 2.0

    one.happened(*[slow] * 6)
    assert paused == [False, True, False, True, False, True]


def test_nothing_is_read_while_a_topic_is_doubtful(member: Start) -> None:
    one = member({REQUESTS: "new"})
    one.starts()
    one.thread.hold_commits(True)
    one.happened()
    assert one.consumer.paused == {PLACE}
    one.thread.hold_commits(False)
    one.happened()
    assert one.consumer.paused == set()


def test_the_id_stays_through_the_story_of_deaths() -> None:
    first = crash_record.after('{"i":"x"}', 3, 90, "x")
    assert (first.deaths, first.topic) == (1, "x")
    second = crash_record.after(first.naming([3]).metadata(3), 3, 90, "x")
    assert (second.deaths, second.suspects, second.topic) == (2, (3,), "x")
    assert crash_record.topic_id(second.metadata(3)) == crash_record.topic_id(second.metadata(90)) == "x"
    assert crash_record.after("clean x", 3, 90, "x") == CrashRecord(topic="x")
    assert crash_record.topic_id(CrashRecord().clean) == ""
