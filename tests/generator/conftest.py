"""What the generator's tests share: the installed kits, and a golden node to spoil."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from omnibase_infra.shared.generator.kits.discovery import installed_kits
from omnibase_infra.shared.generator.kits.interface import Kit
from omnibase_infra.shared.testing.generated_node import GeneratedNode

GOLDEN = Path(__file__).parent / "golden"
# Golden nodes hold generated tests, which test_golden.py runs.
collect_ignore = ["golden"]


@pytest.fixture(scope="session")
def kits() -> Mapping[str, Kit]:
    """The installed kits."""
    return installed_kits()


@pytest.fixture
def order_store(tmp_path: Path, kits: Mapping[str, Kit]) -> GeneratedNode:
    """A copy of the golden order store; no server may be asked about it."""
    ignored = shutil.ignore_patterns(".generation", "__pycache__")
    shutil.copytree(GOLDEN / "order_store", tmp_path / "order_store", ignore=ignored)
    return GeneratedNode(tmp_path / "order_store/v1_0_0", kits)
