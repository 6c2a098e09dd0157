"""Intake finds the lane of a record, or says why no handler may see it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from omnibase_infra.shared.core import envelope as envelopes
from omnibase_infra.shared.core.errors import (
    ForbiddenError,
    InvalidEnvelopeError,
    UndecodableError,
    UnsupportedVersionError,
)
from omnibase_infra.shared.core.naming import Realm, TopicName
from omnibase_infra.shared.core.worker_spec import OperationSpec
from omnibase_infra.shared.runtime.intake import Ignored, Intake
from omnibase_infra.shared.runtime.lanes import Lane
from omnibase_infra.shared.runtime.records import Headers, PartitionWork, Record
from omnibase_infra.shared.testing.sample_fleet import order_store

COMMANDS = "onex.cmd.order-store.requests.v1"
EVENTS = "onex.evt.shop.orders.v1"
INSERT = "onex.cmd.order-store.insert-order.v1"
PLACED = "onex.evt.shop.order-placed.v2"
REALM = Realm("dev", "acme")


class Door:
    """An intake with one operation on a command topic and one on an event topic."""

    def __init__(self) -> None:
        operations = (
            OperationSpec(name="insert_order", topic=COMMANDS, event_type=INSERT),
            OperationSpec(name="note_order", topic=EVENTS, event_type=PLACED),
        )
        spec = order_store(
            subscribe=(COMMANDS, EVENTS),
            reply_topics=("onex.evt.order-store.replies.v1",),
            operations=operations,
            max_record_bytes=4096,
        )
        self.lanes = {one.name: make_lane(one) for one in operations}
        self.unknown = make_lane(OperationSpec(name="unknown_operation", topic="", event_type=""))
        self.intake = Intake(spec, REALM, self.lanes, self.unknown)

    def lane(self, value: bytes | None, topic: str = COMMANDS, headers: Headers | None = None) -> str:
        """Return the name of the lane that a record goes to."""
        work = PartitionWork(TopicName.parse(topic), TopicName.parse(topic).physical(REALM), 0)
        record = Record(work, 0, 0, None, value, headers)
        self.intake.admit(record)
        assert record.lane is not None
        assert record.envelope.id
        return record.lane.operation.name


def make_lane(operation: OperationSpec) -> Lane:
    return Lane(operation, handler=None, gate=None)  # type: ignore[arg-type]  # intake runs nothing


def command(event_type: str = INSERT, **attributes: Any) -> bytes:
    return envelopes.encode(message(event_type, **attributes))


def message(event_type: str = INSERT, **attributes: Any) -> envelopes.Envelope:
    values = {"source": "https://example.com/shop", "data": msgspec.Raw(b"{}")} | attributes
    return envelopes.original(event_type=event_type, **values)


def test_a_record_goes_to_the_lane_of_its_type_on_its_topic() -> None:
    door = Door()
    assert door.lane(command()) == "insert_order"
    assert door.lane(command(PLACED), EVENTS) == "note_order"


def test_a_command_type_the_contract_lacks_goes_to_the_lane_that_answers_it() -> None:
    assert Door().lane(command("onex.cmd.order-store.drop-table.v1")) == "unknown_operation"


def test_an_event_type_the_contract_lacks_is_ignored() -> None:
    with pytest.raises(Ignored):
        Door().lane(command("onex.evt.shop.order-cancelled.v1"), EVENTS)


def test_a_type_that_is_no_name_of_ours_is_refused_as_command_and_ignored_as_event() -> None:
    door = Door()
    with pytest.raises(InvalidEnvelopeError, match="attribute 'type'"):
        door.lane(command("com.example.order"))
    with pytest.raises(Ignored):
        door.lane(command("com.example.order"), EVENTS)


@pytest.mark.parametrize(
    ("event_type", "topic"), [(INSERT.replace("v1", "v9"), COMMANDS), (PLACED.replace("v2", "v1"), EVENTS)]
)
def test_another_major_version_is_refused(event_type: str, topic: str) -> None:
    with pytest.raises(UnsupportedVersionError, match="major version"):
        Door().lane(command(event_type), topic)


@pytest.mark.parametrize("headers", [None, [], [("trace-id", b"1")], [("content-type", b"application/json")]])
def test_a_tombstone_is_ignored_whatever_headers_it_has(headers: Headers | None) -> None:
    with pytest.raises(Ignored):
        Door().lane(None, headers=headers)


def test_binary_mode_without_data_is_a_message() -> None:
    whole = message()
    headers: Headers = [
        (f"ce_{name}", getattr(whole, name).encode()) for name in ("specversion", "id", "source", "type")
    ]
    assert Door().lane(None, headers=headers) == "insert_order"


@pytest.mark.parametrize(
    ("attributes", "what"),
    [
        ({"source": "/omnibase/prod-acme/billing"}, "another realm"),
        ({"source": "/omnibase/dev-acme2/billing"}, "another realm"),
        ({"tenantid": "somebody-else"}, "tenantid"),
        ({"replyto": "onex.evt.billing.answers.v1"}, "replyto"),
    ],
)
def test_what_belongs_elsewhere_is_forbidden(attributes: dict[str, str], what: str) -> None:
    with pytest.raises(ForbiddenError, match=what):
        Door().lane(command(**attributes))


@pytest.mark.parametrize(
    "attributes",
    [
        {"source": "/omnibase/dev-acme/billing"},
        {"tenantid": "acme"},
        {"replyto": "onex.evt.order-store.replies.v1"},
    ],
)
def test_what_belongs_here_passes(attributes: dict[str, str]) -> None:
    assert Door().lane(command(**attributes)) == "insert_order"


def test_the_contracts_own_limit_holds() -> None:
    with pytest.raises(UndecodableError, match="at most 4096"):
        Door().lane(command(data=msgspec.Raw(b'"' + b"x" * 4096 + b'"')))
