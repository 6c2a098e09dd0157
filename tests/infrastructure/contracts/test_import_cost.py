"""Reading the model of contracts costs no heavy import; the validator comes when a contract is loaded."""

from __future__ import annotations

import subprocess
import sys


def test_importing_the_loader_imports_no_validator() -> None:
    script = (
        "import sys; import omnibase_infra.shared.contracts.fleet_checks;"
        "heavy = {'jsonschema', 'jinja2', 'pydantic', 'asyncpg', 'confluent_kafka', 'typer'} & sys.modules.keys();"
        "sys.exit(', '.join(sorted(heavy)) or None)"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (0, "")
