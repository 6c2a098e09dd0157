"""Ctrl-C as a request: what is under way is finished first. A second one ends the process as usual."""

from __future__ import annotations

import signal
import time
from types import FrameType
from typing import Any, Final, Self

# Short enough that a request to stop is heard at once, to a person.
_LOOK_SECONDS: Final = 0.1
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Hears Ctrl-C and SIGTERM while the block runs: `with Interruption() as interruption: ... interruption.wait(1)`.

    Attributes:
        asked: whether one of them came.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._before = {number: signal.signal(number, self._ask) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def wait(self, seconds: float) -> bool:
        """Wait for so long, or until one came; return whether one came."""
        deadline = time.monotonic() + seconds
        while not self.asked and (remaining := deadline - time.monotonic()) > 0:
            time.sleep(min(remaining, _LOOK_SECONDS))
        return self.asked

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        # Nothing but this: the step it interrupts may hold any lock.
        self.asked = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
