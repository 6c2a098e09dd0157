"""What a statement looks like without its values, and a short hash of that: the same on every worker and release.

    SELECT * FROM orders WHERE id = 17 AND note IN ('a', 'b')  →  select * from orders where id = ? and note in (?)

The hash names a pattern in logs, metrics and `/info`. Values never get into it, nor into the text.
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import blake2b
from typing import Final

import msgspec

# Longer text says no more to a person; the hash is over all of it.
SHOWN_CHARACTERS: Final = 300
# SQL of other people may be of any length, and is read on the event loop.
_READ_CHARACTERS: Final = 10_000
_TOKEN: Final = re.compile(
    r"""
      (?P<space>\s+|--[^\n]*)
    | (?P<block>/\*)
    | (?P<text>(?:[eE]|[bBxXnN]|[uU]&)?'(?:[^'\\]|''|\\.)*(?:'|\Z))
    | (?P<name>"(?:[^"]|"")*(?:"|\Z))
    | (?P<dollar>\$(?:[A-Za-z_]\w*)?\$)
    | (?P<parameter>\$[0-9]+)
    | (?P<number>(?:0[xX][0-9a-fA-F_]+|0[oO][0-7_]+|0[bB][01_]+|[0-9][0-9_]*(?:\.[0-9_]*)?(?:[eE][+-]?[0-9]+)?|\.[0-9]+))
    | (?P<word>[^\W\d][\w$]*)
    | (?P<sign>::|(?:(?!--|/\*)[-+*/<>=~!@\#%^&|`])+|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_STANDARD_TEXT: Final = re.compile(r"'(?:[^']|'')*(?:'|\Z)")
_BLOCK_ENDS: Final = re.compile(r"/\*|\*/")
_VALUES: Final = re.compile(r"\?(?: , \?)+")
_ROWS: Final = re.compile(r"\( \? \)(?: , \( \? \))+")
_TIGHT: Final = re.compile(r" (?=[,)\].;]|::)|(?<=[(\[.])(?: )|(?<=::) ")
_CALL: Final = re.compile(r"(?<=[\w\"]) (?=\[)")


class QueryPattern(msgspec.Struct, frozen=True):
    """A statement without its values.

    Attributes:
        fingerprint: 16 hexadecimal digits.
        text: at most 300 characters.
    """

    fingerprint: str
    text: str


def pattern_of(sql: str) -> QueryPattern:
    """Return the pattern of one SQL statement, of which 10,000 characters are read; never raises, whatever the text is."""
    return _pattern_of(sql[:_READ_CHARACTERS])


@lru_cache(maxsize=1024)
def _pattern_of(sql: str) -> QueryPattern:
    text = normalised(sql)
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return QueryPattern(digest, text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…")


def normalised(sql: str) -> str:
    """Return the statement with `?` for values and parameters, one for a list of them, in one spelling.

    Keywords and unquoted names are lower case, as PostgreSQL reads them; comments and extra space are gone.
    """
    pieces = list(_pieces(sql))
    while pieces and pieces[-1] == ";":
        pieces.pop()
    # Batches of any size, and lists of any length, are one pattern.
    text = _ROWS.sub("( ? )", _VALUES.sub("?", " ".join(pieces)))
    return _CALL.sub("", _TIGHT.sub("", text))


def _pieces(sql: str) -> list[str]:
    pieces: list[str] = []
    position = 0
    while match := _TOKEN.match(sql, position):
        position = match.end()
        kind, token = match.lastgroup, match[0]
        if kind == "space":
            continue
        if kind == "block":
            position = _block_end(sql, match.start())
        elif kind == "dollar":
            closing = sql.find(token, position)
            position = len(sql) if closing < 0 else closing + len(token)
            pieces.append("?")
        elif kind == "text":
            if token[0] not in "eE":
                # A backslash is an ordinary character in standard strings.
                standard = _STANDARD_TEXT.match(sql, match.start() + token.index("'"))
                assert standard is not None
                position = standard.end()
            pieces.append("?")
        elif kind in ("parameter", "number"):
            pieces.append("?")
        elif kind == "sign" and _has_value_sign(token):
            position -= 1
            pieces.append(token[:-1])
        else:
            pieces.append(token if kind == "name" else token.lower())
    return _without_signs(pieces)


def _has_value_sign(token: str) -> bool:
    """PostgreSQL's rule: only an operator with one of these characters may end in a sign."""
    return len(token) > 1 and token[-1] in "+-" and not set(token) & set("~!@#%^&|`")


def _without_signs(pieces: list[str]) -> list[str]:
    """Drop the sign of a negative number, which belongs to its value."""
    kept: list[str] = []
    for piece in pieces:
        before = kept[-2] if len(kept) > 1 else ""
        if piece == "?" and kept and kept[-1] in "+-" and not (before in ("?", ")", "]") or before[-1:].isalnum()):
            kept.pop()
        kept.append(piece)
    return kept


def _block_end(sql: str, start: int) -> int:
    """PostgreSQL's block comments nest."""
    depth = 0
    for match in _BLOCK_ENDS.finditer(sql, start):
        depth += 1 if match[0] == "/*" else -1
        if depth == 0:
            return match.end()
    return len(sql)
