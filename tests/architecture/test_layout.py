"""The layout that packaging relies on, and the rules that no linter knows."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = [ROOT / "shared", ROOT / "topics", ROOT / "workers"]
MODULES = sorted(path for folder in SOURCES for path in folder.rglob("*.py"))
MOST_LINES = 450
# Tables and one-class-per-file protocols may be longer when they are still one thing.
LONGER_FOR_A_REASON: dict[str, int] = {}


@pytest.mark.parametrize("name", ["shared", "topics", "workers"])
def test_the_import_root_holds_links_to_the_top_folders(name: str) -> None:
    link = ROOT / ".src" / "omnibase_infra" / name
    assert link.is_symlink(), (
        f"{link.relative_to(ROOT)} is not a symbolic link. On a checkout without symlink support run "
        f"`git config core.symlinks true && git checkout -- .src`"
    )
    assert link.resolve() == ROOT / name


def test_modules_stay_small_enough_to_be_one_thing() -> None:
    lengths = {path.relative_to(ROOT).as_posix(): len(path.read_text().splitlines()) for path in MODULES}
    too_long = {name: lines for name, lines in lengths.items() if lines > LONGER_FOR_A_REASON.get(name, MOST_LINES)}
    assert not too_long


def test_only_settings_reads_the_environment() -> None:
    allowed = {"shared/core/settings.py"}
    readers = [
        path.relative_to(ROOT).as_posix()
        for path in MODULES
        if re.search(r"os\.environ\[|os\.environ\.get|os\.getenv|\benviron\.get\b", path.read_text())
        and not path.relative_to(ROOT)
        .as_posix()
        .startswith(("shared/local_services/", "shared/testing/", "shared/cli/"))
    ]
    assert set(readers) <= allowed


def test_only_settings_takes_a_secret_out_so_that_no_reference_passes_for_one() -> None:
    takers = {
        path.relative_to(ROOT).as_posix(): path.read_text()
        for path in MODULES
        if not path.relative_to(ROOT).as_posix().startswith("shared/testing/")
    }
    found = {name: text.count(".get_secret_value()") for name, text in takers.items() if ".get_secret_value()" in text}
    assert set(found) <= {"shared/core/settings.py", "shared/kafka/security.py"}
    assert found.get("shared/kafka/security.py", 0) <= 1, "whether one is set; what it is says `secret_value`"


def test_no_module_swallows_every_exception() -> None:
    swallowing = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ExceptHandler) and all(isinstance(line, ast.Pass) for line in node.body)
    ]
    assert not swallowing


def test_the_repository_names_no_machine_and_no_package_registry() -> None:
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\n")
    banned = re.compile("|".join(("pypi" + r"\.org", "pythonhosted" + r"\.org", "repo1?" + r"\.maven", "/root" + "/")))
    found = []
    for name in filter(None, files):
        path = ROOT / name
        if path.is_file() and not path.is_symlink() and banned.search(path.read_text(errors="ignore")):
            found.append(name)
    assert not found
