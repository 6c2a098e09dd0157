"""Fixtures for every test: the real servers, each started when a test first asks for it."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

pytest_plugins = [
    "omnibase_infra.shared.testing.plugin",
    "omnibase_infra.shared.testing.openbao_fixtures",
    "omnibase_infra.shared.testing.secured_kafka",
]

TESTS = Path(__file__).parent
# Folders whose tests are of one tier; elsewhere a test that asks for a server is an integration test, others are units.
TIERS = {"integration": "integration", "faults": "faults", "performance": "performance"}
SERVERS = frozenset(
    (
        "kafka_container",
        "kafka_own_broker",
        "openbao_container",
        "own_server",
        "postgres_container",
        "secured_kafka",
        "secured_postgres",
    )
)

# These ask for their servers while they run.
ON_SERVERS = ("test_real_", "test_journaled_effects", "test_topic_admin_conformance", "test_golden")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give every test the marker of its tier: `-m unit` needs no server, `-m "not faults"` kills none."""
    for item in items:
        if TESTS in item.path.parents:
            asks = item.path.name.startswith(ON_SERVERS) or SERVERS.intersection(getattr(item, "fixturenames", ()))
            folder = item.path.relative_to(TESTS).parts[0]
            item.add_marker(TIERS.get(folder) or ("integration" if asks else "unit"))


# A shell that starts the tests in the background lets them, and all they start, ignore Ctrl-C; some tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the settings of the machine that the test runs on."""
    for name in list(os.environ):
        if name.startswith("OMNIBASE_"):
            monkeypatch.delenv(name)
