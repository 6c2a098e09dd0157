"""Fixtures for every test: the real servers, each started when a test first asks for it."""

from __future__ import annotations

import os

import pytest

pytest_plugins = [
    "omnibase_infra.shared.testing.kafka_fixtures",
    "omnibase_infra.shared.testing.postgres_fixtures",
]


@pytest.fixture
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the settings of the machine that the test runs on."""
    for name in list(os.environ):
        if name.startswith("OMNIBASE_"):
            monkeypatch.delenv(name)
