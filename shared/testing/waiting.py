"""Waiting for something to come true: with a bound, and with its name in the failure. Never for a time."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any, Final

LOOK_SECONDS: Final = 0.05
WAIT_SECONDS: Final = 60.0


async def wait_for_condition(condition: Callable[[], Any], what: str, seconds: float = WAIT_SECONDS) -> Any:
    """Wait until `condition()`, or what it returns when awaited, is truthy; return it.

    Args:
        condition: asked every 50 ms; what it raises ends the wait.
        what: is to come true, for the failure.
        seconds: how long at most.

    Raises:
        AssertionError: it did not come true in time; says what was waited for and what was seen last.
    """
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:g} s: {what}; last seen: {value!r}")
        await asyncio.sleep(LOOK_SECONDS)
