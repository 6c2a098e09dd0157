"""Every named safeguard is missed by its test when it is taken out of the runtime."""

from __future__ import annotations

import pytest
from tests.faults.safeguards import REPOSITORY, SAFEGUARDS, Safeguard, misses

pytestmark = pytest.mark.timeout(150)


@pytest.mark.parametrize("safeguard", SAFEGUARDS, ids=[one.name for one in SAFEGUARDS])
def test_a_test_fails_when_the_safeguard_is_taken_out(safeguard: Safeguard) -> None:
    missed, said = misses(safeguard)
    assert missed, said[-3000:]


def test_names_are_unique_and_tests_are_where_they_are_said_to_be() -> None:
    assert len({one.name for one in SAFEGUARDS}) == len(SAFEGUARDS) >= 8
    for one in SAFEGUARDS:
        file, _, test = one.test.partition("::")
        assert f"def {test}(" in (REPOSITORY / "tests" / "infrastructure" / file).read_text()
