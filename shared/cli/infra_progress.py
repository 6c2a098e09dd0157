"""Shows what the local services are doing: a live line on a terminal, plain lines elsewhere; always on stderr."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress as Display
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

from omnibase_infra.shared.local_services import Progress, ProgressCallback


@contextmanager
def show_progress() -> Iterator[ProgressCallback]:
    """Yield the callback that shows steps while the block runs."""
    console = Console(stderr=True, soft_wrap=True)
    if console.is_terminal:
        with _display(console) as display:
            yield _live_line(console, display)
    else:
        yield _plain_lines(console)


def _display(console: Console) -> Display:
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    return Display(*columns, console=console, transient=True)


def _live_line(console: Console, display: Display) -> ProgressCallback:
    tasks = {}

    def show(event: Progress) -> None:
        key = (event.service, event.step)
        if not event.done:
            tasks[key] = display.add_task(f"{event.service}: {event.step}", total=None)
            return
        if (task := tasks.pop(key, None)) is not None:
            display.remove_task(task)
        console.print(_finished(event), markup=False, highlight=False)

    return show


def _plain_lines(console: Console) -> ProgressCallback:
    def show(event: Progress) -> None:
        text = _finished(event) if event.done else f"{event.service}: {event.step} ..."
        console.print(text, markup=False, highlight=False)

    return show


def _finished(event: Progress) -> str:
    duration = f" ({event.seconds:.1f} s)" if event.seconds else ""
    return f"{event.service}: {event.step}{duration}"
