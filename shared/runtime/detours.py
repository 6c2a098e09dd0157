"""Detours: on a topic whose operations differ in what they need, an outage holds back some records and not others.

Such a topic is not paused. What waits for the dependency goes by the retry topic, in order and durably, so that it
does not fill the worker; from there it waits in its lane until the dependency is back. No attempt is spent.
"""

from __future__ import annotations

import asyncio
from typing import Final

from omnibase_infra.shared.core.clock import Clock, SystemClock
from omnibase_infra.shared.core.errors import DependencyUnavailableError
from omnibase_infra.shared.core.worker_spec import WorkerSpec
from omnibase_infra.shared.runtime.dependencies import Dependencies
from omnibase_infra.shared.runtime.lanes import Lane, Lanes
from omnibase_infra.shared.runtime.parking import Parking
from omnibase_infra.shared.runtime.records import Record

LOOK_SECONDS: Final = 0.25
# A breaker that closes again soon is not worth the way over the retry topic.
DETOUR_AFTER_SECONDS: Final = 2.0


def has_detours(spec: WorkerSpec) -> bool:
    """Return whether operations of one topic differ in what they need."""
    needs: dict[str, set[frozenset[str]]] = {}
    for operation in spec.operations:
        needs.setdefault(operation.topic, set()).add(frozenset(operation.needs))
    return any(len(different) > 1 for different in needs.values())


class Detours:
    """Parks what waits for a dependency that is down while others of its topic need not wait. Event loop."""

    def __init__(
        self,
        spec: WorkerSpec,
        lanes: Lanes,
        parking: Parking,
        dependencies: Dependencies,
        clock: Clock | None = None,
    ) -> None:
        self._spec = spec
        self._lanes = lanes
        self._parking = parking
        self._dependencies = dependencies
        self._clock = clock or SystemClock()
        self._since: dict[Lane, float] = {}

    async def run(self) -> None:
        """Look at the lanes every quarter of a second, until cancelled; return where nothing can take a detour."""
        while has_detours(self._spec):
            await asyncio.sleep(LOOK_SECONDS)
            self.look()

    def look(self) -> None:
        """Park what has waited long enough for its dependency."""
        now = self._clock.monotonic()
        paused = self._dependencies.blocked_topics()
        for lane in self._lanes.by_operation.values():
            missing = self._dependencies.first_down(lane.operation.needs)
            if missing is None:
                self._since.pop(lane, None)
            elif now - self._since.setdefault(lane, now) >= DETOUR_AFTER_SECONDS:
                error = DependencyUnavailableError("waits until it is back", dependency=missing)
                for record in lane.withdraw(lambda record: _may_leave(record, paused)):
                    self._parking.park(record, error, 0.0)


def _may_leave(record: Record, paused: frozenset[str]) -> bool:
    """Return whether a record came from its source; of a paused topic no more come, and those there may wait."""
    work = record.work
    return record.origin is None and work.parking is not None and work.source_topic not in paused
