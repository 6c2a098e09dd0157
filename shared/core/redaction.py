"""Keep secrets out of what people read: logs, error texts, headers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from omnibase_infra.shared.core.headers import MAX_ERROR_MESSAGE

MASK: Final = "***"
_NAMES_OF_SECRETS: Final = r"(?:password|passwd|pwd|passphrase|secret|token|(?:api|private|access)[_-]?key|credential|authorization|cookie|dsn)"
_SECRET_KEY: Final = re.compile(rf"(?:^|[_\-.]){_NAMES_OF_SECRETS}s?(?:$|[_\-.])", re.IGNORECASE)
_WORD_START: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
# Up to the last @ before a slash; with a slash inside the password as well, unless that is a port and a path.
_URL_CREDENTIALS: Final = re.compile(
    r"(?P<scheme>[a-z][a-z0-9+.-]{0,30}://)(?:[^/\s]+@|[^/\s@:]*:(?!\d+/)[^\s@]+@)", re.IGNORECASE
)
# name=value, name: value, "name": "value" and (name)=(value). Every repetition is bounded: error texts can be long.
_ASSIGNMENT: Final = re.compile(
    rf"(?P<key>{_NAMES_OF_SECRETS}[\w.-]{{0,64}}[\\\"')\]]{{0,4}}\s{{0,8}}[=:]\s{{0,8}})"
    r"(?P<value>b?\"(?:[^\"\\]|\\.)*+\"?|b?'(?:[^'\\]|\\.)*+'?|(?:(?:bearer|basic)\s+)?\S+)",
    re.IGNORECASE | re.DOTALL,
)
# Secrets that can be told by their own form: bearer tokens, JSON web tokens, Vault tokens, private keys.
_BARE: Final = re.compile(
    r"(?<=bearer )[\w.~+/=-]{8,}|\beyJ[\w-]{8,}\.[\w-]+\.[\w-]*|\bhv[sbr]\.[\w-]{8,}"
    r"|-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,30}PRIVATE KEY-----|\Z)",
    re.IGNORECASE | re.DOTALL,
)
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
# Longer texts are cut before they are searched for secrets; the result is far shorter anyway.
_MAX_SEARCHED: Final = 16 * MAX_ERROR_MESSAGE
_VARIABLE_PARTS: Final = re.compile(
    r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}|0x[0-9a-f]+|[0-9a-f]{16,}|\d+|'[^']*'|\"[^\"]*\"",
    re.IGNORECASE,
)


@lru_cache(maxsize=4096)
def is_secret_key(name: str) -> bool:
    """Return whether a value under this key must not be shown: `client_secret`, `clientSecret`, `X-Api-Key`, …."""
    return _SECRET_KEY.search(_WORD_START.sub("_", name)) is not None


def redact_text(text: str) -> str:
    """Return the text with credentials in URLs, values of secret names, tokens and private keys masked."""
    masked = _BARE.sub(MASK, text)
    if ":" not in masked and "=" not in masked:
        return masked
    return _ASSIGNMENT.sub(rf"\g<key>{MASK}", _URL_CREDENTIALS.sub(rf"\g<scheme>{MASK}@", masked))


def redact_mapping(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy with the values of secret keys masked, at every depth."""
    return {key: MASK if is_secret_key(str(key)) else _redact(value) for key, value in values.items()}


def _redact(value: Any) -> Any:
    if isinstance(value, Mapping):
        return redact_mapping(value)
    if isinstance(value, (list, tuple)):
        return [_redact(item) for item in value]
    return redact_text(value) if isinstance(value, str) else value


def sanitised(text: str, limit: int = MAX_ERROR_MESSAGE) -> str:
    """Return one line fit for a header or an answer: no control characters, no secrets, at most `limit` characters."""
    # Lone surrogates, as in names of files, have no UTF-8 form.
    encodable = text[:_MAX_SEARCHED].encode("utf-8", "replace").decode()
    line = _CONTROL.sub(" ", redact_text(encodable)).strip()
    return line if len(line) <= limit else line[: limit - 1] + "…"


def without_variable_parts(text: str) -> str:
    """Return the text with ids, numbers and quoted values replaced, so that equal failures read equal."""
    return _VARIABLE_PARTS.sub("?", text)
