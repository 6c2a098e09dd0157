"""Message ids: sortable originals, repeatable derived ones."""

from __future__ import annotations

import time
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnibase_infra.shared.core import ids

CAUSE: dict[str, Any] = {
    "source": "/omnibase/dev/a",
    "cause_id": "1",
    "worker": "w",
    "step": "s",
    "index": 0,
    "event_type": "onex.evt.w.done.v1",
    "redrive_id": "",
}
printable = st.text(st.characters(blacklist_categories=["Cc", "Cs"]), max_size=20)


def test_an_original_id_is_a_uuid_7_of_now() -> None:
    before = time.time_ns() // 1_000_000
    value = ids.original_id()
    after = time.time_ns() // 1_000_000

    parsed = uuid.UUID(value)
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    moment = ids.uuid7_milliseconds(value)
    assert moment is not None
    assert before <= moment <= after


def test_original_ids_do_not_repeat() -> None:
    assert len({ids.original_id() for _ in range(10_000)}) == 10_000


def test_original_ids_of_later_milliseconds_sort_later() -> None:
    first = ids.original_id()
    start = time.time_ns() // 1_000_000
    while time.time_ns() // 1_000_000 == start:
        pass
    assert ids.original_id() > first


@pytest.mark.parametrize(
    "text", ["", "x", "not-a-uuid", "9b2f3c1e-6d0a-4c6e-8a53-0f6f2c7d1e42", str(uuid.uuid5(uuid.NAMESPACE_DNS, "a"))]
)
def test_other_ids_have_no_time_in_them(text: str) -> None:
    assert ids.uuid7_milliseconds(text) is None


@given(st.text(max_size=50))
def test_any_text_may_be_asked_for_its_time(text: str) -> None:
    moment = ids.uuid7_milliseconds(text)

    assert moment is None or 0 <= moment < 2**48


def test_a_derived_id_is_part_of_the_wire_format() -> None:
    """A changed value here would let redelivered messages through as new ones."""
    assert ids.derived_id(**CAUSE) == "fa2e0de2-56a6-5e0c-b292-82ce7c0a22b5"


@pytest.mark.parametrize("part", CAUSE)
def test_every_part_of_the_cause_changes_the_derived_id(part: str) -> None:
    changed = CAUSE | {part: 1 if part == "index" else "other"}

    assert ids.derived_id(**changed) != ids.derived_id(**CAUSE)
    assert ids.derived_id(**changed) == ids.derived_id(**changed)


@given(printable, printable, printable, printable)
def test_text_cannot_move_from_one_part_to_its_neighbour(source: str, cause: str, other: str, other_cause: str) -> None:
    first = ids.derived_id(**(CAUSE | {"source": source, "cause_id": cause}))
    second = ids.derived_id(**(CAUSE | {"source": other, "cause_id": other_cause}))

    assert (first == second) is ((source, cause) == (other, other_cause))


@given(st.text(), st.text(), st.integers(0, 10_000))
def test_a_derived_id_is_a_version_5_uuid_of_its_cause(cause: str, source: str, index: int) -> None:
    parts = CAUSE | {"cause_id": cause, "source": source, "index": index}
    name = "\0".join(
        str(parts.get(one, "")) for one in ("source", "cause_id", "worker", "step", "index", "event_type", "redrive_id")
    )
    assert ids.derived_id(**parts) == str(uuid.uuid5(ids.DERIVED_ID_NAMESPACE, name))
