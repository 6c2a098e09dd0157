"""Who runs a server that refuses to run as root, and which folders that user can reach."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from omnibase_infra.shared.core.errors import LocalServiceError

CANDIDATES = ("postgres", "nobody")


class PopenUser(TypedDict, total=False):
    """Arguments of `subprocess` that drop root."""

    user: int
    group: int
    extra_groups: list[int]


@dataclass(frozen=True, slots=True)
class UnprivilegedUser:
    """A system user without privileges."""

    name: str
    uid: int
    gid: int

    def can_enter(self, folder: Path) -> bool:
        """Return whether this user can go into a folder, by the mode bits of it and of all above it."""
        resolved = folder.resolve()
        return all(self._may(each, stat.S_IXUSR) for each in (resolved, *resolved.parents) if each.exists())

    def can_read(self, file: Path) -> bool:
        """Return whether this user can read a file that exists, by mode bits."""
        return self.can_enter(file.parent) and self._may(file, stat.S_IRUSR)

    def _may(self, path: Path, user_bit: int) -> bool:
        status = path.stat()
        shift = 0 if status.st_uid == self.uid else 3 if status.st_gid == self.gid else 6
        return bool(status.st_mode & (user_bit >> shift))


def popen_arguments(user: UnprivilegedUser | None) -> PopenUser:
    """Return the arguments that make `subprocess` run a program as `user`, in no other groups; None changes nothing."""
    return PopenUser(user=user.uid, group=user.gid, extra_groups=[]) if user else PopenUser()


def user_to_drop_to() -> UnprivilegedUser | None:
    """Return the user that servers run as when this process is root; None when it is not.

    Raises:
        LocalServiceError: root, and the system has neither `postgres` nor `nobody`.
    """
    if os.geteuid() != 0:
        return None
    for name in CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return UnprivilegedUser(name, entry.pw_uid, entry.pw_gid)
    raise LocalServiceError(
        "PostgreSQL does not run as root, and this system has no user `postgres` or `nobody`",
        hint="run as another user, or set OMNIBASE_POSTGRES_DSN to a server of yours",
    )


def shared_folder(user: UnprivilegedUser, candidates: Sequence[Path]) -> Path:
    """Return the first of the folders that `user` can enter and only root can write, made if it is missing.

    For what root must keep where another user reaches it; modes of folders that exist are never changed.

    Raises:
        LocalServiceError: none is fit.
    """
    for folder in candidates:
        try:
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        except OSError:
            continue  # read-only, or a file: the next one
        status = folder.lstat()
        only_ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o022
        if only_ours and user.can_enter(folder):
            return folder
    raise LocalServiceError(
        f"the user {user.name}, as which PostgreSQL must run, can enter none of: {', '.join(map(str, candidates))}",
        hint="run as another user than root, or set OMNIBASE_POSTGRES_DSN to a server of yours",
    )
