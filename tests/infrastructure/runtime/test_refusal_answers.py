"""Which refused commands are answered, what with, and where to."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from omnibase_infra.shared.core import envelope as envelopes
from omnibase_infra.shared.core.envelope import Envelope
from omnibase_infra.shared.core.errors import (
    ForbiddenError,
    IdReusedError,
    InvalidEnvelopeError,
    UndecodableError,
    UnsupportedVersionError,
)
from omnibase_infra.shared.core.naming import Realm, TopicName
from omnibase_infra.shared.core.outcomes import OperationFailed
from omnibase_infra.shared.core.worker_spec import OperationSpec
from omnibase_infra.shared.models.infrastructure.model_error_response import ModelErrorResponse
from omnibase_infra.shared.runtime.answers import Answers
from omnibase_infra.shared.runtime.intake import Intake
from omnibase_infra.shared.runtime.lanes import Lane
from omnibase_infra.shared.runtime.records import Origin, PartitionWork, Record
from omnibase_infra.shared.runtime.refusal_answers import RefusalAnswers
from omnibase_infra.shared.testing.sample_fleet import order_store

COMMANDS = "onex.cmd.order-store.requests.v1"
EVENTS = "onex.evt.shop.orders.v1"
RESULTS = "onex.evt.order-store.results.v1"
REPLIES = "onex.evt.order-store.replies.v1"
INSERT = "onex.cmd.order-store.insert-order.v1"
NOTE = "onex.cmd.order-store.note-order.v1"
REALM = Realm("dev", "acme")
STRAY = "onex.evt.somebody-else.results.v1"


def operation(name: str, event_type: str, topic: str = COMMANDS, **attributes: Any) -> OperationSpec:
    return OperationSpec(name=name, topic=topic, event_type=event_type, **attributes)


class Desk:
    """An intake, and the answers to what it refuses."""

    def __init__(self, **spec: Any) -> None:
        insert = operation(
            "insert_order",
            INSERT,
            failed_type="onex.evt.order-store.insert-order-failed.v1",
            failed_schema="urn:omnibase:order-store:ModelErrorResponse:1.0.0",
            answer_topic=RESULTS,
        )
        operations = spec.pop("operations", (insert, operation("note_order", NOTE)))
        self.spec = order_store(
            subscribe=(COMMANDS, EVENTS), publish=(RESULTS,), reply_topics=(REPLIES,), operations=operations, **spec
        )
        lane: Any = Lane(operations[0], handler=None, gate=None)  # type: ignore[arg-type]  # intake runs nothing
        self.intake = Intake(self.spec, REALM, {one.name: lane for one in operations}, lane)
        self.answers = RefusalAnswers(self.spec, REALM, Answers(self.spec, REALM))

    def refused(self, value: bytes, topic: str = COMMANDS, *, error: Exception | None = None) -> tuple[Any, ...]:
        """Return the answers to a record, and see that intake refuses it unless an `error` is given."""
        record = self.record(value, topic)
        if error is not None:
            record.envelope = envelopes.decode(value)
            return self.answers.of(record, error)
        with pytest.raises((ForbiddenError, InvalidEnvelopeError, UndecodableError, UnsupportedVersionError)) as caught:
            self.intake.admit(record)
        return self.answers.of(record, caught.value)

    def record(self, value: bytes, topic: str = COMMANDS) -> Record:
        name = TopicName.parse(topic)
        return Record(PartitionWork(name, name.physical(REALM), 0), 7, 0, b"key", value, None)


def command(event_type: str = INSERT, **attributes: Any) -> bytes:
    values = {"source": "https://example.com/shop", "data": msgspec.Raw(b'{"card":"4711"}')} | attributes
    message_id = values.pop("id", "m-1")
    envelope = envelopes.original(event_type=event_type, **values)
    return envelopes.encode(msgspec.structs.replace(envelope, id=message_id))


def only(answers: tuple[Any, ...]) -> tuple[Envelope, ModelErrorResponse]:
    (answer,) = answers
    envelope = envelopes.decode(answer.value, answer.headers)
    return envelope, msgspec.json.decode(envelope.data, type=ModelErrorResponse)


@pytest.mark.parametrize(
    ("value", "code", "event_type"),
    [
        (command(source="/omnibase/prod/client"), "forbidden", "insert-order-failed.v1"),
        (command(tenantid="somebody-else"), "forbidden", "insert-order-failed.v1"),
        (command(replyto=STRAY), "forbidden", "insert-order-failed.v1"),
        (command("onex.cmd.order-store.insert-order.v9"), "unsupported-version", "insert-order-failed.v9"),
        (command("com.example.order"), "invalid-envelope", "unknown-operation-failed.v1"),
        (command("onex.cmd.order-store.drop-table.v1", replyto=STRAY), "forbidden", "drop-table-failed.v1"),
    ],
    ids=["realm", "tenant", "replyto", "version", "type", "operation"],
)
def test_a_refused_command_with_an_envelope_is_answered_failed_with_the_code_of_its_dead_letter(
    value: bytes, code: str, event_type: str
) -> None:
    answers = Desk().refused(value)
    envelope, failure = only(answers)
    assert (failure.code, failure.retryable, failure.attempts) == (code, False, 1)
    assert envelope.type == f"onex.evt.order-store.{event_type}"
    assert (envelope.causationid, envelope.dataschema) == ("m-1", "urn:omnibase:order-store:ModelErrorResponse:1.0.0")
    assert (answers[0].topic, answers[0].key) == (RESULTS, b"key")
    assert b"4711" not in answers[0].value


def test_an_answer_carries_the_tenant_of_its_realm_and_not_the_one_that_was_refused() -> None:
    assert only(Desk().refused(command(tenantid="somebody-else")))[0].tenantid == "acme"


def test_an_answer_goes_where_the_command_asks_if_the_contract_lists_it() -> None:
    (answer,) = Desk().refused(command(tenantid="somebody-else", replyto=REPLIES))
    assert answer.topic == REPLIES
    (answer,) = Desk().refused(command(tenantid="somebody-else", replyto=STRAY))
    assert answer.topic == RESULTS


def test_what_cannot_be_read_is_no_command_or_is_never_answered_gets_no_answer() -> None:
    desk = Desk()
    assert desk.refused(b"no json") == ()
    assert desk.refused(b'{"specversion":"1.0","source":"/a","type":"t"}') == ()
    assert desk.refused(command("onex.evt.shop.order-placed.v2", tenantid="somebody-else"), EVENTS) == ()
    assert desk.refused(command(NOTE, tenantid="somebody-else")) == ()
    assert desk.refused(command("onex.cmd.order-store.note-order.v2")) == ()


def test_a_worker_that_never_answers_does_not_here_either() -> None:
    assert Desk(operations=(operation("note_order", NOTE),)).refused(command(NOTE, replyto=REPLIES, tenantid="x")) == ()


def test_a_reused_id_is_not_answered_since_the_answer_to_its_first_message_has_that_cause() -> None:
    assert Desk().refused(command(), error=IdReusedError("used before")) == ()


def test_the_text_of_a_fault_of_ours_stays_in_the_dead_letter() -> None:
    _, failure = only(Desk().refused(command(), error=RuntimeError("password=hunter2")))
    assert failure.code == "internal-error"
    assert "hunter2" not in failure.message


def test_secrets_in_the_refused_attribute_are_masked() -> None:
    _, failure = only(Desk().refused(command(replyto="password=hunter2")))
    assert "hunter2" not in failure.message


def test_an_answer_that_would_be_larger_than_a_record_may_be_is_left_out() -> None:
    desk = Desk(max_record_bytes=4096)
    value = command(tenantid="somebody-else", subject="s" * 3_700)
    assert len(value) <= 4096
    assert desk.refused(value) == ()


def test_the_id_is_the_same_each_time_and_none_that_an_operation_gives() -> None:
    desk, value = Desk(), command(tenantid="somebody-else")
    first, again = only(desk.refused(value))[0], only(desk.refused(value))[0]
    assert first.id == again.id
    record = desk.record(value)
    record.envelope = envelopes.decode(value)
    failed = OperationFailed(code="forbidden", message="no")
    own = Answers(desk.spec, REALM).of(record, desk.spec.operations[0], failed, "2026-01-31T12:00:00Z")
    assert envelopes.decode(own[0].value).type == first.type
    assert envelopes.decode(own[0].value).id != first.id


def test_a_redrive_that_is_refused_again_has_an_answer_of_its_own() -> None:
    desk = Desk()
    record = desk.record(command(tenantid="somebody-else"))
    record.envelope = envelopes.decode(record.value)
    ids = set()
    for redrive in ("", "r-1", "r-2"):
        record.origin = Origin("dev-acme." + COMMANDS, 0, 7, 0, redrive)
        ids.add(only(desk.answers.of(record, ForbiddenError("no")))[0].id)
    assert len(ids) == 3
