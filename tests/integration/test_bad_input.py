"""Every row of "Bad input and what it gets": where each record ends, and that its neighbours are not affected."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from omnibase_infra.shared.core import envelope as envelopes
from omnibase_infra.shared.core.headers import TransportHeader
from omnibase_infra.shared.models.infrastructure.model_error_response import ModelErrorResponse
from omnibase_infra.shared.testing.fleet import Fleet, WorkerProcess, eventually


@pytest.fixture
async def worker(fleet: Fleet) -> WorkerProcess:
    return await fleet.start_ready()


def order_event(fleet: Fleet, **attributes: Any) -> envelopes.Envelope:
    order = str(uuid.uuid4())
    parameters = {"order_id": order, "sequence": 1, "kind": "placed", "quantity": 2}
    return fleet.command(
        "execute_statement",
        {"statement": "append_order_event", "parameters": parameters},
        **({"subject": order} | attributes),
    )


async def assert_dead(fleet: Fleet, value: bytes, code: str, message: str, key: bytes = b"k") -> None:
    """Send bad bytes between two good commands, which are answered: one dead letter with the bytes unchanged."""
    before, after = order_event(fleet), order_event(fleet)
    await fleet.send([before])
    await fleet.send_raw(value, key)
    await fleet.send([after])
    (letter,) = await fleet.dead_letters(1)
    headers = dict(letter.headers() or [])
    assert headers[TransportHeader.ERROR_CODE] == code.encode()
    assert message.encode() in bytes(headers[TransportHeader.ERROR_MESSAGE] or b"")  # type: ignore[arg-type]
    assert (letter.value(), letter.key()) == (value, key)
    answers = await fleet.answered([before.id, after.id])
    good = [one for cause in (before.id, after.id) for one in answers[cause]]
    assert all(one.type.endswith("execute-statement-completed.v1") for one in good)
    assert await fleet.fetch_value("SELECT count(*) FROM orders.order_events") == 2


async def assert_dead_and_answered(fleet: Fleet, changes: Mapping[str, Any], code: str, message: str) -> None:
    """Send a command that intake refuses, as `assert_dead` does: it is answered once, on the results topic."""
    command = order_event(fleet)
    value = json.dumps(json.loads(envelopes.encode(command)) | changes).encode()
    await assert_dead(fleet, value, code, message)
    failure = await failed_answer(fleet, command)
    assert (failure.code, failure.retryable) == (code, False)
    assert message in failure.message
    (answer,) = fleet.answers[command.id]
    assert (answer.correlationid, answer.tenantid) == (command.correlationid, fleet.realm.tenant or None)


async def failed_answer(fleet: Fleet, command: envelopes.Envelope) -> ModelErrorResponse:
    answers = await fleet.answered([command.id])
    (answer,) = answers[command.id]
    assert "-failed.v" in answer.type, answer
    return msgspec.json.decode(answer.data, type=ModelErrorResponse)


def changed(fleet: Fleet, changes: Mapping[str, Any]) -> bytes:
    """Return a good command's bytes with attributes replaced, or removed by None."""
    whole = json.loads(envelopes.encode(order_event(fleet))) | changes
    return json.dumps({name: value for name, value in whole.items() if value is not None}).encode()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"not json", "not JSON"),
        (b"\xff\xfe{}", "not JSON in UTF-8"),
        (b"", "the value is empty"),
        (b'{"specversion":"1.0","id":"1","id":"2","source":"/a","type":"t"}', "appears twice"),
        (b'{"specversion":"1.0","id":"1","source":"/a","type":"t","data":NaN}', "not JSON"),
        (b'{"specversion":"1.0","id":"1","source":"/a","type":"t","data":"\\ud800"}', "not JSON"),
        (b'{"specversion":"1.0","id":"1","source":"/a","type":"t","data":' + b"[" * 100 + b"]" * 100 + b"}", "levels"),
        (b'{"a":"' + b"x" * 1_048_576 + b'"}', "bytes, at most 1048576"),
        (b'{"a":"' + b"x" * 1_113_400 + b'"}', "bytes, at most 1048576"),
        (b'{"d":{' + b",".join(b'"f%d":1' % n for n in range(10_001)) + b"}}", "fields, at most 10000"),
    ],
    ids=[
        "not-json",
        "not-utf8",
        "empty",
        "duplicate-key",
        "nan",
        "surrogate",
        "deep",
        "large",
        "largest",
        "many-fields",
    ],
)
async def test_what_is_not_strict_json_within_the_limits_is_dead_as_undecodable(
    fleet: Fleet, worker: WorkerProcess, value: bytes, message: str
) -> None:
    await assert_dead(fleet, value, "undecodable", message)


@pytest.mark.parametrize(
    ("changes", "attribute"),
    [
        ({"id": None}, "id"),
        ({"source": None}, "source"),
        ({"type": None}, "type"),
        ({"specversion": "0.3"}, "specversion"),
        ({"time": "yesterday"}, "time"),
        ({"source": 7}, "source"),
        ({"datacontenttype": "text/xml"}, "datacontenttype"),
    ],
    ids=["no-id", "no-source", "no-type", "old-version", "bad-time", "number-source", "xml"],
)
async def test_json_that_is_no_envelope_is_dead_and_the_message_names_the_attribute(
    fleet: Fleet, worker: WorkerProcess, changes: dict[str, Any], attribute: str
) -> None:
    await assert_dead(fleet, changed(fleet, changes), "invalid-envelope", attribute)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "/omnibase/prod/client"}, "another realm"),
        ({"tenantid": "somebody-else"}, "tenantid"),
        ({"replyto": "onex.evt.other.results.v1"}, "replyto"),
    ],
    ids=["realm", "tenant", "replyto"],
)
async def test_another_realm_tenant_or_answer_topic_is_dead_as_forbidden_and_answered(
    fleet: Fleet, worker: WorkerProcess, changes: dict[str, Any], message: str
) -> None:
    await assert_dead_and_answered(fleet, changes, "forbidden", message)


async def test_an_unknown_major_version_is_dead_as_unsupported_and_answered(
    fleet: Fleet, worker: WorkerProcess
) -> None:
    changes = {"type": "onex.cmd.postgres-adapter.execute-statement.v9"}
    await assert_dead_and_answered(fleet, changes, "unsupported-version", "major version 9")


async def test_a_command_whose_type_is_no_name_is_dead_as_invalid_envelope_and_answered(
    fleet: Fleet, worker: WorkerProcess
) -> None:
    await assert_dead_and_answered(fleet, {"type": "com.example.order"}, "invalid-envelope", "attribute 'type'")


async def test_a_tombstone_is_ignored_with_a_counter(fleet: Fleet, worker: WorkerProcess) -> None:
    after = order_event(fleet)
    await fleet.send_raw(None, b"k")
    await fleet.send([after])
    await fleet.answered([after.id])
    address = next(line["address"] for line in worker.lines() if line["event"] == "health_server_started")

    def counted() -> bool:
        import urllib.request

        with urllib.request.urlopen(address + "/metrics", timeout=5) as response:
            lines = response.read().decode().splitlines()
        return any(line.startswith("omnibase_records_ignored_total") and line.endswith(" 1.0") for line in lines)

    await eventually(lambda: asyncio.to_thread(counted), "the ignored record is counted")


async def test_a_payload_that_does_not_fit_is_answered_with_its_path(fleet: Fleet, worker: WorkerProcess) -> None:
    command = fleet.command(
        "execute_statement",
        {"statement": "append_order_event", "parameters": {"order_id": str(uuid.uuid4()), "sequence": "one"}},
    )
    await fleet.send([command])
    failure = await failed_answer(fleet, command)
    assert failure.code == "invalid-payload"
    assert "$.parameters.sequence" in failure.message


async def test_an_operation_the_contract_lacks_is_answered_unknown_operation(
    fleet: Fleet, worker: WorkerProcess
) -> None:
    command = msgspec.structs.replace(order_event(fleet), type="onex.cmd.postgres-adapter.drop-table.v1")
    await fleet.send([command])
    failure = await failed_answer(fleet, command)
    assert failure.code == "unknown-operation"
    assert "execute-statement" in failure.message


async def test_an_expired_command_is_answered_expired_and_not_run(fleet: Fleet, worker: WorkerProcess) -> None:
    command = order_event(fleet, expirytime="2020-01-01T00:00:00Z")
    await fleet.send([command])
    assert (await failed_answer(fleet, command)).code == "expired"
    assert await fleet.fetch_value("SELECT count(*) FROM orders.order_events") == 0


async def test_a_violated_constraint_is_an_answer_and_its_batch_neighbours_are_stored(
    fleet: Fleet, worker: WorkerProcess
) -> None:
    good = [order_event(fleet) for _ in range(20)]
    bad = fleet.command(
        "execute_statement",
        {
            "statement": "append_order_event",
            "parameters": {"order_id": str(uuid.uuid4()), "sequence": 0, "kind": "placed", "quantity": 1},
        },
    )
    await fleet.send([*good[:10], bad, *good[10:]])
    answers = await fleet.answered([one.id for one in (*good, bad)])
    failure = msgspec.json.decode(answers[bad.id][0].data, type=ModelErrorResponse)
    assert failure.code == "constraint-violated"
    assert failure.details["constraint"] == "order_events_sequence_check"
    assert await fleet.fetch_value("SELECT count(*) FROM orders.order_events") == 20


async def test_the_same_id_with_another_payload_is_dead_as_id_reused(fleet: Fleet, worker: WorkerProcess) -> None:
    first = order_event(fleet)
    await fleet.send([first])
    await fleet.answered([first.id])
    await fleet.send([msgspec.structs.replace(order_event(fleet), id=first.id, subject=first.subject)])
    (letter,) = await fleet.dead_letters(1)
    assert dict(letter.headers() or [])[TransportHeader.ERROR_CODE] == b"id-reused"
    last = order_event(fleet, subject=first.subject)
    await fleet.send([last])
    answers = await fleet.answered([last.id])
    assert [one.type.rpartition("-")[2] for one in answers[first.id]] == ["completed.v1"]


async def test_the_same_command_sent_twice_has_one_effect_and_equal_answers(
    fleet: Fleet, worker: WorkerProcess
) -> None:
    command, last = order_event(fleet), order_event(fleet)
    await fleet.send([command])
    await fleet.answered([command.id])
    await fleet.send([command])
    await fleet.send([msgspec.structs.replace(last, subject=command.subject)])
    answers = await fleet.answered([last.id])
    assert len({envelopes.encode(answer) for answer in answers[command.id]}) == 1
    assert await fleet.fetch_value("SELECT count(*) FROM orders.order_events") == 2


async def test_an_id_whose_time_is_beyond_the_calendar_is_an_id_like_any_other(
    fleet: Fleet, worker: WorkerProcess
) -> None:
    command = msgspec.structs.replace(order_event(fleet), id="ffffffff-ffff-7fff-bfff-ffffffffffff")
    await fleet.send([command, command])
    answers = await fleet.answered([command.id])
    assert answers[command.id][0].type.endswith("execute-statement-completed.v1")
    assert await fleet.fetch_value("SELECT count(*) FROM orders.order_events") == 1


async def test_binary_mode_is_accepted(fleet: Fleet, worker: WorkerProcess) -> None:
    command = order_event(fleet)
    headers = [("content-type", b"application/json")]
    headers += [(f"ce_{name}", getattr(command, name).encode()) for name in ("specversion", "id", "source", "type")]
    await fleet.send_raw(bytes(command.data), b"k", headers)
    answers = await fleet.answered([command.id])
    assert answers[command.id][0].type.endswith("execute-statement-completed.v1")


async def test_an_outside_producer_needs_only_the_cloudevents_core_attributes(
    fleet: Fleet, worker: WorkerProcess
) -> None:
    command = order_event(fleet)
    core = {"specversion": "1.0", "id": "outside-1", "source": "https://example.com/shop", "type": command.type}
    await fleet.send_raw(json.dumps({**core, "data": json.loads(bytes(command.data))}).encode())
    answers = await fleet.answered(["outside-1"])
    assert answers["outside-1"][0].correlationid == "outside-1"
