"""What becomes of a payload before anything is sent."""

from __future__ import annotations

import enum
from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, Literal
from uuid import UUID

import msgspec
import pytest

from omnibase_infra.shared.client.node_interface import NodeInterface
from omnibase_infra.shared.client.payload_check import check_payload
from omnibase_infra.shared.core.errors import InvalidPayloadError
from omnibase_infra.shared.core.limits import DecodeLimits

GOOD = b'{"kind":"quote","item":"nail","quantity":3}'


class Colour(enum.Enum):
    RED = "red"
    GREEN = "green"


class Line(msgspec.Struct):
    article: str
    amount: Decimal
    colour: Colour = Colour.RED
    notes: dict[str, Literal["short", "long"]] = {}


class Order(msgspec.Struct):
    order_id: UUID
    placed_at: datetime
    lines: list[Line]
    extra: Any = None
    size: Literal[1, 2] | None = None
    renamed: int = msgspec.field(default=0, name="otherName")


def checked(payload: Any, model: Any = Order, **limits: int) -> Any:
    return msgspec.json.decode(check_payload(msgspec.json.Decoder(model), payload, DecodeLimits(**limits)))


def refused(payload: Any, model: Any = Order) -> InvalidPayloadError:
    with pytest.raises(InvalidPayloadError) as caught:
        checked(payload, model)
    return caught.value


def order(**changes: Any) -> dict[str, Any]:
    return {
        "order_id": "5f0e6a3c-8f5b-5f0c-9a39-0d1f6c1f8e11",
        "placed_at": "2026-01-31T12:00:00Z",
        "lines": [{"article": "a", "amount": "1.10"}],
    } | changes


@pytest.mark.parametrize("form", [bytes, bytes.decode, bytearray, memoryview, msgspec.json.decode])
def test_json_and_plain_data_are_taken(interface: NodeInterface, form: Any) -> None:
    encoded = interface.operation("quote_price").encode_request(form(GOOD))
    assert msgspec.json.decode(encoded) == {"kind": "quote", "item": "nail", "quantity": 3} | (
        {"unit": "piece"} if b"unit" in bytes(encoded) else {}
    )


def test_a_model_instance_is_taken(interface: NodeInterface, models: SimpleNamespace) -> None:
    encoded = interface.operation("quote_price").encode_request(models.Quote("nail", 3))
    assert msgspec.json.decode(encoded) == {"kind": "quote", "item": "nail", "quantity": 3, "unit": "piece"}


def test_a_model_instance_with_a_wrong_value_is_refused(interface: NodeInterface, models: SimpleNamespace) -> None:
    with pytest.raises(InvalidPayloadError, match=r"Expected `int`, got `str` - at `\$\.quantity`"):
        interface.operation("quote_price").encode_request(models.Quote("nail", "three"))


def test_values_of_rich_types_are_written_as_the_wire_has_them() -> None:
    sent = checked(
        order(order_id=UUID(int=1), placed_at=datetime(2026, 1, 1, tzinfo=UTC), lines=[Line("a", Decimal("0.10"))])
    )
    assert sent["order_id"] == "00000000-0000-0000-0000-000000000001"
    assert sent["placed_at"] == "2026-01-01T00:00:00Z"
    assert sent["lines"][0]["amount"] == "0.10"


def test_json_text_is_sent_compact_and_keeps_the_digits_of_decimals() -> None:
    text = msgspec.json.format(msgspec.json.encode(order())).decode().replace('"1.10"', "1.10000000000000000001")
    data = check_payload(msgspec.json.Decoder(Order), text, DecodeLimits())
    assert b'"amount":"1.10000000000000000001"' in bytes(data)
    assert b" " not in bytes(data)


@pytest.mark.parametrize(
    ("payload", "message", "hint"),
    [
        (order(lines=[]) | {"placed_at": 5}, "Expected `datetime`, got `int` - at `$.placed_at`", ""),
        ({}, "missing required field `order_id` - at `$`", "required: order_id, placed_at, lines"),
        ([], "Expected `object`, got `array` - at `$`", ""),
        (
            order(lines=[{"article": "a", "amount": "1"}, {"amount": "1"}]),
            "missing required field `article` - at `$.lines[1]`",
            "required: article, amount",
        ),
        (
            order(lines=[{"article": "a", "amount": "1", "colour": "gren"}]),
            "Invalid enum value 'gren' - at `$.lines[0].colour`",
            "did you mean 'green'? expected one of: green, red",
        ),
        (
            order(lines=[{"article": "a", "amount": "1", "notes": {"x": "longish"}}]),
            "Invalid enum value 'longish' - at `$.lines[0].notes[...]`",
            "expected one of: long, short",
        ),
        (order(size=7), "Invalid enum value 7 - at `$.size`", "expected one of: 1, 2"),
        (order(oder_id=1), "unknown field `oder_id` - at `$`", "did you mean `order_id`?"),
        (
            order(lines=[{"article": "a", "amount": "1", "zzz": 0}]),
            "unknown field `zzz` - at `$.lines[0]`",
            "there are: article, amount, colour, notes",
        ),
    ],
)
def test_a_refusal_names_the_path_and_what_was_expected(payload: Any, message: str, hint: str) -> None:
    for form in (payload, msgspec.json.encode(payload)):
        error = refused(form)
        assert message in error.message
        assert hint in error.hint
        assert hint or not error.hint


def test_the_choices_of_a_tagged_union_are_told(interface: NodeInterface) -> None:
    operation = interface.operation("quote_price")
    with pytest.raises(InvalidPayloadError, match=r"Invalid value 'qoute' - at `\$\.kind`.*did you mean 'quote'\?"):
        operation.encode_request({"kind": "qoute"})
    with pytest.raises(InvalidPayloadError, match="`kind` is one of: cancel, quote"):
        operation.encode_request({})
    with pytest.raises(InvalidPayloadError, match=r"required: item, quantity"):
        operation.encode_request({"kind": "quote", "quantity": 1})
    with pytest.raises(InvalidPayloadError, match="expected one of: box, piece"):
        operation.encode_request({"kind": "quote", "item": "a", "quantity": 1, "unit": "crate"})


def test_unknown_fields_inside_free_json_are_nobodys_business() -> None:
    assert checked(order(extra={"anything": {"goes": 1}}))["extra"] == {"anything": {"goes": 1}}


def test_fields_are_known_by_their_json_names() -> None:
    assert checked(order(otherName=4))["otherName"] == 4
    assert "did you mean" not in refused(order(renamed=4)).message


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"", "it is empty"),
        ("{", "not JSON"),
        (b"\xff{}", "not JSON"),
        ("\ud800", "not valid Unicode"),
        ('{"order_id": 1, "order_id": 2}', "appears twice"),
        ('{"order_id": NaN}', "JSON"),
        ("[" * 100 + "]" * 100, "levels deep"),
        ({"order_id": object()}, "cannot be written as JSON"),
        ({"order_id": 2**70}, "payload"),
    ],
)
def test_what_is_no_strict_json_is_refused(payload: Any, message: str) -> None:
    assert message in refused(payload).message


def test_a_recursive_value_is_refused() -> None:
    payload: dict[str, Any] = {}
    payload["self"] = payload
    assert "cannot be written as JSON" in refused(payload).message
