"""The named statements of `queries.sql`, read once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

_NAME_LINE: Final = re.compile(r"^-- name: (?P<name>[a-z_]+)\n", re.MULTILINE)


@cache
def named_queries() -> Mapping[str, str]:
    """Return SQL by name."""
    text = Path(__file__).with_name("queries.sql").read_text(encoding="utf-8")
    _, *parts = _NAME_LINE.split(text)
    return {name: sql.strip() for name, sql in zip(parts[::2], parts[1::2], strict=True)}
