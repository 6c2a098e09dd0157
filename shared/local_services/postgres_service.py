"""A real PostgreSQL 18 on this machine, from the programs in a wheel, for root too."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import time
from functools import cached_property
from pathlib import Path

import msgspec

from omnibase_infra.shared.core.errors import LocalServiceError
from omnibase_infra.shared.local_services import free_ports
from omnibase_infra.shared.local_services.dependency_checks import CheckResult, check_postgres
from omnibase_infra.shared.local_services.free_ports import LOOPBACK
from omnibase_infra.shared.local_services.postgres_binaries import postgres_programs
from omnibase_infra.shared.local_services.postgres_cluster import DATABASE, SUPERUSER, PostgresCluster
from omnibase_infra.shared.local_services.private_files import write_private
from omnibase_infra.shared.local_services.server_process import BASE_ENVIRONMENT, ServerProcess, wait_until_ready
from omnibase_infra.shared.local_services.service import (
    Progress,
    ProgressCallback,
    Stopwatch,
    no_progress,
)
from omnibase_infra.shared.local_services.single_server import SingleServer
from omnibase_infra.shared.local_services.unprivileged_user import UnprivilegedUser, shared_folder, user_to_drop_to
from omnibase_infra.shared.local_services.whole_folders import remove_whole

READY_TIMEOUT_SECONDS = 60.0
START_ATTEMPTS = 3
# Backends of a killed server notice its end and let go of its shared memory within this time.
ORPHANED_MEMORY_TIMEOUT_SECONDS = 10.0
FAST_STOP_TIMEOUT_SECONDS = 10.0
IMMEDIATE_STOP_TIMEOUT_SECONDS = 5.0
VERSION_TIMEOUT_SECONDS = 10.0
PORT_TAKEN = "Address already in use"
MEMORY_IN_USE = "is still in use"

SERVER_OPTIONS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "fsync": "on",
    "logging_collector": "off",
    "log_line_prefix": "%m [%p] ",
    "log_timezone": "UTC",
    "timezone": "UTC",
}


class RememberedPort(msgspec.Struct, frozen=True):
    """Content of the file that keeps the address over restarts."""

    port: int


class PostgresService(SingleServer):
    """PostgreSQL on the loopback address, with one superuser and one database, both named `omnibase`.

    Data survive a power cut: `fsync` is on. As root the server runs as the user `postgres` or `nobody`; data then
    lie in `/var/lib/omnibase-infra` where that user cannot enter `folder`.

    Args:
        folder: log, pid file, and, where possible, data.
    """

    name = "postgres"

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()

    @cached_property
    def _user(self) -> UnprivilegedUser | None:
        return user_to_drop_to()

    @property
    def _cluster(self) -> PostgresCluster:
        home = self._folder
        if self._user is not None and not self._user.can_enter(home):
            # Named by the path, so that a copied folder gets data of its own.
            digest = hashlib.sha256(str(home).encode()).hexdigest()[:16]
            home = shared_folder(self._user, [Path("/var/lib/omnibase-infra")]) / f"postgres-{digest}"
        return PostgresCluster(home, self._user)

    @cached_property
    def process(self) -> ServerProcess:
        """Return the server's process, for tests that signal it."""
        return ServerProcess(
            "postgres",
            pid_file=self._folder / "postgres.pid",
            log_path=self.log_path,
            marker=str(self._cluster.data),
            # Fast: connections are ended, nothing is lost. Immediate: recovery at the next start.
            stop_signals=(
                (signal.SIGINT, FAST_STOP_TIMEOUT_SECONDS),
                (signal.SIGQUIT, IMMEDIATE_STOP_TIMEOUT_SECONDS),
            ),
        )

    @property
    def log_path(self) -> Path:
        """Return the server's log."""
        return self._folder / "postgres.log"

    @cached_property
    def version(self) -> str:
        """Return the version of the installed server, for example 18.4."""
        command = [str(postgres_programs(self._user) / "postgres"), "--version"]
        timeout = VERSION_TIMEOUT_SECONDS
        try:
            result = subprocess.run(
                command, env=BASE_ENVIRONMENT, capture_output=True, text=True, check=True, timeout=timeout
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise LocalServiceError(f"postgres: {command[0]} cannot be run: {error}") from error
        return result.stdout.split()[-1]

    def prepare(self, progress: ProgressCallback = no_progress) -> None:
        """Find the programs and make the data folder if it is missing.

        Raises:
            LocalServiceError: says which of it failed.
        """
        self._make_folders()
        programs = postgres_programs(self._user, progress)
        if not self.process.is_running():
            self.process.stop()  # one that lost its pid file would write to the same folder
        if not self._cluster.is_initialised:
            with Stopwatch(self.name, "making its data folder", progress):
                self._cluster.initialise(programs)
        self._cluster.check_version(self.version.partition(".")[0])

    def start(self, progress: ProgressCallback = no_progress) -> None:
        """Start the server unless it runs, and wait until it accepts connections.

        Raises:
            LocalServiceError: it ended or did not answer; if it was started here, it is ended again.
        """
        if self.process.is_running():
            try:
                self._wait()
            except LocalServiceError:
                if self.process.is_running():
                    raise  # not started by this call, so it is left alive
            else:
                return
        deadline = time.monotonic() + ORPHANED_MEMORY_TIMEOUT_SECONDS
        attempt = 0
        while True:
            attempt += 1
            try:
                self._start_once(progress)
            except LocalServiceError:
                memory_in_use = self.process.said(MEMORY_IN_USE) and time.monotonic() < deadline
                # Between the choice of a port and its use another process may have taken it.
                port_taken = self.process.said(PORT_TAKEN) and attempt < START_ATTEMPTS
                if not (memory_in_use or port_taken):
                    raise
                time.sleep(0.1)
            else:
                return

    def _start_once(self, progress: ProgressCallback) -> None:
        self.process.stop()  # one that is about to end still has its port
        port = self._settle_port(progress)
        self._cluster.clear_stale_lock()
        # Passed as arguments, so that neither an address nor a setting is left in the data.
        options = [f"--{name}={value}" for name, value in {**SERVER_OPTIONS, "port": str(port)}.items()]
        program = str(postgres_programs(self._user, progress) / "postgres")
        command = [program, "-D", str(self._cluster.data), *options]
        with Stopwatch(self.name, f"starting PostgreSQL {self.version}", progress):
            self.process.spawn(command, user=self._user, cwd=self._cluster.data)
            try:
                self._wait()
            except BaseException:
                self.process.kill()
                raise

    def _check(self) -> CheckResult:
        return check_postgres(self._dsn())

    def _place(self) -> str:
        return f"{LOOPBACK}:{self._port()}"

    def variables(self) -> dict[str, str]:
        """Return the address, which holds the password.

        Raises:
            LocalServiceError: it was never prepared.
        """
        return {"OMNIBASE_POSTGRES_DSN": self._dsn()}

    def delete_data(self) -> None:
        """Remove its data, log and password.

        Raises:
            LocalServiceError: it runs.
        """
        if self.process.is_running():
            raise LocalServiceError("postgres: it runs; its data are not removed", hint="stop it first")
        for folder in (self._cluster.home, self._folder):
            remove_whole(folder)

    def _make_folders(self) -> None:
        # The folders of our own are made so that the server's user can enter them, whatever the umask is.
        self._folder.parent.mkdir(parents=True, exist_ok=True)
        for folder in (self._folder, self._cluster.home):
            if not folder.exists():
                folder.mkdir()
                folder.chmod(0o755)

    def _wait(self) -> None:
        port = self._port()
        wait_until_ready([self.process], lambda: self._cluster.is_ready(port), timeout=READY_TIMEOUT_SECONDS)

    def _dsn(self) -> str:
        return f"postgresql://{SUPERUSER}:{self._cluster.password()}@{LOOPBACK}:{self._port()}/{DATABASE}"

    @property
    def _port_file(self) -> Path:
        return self._folder / "port.json"

    def _port(self) -> int:
        try:
            return msgspec.json.decode(self._port_file.read_bytes(), type=RememberedPort).port
        except (FileNotFoundError, msgspec.DecodeError):
            raise LocalServiceError(
                f"postgres: {self._folder} was never started, or port.json in it is damaged",
                hint="run `omninode infra up`",
            ) from None

    def _settle_port(self, progress: ProgressCallback) -> int:
        try:
            remembered = [self._port()]
        except LocalServiceError:
            remembered = []  # the first start, or nothing that can be remembered
        (port,) = free_ports.keep_or_choose(remembered, 1)
        if [port] != remembered:
            if remembered:
                step = f"choosing another port: {remembered[0]} is taken by another process"
                progress(Progress(self.name, step, done=True))
            write_private(self._port_file, msgspec.json.encode(RememberedPort(port)).decode() + "\n")
        return port
