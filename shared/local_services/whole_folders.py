"""Folders that appear and disappear whole: made or removed under another name, renamed at once."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def folder_in_progress(parent: Path, purpose: str) -> Iterator[Path]:
    """Yield a new folder `.<purpose>-…` in `parent`; what is still in it at the end is removed."""
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{purpose}-", dir=parent, ignore_cleanup_errors=True) as name:
        yield Path(name)


def left_in_progress(parent: Path, purpose: str) -> list[Path]:
    """Return the folders that a process which was killed left behind; ask only under the lock that guards them."""
    return sorted(parent.glob(f".{purpose}-*"))


def clear_left_in_progress(parent: Path, purpose: str) -> None:
    """Remove what a process which was killed left behind; only under the lock that guards it."""
    for folder in left_in_progress(parent, purpose):
        shutil.rmtree(folder, ignore_errors=True)


def remove_whole(folder: Path) -> None:
    """Remove a folder, if it is there, so that half of it is never seen under its name."""
    clear_left_in_progress(folder.parent, f"removed-{folder.name}")
    if not folder.exists():
        return
    with folder_in_progress(folder.parent, f"removed-{folder.name}") as grave:
        folder.rename(grave / folder.name)
