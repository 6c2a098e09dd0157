"""Runs a worker with one thing changed in it: `python -m tests.faults.patched_worker crash:after_effect:3:FILE run NODE`.

Faults that cannot be put from outside come in here: a death at a given point, a clock that is wrong, a short poll interval,
and the bugs that the checker must find.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import msgspec

from omnibase_infra.shared.cli.main import main
from omnibase_infra.shared.core.ports import Fresh, OutboundRecord
from omnibase_infra.shared.kafka import consumer_factory
from omnibase_infra.shared.postgres.effect_store import PostgresEffectSession, PostgresEffectStore
from omnibase_infra.shared.runtime.consumer_thread import ConsumerThread
from omnibase_infra.shared.runtime.delivery import Delivery
from omnibase_infra.shared.runtime.lanes import Lanes
from omnibase_infra.shared.runtime.records import PartitionWork, Record

MODULE: Final = "tests.faults.patched_worker"


class _Death:
    """Kills this process at the nth arrival, unless a process of the same run has died of it before."""

    def __init__(self, nth: str, marker: str) -> None:
        self._left = int(nth)
        self._marker = Path(marker)

    def comes_near(self) -> None:
        if self._marker.exists():
            return
        self._left -= 1
        if self._left <= 0:
            self._marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def _replace(owner: type, name: str, function: Callable[..., Any]) -> None:
    """Put a function in the place of a method; one call, so that the names are easy to find when the runtime changes."""
    getattr(owner, name)  # fails here, loudly, when the runtime has no such method any more
    setattr(owner, name, function)


def crash(point: str, nth: str, marker: str) -> None:
    """Die at a point of a record's path, the nth time it is passed."""
    death = _Death(nth, marker)
    _CRASHES[point](death)


def _before_effect(death: _Death) -> None:
    claim = PostgresEffectSession.claim

    async def claim_and_die(session: PostgresEffectSession, messages: Sequence[Any]) -> Sequence[Any]:
        claims = await claim(session, messages)
        death.comes_near()
        return claims

    _replace(PostgresEffectSession, "claim", claim_and_die)


def _before_commit(death: _Death) -> None:
    store = PostgresEffectSession.store

    async def store_and_die(session: PostgresEffectSession, outputs: Sequence[Any]) -> None:
        await store(session, outputs)
        death.comes_near()

    _replace(PostgresEffectSession, "store", store_and_die)


def _after_effect(death: _Death) -> None:
    open_session = PostgresEffectStore.session

    @asynccontextmanager
    async def session_and_die(store: PostgresEffectStore, isolation: Any = None) -> AsyncIterator[Any]:
        async with open_session(store, isolation) as session:
            yield session
        death.comes_near()

    _replace(PostgresEffectStore, "session", session_and_die)


def _after_answers(death: _Death) -> None:
    deliver = Delivery.deliver

    async def deliver_and_die(delivery: Delivery, records: Sequence[OutboundRecord]) -> None:
        await deliver(delivery, records)
        death.comes_near()

    _replace(Delivery, "deliver", deliver_and_die)


def _after_offsets(death: _Death) -> None:
    confirmed = ConsumerThread.on_commit

    def note_and_die(thread: ConsumerThread, error: Any, offsets: Sequence[Any]) -> None:
        confirmed(thread, error, offsets)
        death.comes_near()

    _replace(ConsumerThread, "on_commit", note_and_die)


_CRASHES: Final[dict[str, Callable[[_Death], None]]] = {
    "before_effect": _before_effect,
    "before_commit": _before_commit,
    "after_effect": _after_effect,
    "after_answers": _after_answers,
    "after_offsets": _after_offsets,
}


def clock(seconds: str) -> None:
    """Let the process see a wall clock that is wrong by so much."""
    real = time.time
    time.time = lambda: real() + float(seconds)


def poll_interval(seconds: str) -> None:
    """Let the group take the partitions away when the consumer has not polled for so long."""
    create = consumer_factory.create_consumer

    def create_impatient(*arguments: Any, **settings: Any) -> Any:
        options = settings.get("options", consumer_factory.DEFAULT_OPTIONS)
        settings["options"] = msgspec.structs.replace(options, max_poll_interval_seconds=float(seconds))
        return create(*arguments, **settings)

    consumer_factory.create_consumer = create_impatient


def commit_early() -> None:
    """Plant a bug: offsets are committed when records arrive, not when they are finished."""
    advance = PartitionWork.advance

    def advance_over_everything(work: PartitionWork) -> int:
        last = work._ledger[-1].offset + 1 if work._ledger else None
        return last if last is not None else advance(work)

    _replace(PartitionWork, "advance", advance_over_everything)


def drop(every: str) -> None:
    """Plant a bug: every so many records one is called finished and was never run."""
    submit, seen = Lanes.submit, [0]

    def submit_most(lanes: Lanes, record: Record) -> None:
        seen[0] += 1
        if seen[0] >= int(every) and record.key not in record.work.busy:
            seen[0] = 0
            lanes.finish([record])
        else:
            submit(lanes, record)

    _replace(Lanes, "submit", submit_most)


def forget_inbox() -> None:
    """Plant a bug: a record that comes again takes effect again."""

    async def claim_nothing(_: PostgresEffectSession, messages: Sequence[Any]) -> Sequence[Any]:
        return [Fresh() for _ in messages]

    async def store_nothing(_: PostgresEffectSession, __: Sequence[Any]) -> None:
        return None

    _replace(PostgresEffectSession, "claim", claim_nothing)
    _replace(PostgresEffectSession, "store", store_nothing)


def forget_order() -> None:
    """Plant a bug: every record may run at once, whatever its key, and the last come first."""

    def submit_anyhow(_: Lanes, record: Record) -> None:
        assert record.lane is not None
        record.lane.push_back((record,))

    _replace(Lanes, "submit", submit_anyhow)


_PATCHES: Final[dict[str, Callable[..., None]]] = {
    "crash": crash,
    "clock": clock,
    "poll-interval": poll_interval,
    "commit-early": commit_early,
    "drop": drop,
    "forget-inbox": forget_inbox,
    "forget-order": forget_order,
}


def patched(*patches: str) -> tuple[str, ...]:
    """Return the module, and its first arguments, that runs a worker with these patches."""
    return (MODULE, *patches)


if __name__ == "__main__":
    while ":" in sys.argv[1] or sys.argv[1] in _PATCHES:
        name, *arguments = sys.argv.pop(1).split(":")
        _PATCHES[name](*arguments)
    main()
