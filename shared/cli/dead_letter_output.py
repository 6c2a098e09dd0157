"""Shows dead letters to people, and as JSON to programs."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
import typer

from omnibase_infra.shared.cli import console
from omnibase_infra.shared.runtime.dead_letter_filter import FailureGroup, grouped
from omnibase_infra.shared.runtime.dead_letter_log import DeadLetterSnapshot
from omnibase_infra.shared.runtime.dead_letter_resolutions import DeadLetterState, Resolution
from omnibase_infra.shared.runtime.dead_letter_view import DeadLetter, ReadableDeadLetter
from omnibase_infra.shared.runtime.redrive_selection import Selection

_SHOWN_KEY: Final = 40
# Enough to tell failures apart, and what `--fingerprint` takes.
_SHOWN_FINGERPRINT: Final = 8
_SHOWN_MESSAGE: Final = 100
_SHOWN_TEXT: Final = 4000

_LIST_COLUMNS: Final = ("place", "time", "key", "code", "type", "failure", "attempts", "state")
_GROUP_COLUMNS: Final = (
    "failure", "code", "open", "redriven", "discarded", "first", "last", "examples", "message",
)  # fmt: skip


def print_letters(letters: Sequence[tuple[DeadLetter, DeadLetterState]]) -> None:
    """Print dead letters, one a row."""
    _print_aligned(_LIST_COLUMNS, [_row(letter, state) for letter, state in letters])


def print_letters_json(snapshot: DeadLetterSnapshot, letters: Iterable[tuple[DeadLetter, DeadLetterState]]) -> None:
    """Print dead letters, one a line of JSON."""
    lines = [msgspec.json.encode(letter_json(one, state, snapshot.resolution(one))) for one, state in letters]
    if lines:
        typer.echo(b"\n".join(lines))


def print_groups(groups: Sequence[FailureGroup]) -> None:
    """Print groups, one a row."""
    _print_aligned(
        _GROUP_COLUMNS,
        [
            (
                _fingerprint(group.fingerprint),
                printable(group.code) or "-",
                str(group.open),
                str(group.redriven),
                str(group.discarded),
                _second(group.first_ms),
                _second(group.last_ms),
                " ".join(map(str, group.examples)),
                _cut(printable(group.message), _SHOWN_MESSAGE),
            )
            for group in groups
        ],
    )


def groups_json(groups: Sequence[FailureGroup]) -> list[dict[str, Any]]:
    """Return groups as JSON values."""
    return [
        {
            "fingerprint": group.fingerprint,
            "code": group.code,
            "error_type": group.error_type,
            "message": group.message,
            "count": group.count,
            "open": group.open,
            "redriven": group.redriven,
            "discarded": group.discarded,
            "first": time_text(group.first_ms),
            "last": time_text(group.last_ms),
            "examples": [str(place) for place in group.examples],
        }
        for group in groups
    ]


def print_selection(selection: Selection, verb: str) -> None:
    """Print what a run would act on, by failure, and what it cannot act on, by reason."""
    chosen = [(letter, "open") for item in selection.chosen for letter in item.letters]
    groups = grouped(chosen)  # type: ignore[arg-type]  # "open" is a state
    if groups:
        _print_aligned(
            ("failure", "code", verb, "first", "last", "message"),
            [
                (
                    _fingerprint(group.fingerprint),
                    printable(group.code) or "-",
                    str(group.count),
                    _second(group.first_ms),
                    _second(group.last_ms),
                    _cut(printable(group.message), _SHOWN_MESSAGE),
                )
                for group in groups
            ],
        )
    reasons = Counter(item.reason for item in selection.refused)
    examples = {item.reason: item.letter.place for item in selection.refused}
    for reason, count in reasons.most_common():
        console.note(f"cannot be done for {count}, such as {examples[reason]}: {reason}")


def letter_json(letter: DeadLetter, state: DeadLetterState, resolution: Resolution | None) -> dict[str, Any]:
    """Return a dead letter as JSON values. A key that is not UTF-8 comes as `key_base64`."""
    content: dict[str, Any] = {
        "partition": letter.place.partition,
        "offset": letter.place.offset,
        "time": time_text(letter.timestamp_ms),
        **_key_json(letter.key),
        "bytes": letter.size,
        "type": letter.event_type,
        "code": letter.code,
        "error_type": letter.error_type,
        "message": letter.message,
        "fingerprint": letter.fingerprint,
        "attempts": letter.attempts,
        "first_failed_at": letter.first_failed_at,
        "failed_at": letter.failed_at,
        "original": letter.original,
        "state": state,
    }
    if letter.redrive_id:
        content["redrive_id"] = letter.redrive_id
    if resolution is not None:
        content["resolution"] = resolution
    return content


def whole_json(whole: ReadableDeadLetter, state: DeadLetterState, resolution: Resolution | None) -> dict[str, Any]:
    """Return a dead letter whole as JSON values."""
    return {
        **letter_json(whole.letter, state, resolution),
        "headers": [list(header) for header in whole.headers],
        "envelope": whole.envelope,
        "problem": whole.problem,
        "payload": whole.payload if whole.text is None else whole.text,
    }


def whole_lines(whole: ReadableDeadLetter, state: DeadLetterState, resolution: Resolution | None) -> Iterator[str]:
    """Yield the lines that show a dead letter whole: why it is here, what was done, headers, envelope, payload."""
    letter = whole.letter
    yield f"{letter.place}  {time_text(letter.timestamp_ms)}  {printable(letter.event_type) or '-'}  {state}"
    yield f"  {letter.code or '-'}: {printable(letter.message)}"
    tries = "once" if letter.attempts == 1 else f"{letter.attempts} times"
    yield f"  from {letter.original or 'an unknown place'}, tried {tries}, fingerprint {letter.fingerprint or '-'}"
    yield f"  key {key_text(letter.key, None)}"
    if resolution is not None:
        reason = f": {printable(resolution.reason)}" if resolution.reason else ""
        edited = " with a changed payload" if resolution.edited else ""
        yield f"  {resolution.action}{edited} by {printable(resolution.by)} at {resolution.at}{reason}"
        yield f"  redrive id {resolution.redrive_id}"
    yield "headers"
    for name, value in whole.headers:
        yield f"  {printable(name)}: {printable(value)}"
    if whole.envelope is None:
        yield f"not an envelope: {printable(whole.problem)}"
    else:
        yield "envelope"
        for name, value in whole.envelope.items():
            yield f"  {name}: {printable(str(value))}"
    yield "payload" if whole.envelope is not None else "value"
    yield from _payload_lines(whole)


def _payload_lines(whole: ReadableDeadLetter) -> Iterator[str]:
    if whole.text is not None:
        yield f"  {_cut(printable(whole.text), _SHOWN_TEXT)}"
        return
    formatted = msgspec.json.format(msgspec.json.encode(whole.payload), indent=2).decode()
    for line in formatted.splitlines():
        yield f"  {printable(line)}"


def time_text(timestamp_ms: int) -> str:
    """Return Unix milliseconds as RFC 3339 in UTC."""
    if timestamp_ms < 0:
        return "-"
    moment = datetime.fromtimestamp(timestamp_ms / 1000, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def key_text(key: bytes | None, limit: int | None = _SHOWN_KEY) -> str:
    """Return a record key as text for people."""
    if key is None:
        return "-"
    text = printable(key.decode("utf-8", "backslashreplace"))
    return text if limit is None else _cut(text, limit)


def printable(text: str) -> str:
    """Return one line in which what is not printable is escaped, so that no terminal obeys it."""
    return text if text.isprintable() else "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def _row(letter: DeadLetter, state: DeadLetterState) -> tuple[str, ...]:
    return (
        str(letter.place),
        _second(letter.timestamp_ms),
        key_text(letter.key),
        printable(letter.code) or "-",
        _event(letter.event_type),
        _fingerprint(letter.fingerprint),
        str(letter.attempts),
        state,
    )


def _print_aligned(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows under column titles, each on one line however narrow the terminal is: for grep, and for 100,000."""
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in (columns, *rows))
    typer.echo("\n".join(lines))


def _event(event_type: str) -> str:
    """Return the event part of a type, or what there is instead."""
    segments = event_type.split(".")
    return printable(segments[3] if len(segments) == 5 else event_type) or "-"


def _fingerprint(text: str) -> str:
    return printable(text[:_SHOWN_FINGERPRINT]) or "-"


def _second(timestamp_ms: int) -> str:
    """Return a time as `--since` takes it, to the second."""
    return time_text(timestamp_ms - timestamp_ms % 1000).replace(".000Z", "Z")


def _key_json(key: bytes | None) -> dict[str, str | None]:
    try:
        return {"key": None if key is None else key.decode()}
    except UnicodeDecodeError:
        return {"key_base64": base64.b64encode(key or b"").decode()}


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
