"""The safeguards of the runtime, and for each the test that fails when it is taken out: `python -m tests.faults.safeguards`.

A safeguard that no test misses might as well not be there, and would be gone after the next change.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.table import Table

REPOSITORY: Final = Path(__file__).resolve().parents[2]
PLUGIN: Final = "tests.faults.safeguard_removal"
_INFRASTRUCTURE: Final = "tests/infrastructure"
_TESTS_FAILED: Final = 1
_SECONDS: Final = 120
_SIDE_BY_SIDE: Final = 2
_WIDTH_IN_A_FILE: Final = 150


class Safeguard(msgspec.Struct, frozen=True):
    """One safeguard.

    Attributes:
        name: of the safeguard, one or two words in kebab case.
        promise: what would not hold without it.
        remove: takes it out of this process.
        test: the test that misses it.
    """

    name: str
    promise: str
    remove: Callable[[], None]
    test: str


def _replace(owner: type | ModuleType, name: str, substitute: Any) -> None:
    getattr(owner, name)  # fails here, loudly, when the runtime has no such thing any more
    setattr(owner, name, substitute)


def _without_ledger() -> None:
    from omnibase_infra.shared.runtime.records import PartitionWork

    def advance_over_everything(work: Any) -> int:
        return int(work._ledger[-1].offset + 1)

    _replace(PartitionWork, "advance", advance_over_everything)


def _without_key_order() -> None:
    from omnibase_infra.shared.runtime.lanes import Lanes

    _replace(Lanes, "submit", lambda _lanes, record: record.lane.push(record))


def _without_confirmation() -> None:
    from omnibase_infra.shared.runtime.delivery import Delivery

    deliver, sending = Delivery.deliver, set()

    async def deliver_some_time(delivery: Any, records: Any) -> None:
        task = asyncio.ensure_future(deliver(delivery, records))
        sending.add(task)
        task.add_done_callback(sending.discard)

    _replace(Delivery, "deliver", deliver_some_time)


def _without_repeats() -> None:
    from omnibase_infra.shared.core.errors import DeliveryError
    from omnibase_infra.shared.runtime.delivery import Delivery

    async def deliver_once(delivery: Any, records: Any) -> None:
        try:
            await delivery._producer.send(records)
        except DeliveryError as error:
            delivery._on_failure(error)

    _replace(Delivery, "deliver", deliver_once)


def _without_letting_go() -> None:
    from omnibase_infra.shared.runtime.consumer_thread import ConsumerThread

    _replace(ConsumerThread, "_on_lost", ConsumerThread._on_revoke)


def _without_drain() -> None:
    from omnibase_infra.shared.runtime.consumer_thread import ConsumerThread

    def forget_at_once(_thread: Any, works: Any) -> None:
        for work in works:
            work.closed = True

    _replace(ConsumerThread, "_finish", forget_at_once)


def _without_known_positions() -> None:
    from omnibase_infra.shared.runtime import start_positions

    def begin_somewhere(_consumer: Any, topic: str, wanted: set[int], _group: str) -> list[Any]:
        from confluent_kafka import TopicPartition

        return [TopicPartition(topic, number, 0) for number in wanted]

    _replace(start_positions, "_added_partitions", begin_somewhere)


def _without_range_check() -> None:
    from omnibase_infra.shared.runtime import consumer_thread

    _replace(consumer_thread, "_OFFSET_ERRORS", frozenset())


def _without_dead_letter_limit() -> None:
    from omnibase_infra.shared.runtime.dead_letters import DeadLetterLimit

    _replace(DeadLetterLimit, "died", lambda _limit, _count=1: None)


def _without_inbox() -> None:
    from omnibase_infra.shared.core.ports import Fresh
    from omnibase_infra.shared.postgres.effect_store import PostgresEffectSession

    async def claim_nothing(_session: Any, messages: Sequence[Any]) -> Sequence[Any]:
        return [Fresh() for _ in messages]

    _replace(PostgresEffectSession, "claim", claim_nothing)


def _without_outage_detection() -> None:
    from omnibase_infra.shared.runtime import executor

    class NeverRaisedError(Exception):
        pass

    _replace(executor, "DependencyUnavailableError", NeverRaisedError)


def _without_deadline() -> None:
    from omnibase_infra.shared.runtime.executor import Executor

    async def run_for_ever(executor: Any, lane: Any, records: Any, _passage: Any) -> Any:
        return await executor._execution.run(lane, records)

    _replace(Executor, "_within_deadline", run_for_ever)


def _without_document_limits() -> None:
    from omnibase_infra.shared.core.limits import DecodeLimits

    _replace(DecodeLimits, "check", lambda _limits, _value: None)


def _without_derived_ids() -> None:
    from omnibase_infra.shared.core import ids

    _replace(ids, "derived_id", lambda *_, **__: ids.original_id())


def _without_memory_bound() -> None:
    from omnibase_infra.shared.runtime.records import PartitionWork

    _replace(PartitionWork, "holds_more_than", lambda _work, _limit: False)


def _without_parking() -> None:
    from omnibase_infra.shared.runtime.parked_keys import PartitionParking

    _replace(PartitionParking, "takes_over", lambda _parking, _record, ordered: False)


def _without_zombie_check() -> None:
    from omnibase_infra.shared.runtime.parked_keys import PartitionParking

    _replace(PartitionParking, "_is_stale", lambda _parking, _entry: False)


SAFEGUARDS: Final = (
    Safeguard(
        "offset-ledger",
        "an offset is committed only when everything before it is finished",
        _without_ledger,
        "runtime/test_lanes.py::test_offsets_are_committable_only_up_to_the_first_unfinished_record",
    ),
    Safeguard(
        "key-order",
        "records of a key run one after the other",
        _without_key_order,
        "runtime/test_lanes.py::test_a_batch_holds_one_record_of_a_key_and_the_next_one_follows_when_it_is_finished",
    ),
    Safeguard(
        "confirmed-outputs",
        "a record is finished only when the brokers have its outputs",
        _without_confirmation,
        "runtime/test_worker.py::test_outputs_that_are_not_confirmed_keep_their_record_uncommitted",
    ),
    Safeguard(
        "repeated-outputs",
        "an output that was not confirmed is sent again",
        _without_repeats,
        "runtime/test_executor.py::test_outputs_are_sent_until_confirmed_and_only_then_is_the_record_finished",
    ),
    Safeguard(
        "lost-partitions",
        "nothing is committed of a partition that another member may own",
        _without_letting_go,
        "runtime/test_consumer_thread.py::test_of_a_lost_partition_nothing_is_committed_and_it_can_come_back",
    ),
    Safeguard(
        "drain-on-revoke",
        "what runs is finished and committed before its partition goes",
        _without_drain,
        "runtime/test_consumer_thread.py::test_a_revoked_partition_is_drained_then_committed_then_let_go",
    ),
    Safeguard(
        "known-positions",
        "a partition whose offset is gone stops the worker",
        _without_known_positions,
        "runtime/test_start_positions.py::test_a_commit_missing_below_others_stops_the_worker",
    ),
    Safeguard(
        "range-check",
        "an offset outside the log stops the worker, never a silent reset",
        _without_range_check,
        "runtime/test_consumer_thread.py::test_what_skips_records_or_needs_a_person_stops_the_worker",
    ),
    Safeguard(
        "dead-letter-limit",
        "a bad deploy does not drain a topic into the dead letters",
        _without_dead_letter_limit,
        "runtime/test_dead_letters.py::test_the_consecutive_limit_counts_only_an_unbroken_run",
    ),
    Safeguard(
        "inbox",
        "a record that comes again has no second effect",
        _without_inbox,
        "postgres/test_effect_store.py::test_a_redelivery_gets_the_stored_outputs_byte_for_byte_and_has_no_effect",
    ),
    Safeguard(
        "outage-detection",
        "an outage spends no attempts and makes no dead letters",
        _without_outage_detection,
        "runtime/test_executor.py::test_an_outage_spends_no_attempt_and_makes_no_dead_letter",
    ),
    Safeguard(
        "deadline",
        "a handler that hangs does not hold its executor for ever",
        _without_deadline,
        "runtime/test_executor.py::test_a_handler_that_hangs_meets_its_deadline_and_its_neighbours_are_done",
    ),
    Safeguard(
        "document-limits",
        "a hostile document costs bounded time and memory",
        _without_document_limits,
        "core/test_limits.py::test_what_is_not_strict_json_is_refused",
    ),
    Safeguard(
        "derived-ids",
        "an answer that is sent again has the same id",
        _without_derived_ids,
        "core/test_ids.py::test_a_derived_id_is_part_of_the_wire_format",
    ),
    Safeguard(
        "parked-keys",
        "records of a key whose head waits for a retry queue up behind it",
        _without_parking,
        "runtime/test_parked_keys.py::test_records_of_the_source_follow_a_parked_key_and_others_do_not",
    ),
    Safeguard(
        "zombie-check",
        "what an owner before us parks after its time is not run a second time",
        _without_zombie_check,
        "runtime/test_parked_keys.py::test_a_stale_entry_is_ignored_and_voided_once_its_record_has_ended_here",
    ),
    Safeguard(
        "memory-bound",
        "one record that stays unfinished does not let memory grow without bound",
        _without_memory_bound,
        "runtime/test_consumer_thread.py"
        "::test_a_partition_whose_first_record_stays_unfinished_waits_before_memory_grows_without_bound",
    ),
)


def misses(safeguard: Safeguard) -> tuple[bool, str]:
    """Take a safeguard out and run its test; return whether the test failed, and what it said."""
    code, said = _run_tests(["-p", PLUGIN, f"--without={safeguard.name}"], [safeguard])
    return code == _TESTS_FAILED, said


def _run_tests(options: Sequence[str], safeguards: Sequence[Safeguard]) -> tuple[int, str]:
    # A test may hang instead of failing: then its time-out fails it.
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider", "--timeout=30"]
    command += [*options, *(f"{_INFRASTRUCTURE}/{one.test}" for one in safeguards)]
    paths = [os.environ.get("PYTHONPATH", ""), str(REPOSITORY)]
    outer = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        command,
        cwd=REPOSITORY,
        env=outer | {"PYTHONPATH": os.pathsep.join(filter(None, paths))},
        capture_output=True,
        text=True,
        timeout=_SECONDS,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def main() -> int:
    """Take out one after the other and print the table; return 1 when a test did not miss its safeguard."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_IN_A_FILE)
    code, said = _run_tests([], SAFEGUARDS)
    if code:
        console.print(f"with all safeguards in place the tests must pass:\n{said}", markup=False, style="red")
        return 1
    table = Table(title="Safeguards, and the tests that fail without them", title_justify="left")
    for heading in ("safeguard", "promise", "test", "missed"):
        table.add_column(heading, overflow="fold")
    unmissed = []
    with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
        for safeguard, (missed, said) in zip(SAFEGUARDS, pool.map(misses, SAFEGUARDS), strict=True):
            table.add_row(safeguard.name, safeguard.promise, safeguard.test, "yes" if missed else "NO")
            if not missed:
                unmissed.append(f"{safeguard.name} was taken out and its test did not fail:\n{said[-2000:]}")
    console.print(table)
    for text in unmissed:
        console.print(text, markup=False, style="red")
    return 1 if unmissed else 0


if __name__ == "__main__":
    sys.exit(main())
