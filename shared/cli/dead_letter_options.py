"""The options that say which dead letters are meant, the same for every `omninode dlq` command."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from omnibase_infra.shared.core.clock import parse_rfc3339
from omnibase_infra.shared.core.errors import ConfigurationError

if TYPE_CHECKING:
    from omnibase_infra.shared.runtime.dead_letter_filter import DeadLetterFilter
    from omnibase_infra.shared.runtime.dead_letter_view import Place

Codes: TypeAlias = Annotated[
    list[str] | None, typer.Option("--code", help="With this error code; repeatable.", metavar="CODE")
]
Fingerprints: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--fingerprint", help="Of this failure, or its first digits; repeatable.", metavar="HEX"),
]
Keys: TypeAlias = Annotated[list[str] | None, typer.Option("--key", help="With this record key; repeatable.")]
Types: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--type", help="CloudEvents type or its event part, with * and ?; repeatable.", metavar="TYPE"),
]
Since: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--since", help="Given up at or after: 2026-01-31T12:00:00Z, or 2h for two hours ago.", metavar="TIME"
    ),
]
Until: TypeAlias = Annotated[str | None, typer.Option("--until", help="Given up before; as --since.", metavar="TIME")]
Offsets: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--offset", "-s", help="At this place of the dead-letter topic; repeatable.", metavar="OFFSET"),
]
All: TypeAlias = Annotated[bool, typer.Option("--all", help="Also those that were redriven or discarded.")]


def dead_letter_filter(
    codes: Sequence[str] | None,
    fingerprints: Sequence[str] | None,
    keys: Sequence[str] | None,
    types: Sequence[str] | None,
    since: str | None,
    until: str | None,
    offsets: Sequence[str] | None,
    *,
    resolved: bool = False,
) -> DeadLetterFilter:
    """Return the filter that options stand for.

    Raises:
        ConfigurationError: one cannot be understood; names the option.
    """
    from omnibase_infra.shared.runtime.dead_letter_filter import DeadLetterFilter

    return DeadLetterFilter(
        codes=tuple(codes or ()),
        fingerprints=tuple(fingerprints or ()),
        keys=tuple(key.encode("utf-8", "surrogateescape") for key in keys or ()),
        types=tuple(types or ()),
        since_ms=None if since is None else _milliseconds("--since", since),
        until_ms=None if until is None else _milliseconds("--until", until),
        places=tuple(parse_place("--offset", offset) for offset in offsets or ()),
        resolved=resolved,
    )


def parse_place(option: str, text: str) -> Place:
    """Return the place that a value stands for: `17`, or `0/17`.

    Raises:
        ConfigurationError: it stands for none.
    """
    from omnibase_infra.shared.runtime.dead_letter_view import Place

    try:
        return Place.parse(text)
    except ValueError as error:
        raise ConfigurationError(f"{option}: {error}") from None


def _milliseconds(option: str, text: str) -> int:
    """Return Unix milliseconds of a time, or of so long ago."""
    try:
        return round(parse_rfc3339(text).timestamp() * 1000)
    except ValueError:
        ago = _duration(text)
    if ago is None:
        raise ConfigurationError(
            f"{option}: {text!r} is no time like 2026-01-31T12:00:00Z and no duration like 30m, 2h, 7d"
        )
    return round((time.time() - ago) * 1000)


def _duration(text: str) -> float | None:
    from omnibase_infra.shared.contracts.units import parse_duration

    try:
        return parse_duration(text)
    except ValueError:
        return None
