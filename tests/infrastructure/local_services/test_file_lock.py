from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from omnibase_infra.shared.core.errors import LocalServiceError
from omnibase_infra.shared.local_services.file_lock import file_lock

HOLD = """
import sys, time
from pathlib import Path
from omnibase_infra.shared.local_services.file_lock import file_lock
with file_lock(Path(sys.argv[1]), timeout=5):
    print("held", flush=True)
    time.sleep(60)
"""


def test_the_second_waits_until_the_first_is_done(tmp_path: Path) -> None:
    order: list[str] = []
    path = tmp_path / "lock"

    def second() -> None:
        with file_lock(path, timeout=20, on_wait=lambda _: order.append("waits")):
            order.append("second")

    thread = threading.Thread(target=second)
    with file_lock(path, timeout=1):
        thread.start()
        deadline = time.monotonic() + 10
        while not order and time.monotonic() < deadline:
            time.sleep(0.01)
        order.append("first")
    thread.join(20)

    assert order == ["waits", "first", "second"]


def test_after_the_time_out_the_holder_is_named(tmp_path: Path) -> None:
    path = tmp_path / "lock"

    with (
        file_lock(path, timeout=1),
        pytest.raises(LocalServiceError, match=rf"locked by process {os.getpid()} "),
        file_lock(path, timeout=0.1),
    ):
        pytest.fail("held twice")


def test_a_holder_that_is_killed_holds_it_no_longer(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        holder.kill()
        holder.wait(10)

        with file_lock(path, timeout=5):
            assert path.exists()


def test_a_lock_that_cannot_be_opened_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(LocalServiceError, match="cannot be opened"), file_lock(tmp_path / "file" / "lock", timeout=1):
        pytest.fail("opened")
