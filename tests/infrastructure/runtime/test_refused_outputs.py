"""What takes the place of an output that the broker refuses for ever, and what must not be replaced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import msgspec
import pytest

from omnibase_infra.shared.core import envelope as envelopes
from omnibase_infra.shared.core.naming import Realm, TopicName
from omnibase_infra.shared.core.ports import OutboundRecord
from omnibase_infra.shared.observability.structured_logger import get_logger
from omnibase_infra.shared.runtime.answers import Answers
from omnibase_infra.shared.runtime.dead_letters import DeadLetters
from omnibase_infra.shared.runtime.lanes import Lane
from omnibase_infra.shared.runtime.records import PartitionWork, Record
from omnibase_infra.shared.runtime.refused_outputs import RefusedOutputs
from omnibase_infra.shared.runtime.transaction_stage import StagedOutputs
from omnibase_infra.shared.testing.sample_fleet import order_store

SPEC = order_store()
TOPIC = TopicName.parse(SPEC.subscribe[0])
ANSWERS = SPEC.publish[0]
DEAD = str(SPEC.dead_letter_topic)
RETRY = str(SPEC.retry_topics[TOPIC])
MARKER = OutboundRecord(RETRY, None, b"k")
LARGE = OutboundRecord(ANSWERS, b"very large", b"k")


class Shop:
    """The replacements of a worker, and how many dead letters it was told of."""

    def __init__(self) -> None:
        self.dead = 0
        realm = Realm("dev")
        self.refused = RefusedOutputs(
            SPEC,
            answers=Answers(SPEC, realm),
            dead_letters=DeadLetters(SPEC, realm.group(SPEC.worker, 1)),
            log=get_logger(),
            on_dead_letter=self._count,
        )

    def _count(self) -> None:
        self.dead += 1

    def instead(self, outputs: Sequence[OutboundRecord], refused: OutboundRecord) -> list[OutboundRecord] | None:
        record = Record(PartitionWork(TOPIC, "dev.requests", 0, start=0), 7, 0, b"k", b"the command", None)
        record.envelope = envelopes.original(
            source="/outside", event_type=SPEC.operations[0].event_type, data=msgspec.Raw(b"{}")
        )
        record.lane = Lane(SPEC.operations[0], cast("Any", None), cast("Any", None))
        staged = StagedOutputs(record, outputs)
        record.forget_content()
        found = self.refused.replacement(staged, refused, "message size too large")
        return None if found is None else list(found)


def test_a_refused_answer_becomes_a_dead_letter_with_the_records_own_bytes_and_a_failed_answer() -> None:
    shop = Shop()
    dead, failed = shop.instead([LARGE], LARGE) or []
    assert (dead.topic, dead.key, dead.value) == (DEAD, b"k", b"the command")
    headers = dict(dead.headers or ())
    assert headers["onex-error-code"] == b"output-refused"
    assert b"message size too large" in (headers["onex-error-message"] or b"")
    answer = envelopes.decode(failed.value, failed.headers)
    assert (failed.topic, answer.type) == (ANSWERS, SPEC.operations[0].failed_type)
    assert shop.dead == 1


def test_what_says_that_a_parked_record_has_ended_stays() -> None:
    instead = Shop().instead([LARGE, MARKER], LARGE) or []
    assert [output.topic for output in instead] == [DEAD, ANSWERS, RETRY]
    assert instead[-1] is MARKER


def test_a_refused_failed_answer_leaves_the_dead_letter_alone() -> None:
    shop, letter = Shop(), OutboundRecord(DEAD, b"the command", b"k")
    assert shop.instead([letter, LARGE], LARGE) == [letter]
    assert shop.dead == 0


@pytest.mark.parametrize("topic", [DEAD, RETRY])
def test_what_keeps_the_record_itself_is_not_replaced(topic: str) -> None:
    output = OutboundRecord(topic, b"the command", b"k")
    assert Shop().instead([output], output) is None
