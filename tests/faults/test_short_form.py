"""The fault bench, its short form: some rows of every family. All of them: `make faults`."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.faults.catalogue import SCENARIOS
from tests.faults.scenario import Scenario, run_scenario
from tests.faults.servers import Servers

pytestmark = [pytest.mark.demanding, pytest.mark.timeout(240)]

SHORT = [scenario for scenario in SCENARIOS if scenario.short]


@pytest.mark.parametrize("scenario", SHORT, ids=[scenario.name for scenario in SHORT])
async def test_nothing_is_lost_doubled_or_reordered(fault_servers: Servers, scenario: Scenario, tmp_path: Path) -> None:
    row = await run_scenario(fault_servers, scenario, tmp_path)
    assert row.is_well, row.problem


def test_every_scenario_has_a_name_of_its_own_and_every_family_a_row_in_the_short_form() -> None:
    names = [scenario.name for scenario in SCENARIOS]
    assert len(set(names)) == len(names)
    families = {scenario.run.__module__ for scenario in SCENARIOS}
    slow_by_nature = {"tests.faults.outages", "tests.faults.transactions"}
    assert {scenario.run.__module__ for scenario in SHORT} == families - slow_by_nature
