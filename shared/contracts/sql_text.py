"""Just enough of PostgreSQL's lexical rules to tell code from literals and comments."""

from __future__ import annotations

import re
from typing import Final

# What a statement may hide `;` and `$1` in, tried in this order at each place.
_OPAQUE: Final = re.compile(
    r"""
      --[^\n]*
    | (?P<block>/\*)
    | (?:[eE])'(?:[^'\\]|''|\\.)*'
    | '(?:[^']|'')*'
    | "(?:[^"]|"")*"
    | (?<![\w$])(?P<tag>\$(?:[A-Za-z_]\w*)?\$)
    """,
    re.VERBOSE | re.DOTALL,
)
_PLACEHOLDER: Final = re.compile(r"(?<![\w$])\$([0-9]{1,5})")
_WRITES: Final = re.compile(
    r"\b(?:insert|update|delete|merge|call|do|copy|truncate|create|alter|drop|lock)\b", re.IGNORECASE
)


def mask(sql: str) -> str:
    """Return `sql` with literals, quoted names and comments blanked, every other character in its place.

    An unterminated literal or comment is blanked to the end of the text.
    """
    pieces: list[str] = []
    position = 0
    for start, end in _opaque_spans(sql):
        pieces.append(sql[position:start])
        pieces.append("".join("\n" if character == "\n" else " " for character in sql[start:end]))
        position = end
    pieces.append(sql[position:])
    return "".join(pieces)


def placeholders(masked: str) -> list[tuple[int, int]]:
    """Return (number, offset) of each `$n` in masked SQL, in order of appearance."""
    return [(int(match[1]), match.start()) for match in _PLACEHOLDER.finditer(masked)]


def reads_only(masked: str) -> bool:
    """Return whether masked SQL has no word that writes. Functions it calls are not looked into."""
    return not _WRITES.search(masked) and "for update" not in " ".join(masked.lower().split())


def _opaque_spans(sql: str) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    position = 0
    while match := _OPAQUE.search(sql, position):
        end = match.end()
        if match["block"]:
            end = _block_comment_end(sql, match.start())
        elif tag := match["tag"]:
            closing = sql.find(tag, match.end())
            end = len(sql) if closing < 0 else closing + len(tag)
        spans.append((match.start(), end))
        position = end
    # A quote that never closes matches nothing above: all behind it is text.
    tail = re.search(r"['\"]", sql[position:])
    if tail:
        spans.append((position + tail.start(), len(sql)))
    return spans


def _block_comment_end(sql: str, start: int) -> int:
    """PostgreSQL's block comments nest."""
    depth = 0
    for match in re.compile(r"/\*|\*/").finditer(sql, start):
        depth += 1 if match[0] == "/*" else -1
        if depth == 0:
            return match.end()
    return len(sql)
