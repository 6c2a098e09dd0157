"""A pytest plugin that takes one safeguard out before the tests run: `-p tests.faults.safeguard_removal --without=NAME`."""

from __future__ import annotations

import pytest
from tests.faults.safeguards import SAFEGUARDS


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--without`."""
    parser.addoption("--without", required=True, choices=[one.name for one in SAFEGUARDS], help="name of the safeguard")


def pytest_configure(config: pytest.Config) -> None:
    """Take it out."""
    name = config.getoption("--without")
    next(one for one in SAFEGUARDS if one.name == name).remove()
