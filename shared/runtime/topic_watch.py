"""Ends a worker whose topics are gone, or are others by the same names, before it commits offsets that mean nothing.

The Kafka client goes on at its old position in a topic that was deleted and made anew, as soon as that is long enough:
everything below would be skipped silently. So the ids of the topics are remembered, and looked at again and again.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

from omnibase_infra.shared.core.errors import (
    ConfigurationError,
    DependencyUnavailableError,
    TopicMissingError,
    TopicReplacedError,
)
from omnibase_infra.shared.observability.log_events import LogEvent

LOOK_SECONDS: Final = 5.0
# A broker that has just started may not know a topic for a moment: so often in a row it must be said.
LOOKS: Final = 3
AGAIN_SECONDS: Final = 1.0
# For the first ids, before what a group has committed can be judged; they are asked for before the group is joined.
FIRST_SECONDS: Final = 5.0

# Of each topic the id, "" where the brokers have none, None where it does not exist.
TopicIds = Callable[[], Awaitable[Mapping[str, str | None]]]


class TopicWatch:
    """Remembers which topics a worker reads. Event loop; `ids` and `seen_since` from the consumer thread."""

    def __init__(self, topic_ids: TopicIds, hold_commits: Callable[[bool], None], log: Any) -> None:
        """Args:
        topic_ids: asks the brokers; raises `DependencyUnavailableError` while they are away.
        hold_commits: told True while a topic may be gone or another one, and False when it was not so.
        log: structured.
        """
        self._topic_ids = topic_ids
        self._hold_commits = hold_commits
        self._log = log
        self._ids: dict[str, str] = {}
        self._has_looked = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._look_now = asyncio.Event()
        self._seen_at = self._wanted_at = -math.inf

    def ids(self) -> Mapping[str, str]:
        """Return the ids as they were at first; waits for them, in bounded time. Consumer thread."""
        self._has_looked.wait(FIRST_SECONDS)
        return self._ids

    def seen_since(self, moment: float) -> bool:
        """Return whether a look that began after this monotonic time found the same topics; if not, let one begin.

        Consumer thread: a process that was frozen asks before it goes on.
        """
        if self._seen_at < moment and self._wanted_at < moment and self._loop is not None:
            self._wanted_at = moment
            self._loop.call_soon_threadsafe(self._look_now.set)
        return self._seen_at >= moment

    async def run(self) -> None:
        """Look every few seconds until cancelled; while no broker answers, wait.

        Raises:
            TopicMissingError: a topic is gone.
            TopicReplacedError: a topic is another one than at first.
        """
        self._loop = asyncio.get_running_loop()
        said = 0
        while True:
            self._look_now.clear()
            began = time.monotonic()
            try:
                problem = self._judge(await self._topic_ids())
            except DependencyUnavailableError:
                # Readiness and `ClientWatch` tell of it. What was doubtful stays so.
                await asyncio.sleep(AGAIN_SECONDS)
                continue
            if problem is None:
                if said:
                    self._hold_commits(False)
                said = 0
                self._seen_at = began
                await self._pause()
                continue
            # From now on: an offset of the old log must not be committed into the new one.
            self._hold_commits(True)
            said += 1
            if said == LOOKS:
                raise problem
            self._log.warning(LogEvent.TOPIC_DOUBTFUL, error=problem.message)
            await asyncio.sleep(AGAIN_SECONDS)

    async def _pause(self) -> None:
        try:
            await asyncio.wait_for(self._look_now.wait(), LOOK_SECONDS)
        except TimeoutError:
            return

    def _judge(self, found: Mapping[str, str | None]) -> ConfigurationError | None:
        """Return what is wrong with the topics now; remember those that are seen for the first time."""
        for topic, found_id in found.items():
            if found_id:
                self._ids.setdefault(topic, found_id)
        self._has_looked.set()
        if gone := sorted(topic for topic, found_id in found.items() if found_id is None):
            return TopicMissingError(
                f"{', '.join(gone)} does not exist any more: it was deleted", hint="run `omninode topics apply`"
            )
        others = (topic for topic, found_id in sorted(found.items()) if found_id and self._ids[topic] != found_id)
        return next(map(replaced, others), None)


def replaced(topic: str) -> TopicReplacedError:
    """Return the error of a topic that is another one than its offsets were committed for."""
    return TopicReplacedError(
        f"{topic} was deleted and made anew: offsets of the old one mean nothing in it",
        hint="look with `omninode offsets show`, then say with `omninode offsets reset` where to begin",
    )
