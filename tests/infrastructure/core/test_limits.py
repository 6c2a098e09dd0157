"""What is refused before anything is decoded, each with a message that says why."""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnibase_infra.shared.core.errors import UndecodableError
from omnibase_infra.shared.core.limits import DecodeLimits

LIMITS = DecodeLimits()
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(blacklist_categories=["Cs"]), max_size=20),
)
documents = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=5),
        st.dictionaries(st.text(st.characters(blacklist_categories=["Cs"]), max_size=8), inner, max_size=5),
    ),
    max_leaves=20,
)


@given(documents, st.booleans(), st.sampled_from([None, 2]))
def test_every_strict_document_passes_however_it_is_written(
    document: Any, ascii_only: bool, indent: int | None
) -> None:
    LIMITS.check(json.dumps(document, ensure_ascii=ascii_only, indent=indent).encode())


@given(st.binary(max_size=200))
def test_any_bytes_pass_or_are_refused_by_the_one_error(value: bytes) -> None:
    try:
        LIMITS.check(value)
    except UndecodableError:
        return
    json.loads(value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"", "the value is empty"),
        (b"   ", "not JSON"),
        (b"{", "not JSON"),
        (b"{'a': 1}", "not JSON"),
        (b'{"a": 1,}', "not JSON"),
        (b'{"a": 1} x', "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        ('{"a": 1}'.encode("utf-16"), "not JSON"),
        (b'{"a": "\xff"}', "not JSON in UTF-8"),
        (b'{"a": "\\ud800"}', "not JSON in UTF-8"),
        (b'{"\\udc00": 1}', "not JSON in UTF-8"),
        (b'{"a": NaN}', "not JSON"),
        (b'{"a": Infinity}', "not JSON"),
        (b'{"a": -Infinity}', "not JSON"),
        (b'{"a": 1e999}', "not JSON"),
        (b'{"a": 01}', "not JSON"),
        (b'{"a": "\x01"}', "not JSON"),
        (b'{"a":1,"a":1}', "the key 'a' appears twice"),
        (b'{"a": 1, "\\u0061": 2}', "the key 'a' appears twice"),
        (b'[{"x": {"b": 1, "b": 2}}]', "the key 'b' appears twice"),
    ],
)
def test_what_is_not_strict_json_is_refused(value: bytes, message: str) -> None:
    with pytest.raises(UndecodableError, match=message):
        LIMITS.check(value)


def nested(depth: int) -> bytes:
    return b'{"a":' * (depth - 1) + b"{}" + b"}" * (depth - 1)


def test_depth_is_counted_exactly() -> None:
    LIMITS.check(nested(64))
    with pytest.raises(UndecodableError, match="nested 65 levels deep, at most 64"):
        LIMITS.check(nested(65))


def test_brackets_and_colons_inside_strings_do_not_count() -> None:
    LIMITS.check(json.dumps({"text": '[{:"\\' * 20_000}).encode())


def test_fields_are_counted_over_the_whole_document() -> None:
    LIMITS.check(json.dumps({f"k{n}": n for n in range(10_000)}).encode())
    with pytest.raises(UndecodableError, match="10001 fields, at most 10000"):
        LIMITS.check(json.dumps([{f"k{n}": n for n in range(10_000)}, {"one": "more"}]).encode())


def test_size_is_checked_before_anything_else() -> None:
    small = DecodeLimits(max_bytes=10)
    small.check(b'"12345678"')
    with pytest.raises(UndecodableError, match="the value has 11 bytes, at most 10"):
        small.check(b"not json at")


def test_a_generous_depth_limit_ends_in_the_same_error_and_not_in_a_crash() -> None:
    deep = DecodeLimits(max_depth=1_000_000)
    for depth in (900, 1000, 1020, 5000, 100_000):
        spaced = b"[ " * depth + b"] " * depth
        with contextlib.suppress(UndecodableError):
            deep.check(spaced)


@pytest.mark.parametrize(
    "value",
    [
        b"[" * 1_000_000,
        b'{"a":' * 200_000,
        b'"' * 1_000_000,
        b'"' + b"\\" * 999_998 + b'"',
        b'{"a": ' + b"9" * 1_000_000 + b"}",
        b'{"a": 0.' + b"9" * 1_000_000 + b"}",
        b'["' + b'","'.join(b"[" for _ in range(250_000)) + b'"]',
        b"[" + b",".join(b'{"a":1}' for _ in range(9_999)) + b" ]",
    ],
    ids=["brackets", "objects", "quotes", "backslashes", "integer", "fraction", "strings", "objects-in-a-list"],
)
def test_hostile_input_of_a_megabyte_is_answered_quickly(value: bytes) -> None:
    started = time.process_time()
    with contextlib.suppress(UndecodableError):
        LIMITS.check(value)
    assert time.process_time() - started < 1.0
