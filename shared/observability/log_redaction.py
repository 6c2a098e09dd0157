"""Make a log line's fields fit to be written: no secrets, no payloads, nothing without bound."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import lru_cache
from itertools import islice
from typing import Any, Final

from omnibase_infra.shared.core.errors import error_code
from omnibase_infra.shared.core.redaction import MASK, is_secret_key, redact_text

MAX_TEXT: Final = 8 * 1024
MAX_ITEMS: Final = 100
MAX_DEPTH: Final = 6
CUT: Final = "…"

# Field names come from code, so there are few; values are never cached.
_is_secret_field = lru_cache(maxsize=4096)(is_secret_key)


def fit_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy that holds JSON values only, with secrets masked by key and inside texts."""
    return _fit_mapping(fields, MAX_DEPTH)


def fit_text(text: str) -> str:
    """Return the text with secrets masked and its middle cut out when it is too long.

    The end of a stack trace says what happened, its start where it came from: both stay.
    """
    # Every secret that `redact_text` knows contains one of these: the common short text costs two scans.
    if "=" in text or ":" in text:
        text = redact_text(text)
    if len(text) <= MAX_TEXT:
        return text
    half = MAX_TEXT // 2
    return f"{text[:half]} {CUT} {len(text) - 2 * half} characters left out {CUT} {text[-half:]}"


def _fit_mapping(values: Mapping[Any, Any], depth: int) -> dict[str, Any]:
    fitted: dict[str, Any] = {}
    for key, value in values.items():
        if len(fitted) == MAX_ITEMS:
            fitted[CUT] = f"{len(values) - MAX_ITEMS} fields left out"
            break
        name = key if type(key) is str else str(key)
        fitted[name] = MASK if _is_secret_field(name) else _fit(value, depth)
    return fitted


def _fit(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, int):
        # JSON readers lose the digits of larger ones, and orjson refuses them.
        return int(value) if -(2**63) <= value < 2**63 else str(value)
    if isinstance(value, str):
        return fit_text(str(value))
    if isinstance(value, (Mapping, list, tuple, set, frozenset)):
        return CUT if depth == 0 else _fit_container(value, depth - 1)
    return _fit_object(value)


def _fit_container(values: Mapping[Any, Any] | Collection[Any], depth: int) -> Any:
    if isinstance(values, Mapping):
        return _fit_mapping(values, depth)
    items = [_fit(item, depth) for item in islice(values, MAX_ITEMS)]
    return [*items, f"{CUT} {len(values) - MAX_ITEMS} more"] if len(values) > MAX_ITEMS else items


def _fit_object(value: object) -> Any:
    if isinstance(value, BaseException):
        return {"code": error_code(value), "type": type(value).__name__, "message": fit_text(str(value))}
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"<{len(value)} bytes>"
    # The default text of an object is its repr, which shows every field: an envelope's payload, a DSN.
    if getattr(type(value), "__str__", None) is object.__str__:
        return f"<{type(value).__name__}>"
    return fit_text(str(value))
