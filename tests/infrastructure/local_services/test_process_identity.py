from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from omnibase_infra.shared.local_services import process_identity
from omnibase_infra.shared.local_services.process_identity import descendants, find, identify, is_alive, works_in

MARKER = "/some folder/server-1.properties"
SLEEP = "import sys, time; print('up', flush=True); time.sleep(60)"


@pytest.fixture(params=["proc", "ps"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways to look at processes give the same answers."""
    if request.param == "ps":
        monkeypatch.setattr(process_identity, "_has_proc", lambda: False)
    return str(request.param)


@pytest.fixture
def server() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen([sys.executable, "-c", SLEEP, MARKER], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        yield process
        process.kill()


@pytest.mark.usefixtures("way")
class TestIdentity:
    def test_a_living_process_is_identified_by_an_argument_that_may_hold_spaces(
        self, server: subprocess.Popen[str]
    ) -> None:
        identity = identify(server.pid, MARKER)

        assert identity is not None
        assert is_alive(identity)

    def test_another_process_with_the_same_number_is_not_taken_for_it(self, server: subprocess.Popen[str]) -> None:
        identity = identify(server.pid, MARKER)
        assert identity is not None

        assert not is_alive(replace(identity, started="at another time"))
        assert not is_alive(replace(identity, marker="/elsewhere/server-1.properties"))

    def test_an_argument_is_compared_whole(self, server: subprocess.Popen[str]) -> None:
        assert identify(server.pid, MARKER.removesuffix(".properties")) is None
        assert identify(server.pid, MARKER.removeprefix("/")) is None

    def test_a_process_that_ended_and_was_not_reaped_is_not_alive(self, server: subprocess.Popen[str]) -> None:
        identity = identify(server.pid, MARKER)
        assert identity is not None

        server.kill()
        os.waitid(os.P_PID, server.pid, os.WEXITED | os.WNOWAIT)

        assert not is_alive(identity)
        assert find(MARKER) is None

    def test_it_is_found_by_its_argument_alone(self, server: subprocess.Popen[str]) -> None:
        found = find(MARKER)

        assert found is not None
        assert found.pid == server.pid

    def test_it_is_among_the_descendants_of_its_parent(self, server: subprocess.Popen[str]) -> None:
        assert server.pid in {child.pid for child in descendants(os.getpid())}

    @pytest.mark.parametrize("pid", [0, -1, 2**22 + 1])
    def test_a_number_that_no_process_has_is_nobody(self, pid: int) -> None:
        assert identify(pid, MARKER) is None


def test_a_process_is_known_by_the_folder_it_works_in(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SLEEP]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            assert works_in(process.pid, tmp_path)
            assert not works_in(os.getpid(), tmp_path)
        finally:
            process.kill()
    assert not works_in(process.pid, tmp_path)
