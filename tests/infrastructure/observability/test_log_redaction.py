"""What is logged is bounded in size and depth."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from omnibase_infra.shared.observability.log_redaction import MAX_ITEMS, MAX_TEXT, fit_fields, fit_text

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=30,
)


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    return 0


@given(st.dictionaries(st.text(max_size=8), ANYTHING, max_size=5))
def test_any_fields_become_plain_json_values_and_the_input_stays_as_it_is(fields: dict[str, Any]) -> None:
    before = repr(fields)
    fitted = fit_fields(fields)
    assert list(fitted) == list(fields)
    assert repr(fields) == before


def test_a_long_text_keeps_its_start_and_its_end() -> None:
    text = fit_text("start " + "x" * 100_000 + " end")
    assert text.startswith("start ")
    assert text.endswith(" end")
    assert "91818 characters left out" in text
    assert len(text) < MAX_TEXT + 100


def test_a_secret_at_the_cut_is_masked_before_the_text_is_cut() -> None:
    text = fit_text("x" * (MAX_TEXT // 2 - 12) + " password=canary-7f3a " + "y" * MAX_TEXT)
    assert "canary" not in text


def test_many_items_are_cut_with_a_note() -> None:
    fitted = fit_fields({"items": list(range(MAX_ITEMS + 7)), "names": {f"k{n}": n for n in range(MAX_ITEMS + 3)}})
    assert len(fitted["items"]) == MAX_ITEMS + 1
    assert fitted["items"][-1] == "… 7 more"
    assert fitted["names"]["…"] == "3 fields left out"


def test_a_deep_value_is_cut() -> None:
    deep: list[Any] = []
    for _ in range(5_000):
        deep = [deep]
    assert _depth(fit_fields({"deep": deep})) <= 8


def test_a_value_that_contains_itself_ends() -> None:
    loop: dict[str, Any] = {}
    loop["self"] = loop
    assert _depth(fit_fields({"loop": loop})) <= 8
