"""Limits on what is decoded: checked before and beside decoding, with bounded CPU and memory.

The fast path costs about a microsecond for compact JSON, as producers of this project write it. Only
documents that differ from their own canonical form are scanned key by key.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, NoReturn

import msgspec
import orjson

from omnibase_infra.shared.core.errors import UndecodableError

_STRINGS: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"', re.DOTALL)
_OPENING: Final = frozenset(b"[{")
_CLOSING: Final = frozenset(b"]}")


class DecodeLimits(msgspec.Struct, frozen=True):
    """What a record's value may be at most.

    Attributes:
        max_bytes: size of the value.
        max_depth: nesting of objects and arrays, counted from the envelope.
        max_fields: keys in the whole document.
    """

    max_bytes: int = 1024 * 1024
    max_depth: int = 64
    max_fields: int = 10_000

    def check(self, value: bytes) -> None:
        """Refuse a document that breaks a limit or is not strict JSON (RFC 8259 with unique keys, I-JSON).

        Raises:
            UndecodableError: says which limit, or what is not strict JSON and where.
        """
        size = len(value)
        if size > self.max_bytes:
            raise UndecodableError(f"the value has {size} bytes, at most {self.max_bytes} are decoded")
        if not value:
            raise UndecodableError("the value is empty, expected a CloudEvents 1.0 envelope in JSON")
        # Brackets and colons inside strings only make the cheap count too high, never too low. To find that there is
        # no array is ten times as fast as to count none.
        opened = value.count(b"{") + (value.count(b"[") if b"[" in value else 0)
        if opened > self.max_depth and (depth := _depth(value)) > self.max_depth:
            raise UndecodableError(f"nested {depth} levels deep, at most {self.max_depth} are decoded")
        # A field takes four bytes at least (`"":0`), so small documents need no count.
        if size > 4 * self.max_fields and value.count(b":") > self.max_fields < (fields := _fields(value)):
            raise UndecodableError(f"{fields} fields, at most {self.max_fields} are decoded")
        try:
            if orjson.dumps(orjson.loads(value)) == value:
                return
        except orjson.JSONDecodeError as error:
            raise UndecodableError(f"not JSON in UTF-8: {error.msg} at byte {error.pos}") from None
        except orjson.JSONEncodeError as error:
            raise UndecodableError(f"not JSON in UTF-8: {error}") from None
        _check_strictly(value)


def _check_strictly(value: bytes) -> None:
    """Walk the document once more with the exact parser, for duplicate keys and non-finite numbers."""
    try:
        json.loads(value, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant, parse_int=str)
    except UnicodeDecodeError as error:
        raise UndecodableError(f"not UTF-8: {error.reason} at byte {error.start}") from None
    except json.JSONDecodeError as error:
        raise UndecodableError(f"not JSON: {error.msg} at line {error.lineno} column {error.colno}") from None
    except RecursionError:
        raise UndecodableError("nested deeper than the parser can follow") from None


def _unique_keys(pairs: list[tuple[str, Any]]) -> None:
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            raise UndecodableError(f"the key {key[:80]!r} appears twice in one object")
        seen.add(key)


def _refuse_constant(name: str) -> NoReturn:
    raise UndecodableError(f"{name} is not a JSON number")


def _depth(value: bytes) -> int:
    deepest = depth = 0
    for byte in _STRINGS.sub(b"", value):
        if byte in _OPENING:
            depth += 1
            deepest = max(deepest, depth)
        elif byte in _CLOSING:
            depth -= 1
    return deepest


def _fields(value: bytes) -> int:
    return _STRINGS.sub(b"", value).count(b":")
