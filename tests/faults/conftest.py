"""Servers for faults, one set per test process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.faults.servers import Servers, running_servers

# The node's generated tests import it as a worker does, which test_fault_probe.py arranges.
collect_ignore = ["nodes"]


@pytest.fixture(scope="session")
def fault_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """PostgreSQL now, brokers when a scenario asks for them; nobody else uses them."""
    with running_servers(tmp_path_factory.mktemp("faults")) as servers:
        yield servers
