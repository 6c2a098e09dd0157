"""Dependencies of a worker: their breakers, the gates of the lanes that need them, and whether they answer.

A breaker opens on availability failures only. While it is open nothing that needs the dependency starts, its
topics are paused, and one probe at a time finds out whether it is back: a record, or a ping when none waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Protocol, runtime_checkable

from omnibase_infra.shared.core.errors import DependencyUnavailableError, OmnibaseError
from omnibase_infra.shared.core.ports import EffectStore
from omnibase_infra.shared.core.worker_spec import WorkerSpec
from omnibase_infra.shared.observability.log_events import LogEvent
from omnibase_infra.shared.observability.structured_logger import get_logger
from omnibase_infra.shared.resilience.circuit_breaker_factory import CircuitBreakerFactory
from omnibase_infra.shared.resilience.dependency_breaker import DependencyBreaker, Permit
from omnibase_infra.shared.resilience.retry_budget import RetryBudget

PING_SECONDS: Final = 1.0
PING_TIMEOUT_SECONDS: Final = 3.0


@runtime_checkable
class DescribesItself(Protocol):
    """A store that knows more of its server than whether it answers. Called on the event loop; must not block."""

    def describe(self) -> Mapping[str, Any]:
        """Return health, connections and the like, ready for JSON."""
        ...


class Dependency:
    """One dependency: its store, its breaker, and what it said last."""

    def __init__(self, store: EffectStore, breaker: DependencyBreaker) -> None:
        self.store = store
        self.breaker = breaker
        self.message = "not checked yet"
        self.answers = False

    @property
    def usable(self) -> bool:
        """Return whether it answered last time and its breaker is closed."""
        return self.answers and self.breaker.state == "closed"

    def succeeded(self, permit: Permit) -> None:
        """Note a round trip that worked."""
        self.answers, self.message = True, ""
        self.breaker.record_success(permit)

    def failed(self, permit: Permit, error: DependencyUnavailableError) -> None:
        """Note an availability failure."""
        self.answers, self.message = False, error.message
        self.breaker.record_failure(permit, error)


class DependencyPassage:
    """Permits of all breakers a batch needs."""

    __slots__ = ("_budget", "_changed", "_held", "limit")

    def __init__(
        self, held: Sequence[tuple[Dependency, Permit]], changed: Callable[[], None], budget: RetryBudget | None = None
    ) -> None:
        self._held = held
        self._changed = changed
        self._budget = budget
        self.limit = 1 if any(permit.probe for _, permit in held) else None

    def succeeded(self) -> None:
        """Report that the dependencies answered."""
        if self._budget is not None:
            self._budget.called()
        for dependency, permit in self._held:
            before = dependency.answers
            dependency.succeeded(permit)
            if not before:
                self._changed()

    def failed(self, error: DependencyUnavailableError) -> None:
        """Report that one of them is down; the others' permits are given back."""
        for dependency, permit in self._held:
            if dependency.store.dependency == error.dependency:
                before = dependency.answers
                dependency.failed(permit, error)
                if before:
                    self._changed()
            else:
                dependency.breaker.release(permit)

    def silent(self) -> str | None:
        """Return the name of a dependency that did not answer when it was last asked, if there is one."""
        return next((one.store.dependency for one, _ in self._held if not one.answers), None)

    def release(self) -> None:
        """Give the permits back; after an outcome was reported this does nothing."""
        for dependency, permit in self._held:
            dependency.breaker.release(permit)


class DependencyGate:
    """Holds a lane back while a breaker of what it needs is not closed; lets one probe at a time through."""

    def __init__(
        self, dependencies: Sequence[Dependency], changed: Callable[[], None], budget: RetryBudget | None = None
    ) -> None:
        self._dependencies = dependencies
        self._changed = changed
        self._budget = budget

    def enter(self) -> DependencyPassage | None:
        """Return a passage when every breaker grants a permit."""
        held: list[tuple[Dependency, Permit]] = []
        for dependency in self._dependencies:
            permit = dependency.breaker.permit()
            if not permit.granted:
                for other, granted in held:
                    other.breaker.release(granted)
                return None
            held.append((dependency, permit))
        return DependencyPassage(held, self._changed, self._budget)

    def seconds_until_open(self) -> float:
        """Return how long to wait before asking again: at least 20 ms, at most a second."""
        waits = [one.breaker.seconds_until_probe for one in self._dependencies if one.breaker.state != "closed"]
        return min(1.0, max(0.02, *waits)) if waits else 0.02


class Dependencies:
    """All dependencies of a worker, and the task that looks at them while no record does."""

    def __init__(
        self,
        spec: WorkerSpec,
        stores: Mapping[str, EffectStore],
        breakers: CircuitBreakerFactory,
        on_change: Callable[[], None],
        budget: RetryBudget | None = None,
    ) -> None:
        """Args:
        spec: whose dependencies these are.
        stores: by the dependency's name.
        breakers: make the breaker of each.
        on_change: told that one has become usable or unusable.
        budget: of retries, to which each batch that is answered adds.
        """
        self._budget = budget
        self._spec = spec
        self._on_change = on_change
        self.by_name = {name: Dependency(store, breakers.create(name)) for name, store in stores.items()}
        for dependency in self.by_name.values():
            dependency.breaker.on_change(lambda _: on_change())

    def gate(self, needs: Iterable[str]) -> DependencyGate:
        """Return the gate of an operation."""
        needed = [self.by_name[name] for name in needs if name in self.by_name]
        return DependencyGate(needed, self._on_change, self._budget)

    def blocked_topics(self) -> frozenset[str]:
        """Return the topics all of whose operations need a dependency whose breaker is not closed."""
        down = {name for name, dependency in self.by_name.items() if dependency.breaker.state != "closed"}
        if not down:
            return frozenset()
        free = {operation.topic for operation in self._spec.operations if down.isdisjoint(operation.needs)}
        return frozenset(operation.topic for operation in self._spec.operations if operation.topic not in free)

    def first_down(self, needs: Iterable[str]) -> str | None:
        """Return the first of these dependencies whose breaker is not closed, if there is one."""
        known = ((name, self.by_name.get(name)) for name in needs)
        return next((name for name, one in known if one is not None and one.breaker.state != "closed"), None)

    def describe(self) -> dict[str, Any]:
        """Return the state of each dependency, for `/readyz`."""
        return {
            name: "ok" if dependency.usable else (dependency.message or f"breaker {dependency.breaker.state}")
            for name, dependency in self.by_name.items()
        }

    def details(self) -> dict[str, Any]:
        """Return what is known of each dependency, for `/info`; no secrets."""
        return {
            name: {
                "breaker": one.breaker.state,
                **(one.store.describe() if isinstance(one.store, DescribesItself) else {}),
            }
            for name, one in self.by_name.items()
        }

    @property
    def usable(self) -> bool:
        """Return whether all are usable."""
        return all(dependency.usable for dependency in self.by_name.values())

    async def watch(self) -> None:
        """Ping each dependency every second until cancelled; a ping is the probe of an idle, paused worker."""
        async with asyncio.TaskGroup() as group:
            for dependency in self.by_name.values():
                group.create_task(self._watch(dependency))

    async def _watch(self, dependency: Dependency) -> None:
        while True:
            before = dependency.usable
            await self._look(dependency)
            if dependency.usable != before:
                self._on_change()
            await asyncio.sleep(PING_SECONDS)

    async def _look(self, dependency: Dependency) -> None:
        permit = dependency.breaker.permit()
        if not permit.granted:
            return
        name = dependency.store.dependency
        try:
            async with asyncio.timeout(PING_TIMEOUT_SECONDS):
                await dependency.store.ping()
        except DependencyUnavailableError as error:
            dependency.failed(permit, error)
        except TimeoutError:
            late = f"{name} did not answer a ping within {PING_TIMEOUT_SECONDS:g} s"
            dependency.failed(permit, DependencyUnavailableError(late, dependency=name))
        except OmnibaseError as error:
            # It answers, but not as it should (a pool without a free connection, a missing table): not usable,
            # and nothing for the breaker.
            dependency.answers, dependency.message = False, error.message
            dependency.breaker.release(permit)
        except Exception as error:  # noqa: BLE001 - a driver's surprise at a ping must not end the work under way
            dependency.answers, dependency.message = False, f"a ping failed unexpectedly: {type(error).__name__}"
            dependency.breaker.release(permit)
            get_logger().error(LogEvent.DEPENDENCY_UNAVAILABLE, dependency=name, error=error, exc_info=error)
        except BaseException:
            dependency.breaker.release(permit)
            raise
        else:
            dependency.succeeded(permit)
