"""Import structlog without rich.

When rich is installed structlog imports it for its pretty stack traces: 115 ms and 8 MB at every start, for an output
that shows local variables, secrets among them, and that no worker uses. An import marked as missing stays out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def _as_if_missing(name: str) -> Iterator[None]:
    modules: dict[str, Any] = sys.modules
    loaded = modules.get(name)
    modules[name] = None  # the import system's own mark for a module that must not be found
    try:
        yield
    finally:
        if loaded is None:
            del modules[name]
        else:
            modules[name] = loaded


with _as_if_missing("rich"):
    import structlog

__all__ = ["structlog"]
