"""A real PostgreSQL server: what clients see of it, and how it comes back from every kind of end."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest

from omnibase_infra.shared.core.errors import LocalServiceError
from omnibase_infra.shared.local_services import PostgresService, free_ports, process_identity
from omnibase_infra.shared.local_services.postgres_binaries import postgres_programs
from omnibase_infra.shared.local_services.postgres_cluster import PostgresCluster
from omnibase_infra.shared.local_services.unprivileged_user import (
    UnprivilegedUser,
    shared_folder,
    user_to_drop_to,
)


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[PostgresService]:
    service = PostgresService(tmp_path / "postgres")
    yield service
    service.kill()
    service.delete_data()


@pytest.fixture(scope="module")
def shared_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresService]:
    service = PostgresService(tmp_path_factory.mktemp("shared") / "postgres")
    yield service
    service.kill()
    service.delete_data()


@pytest.fixture
def running(shared_postgres: PostgresService) -> PostgresService:
    """One server for all tests that leave its data whole; it runs when a test begins."""
    start(shared_postgres)
    return shared_postgres


@pytest.fixture
def stopped(shared_postgres: PostgresService) -> PostgresService:
    """The same server; it is prepared and does not run when a test begins."""
    shared_postgres.prepare()
    shared_postgres.stop()
    return shared_postgres


@contextmanager
def changed(path: Path, content: str) -> Iterator[None]:
    """Give a file another content for a while."""
    before = path.read_text()
    path.write_text(content)
    try:
        yield
    finally:
        path.write_text(before)


def dsn(postgres: PostgresService) -> str:
    return postgres.variables()["OMNIBASE_POSTGRES_DSN"]


def start(postgres: PostgresService) -> None:
    postgres.prepare()
    postgres.start()


def pid_of(postgres: PostgresService) -> int:
    record = postgres.process.record()
    assert record is not None
    return record.pid


def data_of(postgres: PostgresService) -> Path:
    return Path(postgres.process.marker)


async def run(postgres: PostgresService, statement: str) -> list[object]:
    connection = await asyncpg.connect(dsn(postgres), timeout=10)
    try:
        return [row[0] for row in await connection.fetch(statement)]
    finally:
        await connection.close()


async def test_rows_and_address_outlive_a_stop_a_kill_and_a_lost_pid_file(running: PostgresService) -> None:
    address = dsn(running)
    await run(running, "CREATE TABLE survivors (how text)")
    await run(running, "INSERT INTO survivors VALUES ('before')")

    assert running.stop() is True
    running.start()
    await run(running, "INSERT INTO survivors VALUES ('stopped')")

    crashed = process_identity.identify(pid_of(running), running.process.marker)
    assert crashed is not None
    os.kill(crashed.pid, signal.SIGKILL)  # as the system may; its backends are still there for a moment
    while process_identity.is_alive(crashed):
        await asyncio.sleep(0.001)
    running.start()
    await run(running, "INSERT INTO survivors VALUES ('killed')")

    running.kill()
    start(running)
    await run(running, "INSERT INTO survivors VALUES ('power cut')")

    running.process.pid_file.unlink()
    start(running)

    assert dsn(running) == address
    assert await run(running, "SELECT how FROM survivors") == ["before", "stopped", "killed", "power cut"]


async def test_it_is_set_up_for_real_work(running: PostgresService) -> None:
    status = running.status()

    assert status.state == "running"
    assert status.version.startswith("18.")
    assert await run(running, "SHOW fsync") == ["on"]
    assert await run(running, "SHOW max_connections") == ["200"]
    assert await run(running, "SELECT current_database() || ' ' || current_user") == ["omnibase omnibase"]
    assert await run(running, "SELECT pg_encoding_to_char(encoding) FROM pg_database WHERE datname = 'omnibase'") == [
        "UTF8"
    ]
    assert await run(running, "SHOW listen_addresses") == ["127.0.0.1"]


async def test_it_wants_the_password_that_was_made_for_these_data(running: PostgresService) -> None:
    parts = urlsplit(dsn(running))
    assert parts.password is not None
    assert len(parts.password) >= 24

    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(dsn(running).replace(parts.password, "guess"), timeout=10)

    password_file = data_of(running).parent / "password"
    assert password_file.stat().st_mode & 0o777 == 0o600
    assert parts.password not in running.log_path.read_text()
    assert parts.password not in repr(running.status())


def test_starting_a_server_that_runs_changes_nothing_and_takes_no_time(running: PostgresService) -> None:
    pid = pid_of(running)

    began = time.monotonic()
    start(running)

    assert time.monotonic() - began < 0.5
    assert pid_of(running) == pid


async def test_a_port_that_another_process_took_is_replaced(running: PostgresService) -> None:
    port = urlsplit(dsn(running)).port
    assert port is not None
    running.stop()

    with socket.create_server(("127.0.0.1", port)):
        running.start()

        assert urlsplit(dsn(running)).port != port
        assert await run(running, "SELECT 1") == [1]


async def test_a_port_that_is_taken_between_choice_and_use_is_replaced(
    stopped: PostgresService, monkeypatch: pytest.MonkeyPatch
) -> None:
    (taken,) = free_ports.choose(1)
    choices = iter([[taken]])
    choose = free_ports.keep_or_choose
    monkeypatch.setattr(free_ports, "keep_or_choose", lambda *arguments: next(choices, None) or choose(*arguments))

    with socket.create_server(("127.0.0.1", taken)):
        stopped.start()

        assert urlsplit(dsn(stopped)).port != taken
        assert await run(stopped, "SELECT 1") == [1]


async def test_data_that_were_half_made_are_made_again(postgres: PostgresService) -> None:
    postgres.prepare()
    data = data_of(postgres)
    (data / "global" / "pg_control").unlink()
    left_over = data.parent / ".initdb-killed"
    left_over.mkdir()

    start(postgres)

    assert await run(postgres, "SELECT 1") == [1]
    assert not left_over.exists()


async def test_a_lock_file_whose_number_another_process_has_by_now_does_not_keep_it_down(
    running: PostgresService,
) -> None:
    lock_file = data_of(running) / "postmaster.pid"
    lines = lock_file.read_text().splitlines()
    running.kill()

    # The lock files of a server before a reboot, whose number went to a process that lives: this one.
    lock_file.write_text("\n".join([str(os.getppid()), *lines[1:]]) + "\n")
    start(running)

    assert await run(running, "SELECT 1") == [1]


def test_the_lock_file_of_a_server_that_lives_is_left_alone(tmp_path: Path) -> None:
    cluster = PostgresCluster(tmp_path, None)
    cluster.data.mkdir()
    lock_file = cluster.data / "postmaster.pid"
    with subprocess.Popen(["sleep", "60"], cwd=cluster.data) as server:
        try:
            lock_file.write_text(f"{server.pid}\n")
            cluster.clear_stale_lock()
            assert lock_file.exists()
        finally:
            server.kill()

    cluster.clear_stale_lock()

    assert not lock_file.exists()


def test_a_server_that_cannot_start_says_why_and_leaves_no_process(stopped: PostgresService) -> None:
    with (
        changed(data_of(stopped) / "postgresql.conf", "nonsense = on\n"),
        pytest.raises(LocalServiceError, match=r'(?s)ended (before it answered|at once).*unrecognized.*"nonsense"'),
    ):
        stopped.start()

    assert process_identity.find(str(data_of(stopped))) is None


def test_data_of_another_major_version_are_refused(stopped: PostgresService) -> None:
    with (
        changed(data_of(stopped) / "PG_VERSION", "16\n"),
        pytest.raises(LocalServiceError, match=r"made by PostgreSQL 16, the installed one is 18.*--delete-data"),
    ):
        stopped.prepare()


def test_a_lost_password_is_named(stopped: PostgresService) -> None:
    password = data_of(stopped).parent / "password"
    kept = password.rename(password.with_name("kept"))
    try:
        with pytest.raises(LocalServiceError, match="password is missing"):
            stopped.variables()
    finally:
        kept.rename(password)


def test_a_copied_folder_is_another_server(running: PostgresService, tmp_path: Path) -> None:
    shutil.copytree(running.log_path.parent, tmp_path / "copy", ignore=shutil.ignore_patterns("data"))
    copy = PostgresService(tmp_path / "copy")
    try:
        assert copy.status().state == "stopped"
        assert copy.stop() is False

        start(copy)

        assert urlsplit(dsn(copy)).port != urlsplit(dsn(running)).port
        assert running.status().state == "running"
    finally:
        copy.kill()
        copy.delete_data()


def test_data_of_a_running_server_are_not_deleted(running: PostgresService) -> None:
    with pytest.raises(LocalServiceError, match="it runs"):
        running.delete_data()


def test_a_server_that_hangs_is_unhealthy(running: PostgresService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("omnibase_infra.shared.local_services.dependency_checks.CHECK_TIMEOUT_SECONDS", 0.5)
    os.kill(pid_of(running), signal.SIGSTOP)
    try:
        status = running.status()
    finally:
        os.kill(pid_of(running), signal.SIGCONT)

    assert status.state == "unhealthy"
    assert "Timeout" in status.detail


class TestUnprivilegedUser:
    STRANGER = UnprivilegedUser("stranger", 54_321, 54_321)

    def test_only_root_drops_to_another_user(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "geteuid", lambda: 1000)
        assert user_to_drop_to() is None

        monkeypatch.setattr(os, "geteuid", lambda: 0)
        user = user_to_drop_to()
        assert user is not None
        assert user.name in ("postgres", "nobody")
        assert user.uid != 0

    def test_a_folder_is_entered_only_through_all_above_it(self, tmp_path: Path) -> None:
        closed = tmp_path / "closed"
        (closed / "open").mkdir(parents=True)
        closed.chmod(0o700)

        assert self.STRANGER.can_enter(Path("/"))
        assert not self.STRANGER.can_enter(closed / "open")
        assert UnprivilegedUser("owner", os.geteuid(), os.getegid()).can_enter(closed / "open")

    def test_a_shared_folder_is_one_that_only_its_owner_writes(self, tmp_path: Path) -> None:
        owner = UnprivilegedUser("owner", os.geteuid(), os.getegid())
        writable, private = tmp_path / "writable", tmp_path / "private"
        writable.mkdir()
        writable.chmod(0o777)

        assert shared_folder(owner, [writable, private]) == private
        with pytest.raises(LocalServiceError, match="stranger, as which PostgreSQL must run, can enter none of"):
            shared_folder(self.STRANGER, [private])

    def test_the_programs_are_copied_once_to_where_the_user_can_run_them(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # A user who can enter nothing but the place of the copy: as if the virtual environment lay in /root.
        monkeypatch.setattr(UnprivilegedUser, "can_read", lambda *_: False)
        monkeypatch.setattr(UnprivilegedUser, "can_enter", lambda _, folder: folder.is_relative_to(tmp_path))
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

        programs = postgres_programs(self.STRANGER)
        inode = (programs / "postgres").stat().st_ino

        assert programs.is_relative_to(tmp_path)
        assert (postgres_programs(self.STRANGER) / "postgres").stat().st_ino == inode
        # The copy is whole: programs find their libraries.
        for program in ("initdb", "postgres"):
            told = subprocess.run([programs / program, "--version"], capture_output=True, text=True, check=True)
            assert "(PostgreSQL) 18" in told.stdout
