"""Who writes a payload and who reads it understand one another, over versions and over workers."""

from __future__ import annotations

from typing import Any

import msgspec

from omnibase_infra.shared.registry.nodes import find_node, load_spec
from omnibase_infra.shared.registry.payload_schemas import node_schemas
from omnibase_infra.topics.payload_schemas import PayloadSchema, Role, compare, schema_breaks


def _object(*required: str, **properties: str) -> dict[str, Any]:
    types = {name: {"type": kind} for name, kind in properties.items()}
    return {"type": "object", "properties": types, "required": list(required)}


def _payload(
    role: Role, schema: dict[str, Any], version: tuple[int, int, int] = (1, 0, 0), **more: Any
) -> PayloadSchema:
    kind = "cmd" if role == "request" else "evt"
    known = {
        "worker": "order-store",
        "operation": "insert_order",
        "topic": f"onex.{kind}.order-store.x.v1",
        "event_type": f"onex.{kind}.order-store.insert-order.v1",
        "model": "ModelX",
    }
    return PayloadSchema(version=version, role=role, schema=schema, **{**known, **more})


OLD = _object("id", id="string")


def test_a_newer_version_reads_what_callers_of_the_older_send() -> None:
    assert schema_breaks([_payload("request", OLD), _payload("request", _object("id", id="string", a="string"), (1, 1, 0))]) == []  # fmt: skip
    (broken,) = schema_breaks([_payload("request", OLD), _payload("request", _object("id", "a", id="string", a="string"), (1, 1, 0))])  # fmt: skip
    assert (broken.rule, broken.version, broken.operation) == ("TP005", (1, 1, 0), "insert_order")
    assert "insert_order request does not fit callers of 1.0.0: $.a: the reader requires it" in broken.message


def test_callers_of_the_older_version_read_what_the_newer_answers() -> None:
    more = _payload("response", _object("id", "a", id="string", a="string"), (1, 1, 0))
    assert schema_breaks([_payload("response", OLD), more]) == []
    (broken,) = schema_breaks([_payload("response", OLD), _payload("response", _object(a="string"), (1, 0, 1))])
    assert "insert_order response does not fit callers of 1.0.0: $.id" in broken.message


def test_an_operation_that_is_gone_breaks_its_callers_and_another_major_does_not() -> None:
    kept = _payload("request", OLD, operation="get_order")
    gone = schema_breaks([_payload("request", OLD), kept, msgspec.structs.replace(kept, version=(1, 2, 0))])
    assert [item.message for item in gone] == [
        (
            "insert_order request does not fit callers of 1.0.0: $: insert_order request is gone [message-removed, breaks "
            "BACKWARD]; raise the major version"
        )
    ]
    assert schema_breaks([_payload("request", OLD), _payload("request", _object(), (2, 0, 0))]) == []


def test_a_consumer_reads_what_the_producer_of_an_event_writes() -> None:
    event = "onex.evt.order-store.insert-order-completed.v1"
    producer = _payload("response", _object("id", id="string", total="integer"), event_type=event)
    fitting = _payload("request", OLD, worker="ledger", operation="book", event_type=event)
    assert schema_breaks([producer, fitting]) == []
    wanting = msgspec.structs.replace(fitting, schema=_object("id", "total", id="integer", total="integer"))
    breaks = schema_breaks([producer, wanting])
    assert {(item.worker, item.operation, item.rule) for item in breaks} == {("ledger", "book", "TP006")}
    assert any("book request cannot read what order-store 1.0.0 publishes: $.id" in item.message for item in breaks)


def test_a_mode_asks_the_same_of_every_schema() -> None:
    new = [_payload("request", _object(id="string"), (1, 1, 0))]
    assert list(compare([_payload("request", OLD)], new)) == []
    ((_, broken),) = compare([_payload("request", OLD)], new, "FULL")
    assert broken.direction == "FORWARD"
    assert list(compare([_payload("request", OLD)], [], "NONE")) == []


def test_every_message_of_a_generated_node_has_a_schema() -> None:
    node = find_node("postgres_adapter")
    found = {(item.operation, item.role): item for item in node_schemas(node)}
    operations = [operation.name for operation in load_spec("postgres_adapter").operations]
    assert set(found) == {(name, role) for name in operations for role in ("request", "response", "failure")}
    query = found["query", "request"]
    assert query.schema["$id"] == "urn:omnibase:postgres-adapter:ModelQueryRequest:1.0.0"
    assert query.event_type == "onex.cmd.postgres-adapter.query.v1"
    assert schema_breaks(found.values()) == []
