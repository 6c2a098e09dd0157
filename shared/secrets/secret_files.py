"""Secrets in files, as Kubernetes mounts them: read whole, and looked at for a change without being read."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from omnibase_infra.shared.core.errors import SettingsError

MAX_BYTES: Final = 1024 * 1024

FileStamp = tuple[int, int, int] | None


def read_secret_file(path: str) -> str:
    """Return what a file holds, without the line break that editors end it with.

    Raises:
        SettingsError: it cannot be read, is empty, or is no text; says how, without what is in it.
    """
    try:
        with Path(path).open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        text = content.decode()
    except OSError as error:
        raise SettingsError(f"cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError("cannot be read: it is not UTF-8") from None
    if len(content) > MAX_BYTES:
        raise SettingsError(f"is longer than {MAX_BYTES} bytes")
    secret = text.removesuffix("\n").removesuffix("\r")
    if not secret:
        raise SettingsError("is empty")
    return secret


def file_stamp(path: str) -> FileStamp:
    """Return what changes when the file does, also when a link on the way is turned to another; None when it is gone."""
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
