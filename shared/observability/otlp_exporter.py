"""The OTLP exporter that the settings ask for. The libraries, hundreds of milliseconds to import, are loaded when it is made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit, urlunsplit

from omnibase_infra.shared.core.errors import SettingsError
from omnibase_infra.shared.core.settings import Settings, secret_value

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

_FORM = "expected http://host:port or https://host:port"
_HTTP_PATH = "/v1/traces"


def exporter_of(settings: Settings) -> Callable[[], SpanExporter]:
    """Return what makes the exporter, on whichever thread is to pay for it; checks the settings now.

    Raises:
        SettingsError: the address is malformed, a file is missing, or the headers are no `name=value` list.
    """
    endpoint = settings.otlp_endpoint or ""
    try:
        parts = urlsplit(endpoint)
        fits = parts.scheme in {"http", "https"} and parts.hostname is not None and parts.port is not None
    except ValueError:
        fits = False
    if not fits:
        raise SettingsError("OMNIBASE_OTLP_ENDPOINT is no address of a collector", hint=_FORM)
    if parts.username is not None:
        raise SettingsError(
            "OMNIBASE_OTLP_ENDPOINT holds credentials",
            hint="put them in OMNIBASE_OTLP_HEADERS, for example authorization=…",
        )
    for name in ("otlp_ca_location", "otlp_certificate_location", "otlp_key_location"):
        path: Path | None = getattr(settings, name)
        if path is not None and not path.is_file():
            raise SettingsError(f"OMNIBASE_{name.upper()}: there is no file {path}")
    headers = _headers(settings)
    if settings.otlp_protocol == "grpc":
        return lambda: _grpc(settings, endpoint, headers)
    url = endpoint if parts.path.strip("/") else urlunsplit((parts.scheme, parts.netloc, _HTTP_PATH, "", ""))
    return lambda: _http(settings, url, headers)


def _grpc(settings: Settings, endpoint: str, headers: dict[str, str]) -> SpanExporter:
    from grpc import ssl_channel_credentials  # type: ignore[import-untyped]  # ships no types
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    secure = endpoint.startswith("https:")
    credentials = (
        ssl_channel_credentials(
            _content(settings.otlp_ca_location),
            _content(settings.otlp_key_location),
            _content(settings.otlp_certificate_location),
        )
        if secure
        else None
    )
    return OTLPSpanExporter(
        endpoint=endpoint,
        insecure=not secure,
        credentials=credentials,
        headers=tuple((name.lower(), value) for name, value in headers.items()),
        timeout=settings.otlp_timeout_seconds,
    )


def _http(settings: Settings, url: str, headers: dict[str, str]) -> SpanExporter:
    import requests
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    session = requests.Session()
    # REQUESTS_CA_BUNDLE of a machine would win over the CA that the settings name.
    session.trust_env = settings.otlp_ca_location is None
    return OTLPSpanExporter(
        endpoint=url,
        session=session,
        certificate_file=_text(settings.otlp_ca_location),
        client_certificate_file=_text(settings.otlp_certificate_location),
        client_key_file=_text(settings.otlp_key_location),
        headers=headers,
        timeout=settings.otlp_timeout_seconds,
    )


def _headers(settings: Settings) -> dict[str, str]:
    text = secret_value(settings, "otlp_headers") or ""
    headers: dict[str, str] = {}
    for pair in filter(None, (part.strip() for part in text.split(","))):
        name, separator, value = pair.partition("=")
        if not separator or not name.strip():
            raise SettingsError("OMNIBASE_OTLP_HEADERS: expected name=value, comma-separated, values percent-encoded")
        headers[name.strip()] = unquote(value.strip())
    return headers


def _content(path: Path | None) -> bytes | None:
    return None if path is None else path.read_bytes()


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
