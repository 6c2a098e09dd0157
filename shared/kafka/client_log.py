"""What librdkafka reports about itself, as structured and rate-limited log lines instead of text on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable
from logging import ERROR, WARNING
from typing import Any, Final, Protocol

from confluent_kafka import KafkaError

from omnibase_infra.shared.core.redaction import redact_text

REPEAT_SECONDS: Final = 10.0


class LogFunction(Protocol):
    """Where structured log lines go: the `log` method of a structlog logger fits.

    Called from the clients' own threads, so it must be safe to call from any and must not block for long. Lines it
    raised on are counted and told with the next that it takes.
    """

    def __call__(self, level: int, event: str, /, **fields: Any) -> object:
        """Write one line. `level` is a number of the `logging` module."""
        ...


class ClientLog:
    """The `logger` and `error_cb` of one client.

    The same kind of event is written at most once per `repeat_seconds`; the next line says how many were left out,
    since an unreachable broker reports several times a second.
    """

    def __init__(
        self,
        log: LogFunction,
        client: str,
        *,
        repeat_seconds: float = REPEAT_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._log = log
        self._client = client
        self._repeat_seconds = repeat_seconds
        self._clock = clock
        self._last: dict[str, float] = {}
        self._suppressed: dict[str, int] = {}
        self._lost = 0

    def log(self, level: int, _template: str, facility: str, _name: str, message: str) -> None:
        """Take a log line of librdkafka; the parameters are how the client library calls a logger."""
        self._write(level, "kafka_client_log", facility, message)

    def error(self, error: KafkaError) -> None:
        """Take an error that concerns the whole client, for example a broker that cannot be reached."""
        self._write(ERROR if error.fatal() else WARNING, "kafka_client_error", error.name(), error.str())

    def event(self, level: int, event: str, **fields: Any) -> None:
        """Write a line of our own about this client, not rate-limited."""
        lost = {"lost_lines": self._lost} if self._lost else {}
        try:
            self._log(level, event, client=self._client, **fields, **lost)
        except Exception:  # noqa: BLE001 - a full disk behind the log must not stop confirmations or consumption
            self._lost += 1
        else:
            self._lost = 0

    def _write(self, level: int, event: str, kind: str, message: str) -> None:
        now = self._clock()
        if now - self._last.get(kind, -self._repeat_seconds) < self._repeat_seconds:
            self._suppressed[kind] = self._suppressed.get(kind, 0) + 1
            return
        self._last[kind] = now
        suppressed = self._suppressed.pop(kind, 0)
        fields = {"suppressed": suppressed} if suppressed else {}
        self.event(level, event, kind=kind, message=redact_text(message), **fields)
