"""Where log lines leave the process: bytes to one stream, and library messages brought into the same format."""

from __future__ import annotations

import logging
from collections.abc import Callable
from threading import Lock
from typing import BinaryIO, Final

from omnibase_infra.shared.observability.light_structlog import structlog
from omnibase_infra.shared.observability.log_events import LogEvent


class LineOutput:
    """Writes whole lines, from any thread. A stream that is gone costs log lines, never a record.

    Args:
        stream: unbuffered or flushed after each line; a full pipe blocks the writer.
        on_lost: called for each line the stream refused; must not log.
    """

    def __init__(self, stream: BinaryIO, on_lost: Callable[[], None] | None = None) -> None:
        self._stream = stream
        self._on_lost = on_lost
        self._lock = Lock()

    def msg(self, line: bytes) -> None:
        """Write one line and flush it."""
        try:
            with self._lock:
                self._stream.write(line + b"\n")
                self._stream.flush()
        except (OSError, ValueError):  # a broken pipe, a closed stream: nobody is left to be told, so it is counted
            if self._on_lost is not None:
                self._on_lost()

    # structlog calls the method named like the level.
    debug = info = warning = error = critical = exception = msg


class LibraryHandler(logging.Handler):
    """Turns what libraries say through `logging` into our lines, named and rate-limited by logger."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log one message; warnings and errors share the limit of their logger."""
        try:
            message = record.getMessage()
        except (TypeError, ValueError):  # arguments that do not fit the format: the library's bug, still worth reading
            message = str(record.msg)
        structlog.get_logger().log(
            _known_level(record.levelno),
            LogEvent.LIBRARY_MESSAGE,
            code=record.name,
            message=message,
            exc_info=record.exc_info or None,
        )


_LEVELS: Final = (logging.CRITICAL, logging.ERROR, logging.WARNING, logging.INFO, logging.DEBUG)


def _known_level(level: int) -> int:
    """Return the named level at or below a library's own number, which structlog would not know."""
    return next((known for known in _LEVELS if level >= known), logging.DEBUG)
