"""Brings the local services of one state folder up and down, together and under one lock."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from omnibase_infra.shared.core.errors import LocalServiceError
from omnibase_infra.shared.core.settings import ENV_FILE, environment_values, read_env_file, state_directory
from omnibase_infra.shared.local_services.external_service import VARIABLES, external_services
from omnibase_infra.shared.local_services.file_lock import file_lock
from omnibase_infra.shared.local_services.kafka_service import KafkaService
from omnibase_infra.shared.local_services.log_reader import tail
from omnibase_infra.shared.local_services.openbao_service import OpenBaoService
from omnibase_infra.shared.local_services.postgres_service import PostgresService
from omnibase_infra.shared.local_services.private_files import write_private
from omnibase_infra.shared.local_services.service import (
    LocalService,
    Progress,
    ProgressCallback,
    ServiceStatus,
    no_progress,
    waiting_for,
)

SERVICE_NAMES = ("kafka", "postgres")
# Started only by name: a fleet without secret references needs none of them.
OPTIONAL_NAMES = ("openbao",)
# As what a server of someone else is known that takes the place of a local one.
_KINDS = {"openbao": "vault"}
# Long enough for someone else's first start, with its downloads.
LOCK_TIMEOUT_SECONDS = 300.0
DEFAULT_ENVIRONMENT = "dev"
ENV_HEADER = "# Written by `omninode infra up`. Holds a password.\n"


def local_services(state_dir: Path | None = None) -> list[LocalService]:
    """Return the services that belong to a state folder, running or not, in the order they are started.

    The one place that knows which class runs a service: further services, or the same ones in containers, go here.
    """
    folder = _folder(state_dir)
    return [KafkaService(folder / "kafka"), PostgresService(folder / "postgres"), OpenBaoService(folder / "openbao")]


def up(
    state_dir: Path | None = None,
    *,
    only: Sequence[str] | None = None,
    progress: ProgressCallback = no_progress,
    lock_timeout: float = LOCK_TIMEOUT_SECONDS,
) -> dict[str, str]:
    """Start what does not run yet and return the variables under which everything is reached.

    A service whose address the environment gives is not started. The variables are also written to the file `env`
    of the state folder, mode 0600, from where `load_settings` takes them.

    Args:
        state_dir: folder for everything; default: the `.omnibase` of the working directory.
        only: names of services to start; default: Kafka and PostgreSQL.
        progress: told of every step that takes time.
        lock_timeout: seconds to wait for another `up` or `down` of the same folder.

    Raises:
        LocalServiceError: a service could not be started; those started before it stay up.
    """
    wanted = _names(only)
    folder = _folder(state_dir)
    external = external_services()
    with _locked(folder, lock_timeout, progress):
        _ignore_in_git(folder)
        services = local_services(folder)
        try:
            for service in services:
                if service.name in wanted and _kind(service) not in external:
                    service.prepare(progress)
                    service.start(progress)
        finally:
            _write_env(folder, services)
    return env(folder)


def down(
    state_dir: Path | None = None,
    *,
    only: Sequence[str] | None = None,
    delete_data: bool = False,
    progress: ProgressCallback = no_progress,
    lock_timeout: float = LOCK_TIMEOUT_SECONDS,
) -> list[str]:
    """Stop what `up` started in this folder and return the names of what was running.

    Args:
        state_dir: as of `up`.
        only: names of services to stop; default: all.
        delete_data: also remove what the services keep.
        progress: told of every service that is stopped.
        lock_timeout: as of `up`.

    Raises:
        LocalServiceError: a service could not be stopped; the others are.
    """
    wanted = _names(only) if only else (*SERVICE_NAMES, *OPTIONAL_NAMES)
    folder = _folder(state_dir)
    if not folder.exists():
        return []
    stopped: list[str] = []
    failures: list[LocalServiceError] = []
    with _locked(folder, lock_timeout, progress):
        services = local_services(folder)
        for service in reversed([service for service in services if service.name in wanted]):
            try:
                if service.stop():
                    stopped.append(service.name)
                    progress(Progress(service.name, "stopped", done=True))
                if delete_data:
                    service.delete_data()
            except LocalServiceError as error:
                failures.append(error)
        _write_env(folder, services)
    if failures:
        raise LocalServiceError("\n".join(str(failure) for failure in failures))
    return stopped


def status(state_dir: Path | None = None) -> list[ServiceStatus]:
    """Ask every service, local or given by the environment, how it is. Takes no lock and changes nothing."""
    external = external_services()
    found = [
        external[_kind(service)].status() if _kind(service) in external else _status_of(service)
        for service in local_services(state_dir)
        if service.name not in OPTIONAL_NAMES or service.is_running() or _kind(service) in external
    ]
    known = {item.name for item in found}
    return found + [item.status() for name, item in external.items() if name not in known]


def _status_of(service: LocalService) -> ServiceStatus:
    # One that cannot even be asked, as its files are damaged or another user's, must not hide the others.
    try:
        return service.status()
    except (LocalServiceError, OSError) as error:
        return ServiceStatus(service.name, "unhealthy", detail=str(error), log_path=service.log_path)


def log_path(state_dir: Path | None, service: str) -> Path:
    """Return the log file of one local service.

    Raises:
        LocalServiceError: there is no such service.
    """
    (name,) = _names([service])
    return next(item.log_path for item in local_services(state_dir) if item.name == name)


def logs(state_dir: Path | None, service: str, *, lines: int = 50) -> list[str]:
    """Return the last lines of a service's log; none when it never ran.

    Raises:
        LocalServiceError: there is no such service.
    """
    with _named_errors(_folder(state_dir)):
        return tail(log_path(state_dir, service), lines)


def env(state_dir: Path | None = None) -> dict[str, str]:
    """Return the variables that reach the services: what `up` wrote, and what the environment gives instead.

    Raises:
        LocalServiceError: the file cannot be read.
        SettingsError: the file is damaged.
    """
    folder = _folder(state_dir)
    with _named_errors(folder):
        written = read_env_file(folder / ENV_FILE)
    return {**written, **environment_values(["OMNIBASE_ENV", *VARIABLES.values()])}


def _write_env(folder: Path, services: Iterable[LocalService]) -> None:
    """Write the variables of what runs; with nothing running there is no file, so that people are told to start it."""
    variables: dict[str, str] = {}
    external = external_services()
    for service in services:
        if _kind(service) not in external and service.is_running():
            variables |= service.variables()
    path = folder / ENV_FILE
    if not variables:
        path.unlink(missing_ok=True)
        return
    if not environment_values(["OMNIBASE_ENV"]):
        variables = {"OMNIBASE_ENV": DEFAULT_ENVIRONMENT, **variables}
    content = ENV_HEADER + "".join(f"{name}={value}\n" for name, value in variables.items())
    if not path.exists() or path.read_text(encoding="utf-8", errors="replace") != content:
        write_private(path, content)


@contextmanager
def _locked(folder: Path, timeout: float, progress: ProgressCallback) -> Iterator[None]:
    with file_lock(folder / "lock", timeout=timeout, on_wait=waiting_for("infra", progress)), _named_errors(folder):
        yield


@contextmanager
def _named_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # no space, no permission, ...: its text names the file
        raise LocalServiceError(f"local services in {folder}: {error}") from error


def _ignore_in_git(folder: Path) -> None:
    ignore = folder / ".gitignore"
    if not ignore.exists():
        ignore.write_text("*\n", encoding="utf-8")


def _kind(service: LocalService) -> str:
    return _KINDS.get(service.name, service.name)


def _folder(state_dir: Path | None) -> Path:
    return (state_dir or state_directory()).resolve()


def _names(only: Sequence[str] | None) -> Sequence[str]:
    known = (*SERVICE_NAMES, *OPTIONAL_NAMES)
    if unknown := [name for name in only or [] if name not in known]:
        raise LocalServiceError(f"no local service is named {', '.join(unknown)}; there are {', '.join(known)}")
    return only or SERVICE_NAMES
