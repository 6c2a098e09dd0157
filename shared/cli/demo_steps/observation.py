"""What came back from the workers: answers by the command that caused them, and dead letters."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Final

import msgspec

from omnibase_infra.shared.cli.demo_steps.plan import NODE, DemoError
from omnibase_infra.shared.client.fleet_client import FleetClient
from omnibase_infra.shared.client.tail import TailedRecord
from omnibase_infra.shared.core.headers import TransportHeader
from omnibase_infra.shared.models.infrastructure.model_error_response import ModelErrorResponse

# A million answers are read in about a minute.
READ_SECONDS: Final = 180.0
_LOOK_SECONDS: Final = 0.02
_FAILURE: Final = msgspec.json.Decoder(ModelErrorResponse)


class SeenAnswer(msgspec.Struct, frozen=True):
    """An answer. `code` and `message` say why it failed; both are empty when it completed."""

    id: str
    code: str = ""
    message: str = ""


class SeenDeadLetter(msgspec.Struct, frozen=True):
    """A dead letter: the record's bytes as they were, and why no handler could see it."""

    value: bytes
    code: str
    message: str


class Observation:
    """Answers and dead letters seen so far.

    Attributes:
        answers: by the id of the command; several of one id are one answer that was sent again.
        dead_letters: in the order in which they were read.
        last_new: when an answer to another command was last seen, monotonic.
        caught_up_seconds: what `await_answers` measures; None until then.
    """

    def __init__(self) -> None:
        self.answers: dict[str, list[SeenAnswer]] = {}
        self.dead_letters: list[SeenDeadLetter] = []
        self.last_new = time.monotonic()
        self.caught_up_seconds: float | None = None
        self._awaited: set[str] = set()
        self._awaited_since = 0.0

    def await_answers(self, commands: set[str]) -> int:
        """Measure from now on until all of these are answered; return how many are not yet."""
        self._awaited = commands - self.answers.keys()
        self._awaited_since = time.monotonic()
        self.caught_up_seconds = None if self._awaited else 0.0
        return len(self._awaited)

    def add_answer(self, record: TailedRecord) -> None:
        """Take a record of the answer topic."""
        envelope = record.envelope
        if envelope is None:
            return
        cause = envelope.causationid or ""
        answer = SeenAnswer(envelope.id)
        if envelope.type.rpartition(".")[0].endswith("-failed"):
            failure = _FAILURE.decode(envelope.data)
            answer = SeenAnswer(envelope.id, failure.code, failure.message)
        if cause in self.answers:
            self.answers[cause].append(answer)
            return
        self.answers[cause] = [answer]
        self.last_new = time.monotonic()
        if cause in self._awaited:
            self._awaited.discard(cause)
            if not self._awaited:
                self.caught_up_seconds = self.last_new - self._awaited_since

    def add_dead_letter(self, record: TailedRecord) -> None:
        """Take a record of the dead-letter topic."""
        headers = dict(record.headers)
        code, message = (
            (headers.get(name) or b"").decode("utf-8", "replace")
            for name in (TransportHeader.ERROR_CODE, TransportHeader.ERROR_MESSAGE)
        )
        self.dead_letters.append(SeenDeadLetter(record.value or b"", code, message))


class Observer:
    """Keeps an observation up to date while the fleet works."""

    def __init__(self, client: FleetClient) -> None:
        self.seen = Observation()
        self._tasks = [
            asyncio.create_task(_follow(client, self.seen, until_end=False, dead_letters=which))
            for which in (False, True)
        ]

    async def wait_a_moment(self) -> None:
        """Let it read.

        Raises:
            Exception: whatever ended the reading.
        """
        for task in self._tasks:
            if task.done():
                task.result()
        await asyncio.sleep(_LOOK_SECONDS)

    async def close(self) -> None:
        """Stop reading."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            # A failure of the reading has been raised where somebody waited for what is read.
            with suppress(asyncio.CancelledError, Exception):
                await task


@asynccontextmanager
async def observing(client: FleetClient) -> AsyncIterator[Observer]:
    """Provide an observer that reads from the beginning of the topics."""
    observer = Observer(client)
    try:
        yield observer
    finally:
        await observer.close()


async def read_everything(client: FleetClient) -> Observation:
    """Return all that lies in the answer and dead-letter topics, read from their beginnings to their ends.

    Raises:
        DemoError: the ends were not reached in time.
    """
    seen = Observation()
    try:
        async with asyncio.timeout(READ_SECONDS):
            await _follow(client, seen, until_end=True, dead_letters=False)
            await _follow(client, seen, until_end=True, dead_letters=True)
    except TimeoutError:
        raise DemoError(f"answers and dead letters could not be read to their ends within {READ_SECONDS:g} s") from None
    return seen


async def _follow(client: FleetClient, seen: Observation, *, until_end: bool, dead_letters: bool) -> None:
    add = seen.add_dead_letter if dead_letters else seen.add_answer
    tail = client.tail(
        NODE, stream="dead-letters" if dead_letters else "answers", from_beginning=True, until_end=until_end
    )
    async with tail as records:
        async for record in records:
            add(record)
