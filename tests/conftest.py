"""Fixtures for every test: the real servers, each started when a test first asks for it."""

from __future__ import annotations

import os
import signal

import pytest

pytest_plugins = [
    "omnibase_infra.shared.testing.kafka_fixtures",
    "omnibase_infra.shared.testing.openbao_fixtures",
    "omnibase_infra.shared.testing.postgres_fixtures",
    "omnibase_infra.shared.testing.secured_kafka",
]

# A shell that starts the tests in the background lets them, and all they start, ignore Ctrl-C; some tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the settings of the machine that the test runs on."""
    for name in list(os.environ):
        if name.startswith("OMNIBASE_"):
            monkeypatch.delenv(name)
