"""Shows what the local services are doing: a live line on a terminal, plain lines elsewhere; always on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Self

import typer

from omnibase_infra.shared.local_services import Progress, ProgressCallback

if TYPE_CHECKING:
    from rich.progress import Progress as Display
    from rich.progress import TaskID


@contextmanager
def show_progress() -> Iterator[ProgressCallback]:
    """Yield the callback that shows steps while the block runs."""
    if not sys.stderr.isatty():
        yield _print_line
        return
    with _LiveLine() as live_line:
        yield live_line.show


def _print_line(event: Progress) -> None:
    typer.echo(_finished(event) if event.done else f"{event.service}: {event.step} ...", err=True)


class _LiveLine:
    """A spinner with the elapsed time for each step under way; finished steps stay as lines above it."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._display: Display | None = None
        self._tasks: dict[tuple[str, str], TaskID] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def show(self, event: Progress) -> None:
        display = self._open()
        key = (event.service, event.step)
        if not event.done:
            self._tasks[key] = display.add_task(f"{event.service}: {event.step}", total=None)
            return
        if (task := self._tasks.pop(key, None)) is not None:
            display.remove_task(task)
        display.console.print(_finished(event), markup=False, highlight=False)

    def _open(self) -> Display:
        # Only now: where everything runs already there is nothing to show, and no need to load it.
        if self._display is None:
            from rich.console import Console
            from rich.progress import Progress as Display
            from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

            columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
            display = Display(*columns, console=Console(stderr=True, soft_wrap=True), transient=True)
            self._display = self._stack.enter_context(display)
        return self._display


def _finished(event: Progress) -> str:
    duration = f" ({event.seconds:.1f} s)" if event.seconds else ""
    return f"{event.service}: {event.step}{duration}"
