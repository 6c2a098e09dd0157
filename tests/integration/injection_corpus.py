"""Texts that break out of their place where somebody puts them into SQL, a shell, a template, a log line or a path."""

from __future__ import annotations

from pathlib import Path
from typing import Final

# What commands in the corpus would leave behind if anybody ran them.
TRACE: Final = Path("/tmp/omnibase-injected")

CORPUS: Final[tuple[str, ...]] = (
    "' OR '1'='1",
    "'; DROP TABLE canary; --",
    "x'); DELETE FROM canary; --",
    "'; UPDATE canary SET value = 'changed'; COMMIT; --",
    '"; DROP TABLE "canary"; --',
    "\\'; DROP TABLE canary; --",
    "$$; DROP TABLE canary; $$",
    "$1",
    "$1; DROP TABLE canary",
    "x'/**/UNION/**/SELECT/**/secret/**/FROM/**/canary--",
    "0; SELECT pg_terminate_backend(pg_backend_pid())",
    f"'; COPY canary TO PROGRAM 'touch {TRACE}'; --",
    "E'\\\\047; DROP TABLE canary; --",
    "\u02bc; DROP TABLE canary; --",
    "\uff07; DROP TABLE canary; --",
    "-- \n; DROP TABLE canary;",
    "/* ",
    "{0} {} {value!r} %s %(value)s %n",
    "{{ 7 * 7 }} {% include '/etc/passwd' %} ${7*7} #{7*7}",
    "${jndi:ldap://127.0.0.1/x}",
    f"$(touch {TRACE}) `touch {TRACE}` | touch {TRACE}",
    "../../../../etc/passwd",
    'line\r\nSet-Cookie: a=b\r\n\r\n{"event":"worker_failed"}',
    '{"$ne": null}, "admin": true',
    "__proto__",
    "<script>alert(1)</script>",
    "=cmd|' /C calc'!A0",
    "\u202e\u200b\ufeff right to left",
    "\U0001f4a3 e\u0301 \u00e9",
    " leading and trailing \t",
    "NULL",
    "a" * 20_000 + "'",
)
# Refused before it reaches a server: PostgreSQL has no NUL in text.
REFUSED: Final = ("nul \x00 '; DROP TABLE canary; --",)
