"""Folders with real servers that are gone after the test, whatever happened in it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from omnibase_infra.shared.local_services import down


@pytest.fixture(scope="module", autouse=True)
def no_addresses_in_the_environment() -> Iterator[None]:
    """The machine that runs the tests may have addresses of its own; these tests start servers."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("OMNIBASE_")]:
            patch.delenv(name)
        yield


@pytest.fixture
def state_dir(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "checkout" / ".omnibase"
    yield folder
    down(folder, delete_data=True)


@pytest.fixture
def other_state_dir(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "another checkout" / ".omnibase"
    yield folder
    down(folder, delete_data=True)
