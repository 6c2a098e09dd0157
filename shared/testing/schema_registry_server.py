"""A schema registry for tests: a real HTTP server that speaks the part of Confluent's REST API which deployments use.

It keeps JSON Schemas by subject, judges them by Confluent's own rules for content models, and answers with its status and
error codes. Its rules are written apart from those of the product, so that the one can be held against the other.
"""

from __future__ import annotations

import base64
import json
import re
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import unquote, urlsplit

_LEVELS: Final = ("NONE", *(f"{way}{end}" for way in ("BACKWARD", "FORWARD", "FULL") for end in ("", "_TRANSITIVE")))
_MEDIA_TYPE: Final = "application/vnd.schemaregistry.v1+json"


class _RefusedError(Exception):
    def __init__(self, status: int, code: int, message: str) -> None:
        self.status, self.code, self.message = status, code, message
        super().__init__(message)


class SchemaRegistryServer:
    """The registry's state, and the server in front of it.

    Attributes:
        requests: method and path of everything that was asked, in order.
        failing: paths that are answered with 500, for tests of failures.
    """

    def __init__(self, user: str = "", password: str = "", tls: ssl.SSLContext | None = None) -> None:
        self.versions: dict[str, list[tuple[int, str]]] = {}
        self.levels: dict[str, str] = {}
        self.requests: list[str] = []
        self.failing: set[str] = set()
        self._ids: dict[str, int] = {}
        self._login = f"{user}:{password}" if user else ""
        self._lock = threading.Lock()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        if tls is not None:
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True)
        self._scheme = "http" if tls is None else "https"
        self._routes: list[tuple[str, str, Callable[..., Any]]] = [
            ("GET", "/subjects", lambda: list(self.versions)),
            ("GET", "/subjects/([^/]+)/versions/latest", lambda name: self._shown(name, len(self._of(name)))),
            ("POST", "/subjects/([^/]+)", lambda name, body: self._lookup(name, _schema(body))),
            ("POST", "/subjects/([^/]+)/versions", lambda name, body: {"id": self._register(name, _schema(body))}),
            ("POST", "/compatibility/subjects/([^/]+)/versions/latest", self._compatible),
            ("GET", "/config/([^/]+)", self._level_of),
            ("PUT", "/config/([^/]+)", lambda name, body: self._set_level(name, body.get("compatibility"))),
        ]

    @property
    def url(self) -> str:
        """Return its address."""
        return f"{self._scheme}://localhost:{self._http.server_port}"

    @contextmanager
    def running(self) -> Iterator[SchemaRegistryServer]:
        """Serve until the block ends."""
        thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._http.shutdown()
            self._http.server_close()
            thread.join(5)

    def answer(self, method: str, target: str, login: str, body: Any) -> Any:
        """Return the JSON of an answer; raises what is refused."""
        address = urlsplit(target)
        self.requests.append(f"{method} {address.path}")
        if self._login and login != f"Basic {base64.b64encode(self._login.encode()).decode()}":
            raise _RefusedError(401, 401, "Unauthorized")
        if address.path in self.failing:
            raise _RefusedError(500, 50001, "Error in the backend data store")
        for known_method, pattern, answer in self._routes:
            if known_method == method and (match := re.fullmatch(pattern, address.path)):
                with self._lock:
                    return answer(*map(unquote, match.groups()), *(() if body is None else (body,)))
        raise _RefusedError(404, 404, "HTTP 404 Not Found")

    def _compatible(self, subject: str, body: Any) -> dict[str, Any]:
        messages = self._messages(subject, _schema(body), known=self._of(subject)[-1:])
        return {"is_compatible": not messages, "messages": messages}

    def _level_of(self, subject: str) -> dict[str, Any]:
        if subject not in self.levels:
            raise _RefusedError(404, 40408, f"Subject '{subject}' does not have subject-level compatibility configured")
        return {"compatibilityLevel": self.levels[subject]}

    def _of(self, subject: str) -> list[tuple[int, str]]:
        if not self.versions.get(subject):
            raise _RefusedError(404, 40401, f"Subject '{subject}' not found.")
        return self.versions[subject]

    def _shown(self, subject: str, version: int) -> dict[str, Any]:
        number, schema = self._of(subject)[version - 1]
        return {"subject": subject, "version": version, "id": number, "schemaType": "JSON", "schema": schema}

    def _lookup(self, subject: str, schema: str) -> dict[str, Any]:
        for version, (_, known) in enumerate(self._of(subject), start=1):
            if json.loads(known) == json.loads(schema):
                return self._shown(subject, version)
        raise _RefusedError(404, 40403, "Schema not found")

    def _register(self, subject: str, schema: str) -> int:
        known = self.versions.setdefault(subject, [])
        for number, other in known:
            if json.loads(other) == json.loads(schema):
                return number
        level = self._level(subject)
        judged = known if level.endswith("_TRANSITIVE") else known[-1:]
        if messages := self._messages(subject, schema, judged):
            raise _RefusedError(409, 409, f"Schema being registered is incompatible with an earlier schema: {messages}")
        number = self._ids.setdefault(schema, len(self._ids) + 1)
        known.append((number, schema))
        return number

    def _level(self, subject: str) -> str:
        return self.levels.get(subject, "BACKWARD")

    def _set_level(self, subject: str, level: Any) -> dict[str, Any]:
        if level not in _LEVELS:
            raise _RefusedError(422, 42203, "Invalid compatibility level")
        self.levels[subject] = level
        return {"compatibility": level}

    def _messages(self, subject: str, schema: str, known: list[tuple[int, str]]) -> list[str]:
        way = self._level(subject).removesuffix("_TRANSITIVE")
        found: list[str] = []
        for _, other in known:
            old, new = json.loads(other), json.loads(schema)
            if way in ("BACKWARD", "FULL"):
                found += confluent_differences(old, new)
            if way in ("FORWARD", "FULL"):
                found += confluent_differences(new, old)
        return found


def confluent_differences(original: Mapping[str, Any], update: Mapping[str, Any]) -> list[str]:
    """Return what Confluent calls incompatible when readers go from the original schema to the update."""
    return list(_differences(original, original, update, update, "#"))


def _differences(
    of_original: Mapping[str, Any], original: Any, of_update: Mapping[str, Any], update: Any, path: str
) -> Iterator[str]:
    original, update = _deref(of_original, original), _deref(of_update, update)
    kinds = original.get("type"), update.get("type")
    if None not in kinds and kinds[0] != kinds[1] and kinds != ("integer", "number"):
        yield f"TYPE_CHANGED at {path}"
        return
    yield from _bound_differences(original, update, path)
    if "items" in original and "items" in update:
        yield from _differences(of_original, original["items"], of_update, update["items"], f"{path}/items")
    for index, pair in enumerate(zip(original.get("anyOf", ()), update.get("anyOf", ()), strict=False)):
        yield from _differences(of_original, pair[0], of_update, pair[1], f"{path}/anyOf/{index}")
    if len(original.get("anyOf", ())) > len(update.get("anyOf", ())):
        yield f"SUM_TYPE_NARROWED at {path}"
    if "properties" in original or "properties" in update:
        yield from _property_differences(of_original, original, of_update, update, path)


def _bound_differences(original: Any, update: Any, path: str) -> Iterator[str]:
    choices = original.get("enum"), update.get("enum")
    if choices[1] is not None and not set(choices[0] or ()) <= set(choices[1]):
        yield f"ENUM_ARRAY_NARROWED at {path}"
    for keyword in ("maxLength", "maximum", "maxItems"):
        if keyword in update and original.get(keyword, float("inf")) > update[keyword]:
            yield f"{keyword.upper()}_DECREASED at {path}"
    for keyword in ("minLength", "minimum", "minItems"):
        if keyword in update and original.get(keyword, float("-inf")) < update[keyword]:
            yield f"{keyword.upper()}_INCREASED at {path}"


def _property_differences(
    of_original: Mapping[str, Any], original: Any, of_update: Mapping[str, Any], update: Any, path: str
) -> Iterator[str]:
    before, after = original.get("properties", {}), update.get("properties", {})
    open_before = original.get("additionalProperties") is not False
    open_after = update.get("additionalProperties") is not False
    if open_before and not open_after:
        yield f"ADDITIONAL_PROPERTIES_REMOVED at {path}"
    for name in before.keys() - after.keys():
        if not open_after:
            yield f"PROPERTY_REMOVED_FROM_CLOSED_CONTENT_MODEL at {path}/properties/{name}"
    for name in after.keys() - before.keys():
        if open_before:
            yield f"PROPERTY_ADDED_TO_OPEN_CONTENT_MODEL at {path}/properties/{name}"
        elif name in update.get("required", ()) and "default" not in after[name]:
            yield f"REQUIRED_PROPERTY_ADDED_TO_UNOPENED_CONTENT_MODEL at {path}/properties/{name}"
    for name in before.keys() & after.keys():
        place = f"{path}/properties/{name}"
        yield from _differences(of_original, before[name], of_update, after[name], place)
        newly = name in update.get("required", ()) and name not in original.get("required", ())
        if newly and "default" not in after[name]:
            yield f"REQUIRED_ATTRIBUTE_ADDED at {place}"


def _deref(document: Mapping[str, Any], schema: Any) -> Any:
    while isinstance(schema, dict) and "$ref" in schema:
        target: Any = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            target = target[part]
        schema = target
    return schema if isinstance(schema, dict) else {}


def _schema(body: Any) -> str:
    schema = body.get("schema") if isinstance(body, dict) else None
    if not isinstance(schema, str) or body.get("schemaType") != "JSON":
        raise _RefusedError(422, 42201, "Invalid schema, expected schemaType JSON")
    try:
        json.loads(schema)
    except ValueError as error:
        raise _RefusedError(422, 42201, f"Invalid schema: {error}") from error
    return schema


def _handler(server: SchemaRegistryServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 5

        def log_message(self, *_: Any) -> None:
            """Write nothing to the terminal."""

        def _serve(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            content = self.rfile.read(length)
            try:
                body = json.loads(content) if content else None
                status, found = 200, server.answer(self.command, self.path, self.headers.get("Authorization", ""), body)
            except _RefusedError as refused:
                status, found = refused.status, {"error_code": refused.code, "message": refused.message}
            answer = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Type", _MEDIA_TYPE)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_GET = do_POST = do_PUT = _serve  # noqa: N815 - what http.server calls

    return Handler
