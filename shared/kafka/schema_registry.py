"""A client of Confluent-compatible schema registries: JSON Schemas by subject, over their REST API.

Blocking; for commands, never for a worker: what a worker needs of its schemas is generated into it.
"""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

import msgspec

from omnibase_infra.shared.core.errors import DependencyUnavailableError, OmnibaseError, SettingsError
from omnibase_infra.shared.core.settings import Settings, secret_value
from omnibase_infra.shared.observability.http_spans import outgoing_request
from omnibase_infra.topics.schema_subjects import RegisteredSchema

DEPENDENCY: Final = "schema-registry"
MAX_ANSWER_BYTES: Final = 8 * 1024 * 1024
_MEDIA_TYPE: Final = "application/vnd.schemaregistry.v1+json"
_LOOPBACK: Final = ("localhost", "127.0.0.1", "::1")
_NOT_FOUND: Final = 404
_SERVER_ERRORS: Final = 500


class SchemaRegistryRefusedError(OmnibaseError):
    """The schema registry understood a request and said no.

    Attributes:
        status: HTTP status of its answer.
        error_code: its own code, such as 42201 for a schema that is none; 0 when it gave none.
    """

    code = "schema-registry-refused"

    def __init__(self, message: str, *, status: int, error_code: int = 0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.error_code = error_code


class _Connection(msgspec.Struct, frozen=True):
    """Where the registry is. `authorization` is a secret."""

    secure: bool
    host: str
    port: int | None
    path: str
    authorization: str
    ca: Path | None
    timeout: float

    def __repr__(self) -> str:
        return f"<schema registry {self.host}>"


class SchemaRegistryClient:
    """Speaks to one registry; each request has its own connection and its own time limit."""

    def __init__(self, settings: Settings) -> None:
        """Take address and login from the settings; nothing is asked yet.

        Raises:
            SettingsError: no registry is set, its address is none, or a password would go over the wire in clear.
        """
        self._connection = _connection(settings)
        self._tls = _tls(self._connection)

    def subjects(self) -> list[str]:
        """Return the names of all subjects, sorted.

        Raises:
            DependencyUnavailableError: the registry cannot be reached, or fails.
            SchemaRegistryRefusedError: it says no. So for every method here.
        """
        return sorted(self._ask("GET", "/subjects"))

    def latest(self, subject: str) -> RegisteredSchema | None:
        """Return the newest schema of a subject, or None when it has none."""
        found = self._find("GET", f"/subjects/{quote(subject, safe='')}/versions/latest")
        return None if found is None else _registered(found)

    def lookup(self, subject: str, schema: str) -> RegisteredSchema | None:
        """Return the version under which a subject has this very schema, or None."""
        found = self._find("POST", f"/subjects/{quote(subject, safe='')}", _body(schema))
        return None if found is None else _registered({"schema": schema, **found})

    def register(self, subject: str, schema: str) -> int:
        """Make a schema the newest of a subject and return its id; again for one that is there already."""
        found = self._ask("POST", f"/subjects/{quote(subject, safe='')}/versions", _body(schema))
        return int(found["id"])

    def refusals(self, subject: str, schema: str) -> list[str]:
        """Return why the registry would not take the schema under the subject's compatibility; empty when it would."""
        path = f"/compatibility/subjects/{quote(subject, safe='')}/versions/latest?verbose=true"
        found = self._find("POST", path, _body(schema))
        if found is None or found.get("is_compatible", False):
            return []
        return [str(message) for message in found.get("messages", ())] or ["it gives no reason"]

    def compatibility(self, subject: str) -> str | None:
        """Return the compatibility that is set on a subject itself, or None."""
        found = self._find("GET", f"/config/{quote(subject, safe='')}?defaultToGlobal=false")
        return None if found is None else str(found.get("compatibilityLevel") or found.get("compatibility"))

    def set_compatibility(self, subject: str, level: str) -> None:
        """Set the compatibility of a subject."""
        self._ask("PUT", f"/config/{quote(subject, safe='')}", {"compatibility": level})

    def _find(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        """Ask for something that may not be there."""
        try:
            return self._ask(method, path, body)
        except SchemaRegistryRefusedError as error:
            # With a code of its own it is the subject, version or config that is missing, not the address.
            if error.status == _NOT_FOUND and error.error_code > _NOT_FOUND:
                return None
            raise

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        where = self._connection
        headers = {"Accept": f"{_MEDIA_TYPE}, application/json"}
        if body is not None:
            headers["Content-Type"] = _MEDIA_TYPE
        if where.authorization:
            headers["Authorization"] = where.authorization
        connection = (
            HTTPSConnection(where.host, where.port, timeout=where.timeout, context=self._tls)
            if where.secure
            else HTTPConnection(where.host, where.port, timeout=where.timeout)
        )
        scheme = "https" if where.secure else "http"
        url = f"{scheme}://{where.host}:{where.port}{where.path}{path}"
        try:
            with outgoing_request(method, url, headers) as outgoing:
                connection.request(method, where.path + path, None if body is None else json.dumps(body), headers)
                response = connection.getresponse()
                content = response.read(MAX_ANSWER_BYTES + 1)
                outgoing.answered(response.status)
        except (OSError, HTTPException) as error:
            raise DependencyUnavailableError(
                f"the schema registry {where.host} cannot be reached: {_reason(error)}",
                dependency=DEPENDENCY,
                hint="check OMNIBASE_SCHEMA_REGISTRY_URL and, for a certificate, OMNIBASE_SCHEMA_REGISTRY_CA_LOCATION",
            ) from error
        finally:
            connection.close()
        return _answer(response.status, content, f"{method} {path}")


def _answer(status: int, content: bytes, request: str) -> Any:
    try:
        found = json.loads(content) if len(content) <= MAX_ANSWER_BYTES else None
    except ValueError:
        found = None
    if status < 300 and found is not None:
        return found
    stated = found if isinstance(found, Mapping) else {}
    code = stated.get("error_code", 0)
    message = str(stated.get("message") or "no schema registry answers like this")
    if status >= _SERVER_ERRORS:
        raise DependencyUnavailableError(
            f"the schema registry failed at {request}: {status}, {message}", dependency=DEPENDENCY
        )
    hints = {
        401: "set OMNIBASE_SCHEMA_REGISTRY_USER and OMNIBASE_SCHEMA_REGISTRY_PASSWORD",
        403: "give the user the right to write these subjects",
        404: "check the path in OMNIBASE_SCHEMA_REGISTRY_URL",
    }
    raise SchemaRegistryRefusedError(
        f"the schema registry refused {request}: {status}, {message}",
        status=status,
        error_code=code if isinstance(code, int) else 0,
        hint=hints.get(status, ""),
    )


def _connection(settings: Settings) -> _Connection:
    if not settings.schema_registry_url:
        raise SettingsError("OMNIBASE_SCHEMA_REGISTRY_URL is not set", hint="set it to https://host:port")
    try:
        address = urlsplit(settings.schema_registry_url)
        port = address.port
    except ValueError as error:
        raise SettingsError(f"OMNIBASE_SCHEMA_REGISTRY_URL: {error}") from error
    if address.scheme not in ("http", "https") or not address.hostname:
        raise SettingsError("OMNIBASE_SCHEMA_REGISTRY_URL is no address, expected https://host:port")
    if address.username or address.password:
        raise SettingsError(
            "OMNIBASE_SCHEMA_REGISTRY_URL holds a login",
            hint="use OMNIBASE_SCHEMA_REGISTRY_USER and OMNIBASE_SCHEMA_REGISTRY_PASSWORD",
        )
    secret = settings.schema_registry_password
    if (settings.schema_registry_user is None) != (secret is None):
        raise SettingsError("OMNIBASE_SCHEMA_REGISTRY_USER and OMNIBASE_SCHEMA_REGISTRY_PASSWORD go together")
    authorization = ""
    if secret is not None:
        if address.scheme == "http" and address.hostname not in _LOOPBACK:
            raise SettingsError("the password of the schema registry would go over the wire in clear", hint="use https")
        pair = f"{settings.schema_registry_user}:{secret_value(settings, 'schema_registry_password')}"
        authorization = f"Basic {base64.b64encode(pair.encode()).decode()}"
    return _Connection(
        secure=address.scheme == "https",
        host=address.hostname,
        port=port,
        path=address.path.rstrip("/"),
        authorization=authorization,
        ca=settings.schema_registry_ca_location,
        timeout=settings.schema_registry_timeout_seconds,
    )


def _tls(connection: _Connection) -> ssl.SSLContext | None:
    if not connection.secure:
        return None
    try:
        return ssl.create_default_context(cafile=None if connection.ca is None else str(connection.ca))
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"OMNIBASE_SCHEMA_REGISTRY_CA_LOCATION: {connection.ca}: {error}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    return str(error) or type(error).__name__


def _body(schema: str) -> dict[str, str]:
    return {"schemaType": "JSON", "schema": schema}


def _registered(found: Mapping[str, Any]) -> RegisteredSchema:
    return RegisteredSchema(int(found["version"]), int(found["id"]), str(found["schema"]))
