"""Keep secrets out of what people read: logs, error texts, headers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from omnibase_infra.shared.core.headers import MAX_ERROR_MESSAGE

MASK: Final = "***"
_SECRET_KEY: Final = re.compile(
    r"(?:^|[_\-.])(?:password|passwd|pwd|secret|token|api_?key|private_?key|credential|authorization|cookie|dsn)s?(?:$|[_\-.])",
    re.IGNORECASE,
)
_URL_CREDENTIALS: Final = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://)[^/\s@]+@", re.IGNORECASE)
_ASSIGNMENT: Final = re.compile(
    r"(?P<key>\b[\w.-]*(?:password|passwd|pwd|secret|token|api_?key|credential)[\w.-]*\s*[=:]\s*)(?P<value>\"[^\"]*\"|'[^']*'|[^\s,;)]+)",
    re.IGNORECASE,
)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]+")
_VARIABLE_PARTS: Final = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|0x[0-9a-f]+|[0-9a-f]{16,}|\d+|'[^']*'|\"[^\"]*\"",
    re.IGNORECASE,
)


def is_secret_key(name: str) -> bool:
    """Return whether a value under this key must not be shown."""
    return _SECRET_KEY.search(name) is not None


def redact_text(text: str) -> str:
    """Return the text with credentials in URLs and `key=value` secrets masked."""
    masked = _URL_CREDENTIALS.sub(rf"\g<scheme>{MASK}@", text)
    return _ASSIGNMENT.sub(rf"\g<key>{MASK}", masked)


def redact_mapping(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy with the values of secret keys masked, at every depth."""
    return {key: MASK if is_secret_key(key) else _redact(value) for key, value in values.items()}


def _redact(value: Any) -> Any:
    if isinstance(value, Mapping):
        return redact_mapping(value)
    if isinstance(value, (list, tuple)):
        return [_redact(item) for item in value]
    return redact_text(value) if isinstance(value, str) else value


def sanitised(text: str, limit: int = MAX_ERROR_MESSAGE) -> str:
    """Return one line fit for a header or an answer: no control characters, no secrets, at most `limit` characters."""
    line = _CONTROL.sub(" ", redact_text(text)).strip()
    return line if len(line) <= limit else line[: limit - 1] + "…"


def without_variable_parts(text: str) -> str:
    """Return the text with ids, numbers and quoted values replaced, so that equal failures read equal."""
    return _VARIABLE_PARTS.sub("?", text)
