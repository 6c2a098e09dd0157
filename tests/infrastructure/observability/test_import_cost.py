"""Importing the logger is quiet and light: it happens in every process that starts."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
import omnibase_infra.shared.observability.structured_logger as module
heavy = [name for name in ("rich", "pygments", "opentelemetry", "pydantic", "confluent_kafka") if name in sys.modules]
import structlog, logging
assert not structlog.is_configured()
assert logging.getLogger().handlers == []
import rich.console  # what was kept out at import is there for those who want it
print(heavy)
"""


def _run(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)


def test_importing_the_logger_writes_nothing_configures_nothing_and_loads_nothing_heavy() -> None:
    done = _run(SCRIPT)
    assert (done.stdout, done.stderr, done.returncode) == ("[]\n", "", 0)


def test_rich_that_is_already_loaded_stays_loaded() -> None:
    done = _run(
        "import rich, sys; import omnibase_infra.shared.observability.structured_logger; print(sys.modules['rich'] is rich)"
    )
    assert (done.stdout, done.stderr) == ("True\n", "")
