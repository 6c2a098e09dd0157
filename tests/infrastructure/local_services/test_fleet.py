"""The orchestration, over services that are only remembered; real ones are in `test_real_services`."""

from __future__ import annotations

from pathlib import Path

import pytest

from omnibase_infra.shared.core.errors import LocalServiceError
from omnibase_infra.shared.core.settings import load_settings
from omnibase_infra.shared.local_services import fleet
from omnibase_infra.shared.local_services.service import (
    LocalService,
    ProgressCallback,
    ServiceStatus,
    no_progress,
)

DSN = "postgresql://omnibase:secret@127.0.0.1:20000/omnibase"
VARIABLES = {
    "kafka": {"OMNIBASE_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:20001"},
    "postgres": {"OMNIBASE_POSTGRES_DSN": DSN},
}


class RememberedService:
    """A service without a process: its state is what was called last."""

    version = "1"

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.log_path = folder / name / f"{name}.log"
        self.calls: list[str] = []
        self.running = False
        self.error: Exception | None = None

    def prepare(self, progress: ProgressCallback = no_progress) -> None:
        self.calls.append("prepare")

    def start(self, progress: ProgressCallback = no_progress) -> None:
        self.calls.append("start")
        if self.error is not None:
            raise self.error
        self.running = True

    def stop(self) -> bool:
        self.calls.append("stop")
        if self.error is not None:
            raise self.error
        was_running, self.running = self.running, False
        return was_running

    def kill(self) -> bool:
        return self.stop()

    def is_running(self) -> bool:
        return self.running

    def status(self) -> ServiceStatus:
        return ServiceStatus(self.name, "running" if self.running else "stopped")

    def variables(self) -> dict[str, str]:
        return VARIABLES[self.name]

    def delete_data(self) -> None:
        self.calls.append("delete")


Services = dict[str, RememberedService]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / ".omnibase"


@pytest.fixture
def services(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Services:
    made = {name: RememberedService(name, folder) for name in fleet.SERVICE_NAMES}
    listed: list[LocalService] = list(made.values())
    monkeypatch.setattr(fleet, "local_services", lambda _=None: listed)
    return made


def test_up_writes_a_private_file_from_which_settings_are_loaded(services: Services, folder: Path) -> None:
    variables = fleet.up(folder)

    assert variables == {"OMNIBASE_ENV": "dev", **VARIABLES["kafka"], **VARIABLES["postgres"]}
    assert (folder / "env").stat().st_mode & 0o777 == 0o600
    settings = load_settings(folder / "env")
    assert settings.kafka_bootstrap_servers == "127.0.0.1:20001"
    assert settings.postgres_dsn is not None
    assert settings.postgres_dsn.get_secret_value() == DSN
    assert (folder / ".gitignore").read_text() == "*\n"


def test_a_realm_of_the_environment_is_not_overruled(
    services: Services, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMNIBASE_ENV", "test")

    assert fleet.up(folder)["OMNIBASE_ENV"] == "test"
    assert "OMNIBASE_ENV" not in (folder / "env").read_text()


def test_only_the_named_services_are_started_and_the_others_keep_their_variables(
    services: Services, folder: Path
) -> None:
    fleet.up(folder, only=["postgres"])
    assert services["kafka"].calls == []

    variables = fleet.up(folder, only=["kafka"])

    assert services["postgres"].calls == ["prepare", "start"]
    assert variables.keys() == {"OMNIBASE_ENV", "OMNIBASE_KAFKA_BOOTSTRAP_SERVERS", "OMNIBASE_POSTGRES_DSN"}


def test_an_unknown_name_is_refused_with_those_there_are(services: Services, folder: Path) -> None:
    with pytest.raises(LocalServiceError, match="named kafak; there are kafka, postgres"):
        fleet.up(folder, only=["kafak"])
    with pytest.raises(LocalServiceError, match="named vault"):
        fleet.logs(folder, "vault")


def test_an_address_in_the_environment_wins(services: Services, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMNIBASE_POSTGRES_DSN", "postgresql://me:mine@db.example/app")

    variables = fleet.up(folder)

    assert services["postgres"].calls == []
    assert variables["OMNIBASE_POSTGRES_DSN"] == "postgresql://me:mine@db.example/app"
    assert "mine" not in (folder / "env").read_text()


def test_a_service_that_fails_leaves_the_variables_of_those_that_run(services: Services, folder: Path) -> None:
    services["postgres"].error = LocalServiceError("postgres ended at once")

    with pytest.raises(LocalServiceError, match="postgres ended at once"):
        fleet.up(folder)

    assert fleet.env(folder) == {"OMNIBASE_ENV": "dev", **VARIABLES["kafka"]}


def test_a_full_disk_is_reported_as_ours(services: Services, folder: Path) -> None:
    services["kafka"].error = OSError(28, "No space left on device", "server.properties")

    with pytest.raises(LocalServiceError, match=r"No space left on device: 'server\.properties'"):
        fleet.up(folder)


def test_a_service_that_cannot_be_asked_does_not_hide_the_others(
    services: Services, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet.up(folder)

    def refuse() -> ServiceStatus:
        raise PermissionError(13, "Permission denied", "cluster.json")

    monkeypatch.setattr(services["kafka"], "status", refuse)

    kafka, postgres = fleet.status(folder)

    assert (kafka.state, postgres.state) == ("unhealthy", "running")
    assert "cluster.json" in kafka.detail


def test_down_stops_in_reverse_order_and_takes_the_variables_away(services: Services, folder: Path) -> None:
    fleet.up(folder)

    assert fleet.down(folder, only=["kafka"]) == ["kafka"]
    assert fleet.env(folder) == {"OMNIBASE_ENV": "dev", **VARIABLES["postgres"]}
    assert fleet.down(folder) == ["postgres"]
    assert not (folder / "env").exists()
    assert fleet.down(folder) == []
    assert services["kafka"].calls.count("delete") == 0


def test_down_goes_on_after_a_service_that_does_not_stop(services: Services, folder: Path) -> None:
    fleet.up(folder)
    services["postgres"].error = LocalServiceError("postgres does not end")

    with pytest.raises(LocalServiceError, match="postgres does not end"):
        fleet.down(folder)

    assert not services["kafka"].running


def test_down_deletes_data_only_when_asked_and_makes_no_folder_where_there_was_none(
    services: Services, folder: Path
) -> None:
    assert fleet.down(folder, delete_data=True) == []
    assert not folder.exists()

    fleet.up(folder)
    fleet.down(folder, delete_data=True)

    assert services["kafka"].calls[-1] == services["postgres"].calls[-1] == "delete"


def test_a_damaged_env_file_is_written_anew(services: Services, folder: Path) -> None:
    folder.mkdir()
    (folder / "env").write_text("OMNIBASE_ENV=dev\nOMNIBASE_POSTGR")

    assert fleet.up(folder)["OMNIBASE_POSTGRES_DSN"] == DSN
