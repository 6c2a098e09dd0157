"""What a program that uses the client has to load."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
from omnibase_infra.shared.client.fleet_client import FleetClient
from omnibase_infra.shared.client.node_interface import load_interface
load_interface("postgres_adapter")
print(*sorted({"typer", "rich", "asyncpg", "structlog", "yaml", "jsonschema", "hvac", "faust", "sqlglot", "jinja2"}
    & set(sys.modules)))
print(*sorted(name for name in sys.modules if name.startswith("omnibase_infra.")
    and {"cli", "generator", "local_services", "testing", "runtime", "postgres"} & set(name.split(".")[2:3])))
"""


def test_the_client_loads_no_command_line_no_driver_and_no_generator() -> None:
    result = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True, timeout=60)
    assert result.stdout.split() == []
