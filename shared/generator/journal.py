"""Change many files as one: complete copies first, then a journal, then moves that can be undone or finished.

A process that dies before the journal is there has changed nothing; one that dies behind it is finished by the next run.
An error while moving puts everything back.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

_JOURNAL: Final = "journal.json"
_NEW: Final = "new"
_OLD: Final = "old"


class _Step(msgspec.Struct, frozen=True):
    """`staged` moves to `path`; without `staged`, `path` is deleted. `saved` is what was there before."""

    path: str
    staged: str | None
    saved: str | None


def apply_changes(work: Path, writes: Mapping[Path, bytes], deletes: Sequence[Path], last: Path) -> None:
    """Write and delete files so that all of it happens or none.

    Args:
        work: folder for copies and journal, on the same file system.
        writes: content by path.
        deletes: files that must go; those already gone are fine.
        last: of `writes`, the file that is moved last: it says that the others are there.

    Raises:
        OSError: nothing was changed.
    """
    shutil.rmtree(work / _NEW, ignore_errors=True)
    shutil.rmtree(work / _OLD, ignore_errors=True)
    steps = _stage(work, writes, [path for path in deletes if path.exists()], last)
    write_durably(work / _JOURNAL, msgspec.json.encode(steps))
    try:
        _run(steps)
    except BaseException:
        _undo(steps)
        _clean(work)
        raise
    _clean(work)


def finish_interrupted(work: Path) -> bool:
    """Finish what a process that died had begun. Returns whether there was something to finish.

    Raises:
        OSError: it cannot be finished; the journal stays for the next try.
    """
    try:
        steps = msgspec.json.decode((work / _JOURNAL).read_bytes(), type=list[_Step])
    except FileNotFoundError:
        _clean(work)
        return False
    _run(steps)
    _clean(work)
    return True


def _stage(work: Path, writes: Mapping[Path, bytes], deletes: Sequence[Path], last: Path) -> list[_Step]:
    steps = [_Step(str(path), None, _save(work, index, path)) for index, path in enumerate(deletes)]
    ordered = sorted(writes, key=lambda path: (path == last, path))
    for index, path in enumerate(ordered, start=len(deletes)):
        staged = work / _NEW / str(index)
        write_durably(staged, writes[path])
        steps.append(_Step(str(path), str(staged), _save(work, index, path)))
    return steps


def _save(work: Path, index: int, path: Path) -> str | None:
    if not path.exists():
        return None
    saved = work / _OLD / str(index)
    saved.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path, saved)
    return str(saved)


def _run(steps: Sequence[_Step]) -> None:
    """Take every step that has not been taken yet."""
    for step in steps:
        path = Path(step.path)
        if step.staged is None:
            path.unlink(missing_ok=True)
            _remove_empty(path.parent)
        elif Path(step.staged).exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            Path(step.staged).replace(path)


def _undo(steps: Sequence[_Step]) -> None:
    for step in steps:
        path = Path(step.path)
        if step.saved is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(step.saved, path)
        elif step.staged is not None and not Path(step.staged).exists():
            path.unlink(missing_ok=True)
            _remove_empty(path.parent)


def _clean(work: Path) -> None:
    # The journal goes first: copies without it mean nothing.
    (work / _JOURNAL).unlink(missing_ok=True)
    shutil.rmtree(work / _NEW, ignore_errors=True)
    shutil.rmtree(work / _OLD, ignore_errors=True)


def _remove_empty(folder: Path) -> None:
    if folder.is_dir() and {entry.name for entry in folder.iterdir()} <= {"__pycache__"}:
        shutil.rmtree(folder)


def write_durably(path: Path, content: bytes) -> None:
    """Write a file so that it is whole or not there, and on disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.part")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
