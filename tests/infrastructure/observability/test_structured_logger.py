"""Log lines: one JSON object each, correlated, without secrets, never in the way of the work."""

from __future__ import annotations

import asyncio
import io
import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from omnibase_infra.shared.core.errors import BusinessError, DependencyUnavailableError
from omnibase_infra.shared.core.settings import load_settings
from omnibase_infra.shared.observability.log_events import LogEvent
from omnibase_infra.shared.observability.log_output import LibraryHandler
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.observability.structured_logger import get_logger, log_context

CANARY = "canary-7f3a"
LastLine = Callable[[], dict[str, Any]]


def test_a_line_has_time_level_event_worker_first_and_then_the_fields(log: Any) -> None:
    get_logger().info(LogEvent.WORKER_READY, seconds=0.4, partitions=[0, 1])
    assert log.text == (
        '{"time":"2025-06-15T15:06:40.000000Z","level":"info","event":"worker_ready","worker":"order-store",'
        '"seconds":0.4,"partitions":[0,1]}\n'
    )


def test_lines_below_the_level_are_not_written(bare_log: Any) -> None:
    bare_log.configure(log_level="warning")
    get_logger().info(LogEvent.BATCH_DONE)
    get_logger().warning(LogEvent.BATCH_FAILED)
    assert [line["event"] for line in bare_log.lines] == ["batch_failed"]


def test_a_logger_made_before_the_configuration_follows_it(bare_log: Any) -> None:
    logger = get_logger()
    bare_log.configure(log_level="error")
    logger.warning(LogEvent.BATCH_FAILED)
    bare_log.configure(log_level="debug")
    logger.debug(LogEvent.BATCH_DONE)
    assert [line["event"] for line in bare_log.lines] == ["batch_done"]


def test_fields_cannot_replace_what_a_line_stands_on(log: Any, last_line: LastLine) -> None:
    get_logger().info(LogEvent.BATCH_DONE, worker="another", time="never")
    assert last_line()["worker"] == "order-store"
    assert last_line()["time"] == "2025-06-15T15:06:40.000000Z"


# -- correlation -------------------------------------------------------------------------------------------------------


async def test_each_task_keeps_its_own_correlation_id(log: Any) -> None:
    both_bound = asyncio.Barrier(2)

    async def work(number: int) -> None:
        with log_context(correlation_id=f"c{number}"):
            await both_bound.wait()
            get_logger().info(LogEvent.BATCH_DONE, number=number)

    await asyncio.gather(work(1), work(2))
    get_logger().info(LogEvent.WORKER_STOPPED)

    assert {line["number"]: line["correlation_id"] for line in log.lines[:2]} == {1: "c1", 2: "c2"}
    assert "correlation_id" not in log.lines[2]


# -- errors ------------------------------------------------------------------------------------------------------------


def test_an_error_is_logged_with_its_code(log: Any, last_line: LastLine) -> None:
    get_logger().warning(
        LogEvent.DEPENDENCY_UNAVAILABLE, error=DependencyUnavailableError("no route", dependency="postgres")
    )
    assert last_line()["code"] == "dependency-unavailable"
    assert last_line()["error"] == {
        "code": "dependency-unavailable",
        "type": "DependencyUnavailableError",
        "message": "no route",
    }


def test_a_business_error_carries_the_code_of_the_instance(log: Any, last_line: LastLine) -> None:
    get_logger().warning(LogEvent.RECORD_FAILED, error=BusinessError("twice", code="constraint-violated"))
    assert last_line()["code"] == "constraint-violated"


def test_a_stack_names_the_cause_as_well(log: Any, last_line: LastLine) -> None:
    try:
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise RuntimeError("outer") from inner
    except RuntimeError as error:
        get_logger().error(LogEvent.BATCH_FAILED, exc_info=error)
    stack = last_line()["exception"]
    assert "KeyError: 'inner'" in stack
    assert stack.endswith("RuntimeError: outer")


# -- secrets and odd values --------------------------------------------------------------------------------------------


class _Holder:
    """Shows its secret in its repr, as a dataclass would."""

    def __repr__(self) -> str:
        return f"_Holder({CANARY})"


def _raise_with_secret() -> None:
    raise ValueError(f"connect failed: password={CANARY} host=db")


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_secret_never_reaches_the_log_however_it_is_passed(bare_log: Any, log_format: str) -> None:
    bare_log.configure(log_format=log_format)
    settings = load_settings(Path(os.devnull), env="test", postgres_dsn=f"postgresql://u:{CANARY}@db/x")
    logger = get_logger().bind(kafka_password=CANARY)
    with log_context(api_key=CANARY):
        logger.info(LogEvent.WORKER_STARTING, password=CANARY, Authorization=f"Bearer {CANARY}")
        logger.info(LogEvent.WORKER_STARTING, options={"nested": [{"client_secret": CANARY}]})
        logger.info(LogEvent.WORKER_STARTING, url=f"postgresql://u:{CANARY}@db/x", text=f"token: {CANARY}")
        logger.info(LogEvent.WORKER_STARTING, secret_setting=settings.postgres_dsn, dsn_of=[settings.postgres_dsn])
        logger.info(LogEvent.RECORD_DEAD, value=CANARY.encode(), view=memoryview(CANARY.encode()), holder=_Holder())
        try:
            _raise_with_secret()
        except ValueError as error:
            logger.exception(LogEvent.BATCH_FAILED, error=error)
        logging.getLogger("library").error("cannot reach %s", f"https://u:{CANARY}@vault")
    assert bare_log.text.count("worker_starting") == 4
    assert "library_message" in bare_log.text
    assert CANARY not in bare_log.text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (2**70, str(2**70)),
        (float("nan"), None),
        ("lone \ud800 surrogate", "lone \ud800 surrogate"),
        ({1: "one", None: 2}, {"1": "one", "None": 2}),
        ({"b"}, ["b"]),
        (b"\xff\x00", "<2 bytes>"),
        (object(), "<object>"),
        (LogEvent.BATCH_DONE, "batch_done"),
        ("two\nlines", "two\nlines"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_any_value_can_be_logged_on_one_line(log: Any, last_line: LastLine, value: Any, shown: Any) -> None:
    get_logger().info(LogEvent.BATCH_DONE, value=value)
    assert log.text.count("\n") == 1
    assert last_line()["value"] == shown


# -- libraries ---------------------------------------------------------------------------------------------------------


def test_what_libraries_say_comes_in_the_same_format(log: Any, last_line: LastLine) -> None:
    logging.getLogger("asyncpg.pool").warning("%d connections left", 3)
    assert last_line() == {
        "time": "2025-06-15T15:06:40.000000Z",
        "level": "warning",
        "event": "library_message",
        "worker": "order-store",
        "code": "asyncpg.pool",
        "message": "3 connections left",
    }


def test_a_library_message_that_does_not_format_is_still_written(log: Any, last_line: LastLine) -> None:
    # Given to our handler alone: pytest's own fails on such a record.
    LibraryHandler().handle(logging.LogRecord("library", logging.ERROR, "x.py", 1, "%d left", ("no number",), None))
    assert last_line()["message"] == "%d left"


def test_library_information_is_written_at_debug_level_only(bare_log: Any) -> None:
    bare_log.configure(log_level="info")
    logging.getLogger("library").info("connected")
    assert bare_log.text == ""
    bare_log.configure(log_level="debug")
    logging.getLogger("library").log(logging.INFO + 5, "connected")
    assert [line["level"] for line in bare_log.lines] == ["info"]


def test_configuring_twice_writes_library_messages_once(bare_log: Any) -> None:
    bare_log.configure()
    bare_log.configure()
    logging.getLogger("library").warning("once")
    assert len(bare_log.lines) == 1


def test_closing_leaves_the_standard_library_as_it_was(bare_log: Any) -> None:
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    bare_log.configure()
    bare_log.pipeline.close()
    assert (list(root.handlers), root.level) == before


# -- the limit, and a stream that is gone --------------------------------------------------------------------------------


def test_an_outage_does_not_flood_the_log(bare_log: Any) -> None:
    registry = MetricsRegistry(process_metrics=False)
    bare_log.configure(metrics=registry)
    down = DependencyUnavailableError("no route", dependency="postgres")
    for _ in range(1_000):
        get_logger().warning(LogEvent.BATCH_FAILED, error=down)
    assert len(bare_log.lines) == 10
    assert b'omnibase_log_lines_suppressed_total{worker="order-store"} 990.0' in registry.exposition()

    bare_log.clock.advance(10)
    get_logger().warning(LogEvent.BATCH_FAILED, error=down)
    assert bare_log.lines[-1]["suppressed"] == 990


def test_what_was_held_back_is_reported_at_the_end(bare_log: Any) -> None:
    bare_log.configure()
    for _ in range(25):
        get_logger().error(LogEvent.COMMIT_FAILED, code="timed-out")
    bare_log.pipeline.close()
    line = bare_log.lines[-1]
    assert (line["event"], line["of"], line["code"], line["suppressed"]) == (
        "lines_suppressed", "commit_failed", "timed-out", 15,
    )  # fmt: skip


class _BrokenPipe(io.BytesIO):
    def write(self, _: Any) -> int:
        raise BrokenPipeError("nobody reads")


def _closed() -> io.BytesIO:
    stream = io.BytesIO()
    stream.close()
    return stream


@pytest.mark.parametrize("stream", [_BrokenPipe(), _closed()], ids=["broken", "closed"])
def test_a_stream_that_is_gone_costs_lines_and_not_the_worker(bare_log: Any, stream: io.BytesIO) -> None:
    registry = MetricsRegistry(process_metrics=False)
    bare_log.stream = stream
    bare_log.configure(metrics=registry)
    get_logger().info(LogEvent.WORKER_READY)
    get_logger().error(LogEvent.BATCH_FAILED)
    assert b'omnibase_log_lines_lost_total{worker="order-store"} 2.0' in registry.exposition()


def test_lines_of_several_threads_stay_whole(log: Any) -> None:
    def write(number: int) -> None:
        for _ in range(200):
            get_logger().info(LogEvent.BATCH_DONE, number=number, text="x" * 500)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(line["number"] for line in log.lines) == sorted([0, 1, 2, 3] * 200)


def test_the_console_format_is_for_people(bare_log: Any) -> None:
    bare_log.configure(log_format="console")
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        get_logger().exception(LogEvent.BATCH_FAILED, records=3)
    first, *stack = bare_log.text.splitlines()
    assert first.startswith("2025-06-15T15:06:40.000000Z [error    ] batch_failed")
    assert "records=3" in first
    assert "\x1b[" not in bare_log.text
    assert stack[-1] == "RuntimeError: broken"
