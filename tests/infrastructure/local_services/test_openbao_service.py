"""A real OpenBao on this machine: started, found again, ended; its token is in files of the owner alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import hvac
import pytest

from omnibase_infra.shared.core.errors import LocalServiceError
from omnibase_infra.shared.core.settings import read_env_file
from omnibase_infra.shared.local_services import OpenBaoService, down, status, up

pytestmark = pytest.mark.usefixtures("no_environment")


@pytest.fixture
def service(tmp_path: Path) -> Iterator[OpenBaoService]:
    service = OpenBaoService(tmp_path / "openbao")
    yield service
    service.kill()


def test_it_starts_answers_and_ends_and_may_be_asked_to_twice(service: OpenBaoService) -> None:
    service.prepare()
    assert service.status().state == "stopped"
    service.start()
    service.start()
    variables = service.variables()
    client = hvac.Client(url=variables["OMNIBASE_VAULT_ADDR"], token=variables["OMNIBASE_VAULT_TOKEN"])
    assert client.is_authenticated()
    client.adapter.close()
    found = service.status()
    assert (found.state, found.version) == ("running", service.version)
    with pytest.raises(LocalServiceError, match="it runs"):
        service.delete_data()
    assert service.stop()
    assert not service.stop()
    service.start()
    assert service.variables() == variables, "address and token stay over a restart"
    service.kill()
    service.delete_data()
    assert not service.log_path.parent.exists()


def test_its_token_is_readable_by_its_owner_alone(service: OpenBaoService) -> None:
    service.prepare()
    service.start()
    token = service.variables()["OMNIBASE_VAULT_TOKEN"]
    holders = [path for path in service.log_path.parent.iterdir() if token in path.read_text(errors="replace")]
    assert holders
    assert all(path.stat().st_mode & 0o077 == 0 for path in holders), holders
    assert token not in Path(f"/proc/{service.process.record().pid}/cmdline").read_text()  # type: ignore[union-attr]


def test_a_folder_that_was_never_prepared_says_what_to_do(service: OpenBaoService) -> None:
    with pytest.raises(LocalServiceError, match="infra up --only openbao"):
        service.variables()


def test_it_is_started_by_name_only_and_ended_with_the_others(tmp_path: Path) -> None:
    variables = up(tmp_path, only=["openbao"])
    try:
        assert set(variables) == {"OMNIBASE_ENV", "OMNIBASE_VAULT_ADDR", "OMNIBASE_VAULT_TOKEN"}
        assert read_env_file(tmp_path / "env") == variables
        assert {one.name: one.state for one in status(tmp_path)}["openbao"] == "running"
    finally:
        stopped = down(tmp_path, delete_data=True)
    assert stopped == ["openbao"]
    assert "openbao" not in {one.name for one in status(tmp_path)}
