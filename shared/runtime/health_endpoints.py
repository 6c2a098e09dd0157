"""What each health endpoint answers, apart from how it is carried: status, content type, body."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from typing import Any, Final, Protocol

import msgspec
import orjson

from omnibase_infra.shared.core.clock import SystemClock, rfc3339
from omnibase_infra.shared.core.errors import error_code
from omnibase_infra.shared.models.infrastructure.model_error_response import ModelErrorResponse
from omnibase_infra.shared.models.infrastructure.model_service_status import ModelServiceStatus
from omnibase_infra.shared.observability.log_events import LogEvent
from omnibase_infra.shared.observability.metrics_registry import EXPOSITION_CONTENT_TYPE, OPENMETRICS_CONTENT_TYPE
from omnibase_infra.shared.observability.metrics_snapshot import snapshot_of
from omnibase_infra.shared.observability.structured_logger import get_logger

PATHS: Final = ("/livez", "/readyz", "/metrics", "/info")
METRICS_TIMEOUT_SECONDS: Final = 10.0
_JSON: Final = "application/json"
_OPENMETRICS: Final = "application/openmetrics-text"


class HealthSource(Protocol):
    """What the endpoints ask the worker. A raise is answered with 500 and logged."""

    def live(self) -> tuple[bool, str]:
        """Return whether the process still works, and why not. Event loop; must not block."""
        ...

    def ready(self) -> tuple[bool, Mapping[str, str]]:
        """Return whether work is taken, and a state per part; `ok` is usable. Event loop; must not block."""
        ...

    def info(self) -> Mapping[str, Any]:
        """Return what runs here, without secrets. Event loop; must not block."""
        ...

    def exposition(self, *, openmetrics: bool = False) -> bytes:
        """Return the Prometheus text page, or the OpenMetrics one. Called from a thread, one call at a time."""
        ...


class Response(msgspec.Struct, frozen=True):
    """An answer, ready to be written."""

    status: HTTPStatus
    body: bytes
    content_type: str = _JSON
    headers: tuple[tuple[str, str], ...] = ()


def problem(
    status: HTTPStatus, message: str, *headers: tuple[str, str], code: str, details: Mapping[str, str] | None = None
) -> Response:
    """Return an error as JSON: a `ModelErrorResponse`, as every failed answer is."""
    retryable = status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.REQUEST_TIMEOUT)
    error = ModelErrorResponse(code=code, message=message, retryable=retryable, details=dict(details or {}))
    return Response(status, msgspec.json.encode(error), headers=headers)


class HealthEndpoints:
    """Answers the endpoints from a `HealthSource`. Close it to free its thread."""

    def __init__(self, source: HealthSource) -> None:
        self._source = source
        # Its own thread: the default pool may be full of blocking work exactly when one wants to look.
        self._metrics_thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="metrics")
        self._scrapes: dict[bool, asyncio.Future[bytes]] = {}
        self._identity: tuple[str, str] | None = None

    async def answer(self, method: str, path: str, accept: str = "") -> Response:
        """Return the answer to a request; never raises except when cancelled. `accept` is its header of that name."""
        if path not in PATHS:
            return problem(
                HTTPStatus.NOT_FOUND, f"no such path: {path}", code="no-such-path", details={"paths": " ".join(PATHS)}
            )
        if method not in {"GET", "HEAD"}:
            return problem(
                HTTPStatus.METHOD_NOT_ALLOWED,
                f"{method} is not allowed",
                ("Allow", "GET, HEAD"),
                code="method-not-allowed",
            )
        try:
            return await self._dispatch(path, accept)
        except TimeoutError:
            return problem(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{path} took longer than {METRICS_TIMEOUT_SECONDS:g} s",
                code="timed-out",
            )
        except Exception as error:  # noqa: BLE001 - the endpoints are how one finds out; they outlive the worker's bugs
            get_logger().error(LogEvent.HEALTH_ENDPOINT_FAILED, path=path, error=error, exc_info=error)
            return problem(HTTPStatus.INTERNAL_SERVER_ERROR, f"{path} failed, see the log", code=error_code(error))

    def close(self) -> None:
        """Stop the thread without waiting for a page that is being made."""
        self._metrics_thread.shutdown(wait=False, cancel_futures=True)

    async def _dispatch(self, path: str, accept: str) -> Response:
        if path == "/livez":
            return self._live()
        if path == "/readyz":
            return self._ready()
        if path == "/info":
            return await self._info()
        # Exemplars are in OpenMetrics only, and only those who ask for it understand it.
        if _OPENMETRICS in accept:
            return Response(HTTPStatus.OK, await self._metrics(openmetrics=True), OPENMETRICS_CONTENT_TYPE)
        return Response(HTTPStatus.OK, await self._metrics(openmetrics=False), EXPOSITION_CONTENT_TYPE)

    def _live(self) -> Response:
        live, detail = self._source.live()
        return Response(_status(live), orjson.dumps({"live": live, "detail": detail}))

    def _ready(self) -> Response:
        ready, states = self._source.ready()
        if self._identity is None:
            about = self._source.info()  # once: it says much that changes, and the name and version do not
            self._identity = str(about.get("worker", "")), str(about.get("version", ""))
        found = ModelServiceStatus.from_checks(*self._identity, ready=ready, checks=states, checked_at=_now())
        return Response(_status(ready), msgspec.json.encode(found))

    async def _info(self) -> Response:
        about = dict(self._source.info())
        try:
            page = await self._metrics(openmetrics=False)
            take = partial(snapshot_of, page, str(about.get("worker", "")), _now())
            async with asyncio.timeout(METRICS_TIMEOUT_SECONDS):
                snapshot = await asyncio.get_running_loop().run_in_executor(self._metrics_thread, take)
        except TimeoutError:
            about["metrics"] = None  # a slow page must not keep people from all the rest
        else:
            about["metrics"] = msgspec.to_builtins(snapshot)
        return Response(HTTPStatus.OK, orjson.dumps(about, default=str))

    async def _metrics(self, *, openmetrics: bool) -> bytes:
        # Scrapes that overlap share one page: a page takes the interpreter's time from the event loop.
        scrape = self._scrapes.get(openmetrics)
        if scrape is None or scrape.done():
            make = partial(self._source.exposition, openmetrics=openmetrics)
            scrape = asyncio.get_running_loop().run_in_executor(self._metrics_thread, make)
            self._scrapes[openmetrics] = scrape
        async with asyncio.timeout(METRICS_TIMEOUT_SECONDS):
            return await asyncio.shield(scrape)


def _now() -> str:
    return rfc3339(SystemClock().time())


def _status(good: bool) -> HTTPStatus:
    return HTTPStatus.OK if good else HTTPStatus.SERVICE_UNAVAILABLE
