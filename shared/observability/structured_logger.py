"""Structured logs: one JSON object per line on stderr, or a console format for people.

Lines go through structlog straight to the stream; the standard library's logging costs four times as much and is only
used to bring in what libraries say. Nothing is configured or written at import.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Mapping, MutableMapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, BinaryIO, Final, cast

import orjson

from omnibase_infra.shared.core.clock import Clock, SystemClock, rfc3339
from omnibase_infra.shared.core.errors import error_code
from omnibase_infra.shared.observability import metric_definitions as metric
from omnibase_infra.shared.observability.active_trace import log_fields
from omnibase_infra.shared.observability.light_structlog import structlog
from omnibase_infra.shared.observability.log_events import LogEvent
from omnibase_infra.shared.observability.log_output import LibraryHandler, LineOutput
from omnibase_infra.shared.observability.log_rate_limit import ErrorRateLimiter
from omnibase_infra.shared.observability.log_redaction import fit_fields

if TYPE_CHECKING:  # a worker has both loaded anyway; the command line needs neither to log
    from structlog.typing import FilteringBoundLogger, Processor

    from omnibase_infra.shared.core.settings import Settings
    from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry

EventDict = MutableMapping[str, Any]

_LEVELS: Final[Mapping[str, int]] = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}


def get_logger() -> FilteringBoundLogger:
    """Return a logger; call it with a `LogEvent` and fields.

    An exception goes in as `error=` (code, type, message) or, for its stack, by `exc_info=`. Cheap at module level:
    the configuration is looked up when a line is written. On a hot path keep `get_logger().bind()`, which has it.
    """
    return cast("FilteringBoundLogger", structlog.get_logger())


def log_context(**fields: str | int) -> AbstractContextManager[None]:
    """Bind fields to every line of this task and the tasks it starts, for example `correlation_id`."""
    return cast("AbstractContextManager[None]", structlog.contextvars.bound_contextvars(**fields))


class LogPipeline:
    """The configured logging of this process. Close it last, after what may still log."""

    def __init__(self, limiter: ErrorRateLimiter, handler: LibraryHandler, previous_root_level: int) -> None:
        self._limiter = limiter
        self._handler = handler
        self._previous_root_level = previous_root_level

    def report_suppressed(self) -> None:
        """Write a line for each event that was held back and has not been reported since."""
        for (event, code), lines in self._limiter.drain().items():
            get_logger().info(LogEvent.LINES_SUPPRESSED, of=event, code=code, suppressed=lines)

    def close(self) -> None:
        """Report what was held back and stop collecting from libraries; our own lines are still written."""
        self.report_suppressed()
        logging.getLogger().removeHandler(self._handler)
        logging.getLogger().setLevel(self._previous_root_level)


def configure_logging(
    settings: Settings,
    *,
    worker: str = "",
    metrics: MetricsRegistry | None = None,
    stream: BinaryIO | None = None,
    clock: Clock | None = None,
) -> LogPipeline:
    """Set up logging for the process; calling it again replaces what was.

    Args:
        settings: `log_level` (default info) and `log_format` (default json).
        worker: bound to every line; empty for the command line.
        metrics: counts the lines held back or lost; default: not counted.
        stream: where lines go; default: stderr as it is now.
        clock: for time stamps and the rate limit.
    """
    clock = clock or SystemClock()
    stream = stream if stream is not None else sys.stderr.buffer
    level = _LEVELS[settings.log_level]
    suppressed = metrics and metrics.counter(metric.LOG_LINES_SUPPRESSED, worker=worker)
    lost = metrics and metrics.counter(metric.LOG_LINES_LOST, worker=worker)
    limiter = ErrorRateLimiter(clock, on_suppressed=suppressed.inc if suppressed else None)
    output = LineOutput(stream, on_lost=lost.inc if lost else None)
    processors: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        _add_error_code,
        limiter,
        _add_what_it_is_about,
        structlog.processors.format_exc_info,
        _FitLine(worker, clock),
        *_renderer(settings.log_format, stream),
    ]
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *_: output,
        # Off, so that a logger made at import follows a later configuration.
        cache_logger_on_first_use=False,
    )
    return LogPipeline(limiter, *_collect_from_libraries(level))


def _collect_from_libraries(level: int) -> tuple[LibraryHandler, int]:
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, LibraryHandler)]:
        root.removeHandler(handler)
    handler, previous = LibraryHandler(), root.level
    root.addHandler(handler)
    # Libraries' information is for their developers; ask for it with the debug level.
    root.setLevel(level if level == logging.DEBUG else max(level, logging.WARNING))
    return handler, previous


def _add_error_code(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Give lines about an error its code: the key of the rate limit and of alerts."""
    error = event.get("error")
    if isinstance(error, BaseException):
        event.setdefault("code", error_code(error))
    return event


def _add_what_it_is_about(_logger: Any, _method: str, event: EventDict) -> EventDict:
    """Give lines written during the work on messages their correlation ids, and their trace where there is one."""
    about = log_fields()
    if "correlation_id" in event:
        # The line says itself which message it is about; the batch it was written in has others.
        about.pop("correlation_ids", None)
    for name, value in about.items():
        event.setdefault(name, value)
    return event


class _FitLine:
    """Put the fields every line has first, and make the rest fit to be written."""

    def __init__(self, worker: str, clock: Clock) -> None:
        self._worker = worker
        self._clock = clock

    def __call__(self, _logger: Any, _method: str, event: EventDict) -> EventDict:
        line: dict[str, Any] = {
            "time": rfc3339(self._clock.time()),
            "level": event.pop("level"),
            "event": str(event.pop("event", "")),
        }
        if self._worker:
            line["worker"] = self._worker
        # Fields of a caller never replace what the line stands on.
        for name, value in fit_fields(event).items():
            line.setdefault(name, value)
        return line


def _renderer(log_format: str, stream: BinaryIO) -> list[Processor]:
    if log_format == "json":
        return [_render_json]
    console = structlog.dev.ConsoleRenderer(
        colors=stream.isatty(), timestamp_key="time", exception_formatter=structlog.dev.plain_traceback
    )
    return [console, _encode]


def _render_json(_logger: Any, _method: str, event: EventDict) -> bytes:
    try:
        return orjson.dumps(event)
    except TypeError:  # a lone surrogate in a text: not UTF-8, but the line is worth having
        return json.dumps(event, default=str).encode("ascii")


def _encode(_logger: Any, _method: str, line: Any) -> bytes:
    return str(line).encode("utf-8", "backslashreplace")
