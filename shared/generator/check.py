"""Compare a node on disk with what its contract says: the gate that CI runs. Nothing is written."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Literal

import msgspec

from omnibase_infra.shared.generator.manifest import MANIFEST_FILE, Manifest, sha256_of
from omnibase_infra.shared.generator.plan import SourceFile
from omnibase_infra.shared.generator.signatures import signature_problems
from omnibase_infra.shared.generator.targets import Target
from omnibase_infra.shared.generator.writer import folder_of, orphans

FindingKind = Literal["missing", "edited", "stale", "orphan", "contract", "signature", "manifest", "interrupted"]

# Folders in which every file is the generator's, or listed as people's.
_OWNED: Final = ("handlers", "models", "processors", "registry")


class Finding(msgspec.Struct, frozen=True, order=True):
    """One way in which a node differs from its contract. `repair` is a command, or what to do by hand."""

    path: str
    kind: FindingKind
    message: str
    repair: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message} [{self.kind}]; {self.repair}"


def check_node(
    target: Target, files: Sequence[SourceFile], manifest: Manifest, previous: Manifest | None, repair: str
) -> list[Finding]:
    """Return everything that differs, sorted by path.

    Args:
        target: where the node lies.
        files: as they should be.
        manifest: as it should be, but for its date.
        previous: the manifest on disk.
        repair: the command that generates the node.
    """
    run = f"run `{repair}`"
    findings = [*_generated(target, files, previous, run), *_peoples(target, files, run)]
    findings.extend(
        finding(path, "orphan", "no contract asks for this file any more", run)
        for path in orphans(target, files, previous)
        if path.exists()
    )
    findings.extend(_strays(target, files, previous))
    if not target.marker.exists():
        findings.append(finding(target.marker, "missing", "the node's folder is no package", run))
    if (target.work / "journal.json").exists():
        findings.append(finding(target.work, "interrupted", "a generation was interrupted", run))
    findings.extend(_manifest(target, manifest, previous, run))
    return sorted(set(findings))


def diff_node(target: Target, files: Sequence[SourceFile], previous: Manifest | None) -> Iterator[str]:
    """Yield the lines of a unified diff from what is on disk to what generating would write."""
    for file in files:
        path = folder_of(target, file.root) / file.path
        if file.owner == "people" and path.exists():
            continue
        before = path.read_text("utf-8") if path.is_file() else ""
        yield from unified(path, before, file.content, exists=path.is_file())
    for path in orphans(target, files, previous):
        if path.is_file():
            yield from unified(path, path.read_text("utf-8"), "", exists=True)


def _generated(target: Target, files: Sequence[SourceFile], previous: Manifest | None, run: str) -> Iterator[Finding]:
    for file in files:
        if file.owner == "people":
            continue
        path = folder_of(target, file.root) / file.path
        if not path.is_file():
            yield finding(path, "missing", "the file is missing", run)
            continue
        actual, wanted = sha256_of(path.read_bytes()), sha256_of(file.content.encode())
        if actual == wanted:
            continue
        record = previous.records(file.root).get(file.path) if previous else None
        if record and actual == record.sha256:
            yield finding(path, "stale", "the contract or the generator has changed since it was generated", run)
        else:
            yield finding(path, "edited", "a generated file was edited by hand", f"change the contract instead; {run}")


def _peoples(target: Target, files: Sequence[SourceFile], run: str) -> Iterator[Finding]:
    for file in files:
        path = folder_of(target, file.root) / file.path
        if file.owner != "people":
            continue
        if not path.is_file():
            yield finding(
                path, "missing", "the file that people write is missing", f"restore it, or {run} to begin anew"
            )
            continue
        for problem in signature_problems(file.content, path.read_text("utf-8")):
            yield finding(path, "signature", problem, "change it by hand; it is yours")


def _strays(target: Target, files: Sequence[SourceFile], previous: Manifest | None) -> Iterator[Finding]:
    known = {file.path for file in files if file.root == "node"} | set(previous.files if previous else ())
    for folder in _OWNED:
        for path in sorted((target.node / folder).rglob("*")):
            relative = path.relative_to(target.node).as_posix()
            if path.is_file() and "__pycache__" not in path.parts and relative not in known:
                yield finding(path, "orphan", "nobody generated this file", "delete it")


def _manifest(target: Target, manifest: Manifest, previous: Manifest | None, run: str) -> Iterator[Finding]:
    path = target.node / MANIFEST_FILE
    if previous is None:
        yield finding(path, "missing", "the list of generated files is missing", run)
        return
    if previous.contract_sha256 != manifest.contract_sha256:
        yield finding(path, "contract", "the contract, or a file it names, has changed since", run)
    elif msgspec.structs.replace(manifest, generated_at=previous.generated_at) != previous:
        yield finding(path, "manifest", "the list of generated files is not what it should be", run)


def finding(path: Path, kind: FindingKind, message: str, repair: str) -> Finding:
    """Return a finding about a file, shown as people see it."""
    return Finding(_shown(path), kind, message, repair)


def unified(path: Path, before: str, after: str, *, exists: bool) -> Iterator[str]:
    """Yield the lines of a unified diff of one file."""
    shown = _shown(path)
    yield from difflib.unified_diff(
        before.splitlines(keepends=True),
        after.splitlines(keepends=True),
        shown if exists else "/dev/null",
        shown if after else "/dev/null",
    )


def _shown(path: Path) -> str:
    """Return the path as people see it: relative to where they are, when it lies below."""
    try:
        return path.relative_to(Path.cwd()).as_posix()
    except ValueError:
        return path.as_posix()
