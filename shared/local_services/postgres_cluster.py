"""A PostgreSQL data folder: made whole or not at all, and cleared of what a crash left in it."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from omnibase_infra.shared.core.errors import LocalServiceError
from omnibase_infra.shared.local_services import process_identity
from omnibase_infra.shared.local_services.private_files import write_private
from omnibase_infra.shared.local_services.server_process import BASE_ENVIRONMENT
from omnibase_infra.shared.local_services.unprivileged_user import UnprivilegedUser, popen_arguments
from omnibase_infra.shared.local_services.whole_folders import clear_left_in_progress, folder_in_progress

SUPERUSER = "omnibase"
DATABASE = "omnibase"
INITDB_TIMEOUT_SECONDS = 120.0
OUTPUT_LINES_IN_ERRORS = 15
POSTMASTER_PID_LINE, POSTMASTER_PORT_LINE, POSTMASTER_STATUS_LINE = 0, 3, 7


@dataclass(frozen=True, slots=True)
class PostgresCluster:
    """The data folder `home/data` and its superuser's password `home/password`.

    Attributes:
        home: a folder that `user` can enter.
        user: who owns the data; None is the user of this process.
    """

    home: Path
    user: UnprivilegedUser | None

    @property
    def data(self) -> Path:
        """Return the data folder."""
        return self.home / "data"

    @property
    def is_initialised(self) -> bool:
        """Return whether the data folder is there; it appears under its name only when it is whole."""
        return all((self.data / name).exists() for name in ("PG_VERSION", "global/pg_control"))

    def password(self) -> str:
        """Return the superuser's password, a secret.

        Raises:
            LocalServiceError: its file is missing.
        """
        try:
            return (self.home / "password").read_text(encoding="ascii").strip()
        except FileNotFoundError:
            raise LocalServiceError(
                f"postgres: {self.home / 'password'} is missing, so its data cannot be reached",
                hint="`omninode infra down --delete-data` removes them; the next `up` makes new ones",
            ) from None

    def initialise(self, programs: Path) -> None:
        """Make the data folder with one superuser and one database.

        Raises:
            LocalServiceError: with what `initdb` said.
        """
        shutil.rmtree(self.data, ignore_errors=True)
        clear_left_in_progress(self.home, "initdb")
        password = secrets.token_urlsafe(24)
        with folder_in_progress(self.home, "initdb") as folder:
            password_file = folder / "password"
            write_private(password_file, password + "\n")
            if self.user is not None:
                for path in (folder, password_file):
                    os.chown(path, self.user.uid, self.user.gid)
            self._run([programs / "initdb", *self._initdb_arguments(folder)], folder)
            create = f"CREATE DATABASE {DATABASE};\n"  # sql: a constant
            self._run([programs / "postgres", "--single", "-j", "-D", folder / "data", "postgres"], folder, create)
            # The password first: data without it could not be reached.
            write_private(self.home / "password", password + "\n")
            (folder / "data").rename(self.data)

    def check_version(self, major: str) -> None:
        """Compare the data's major version to the server's.

        Raises:
            LocalServiceError: they differ.
        """
        found = (self.data / "PG_VERSION").read_text(encoding="ascii").strip()
        if found != major:
            raise LocalServiceError(
                f"postgres: {self.data} was made by PostgreSQL {found}, the installed one is {major}",
                hint="`omninode infra down --delete-data` removes the data",
            )

    def is_ready(self, port: int) -> bool:
        """Return whether the server on this data says that it accepts connections on `port`."""
        lines = self._postmaster_lines()
        return (
            len(lines) > POSTMASTER_STATUS_LINE
            and lines[POSTMASTER_PORT_LINE].strip() == str(port)
            and lines[POSTMASTER_STATUS_LINE].strip() == "ready"
        )

    def clear_stale_lock(self) -> None:
        """Remove the `postmaster.pid` of a server that is gone.

        PostgreSQL itself would refuse to start when another process has the number by now. The file of a server that
        lives is left alone, also if that was started under another name of this folder.
        """
        lines = self._postmaster_lines()
        pid = lines[POSTMASTER_PID_LINE].strip() if lines else ""
        if not pid.isdecimal() or not process_identity.works_in(int(pid), self.data):
            (self.data / "postmaster.pid").unlink(missing_ok=True)

    def _postmaster_lines(self) -> list[str]:
        try:
            return (self.data / "postmaster.pid").read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []

    @staticmethod
    def _initdb_arguments(folder: Path) -> list[str | Path]:
        return [
            "--pgdata",
            folder / "data",
            "--pwfile",
            folder / "password",
            f"--username={SUPERUSER}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--locale=C",
            "--no-instructions",
        ]

    def _run(self, command: Sequence[str | Path], folder: Path, text: str = "") -> None:
        try:
            result = subprocess.run(
                [str(part) for part in command],
                cwd=folder,
                env=BASE_ENVIRONMENT,
                input=text,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                check=False,
                timeout=INITDB_TIMEOUT_SECONDS,
                start_new_session=True,
                **popen_arguments(self.user),
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise LocalServiceError(f"postgres: the data folder could not be made: {error}") from error
        # In single-user mode a failed statement is printed and does not change the exit code.
        if result.returncode != 0 or "ERROR:" in result.stdout:
            lines = "\n  ".join(result.stdout.splitlines()[-OUTPUT_LINES_IN_ERRORS:])
            raise LocalServiceError(f"postgres: the data folder could not be made:\n  {lines}")
