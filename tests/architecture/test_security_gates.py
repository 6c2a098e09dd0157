"""The gates of `make check` find what they are there for, and let through what is right."""

from __future__ import annotations

import datetime as dt
import importlib.util
import json
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


def gate(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"security_{name}", ROOT / "deployment" / "security" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "code",
    [
        'x = f"SELECT * FROM orders WHERE id = {order}"',
        'x = f"select {columns} from orders"',
        'x = "DELETE FROM orders WHERE id = %s" % order',
        'x = "INSERT INTO orders VALUES (" + order + ")"',
        'x = "UPDATE orders SET a = {}".format(order)',
        'x = "SELECT * FROM orders WHERE id = $1".replace("$1", order)',
        'x = " ".join(["SELECT", column, "FROM orders"])',
        'x = (\n    "SELECT * FROM orders "\n    f"WHERE id = {order}"\n)',
        'connection.execute(f"{verb} orders")',
        'connection.fetchval(verb + " FROM orders")',
        'pool.prepare("%s orders" % verb)',
        'connection.execute(" ".join(parts))',
        'x = f"DROP TABLE {name}"',
        'x = f"SET LOCAL role {name}"  # sql:',
    ],
)
def test_sql_put_together_from_strings_is_found(code: str) -> None:
    assert list(gate("no_dynamic_sql").findings(code, "m.py")), code


@pytest.mark.parametrize(
    "code",
    [
        'connection.execute("SELECT * FROM orders WHERE id = $1", order)',
        'connection.fetch(STATEMENT, f"{order}")',
        'x = "SELECT 1 " "FROM orders"',
        'x = "SELECT 1 " + "FROM orders"',
        'x = f"selected {count} orders"',
        'x = f"call {name} first"',
        'x = f"DROP TABLE {name}"  # sql: a partition of ours, by day',
        'hashlib.sha256().update(f"{x}".encode())',
    ],
)
def test_bound_values_constants_and_excused_names_pass(code: str) -> None:
    assert list(gate("no_dynamic_sql").findings(code, "m.py")) == []


def test_ruff_looks_for_security_faults_and_leaves_out_only_what_is_argued_for() -> None:
    ruff = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["ruff"]["lint"]
    assert "S" in ruff["select"]
    assert {rule for rule in ruff["ignore"] if rule.startswith("S") and rule[1:].isdigit()} == {
        "S101",
        "S404",
        "S603",
        "S607",
    }
    assert [place for place, rules in ruff["per-file-ignores"].items() if "S" in rules] == ["tests/**"]


def test_the_product_puts_no_sql_together() -> None:
    assert gate("no_dynamic_sql").main([]) == 0


REPORT = {
    "dependencies": [
        {"name": "safe", "version": "1", "vulns": []},
        {"name": "unknown", "skip_reason": "not found"},
        {
            "name": "torn",
            "version": "2",
            "vulns": [{"id": "PYSEC-1", "aliases": ["GHSA-1"], "fix_versions": ["3"], "description": ""}],
        },
    ],
    "fixes": [],
}
TODAY = dt.date(2026, 11, 24)


def exception(**changes: object) -> dict[str, object]:
    return {"id": "GHSA-1", "package": "torn", "until": TODAY, "reason": "not called"} | changes


@pytest.mark.parametrize(
    ("exceptions", "problem"),
    [
        ([], "torn 2: PYSEC-1, GHSA-1 (fixed in 3)"),
        ([exception(package="safe")], "torn 2: PYSEC-1, GHSA-1 (fixed in 3)"),
        ([exception(until=dt.date(2026, 11, 23))], "GHSA-1 of torn ended on 2026-11-23"),
        ([exception(reason="")], "GHSA-1 lacks reason"),
    ],
)
def test_a_vulnerability_without_a_living_exception_fails(exceptions: list[dict[str, object]], problem: str) -> None:
    audit = gate("dependency_audit")
    found = audit.judge(audit.audited(REPORT), exceptions, TODAY)
    assert any(problem in one for one in found)


def test_an_exception_holds_to_its_last_day_under_either_name_of_the_vulnerability() -> None:
    audit = gate("dependency_audit")
    result = audit.audited(REPORT)
    assert (result.audited, result.pinned) == (2, 3)
    assert audit.judge(result, [exception()], TODAY) == []
    assert audit.judge(result, [exception(id="PYSEC-1")], TODAY) == []


@pytest.mark.parametrize(
    "line",
    [
        "token = 'ghp_" + "a1B2" * 9 + "'",
        "AWS = 'AKIA" + "IOSFODNN7EXAMPLQ" + "'",
        "-----BEGIN RSA " + "PRIVATE KEY-----",
        "dsn = 'postgresql://ada:" + "kT9vQw3zLm" + "@host/db'",
        "password = '" + "kT9vQw3zLm" + "'",
    ],
)
def test_a_secret_in_a_file_is_found(line: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scan = gate("secret_scan")
    monkeypatch.setattr(scan, "ROOT", tmp_path)
    (tmp_path / "settings.py").write_text(f"x = 1\n{line}\n")
    found = list(scan.findings(["settings.py"]))
    assert [(name, one.line_number) for name, one in found] == [("settings.py", 2)] * len(found)
    assert found


def test_every_known_finding_has_a_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    scan = gate("secret_scan")
    assert scan.known()
    (tmp_path / "known.txt").write_text("a.py | Secret Keyword | 123 |\n")
    monkeypatch.setattr(scan, "KNOWN", tmp_path / "known.txt")
    with pytest.raises(SystemExit, match=r"known\.txt:1: expected"):
        scan.known()


def test_the_bill_of_materials_lists_all_that_is_pinned_and_is_the_same_each_time() -> None:
    sbom = gate("sbom")
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    project = {"name": "fleet", "version": "1.0.0"}
    text = sbom.bill_of_materials(lock, project)
    assert text == sbom.bill_of_materials(lock, project)
    document = json.loads(text)
    assert document["bomFormat"] == "CycloneDX"
    pinned = {line.split("==")[0] for line in lock.splitlines() if "==" in line and not line.startswith((" ", "#"))}
    assert {one["name"] for one in document["components"]} == pinned
    assert all(one["hashes"] and one["purl"].startswith("pkg:pypi/") for one in document["components"])
    with pytest.raises(SystemExit, match=r"requirements\.lock:1: expected"):
        sbom.bill_of_materials("-e .\n", project)
