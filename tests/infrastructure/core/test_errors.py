"""The one error tree: every error has a code of its own and says what, where and what to do."""

from __future__ import annotations

import re

import pytest

from omnibase_infra.shared.core import errors
from omnibase_infra.shared.core.errors import (
    BusinessError,
    ContractError,
    DeliveryError,
    DependencyUnavailableError,
    ExpiredError,
    OmnibaseError,
    Problem,
    error_code,
)
from omnibase_infra.shared.core.outcomes import OperationFailed


def tree(root: type[OmnibaseError] = OmnibaseError) -> list[type[OmnibaseError]]:
    found = [root]
    for child in root.__subclasses__():
        if child.__module__ == errors.__name__:
            found += tree(child)
    return found


def test_codes_are_kebab_case_and_unique() -> None:
    codes = [error.code for error in tree()]

    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", code) for code in codes)
    assert len(set(codes)) == len(codes)


def test_every_error_is_drawn_in_the_tree_at_the_top_of_the_file() -> None:
    drawing = errors.__doc__ or ""

    assert [error.__name__ for error in tree() if error.__name__ not in drawing] == []


def test_the_hint_follows_the_message() -> None:
    assert str(OmnibaseError("the topic is missing", hint="run `omninode topics apply`")) == (
        "the topic is missing (run `omninode topics apply`)"
    )
    assert str(OmnibaseError("the topic is missing")) == "the topic is missing"


def test_problems_of_a_contract_are_sorted_by_place() -> None:
    late = Problem("b.yaml", 2, 1, "late")
    early = Problem("a.yaml", 10, 3, "early", "CT101")

    error = ContractError([late, early])

    assert error.problems == [early, late]
    assert str(error) == "a.yaml:10:3: early [CT101]\nb.yaml:2:1: late"


def test_a_business_error_carries_the_code_of_its_case() -> None:
    error = BusinessError("no such order", code="not-found", details={"table": "orders"}, dependency="postgres")

    assert error_code(error) == "not-found"
    assert OperationFailed.from_error(error, attempts=2) == OperationFailed(
        code="not-found", message="no such order", details={"table": "orders"}, dependency="postgres", attempts=2
    )


def test_every_exception_has_a_code() -> None:
    assert error_code(ExpiredError("too late")) == "expired"
    assert error_code(KeyError("x")) == "internal-error"


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        (DependencyUnavailableError("down", dependency="postgres"), True),
        (DeliveryError("lost", errors={3: "timed out"}), True),
        (ExpiredError("too late"), False),
    ],
)
def test_errors_say_whether_to_try_again(error: OmnibaseError, retryable: bool) -> None:
    assert error.retryable is retryable


def test_the_details_of_an_error_do_not_change_with_the_caller_s() -> None:
    reasons = {0: "timed out"}
    error = DeliveryError("lost", errors=reasons)
    reasons.clear()

    assert error.errors == {0: "timed out"}
