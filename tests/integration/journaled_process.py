"""A process that makes effects on a server elsewhere, with the real journal: `journaled_process.py DSN PORT COUNT LOOKS`.

It ends by itself when every command has an outcome; its test kills it before that.
"""

from __future__ import annotations

import asyncio
import sys
import uuid
from collections.abc import Sequence
from typing import Any, cast

import msgspec

from omnibase_infra.shared.core import envelope as envelopes
from omnibase_infra.shared.core.errors import DependencyBusyError, OutcomeUnknownError
from omnibase_infra.shared.core.naming import Realm, TopicName
from omnibase_infra.shared.core.ports import BatchContext, NotDone
from omnibase_infra.shared.core.worker_spec import OperationSpec, WorkerSpec
from omnibase_infra.shared.postgres.connection_pool import PoolOptions, PostgresConnectionPool
from omnibase_infra.shared.postgres.effect_store import PostgresEffectStore
from omnibase_infra.shared.runtime.answers import Answers
from omnibase_infra.shared.runtime.execution import Execution
from omnibase_infra.shared.runtime.lanes import Gate, Lane
from omnibase_infra.shared.runtime.records import PartitionWork, Record

GROUP = "test.omnibase-infra.keys.consume.v1"
COMMANDS = "onex.cmd.keys.requests.v1"
SIDE_BY_SIDE = 6
CREATE = OperationSpec(
    name="create",
    topic=COMMANDS,
    event_type="onex.cmd.keys.create.v1",
    completed_type="onex.evt.keys.create-completed.v1",
    failed_type="onex.evt.keys.create-failed.v1",
    answer_topic="onex.evt.keys.results.v1",
    needs=("server", "postgres"),
    guarantee="effectively_once",
    timeout_seconds=0.7,
    effect="journal",
)
SPEC = WorkerSpec(
    generation=1,
    node="keys",
    worker="keys",
    class_name="Keys",
    version="1.0.0",
    contract_sha256="0" * 64,
    description="",
    node_type="effect",
    subscribe=(COMMANDS,),
    publish=("onex.evt.keys.results.v1",),
    operations=(CREATE,),
)


class Order(msgspec.Struct, frozen=True):
    """Request and response."""

    number: int


class Handler:
    """Puts a key on the server; one connection a request."""

    def __init__(self, port: int) -> None:
        self._port = port

    def decode(self, data: msgspec.Raw) -> Order:
        return msgspec.json.decode(data, type=Order)

    def isolation(self, requests: Sequence[Order]) -> None:
        return None

    async def run(self, requests: Sequence[Order], context: BatchContext) -> Sequence[Order]:
        if await self._ask("PUT", context) != "OK":
            raise OutcomeUnknownError("the server did not say that it is done")
        return list(requests)

    async def _ask(self, word: str, context: BatchContext) -> str:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(f"{word} {context.idempotency_keys[0]}\n".encode())
            return (await reader.readline()).decode().strip()
        finally:
            writer.close()


class LookingHandler(Handler):
    """Asks the server whether the key is there."""

    async def resolve(self, request: Order, context: BatchContext) -> Any:
        return request if await self._ask("GET", context) == "THERE" else NotDone()


def command(number: int) -> Record:
    """Return the command of this number; the same in every process."""
    sent = envelopes.original(
        source="/outside", event_type=CREATE.event_type, data=envelopes.encode_data(Order(number))
    )
    sent = msgspec.structs.replace(sent, id=message_id(number))
    work = PartitionWork(TopicName.parse(COMMANDS), "test." + COMMANDS, 0)
    record = Record(work, number, 1_767_225_600_000, b"k", envelopes.encode(sent), None)
    record.envelope = sent
    return record


def message_id(number: int) -> str:
    """Return the id of the command of this number."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"command {number}"))


async def run_all(dsn: str, port: int, count: int, looks: bool) -> None:
    """Deliver every command until it has an outcome."""
    async with PostgresConnectionPool(dsn, PoolOptions(maximum=SIDE_BY_SIDE)) as pool:
        store = PostgresEffectStore(pool, GROUP)
        execution = Execution(SPEC, Answers(SPEC, Realm("test")), {"postgres": store}, lease_margin=0.1)
        lane = Lane(CREATE, LookingHandler(port) if looks else Handler(port), cast("Gate", None))
        numbers = iter(range(count))

        async def work() -> None:
            for number in numbers:
                await _deliver(execution, lane, number)

        await asyncio.gather(*(work() for _ in range(SIDE_BY_SIDE)))


async def _deliver(execution: Execution, lane: Lane, number: int) -> None:
    while True:
        try:
            await execution.run(lane, [command(number)])
        except DependencyBusyError:
            await asyncio.sleep(0.05)
        except OutcomeUnknownError:
            continue
        else:
            return


if __name__ == "__main__":
    asyncio.run(run_all(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "looks"))
