"""The hash in every generated header: over all that generated code depends on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path


def contract_hash(contract: bytes, folder: Path, files: Iterable[str]) -> str:
    """Return the SHA-256, in hex, of a contract and the SQL files beside it.

    Hashed are, one after another: the contract's bytes, then for each file, sorted by path, the path and its
    bytes. Each piece is preceded by its length as eight bytes, so that no two sets of files run together alike.
    CRLF counts as LF: a checkout on another system has the same hash.

    Args:
        contract: bytes of the contract file.
        folder: where `files` are.
        files: statement and migration files, as POSIX paths relative to `folder`.

    Raises:
        OSError: a file cannot be read.
    """
    digest = hashlib.sha256()
    _add(digest, contract)
    for name in sorted(set(files)):
        _add(digest, name.encode())
        _add(digest, (folder / name).read_bytes())
    return digest.hexdigest()


def _add(digest: hashlib._Hash, piece: bytes) -> None:
    normalised = piece.replace(b"\r\n", b"\n")
    digest.update(len(normalised).to_bytes(8, "big"))
    digest.update(normalised)
