"""The pytest plugin for people who write nodes: every fixture, and `--services`. In the topmost `conftest.py`:

pytest_plugins = ["omnibase_infra.shared.testing.plugin"]

Named and not found by itself: what is loaded with pytest costs every run of everybody, and is not measured by coverage.
"""

from __future__ import annotations

import pytest

from omnibase_infra.shared.testing.docker_services import SERVICES

pytest_plugins = [
    "omnibase_infra.shared.testing.kafka_fixtures",
    "omnibase_infra.shared.testing.postgres_fixtures",
    "omnibase_infra.shared.testing.container_fixtures",
]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--services`."""
    parser.getgroup("omnibase").addoption(
        "--services",
        choices=SERVICES,
        default=SERVICES[0],
        help="Where Kafka and PostgreSQL of tests come from: wheels on this machine, or containers (testcontainers).",
    )
