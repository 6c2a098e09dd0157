from __future__ import annotations

import threading
from pathlib import Path

import pytest

from omnibase_infra.shared.local_services.log_reader import follow_log, tail
from omnibase_infra.shared.local_services.private_files import write_private
from omnibase_infra.shared.local_services.whole_folders import (
    clear_left_in_progress,
    folder_in_progress,
    left_in_progress,
    remove_whole,
)


class TestPrivateFiles:
    def test_they_are_for_their_owner_only_also_when_they_replace_an_open_one(self, tmp_path: Path) -> None:
        path = tmp_path / "new" / "secret"
        path.parent.mkdir()
        path.write_text("old")
        path.chmod(0o644)

        write_private(path, "new\n")

        assert path.read_text() == "new\n"
        assert path.stat().st_mode & 0o777 == 0o600

    def test_a_failed_write_leaves_the_old_content_and_no_trace(self, tmp_path: Path) -> None:
        path = tmp_path / "secret"
        write_private(path, "old")

        with pytest.raises(UnicodeEncodeError):
            write_private(path, "\ud800")

        assert path.read_text() == "old"
        assert list(tmp_path.iterdir()) == [path]


class TestLogs:
    def test_the_end_of_a_large_log_is_read(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        log.write_text("".join(f"line {number}\n" for number in range(50_000)))

        assert tail(log, 2) == ["line 49998", "line 49999"]
        assert len(tail(log, 20_000)) == 20_000
        assert len(tail(log, 60_000)) == 50_000
        assert tail(log, 0) == []
        assert tail(tmp_path / "missing", 5) == []

    def test_only_what_was_written_after_a_position_is_read(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        log.write_text("before\nafter\n")

        assert tail(log, 10, start=len("before\n")) == ["after"]
        assert tail(log, 10, start=1000) == []
        assert tail(log, 10, end=len("before\n")) == ["before"]

    def test_following_yields_what_is_added_and_starts_over_in_a_new_file(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        log.write_text("first\nsecond\n")
        lines = follow_log(log, lines=1)
        assert next(lines) == "second"

        with log.open("a") as file:
            file.write("third\nhalf a ")
        assert next(lines) == "third"
        with log.open("a") as file:
            file.write("line\n")
        assert next(lines) == "half a line"
        log.replace(tmp_path / "log.1")
        log.write_text("new\n")
        assert next(lines) == "new"

    def test_following_waits_for_a_log_that_is_not_there_yet(self, tmp_path: Path) -> None:
        log = tmp_path / "log"
        timer = threading.Timer(0.2, log.write_text, ["here\n"])
        timer.start()

        assert next(follow_log(log)) == "here"
        timer.join()


class TestWholeFolders:
    def test_a_folder_in_progress_is_gone_after_an_error(self, tmp_path: Path) -> None:
        def fail_half_way() -> None:
            with folder_in_progress(tmp_path, "format") as folder:
                (folder / "half").touch()
                raise RuntimeError

        with pytest.raises(RuntimeError):
            fail_half_way()

        assert list(tmp_path.iterdir()) == []

    def test_what_a_killed_process_left_is_found_and_cleared(self, tmp_path: Path) -> None:
        (tmp_path / ".format-abc" / "data").mkdir(parents=True)
        (tmp_path / "data").mkdir()

        assert left_in_progress(tmp_path, "format") == [tmp_path / ".format-abc"]
        clear_left_in_progress(tmp_path, "format")

        assert list(tmp_path.iterdir()) == [tmp_path / "data"]

    def test_removal_clears_an_earlier_removal_that_was_cut_short(self, tmp_path: Path) -> None:
        (tmp_path / ".removed-kafka-abc" / "kafka").mkdir(parents=True)
        (tmp_path / "kafka" / "data").mkdir(parents=True)

        remove_whole(tmp_path / "kafka")
        remove_whole(tmp_path / "kafka")

        assert list(tmp_path.iterdir()) == []
