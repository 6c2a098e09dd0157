"""Dead letters redriven while the worker takes live load: nothing lost, nothing twice, order kept, also when interrupted."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any

import pytest
from confluent_kafka import Message

from omnibase_infra.shared.core.naming import TopicName
from omnibase_infra.shared.core.settings import require_postgres
from omnibase_infra.shared.kafka.admin import KafkaTopicAdmin
from omnibase_infra.shared.testing.dead_letter_load import (
    SIX_FAILURES,
    DeadLetterRecord,
    dead_letter_headers,
    write_dead_letters,
)
from omnibase_infra.shared.testing.fleet import Fleet, eventually
from omnibase_infra.shared.testing.kafka_fixtures import ConsumerFactory, RecordedLog
from omnibase_infra.shared.testing.order_load import DISORDERED, REPEATED, ROWS, OrderLoad
from omnibase_infra.topics.cluster import Partition

# `make redrive-load` takes 100,000; CI a small share of them.
DEAD = int(os.environ.get("OMNIBASE_TEST_DEAD_LETTERS", "6000"))
LIVE = DEAD // 2
RATE = 2_000 if DEAD > 10_000 else 1_000
REDRIVE = ("redrive", "postgres-adapter", "--rate", str(RATE), "--yes")
# Live load takes as long as the redrive does.
LIVE_RATE = RATE * LIVE / DEAD * 0.6

pytestmark = [pytest.mark.demanding, pytest.mark.slow, pytest.mark.timeout(280 + 5 * DEAD / RATE)]


async def test_dead_letters_run_once_and_in_order_beside_live_load(
    fleet: Fleet, kafka_consumer_factory: ConsumerFactory
) -> None:
    dead, live = OrderLoad(fleet, keys=300), OrderLoad(fleet, keys=100)
    await dead.publish(DEAD, per_second=50_000)
    await asyncio.to_thread(give_up_everything, fleet, kafka_consumer_factory)
    await grouped_by_failure(fleet)
    await fleet.start_ready()
    publishing = asyncio.create_task(live.publish(LIVE, per_second=LIVE_RATE))
    await fleet.first_answers()

    # Interrupted in the middle, run again, and killed in the middle of that; then run to its end.
    began = time.monotonic()
    assert await redriving_until(fleet, DEAD // 4, signal.SIGINT) == 130
    assert await redriving_until(fleet, DEAD // 2, signal.SIGKILL) == -signal.SIGKILL
    last = await omninode_dlq(fleet, *REDRIVE)
    _, errors = await last.communicate()
    assert last.returncode == 0, errors.decode()
    took("redriven, interrupted twice", began)

    await publishing
    answers = await fleet.answered([*dead.ids, *live.ids], 120 + DEAD / RATE)
    took("all answered", began)
    assert all(repeats[0].type.endswith("-completed.v1") for repeats in answers.values())
    assert all(len({answer.id for answer in repeats}) == 1 for repeats in answers.values())
    assert await fleet.fetch_value(ROWS) == DEAD + LIVE
    assert await fleet.fetch_value(REPEATED) == 0
    assert await fleet.fetch_value(DISORDERED) == 0
    assert await asyncio.to_thread(fleet.count_dead_letters) == DEAD


def give_up_everything(fleet: Fleet, consumers: ConsumerFactory) -> None:
    """Make dead letters of all that lies in the request topic, as if a worker had given it up and gone on."""
    topic = fleet.physical(fleet.spec.subscribe[0])
    messages = consumers.read(topic)
    write_dead_letters(fleet.settings, fleet.spec, [dead_letter_of(fleet, one) for one in messages])
    ends: dict[Partition, int] = {}
    for one in messages:
        ends[Partition(topic, one.partition() or 0)] = (one.offset() or 0) + 1
    group = fleet.realm.group(fleet.spec.worker, fleet.spec.major)
    KafkaTopicAdmin(fleet.settings, log=RecordedLog()).commit(group, ends)


def dead_letter_of(fleet: Fleet, message: Message) -> DeadLetterRecord:
    offset, partition = message.offset() or 0, message.partition() or 0
    headers = dead_letter_headers(
        fleet.spec, fleet.realm, offset=offset, partition=partition, failure=SIX_FAILURES[offset % 6]
    )
    own: Any = message.headers() or []
    return DeadLetterRecord(message.key(), message.value(), [*own, *headers])


async def grouped_by_failure(fleet: Fleet) -> None:
    """All of them are told in six groups, and listed."""
    groups, listed = [await printed_by_dlq(fleet, command) for command in ("group", "list")]
    told = json.loads(groups)
    assert (len(told), sum(one["open"] for one in told)) == (len(SIX_FAILURES), DEAD)
    assert len(listed.splitlines()) == DEAD


async def printed_by_dlq(fleet: Fleet, command: str) -> bytes:
    began = time.monotonic()
    process = await omninode_dlq(fleet, command, "postgres-adapter", "--json")
    printed, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    took(f"dlq {command}", began)
    return printed


def took(what: str, began: float) -> None:
    """Tell how long something took; shown by `pytest -s`."""
    sys.stdout.write(f"{DEAD:,} dead letters, {what}: {time.monotonic() - began:.1f} s\n")


async def redriving_until(fleet: Fleet, written: int, number: signal.Signals) -> int | None:
    """Redrive until the retry topic holds so many records, then send a signal; return the exit code."""
    process = await omninode_dlq(fleet, *REDRIVE)

    async def far_enough() -> bool:
        assert process.returncode is None, "it ended before it could be stopped"
        return await asyncio.to_thread(written_so_far, fleet) >= written

    await eventually(far_enough, f"{written} records are on the retry topic")
    process.send_signal(number)
    await process.communicate()
    return process.returncode


def written_so_far(fleet: Fleet) -> int:
    """Return how long the retry topic is; markers of the worker and of transactions count, too."""
    admin = KafkaTopicAdmin(fleet.settings, log=RecordedLog())
    retry = fleet.physical(str(fleet.spec.retry_topics[TopicName.parse(fleet.spec.subscribe[0])]))
    partitions = [Partition(retry, number) for number in range(fleet.spec.partitions)]
    return sum(marks.high for marks in admin.watermarks(partitions).values())


async def omninode_dlq(fleet: Fleet, *arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *command_line(arguments),
        env=environment_of(fleet),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


def command_line(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "omnibase_infra.shared.cli.main", "dlq", *arguments]


def environment_of(fleet: Fleet) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("OMNIBASE_")}
    return own | {
        "OMNIBASE_ENV": fleet.realm.environment,
        "OMNIBASE_TENANT": fleet.realm.tenant,
        "OMNIBASE_KAFKA_BOOTSTRAP_SERVERS": fleet.settings.kafka_bootstrap_servers or "",
        "OMNIBASE_POSTGRES_DSN": require_postgres(fleet.settings),
    }
