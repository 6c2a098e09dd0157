from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from omnibase_infra.shared.core.errors import LocalServiceError
from omnibase_infra.shared.local_services import process_identity
from omnibase_infra.shared.local_services.server_process import ServerProcess, stop_together, wait_until_ready

SERVE = "import time; print('serving', flush=True); time.sleep(60)"
IGNORE_SIGTERM = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SERVE}"
WITH_CHILD = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); {SERVE}"
FAIL = """
for number in range(100): print('shutting down', number)
"""

MakeServer = Callable[..., ServerProcess]


@pytest.fixture
def make_server(tmp_path: Path) -> Iterator[MakeServer]:
    made: list[ServerProcess] = []

    def make(name: str = "server", *, grace: float = 5.0) -> ServerProcess:
        process = ServerProcess(
            name,
            pid_file=tmp_path / f"{name}.pid",
            log_path=tmp_path / f"{name}.log",
            marker=str(tmp_path / f"{name}.conf"),
            stop_signals=((signal.SIGTERM, grace),),
        )
        made.append(process)
        return process

    yield make
    for process in made:
        process.kill()


def run(process: ServerProcess, code: str) -> int:
    """Start `code` and return its pid once it serves."""
    process.spawn([sys.executable, "-c", code, process.marker])
    wait_until_ready([process], lambda: process.said("serving"), timeout=20)
    record = process.record()
    assert record is not None
    return record.pid


def test_a_started_process_is_remembered_by_a_private_pid_file_and_ends_on_stop(make_server: MakeServer) -> None:
    process = make_server()
    assert not process.is_running()

    run(process, SERVE)

    assert process.is_running()
    assert process.pid_file.stat().st_mode & 0o777 == 0o600
    assert (process.uptime_seconds() or 0.0) < 60
    assert process.stop() is True
    assert not process.is_running()
    assert not process.pid_file.exists()
    assert process.stop() is False


def test_it_lives_in_a_session_of_its_own_so_that_an_interrupt_at_the_terminal_does_not_reach_it(
    make_server: MakeServer,
) -> None:
    pid = run(make_server(), SERVE)

    assert os.getsid(pid) == pid != os.getsid(0)


def test_one_that_ignores_the_graceful_signal_is_killed_after_the_time_out(make_server: MakeServer) -> None:
    process = make_server(grace=0.2)
    run(process, IGNORE_SIGTERM)

    began = time.monotonic()
    assert process.stop() is True

    assert not process.is_running()
    assert 0.2 <= time.monotonic() - began < 5


def test_kill_ends_its_children_too(make_server: MakeServer) -> None:
    process = make_server()
    pid = run(process, WITH_CHILD)
    children = process_identity.descendants(pid)
    assert len(children) == 1

    process.kill()

    assert not process_identity.has_not_ended(children[0])


@pytest.mark.parametrize(
    "content", ["", "{", "[1]", '{"pid": "x"}', '{"pid": -1, "started": "", "marker": "", "started_at": 0}']
)
def test_a_damaged_pid_file_means_that_nothing_is_known_to_run(make_server: MakeServer, content: str) -> None:
    process = make_server()
    process.pid_file.write_text(content)

    assert not process.is_running()
    assert process.stop() is False


def test_a_pid_that_another_process_has_by_now_is_left_alone(make_server: MakeServer) -> None:
    process, bystander = make_server(), make_server("bystander")
    run(process, SERVE)
    stale = process.pid_file.read_text()
    process.stop()
    run(bystander, SERVE)
    record = bystander.record()
    assert record is not None
    old_pid = stale.split('"pid":')[1].split(",")[0]

    process.pid_file.write_text(stale.replace(f'"pid":{old_pid}', f'"pid":{record.pid}'))

    assert not process.is_running()
    assert process.stop() is False
    assert bystander.is_running()


def test_one_whose_pid_file_was_lost_is_found_and_ended(make_server: MakeServer) -> None:
    process = make_server()
    run(process, SERVE)
    process.pid_file.unlink()

    assert not process.is_running()
    assert process.stop() is True
    assert process_identity.find(process.marker) is None


def test_several_get_their_signal_at_the_same_time(make_server: MakeServer) -> None:
    processes = [make_server(f"member-{number}", grace=1.0) for number in range(3)]
    for process in processes:
        run(process, IGNORE_SIGTERM)

    began = time.monotonic()
    assert stop_together(processes) is True

    assert time.monotonic() - began < 2.8  # one after the other they would take 3 s
    assert not any(process.is_running() for process in processes)


class TestFailures:
    def test_a_program_that_cannot_be_run_is_named(self, make_server: MakeServer, tmp_path: Path) -> None:
        with pytest.raises(LocalServiceError, match="no-such-program"):
            make_server().spawn([tmp_path / "no-such-program"])

    def test_a_process_that_ends_is_reported_with_its_complaint_and_its_last_words(
        self, make_server: MakeServer
    ) -> None:
        process = make_server()
        code = f"import time; time.sleep(0.2); print('java.net.BindException: Address already in use'); {FAIL}"
        process.spawn([sys.executable, "-c", code, process.marker])

        with pytest.raises(LocalServiceError) as failure:
            wait_until_ready([process], lambda: False, timeout=20)

        assert re.search("server ended (before it answered|at once)", str(failure.value))
        assert "BindException: Address already in use" in str(failure.value)
        assert "shutting down 99" in str(failure.value)
        assert "shutting down 10\n" not in str(failure.value)

    def test_what_an_earlier_process_wrote_is_not_blamed_on_this_one(self, make_server: MakeServer) -> None:
        process = make_server()
        process.log_path.write_text("FATAL: Address already in use\n")

        run(process, SERVE)

        assert not process.said("Address already in use")
        assert "FATAL" not in str(process.failure("ended"))

    def test_one_that_never_answers_is_given_up_after_the_time_out(self, make_server: MakeServer) -> None:
        process = make_server()
        run(process, SERVE)

        with pytest.raises(LocalServiceError, match=r"did not answer within 0\.1 s"):
            wait_until_ready([process], lambda: False, timeout=0.1)
