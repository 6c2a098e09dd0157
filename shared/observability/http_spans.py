"""Spans of outgoing HTTP requests, and the headers that let the server continue the trace. Imports no HTTP library."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, TypeVar, cast
from urllib.parse import urlsplit

from omnibase_infra.shared.observability.active_trace import AttributeValue, active_trace

if TYPE_CHECKING:
    from opentelemetry.trace import Span

_FIRST_ERROR_STATUS = 400


class OutgoingRequest:
    """A request under way; tell it the answer's status."""

    __slots__ = ("_span",)

    def __init__(self, span: Span | None) -> None:
        """Take the span; None in work that is not traced."""
        self._span = span

    def answered(self, status: int) -> None:
        """Note the status of the answer; 400 and above mark the span as failed."""
        if self._span is None:
            return
        self._span.set_attribute("http.response.status_code", status)
        if status >= _FIRST_ERROR_STATUS:
            from opentelemetry.trace import Status, StatusCode

            self._span.set_attribute("error.type", str(status))
            self._span.set_status(Status(StatusCode.ERROR))


@contextmanager
def outgoing_request(method: str, url: str, headers: MutableMapping[str, str]) -> Iterator[OutgoingRequest]:
    """Show the block as an outgoing HTTP request, for any HTTP library.

        with outgoing_request("GET", url, headers) as request:
            async with session.get(url, headers=headers) as response:
                request.answered(response.status)

    Args:
        method: GET, PUT, …
        url: only scheme, host, port and path are shown: queries and user names may hold secrets.
        headers: of the request; gets `traceparent` in work that is traced.
    """
    active = active_trace()
    if active is None:
        yield OutgoingRequest(None)
        return
    with active.tracing.child(active, method, _attributes(method, url), "client") as span:
        context = active_trace()
        assert context is not None, "the child is active"
        headers["traceparent"] = str(context.parent)
        yield OutgoingRequest(span)


S = TypeVar("S")


def traced_session(session: S) -> S:
    """Return a `requests.Session` all of whose requests show in traces: what hvac and py-consul take as `session`.

    Only this session is changed, no class. Requests of work that is not traced go out as they were.
    """
    # `requests` is not imported for its type: whoever has a session has the library.
    target = cast("Any", session)
    send = target.send

    @wraps(send)
    def traced(request: Any, **options: Any) -> Any:
        with outgoing_request(request.method, request.url, request.headers) as outgoing:
            response = send(request, **options)
            outgoing.answered(response.status_code)
            return response

    target.send = traced
    return session


def _attributes(method: str, url: str) -> dict[str, AttributeValue]:
    parts = urlsplit(url)
    host = parts.hostname or ""
    attributes: dict[str, AttributeValue] = {"http.request.method": method, "server.address": host}
    if parts.port is not None:
        attributes["server.port"] = parts.port
    netloc = host if parts.port is None else f"{host}:{parts.port}"
    attributes["url.full"] = f"{parts.scheme}://{netloc}{parts.path}"
    return attributes
