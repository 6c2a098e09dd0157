"""Tells what the demo is doing, on stderr: live lines with a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import msgspec
import typer

if TYPE_CHECKING:
    from rich.progress import Progress

# Between two plain lines about one step: enough to see that it moves, few enough to read.
PLAIN_SECONDS: Final = 3.0


class StepTime(msgspec.Struct, frozen=True):
    """A finished step and how long it took."""

    step: str
    seconds: float


class Narrator:
    """Shows steps as they go and remembers how long each took."""

    def __init__(self) -> None:
        self.times: list[StepTime] = []
        self._display: Progress | None = None
        self._is_mute = False

    @contextmanager
    def live(self) -> Iterator[None]:
        """Draw live lines for the length of the block, where stderr is a terminal."""
        if not sys.stderr.isatty():
            yield
            return
        display = self._display = _display()
        display.start()
        try:
            yield
        finally:
            self._display = None
            try:
                display.stop()
            except OSError:
                # With the terminal gone there is nothing to tidy up on it.
                if not self._is_mute:
                    raise

    def mute(self) -> None:
        """Say nothing more: there is no terminal any longer."""
        self._display = None
        self._is_mute = True

    @contextmanager
    def step(self, name: str) -> Iterator[Step]:
        """Show a step; when the block ends well, say what came of it and how long it took."""
        if self._display is None:
            self.say(f"{name} ...")
        step, began = Step(name, self, self._display), time.monotonic()
        try:
            yield step
        finally:
            step.close()
        seconds = time.monotonic() - began
        self.times.append(StepTime(name, round(seconds, 3)))
        self.say(f"{name}: {step.outcome or 'done'} ({seconds:.1f} s)")

    def say(self, text: str) -> None:
        """Print a line that stays.

        Raises:
            OSError: nobody reads it any more. Only once: what must still be done can say what it likes.
        """
        if self._is_mute:
            return
        try:
            if self._display is not None:
                self._display.console.print(text, markup=False, highlight=False)
            else:
                typer.echo(text, err=True)
        except OSError:
            self.mute()
            raise


class Step:
    """A step under way. `outcome` is shown behind its name when it is done."""

    def __init__(self, name: str, narrator: Narrator, display: Progress | None) -> None:
        self.outcome = ""
        self._narrator = narrator
        self._display = display
        self._task = None if display is None else display.add_task(name, total=None)
        self._said = time.monotonic()

    def at(self, done: int, total: int, note: str) -> None:
        """Show how far it is. Cheap enough to be called often."""
        if self._display is not None and self._task is not None:
            text = f"{done:,} of {total:,}, {note}"
            self._display.update(self._task, completed=done, total=total, description=text)
        elif time.monotonic() - self._said >= PLAIN_SECONDS:
            self._said = time.monotonic()
            self.say(f"{done:,} of {total:,}, {note}")

    def say(self, text: str) -> None:
        """Tell of something that happened meanwhile."""
        self._narrator.say(f"  {text}")

    def close(self) -> None:
        """Take the live line away."""
        if self._display is not None and self._task is not None:
            self._display.remove_task(self._task)


def _display() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns: tuple[ProgressColumn, ...] = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TimeElapsedColumn(),
    )
    return Progress(*columns, console=Console(stderr=True, soft_wrap=True), transient=True)
