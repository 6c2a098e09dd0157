"""Event loops in virtual time: several processes, one seed, no I/O; the same seed plays the same run.

Each simulated process has a loop of its own, so that it can be killed or stopped as a process is. One scheduler
decides whose callback runs next and lets time pass when there is none.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import random
import sys
import time as real_time
from asyncio import events, taskgroups
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, MutableSet
from contextlib import contextmanager
from typing import Any, Final, TypeVar

T = TypeVar("T")
EPOCH: Final = 1_750_000_000.0
# A run that takes more callbacks than this turns in a circle.
MAX_STEPS: Final = 2_000_000


class ProcessKilled(BaseException):
    """The simulated process is gone; whoever simulates it drops what it was doing."""


class RunawayError(Exception):
    """A simulation does not come to an end."""


class VirtualLoop(asyncio.AbstractEventLoop):
    """The event loop of one simulated process. Callbacks run in the order of the calls, as asyncio's do.

    Args:
        scheduler: whose time it has.
        name: of the process, for messages.
        shuffled: run ready callbacks in any order but for those from other threads; more orders than asyncio has.
    """

    def __init__(self, scheduler: VirtualScheduler, name: str, *, shuffled: bool = False) -> None:
        self.name = name
        self.frozen = False
        self.dead = False
        self._scheduler = scheduler
        self._shuffled = shuffled
        self._ready: deque[asyncio.Handle] = deque()
        self._posted: deque[asyncio.Handle] = deque()
        scheduler.add(self)

    def __repr__(self) -> str:
        return f"<VirtualLoop {self.name}>"

    # -- what asyncio asks of a loop --------------------------------------------------------------------------------

    def time(self) -> float:
        """Return virtual seconds since the start."""
        return self._scheduler.now

    def get_debug(self) -> bool:
        """Return False."""
        return False

    def is_running(self) -> bool:
        """Return whether the process lives."""
        return not self.dead

    def is_closed(self) -> bool:
        """Return whether it does not."""
        return self.dead

    def call_soon(  # type: ignore[override]  # typeshed's variadic types say the same at greater length
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Run a callback after those that are ready."""
        handle = asyncio.Handle(callback, args, self, context)
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(  # type: ignore[override]  # likewise
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """Run a callback of the simulated consumer thread; these keep their order in any case."""
        handle = asyncio.Handle(callback, args, self, context)
        (self._posted if self._shuffled else self._ready).append(handle)
        return handle

    def call_later(  # type: ignore[override]  # likewise
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """Run a callback after so many virtual seconds."""
        return self.call_at(self._scheduler.now + delay, callback, *args, context=context)

    def call_at(  # type: ignore[override]  # likewise
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.TimerHandle:
        """Run a callback at a virtual time."""
        handle = asyncio.TimerHandle(when, callback, args, self, context)
        self._scheduler.add_timer(when, self, handle)
        return handle

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """See asyncio: a cancelled timer is skipped when its time comes."""

    def create_future(self) -> asyncio.Future[Any]:
        """Return a future of this loop."""
        return asyncio.Future(loop=self)

    def create_task(  # type: ignore[override]  # likewise
        self,
        coro: Coroutine[Any, Any, T],
        *,
        name: str | None = None,
        context: contextvars.Context | None = None,
    ) -> asyncio.Task[T]:
        """Return a task of this loop."""
        return asyncio.Task(coro, loop=self, name=name, context=context)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep what asyncio would print: the run is at fault."""
        if not self._scheduler.over:
            self._scheduler.faults.append(f"{self.name}: {context.get('message')}: {context.get('exception')!r}")

    # -- what the scheduler asks ------------------------------------------------------------------------------------

    def make_ready(self, handle: asyncio.Handle) -> None:
        """Take a timer whose time has come."""
        if not self.dead:
            self._ready.append(handle)

    def run_one(self, choice: random.Random) -> None:
        """Run one ready callback."""
        ready = self._ready
        if not self._shuffled:
            handle = ready.popleft()
        else:
            index = choice.randrange(len(ready) + bool(self._posted))
            if index == len(ready):
                handle = self._posted.popleft()
            else:
                ready.rotate(-index)
                handle = ready.popleft()
                ready.rotate(index)
        if handle.cancelled():
            return
        outer = events._get_running_loop()
        events._set_running_loop(self)
        try:
            handle._run()
        finally:
            events._set_running_loop(outer)

    def forget(self) -> None:
        """Forget what is ready."""
        self._ready.clear()
        self._posted.clear()


class VirtualScheduler:
    """Time and the choice of what runs next, for all loops of a simulation.

    Attributes:
        now: virtual seconds since the start.
        random: the one source of chance; a run is a function of its seed.
        faults: what asyncio complained about.
    """

    def __init__(self, seed: int) -> None:
        self.now = 0.0
        self.random = random.Random(seed)  # noqa: S311 - a simulation
        self.faults: list[str] = []
        self.over = False
        self._loops: list[VirtualLoop] = []
        self._timers: list[tuple[float, int, VirtualLoop, asyncio.TimerHandle]] = []
        self._numbered = 0
        self._steps = 0
        self._buried: list[tuple[VirtualLoop, set[asyncio.Task[Any]]]] = []

    def add(self, loop: VirtualLoop) -> None:
        """Let a loop take part."""
        self._loops.append(loop)

    def add_timer(self, when: float, loop: VirtualLoop, handle: asyncio.TimerHandle) -> None:
        """Make a handle ready at a time."""
        self._numbered += 1
        heapq.heappush(self._timers, (when, self._numbered, loop, handle))

    def kill(self, loop: VirtualLoop) -> None:
        """End a process as SIGKILL does: nothing of it runs any more, no `finally`, no callback."""
        loop.dead = True
        self._loops.remove(loop)
        # Kept: collected as garbage, the coroutines would run their `finally` blocks now.
        self._buried.append((loop, asyncio.all_tasks(loop)))

    def step(self) -> bool:
        """Run one callback, or let time pass up to the next timer; return False when nothing is left."""
        ready = self._ready_loops()
        if not ready:
            return self._pass_time()
        self._run_one_of(ready)
        return True

    def _ready_loops(self) -> list[VirtualLoop]:
        return [loop for loop in self._loops if (loop._ready or loop._posted) and not loop.frozen]

    def _run_one_of(self, ready: list[VirtualLoop]) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            raise RunawayError(f"{MAX_STEPS} callbacks and no end, at {self.now:.3f} s")
        loop = ready[0] if len(ready) == 1 else self.random.choice(ready)
        loop.run_one(self.random)

    def run_until(self, is_over: Callable[[], bool], deadline: float) -> bool:
        """Run until `is_over` or the virtual time; return whether it is over. May be nested in a plain callback."""
        while not is_over():
            if self.now >= deadline or not self._step_before(deadline):
                return is_over()
        return True

    def end(self) -> None:
        """Cancel what is left of all processes, the killed ones too, so that no coroutine is left unfinished."""
        self.over = True
        self._loops += [loop for loop, _ in self._buried]
        for loop in self._loops:
            loop.frozen = loop.dead = False
            for task in asyncio.all_tasks(loop):
                task.cancel()
        self._timers.clear()
        for _ in range(MAX_STEPS):
            if not self.step():
                break
        for loop in self._loops:
            for task in asyncio.all_tasks(loop):
                task._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio's own switch
            loop.dead = True
            loop.forget()
        self._buried.clear()

    def _step_before(self, deadline: float) -> bool:
        """Step, but let no more time pass than up to the deadline."""
        if ready := self._ready_loops():
            self._run_one_of(ready)
            return True
        if not self._timers or self._timers[0][0] > deadline:
            self.now = max(self.now, deadline)
            return True
        return self._pass_time()

    def _pass_time(self) -> bool:
        timers = self._timers
        while timers and timers[0][3].cancelled():
            heapq.heappop(timers)
        if not timers:
            return False
        self.now = max(self.now, timers[0][0])
        while timers and timers[0][0] <= self.now:
            _, _, loop, handle = heapq.heappop(timers)
            if not handle.cancelled():
                loop.make_ready(handle)
        return True


class VirtualTimeModule:
    """Stands in for the module `time` in modules that run inside a simulation."""

    def __init__(self, scheduler: VirtualScheduler) -> None:
        self._scheduler = scheduler

    def time(self) -> float:
        """Return virtual Unix time."""
        return EPOCH + self._scheduler.now

    def time_ns(self) -> int:
        """Return virtual Unix time in nanoseconds."""
        return int(self.time() * 1e9)

    def monotonic(self) -> float:
        """Return virtual seconds."""
        return self._scheduler.now

    perf_counter = monotonic


class OrderedSet(MutableSet[T]):
    """A set in the order of insertion, where `set` would follow addresses and the hash seed of the process."""

    def __init__(self, items: Iterable[T] = ()) -> None:
        self._items = dict.fromkeys(items)

    def __contains__(self, item: object) -> bool:
        return item in self._items

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def add(self, value: T) -> None:
        """Add an item at the end."""
        self._items[value] = None

    def discard(self, value: T) -> None:
        """Remove an item if it is there."""
        self._items.pop(value, None)

    def update(self, *others: Iterable[T]) -> None:
        """Add items."""
        for other in others:
            self._items.update(dict.fromkeys(other))

    def intersection(self, other: Iterable[T]) -> OrderedSet[T]:
        """Return what is in both."""
        return OrderedSet(item for item in other if item in self._items)

    def difference(self, other: Iterable[T]) -> OrderedSet[T]:
        """Return what is not in the other."""
        return OrderedSet(self) - OrderedSet(other)  # type: ignore[return-value]  # the mixin says AbstractSet

    def union(self, *others: Iterable[T]) -> OrderedSet[T]:
        """Return what is in one of them."""
        both = OrderedSet(self)
        both.update(*others)
        return both


class SilentLog:
    """A logger that writes nothing."""

    def info(self, *_: object, **__: object) -> None:
        """Write nothing."""

    debug = warning = error = info

    def bind(self, **_: object) -> SilentLog:
        """Return itself."""
        return self


@contextmanager
def virtual_time(scheduler: VirtualScheduler, seed: int, *, package: str = "omnibase_infra.shared.") -> Iterator[None]:
    """Let the modules of a package read virtual time and chance of this seed, and log nothing."""
    clock, log = VirtualTimeModule(scheduler), SilentLog()
    replaced: list[tuple[dict[str, Any], str, Any]] = []
    for name, module in list(sys.modules.items()):
        if not name.startswith(package) or name == __name__:
            continue
        names = vars(module)
        if names.get("time") is real_time:
            replaced.append((names, "time", real_time))
            names["time"] = clock
        if callable(names.get("get_logger")) and not name.endswith(".structured_logger"):
            replaced.append((names, "get_logger", names["get_logger"]))
            names["get_logger"] = lambda: log
    ordered = [vars(module) for name, module in sys.modules.items() if name.startswith(f"{package}runtime.")]
    ordered.append(vars(taskgroups))
    for names in ordered:
        names["set"] = OrderedSet
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)
        for names in ordered:
            del names["set"]
        for names, attribute, value in replaced:
            names[attribute] = value
