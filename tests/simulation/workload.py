"""What a simulated fleet works on: a worker of four operations, and inputs that say how their handlers behave."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Final, Literal

import msgspec

from omnibase_infra.shared.core import envelope as envelopes
from omnibase_infra.shared.core.errors import BusinessError, InvalidPayloadError, TransientError
from omnibase_infra.shared.core.headers import STRUCTURED_HEADERS
from omnibase_infra.shared.core.naming import Realm
from omnibase_infra.shared.core.payload import decode_payload
from omnibase_infra.shared.core.ports import BatchContext, IsolationLevel
from omnibase_infra.shared.core.worker_spec import DeadLetterSpec, OperationSpec, RetrySpec, WorkerSpec
from omnibase_infra.shared.testing.sample_fleet import order_store
from omnibase_infra.shared.testing.virtual_loop import VirtualScheduler

REALM: Final = Realm("test")
SOURCE: Final = "/simulation"
COMMANDS: Final = "onex.cmd.order-store.requests.v1"
CONTROL: Final = "onex.cmd.order-store.control.v1"
ANSWERS: Final = "onex.evt.order-store.results.v1"
PARTITIONS: Final = 2

Operation = Literal["once", "often", "loose", "quiet"]
# quick: at once. flaky: fails `failures` times in all. hopeless: always fails. refused: answered `failed`.
# poison: no envelope. foreign: an operation that the worker lacks. empty: a tombstone.
Kind = Literal["quick", "flaky", "hopeless", "refused", "poison", "foreign", "empty"]


class Input(msgspec.Struct, frozen=True):
    """One record of the load.

    Attributes:
        number / id: of the message; a duplicate has those of its original.
        at: virtual seconds when it is published.
        seconds: how long its handler takes.
        late_failure: a flaky handler fails after its effect instead of before.
        error: what a failing handler raises.
    """

    number: int
    id: str
    at: float
    key: bytes | None
    topic: str
    operation: Operation
    kind: Kind
    failures: int
    seconds: float
    late_failure: bool
    error: Literal["transient", "unknown"]


class Request(msgspec.Struct, frozen=True):
    """The payload."""

    number: int


class Response(msgspec.Struct, frozen=True):
    """The answer."""

    number: int


class Shape(msgspec.Struct, frozen=True):
    """What differs between the contracts of two runs."""

    batch_max: int
    concurrency: int
    linger: float
    in_lane: int
    tiers: tuple[float, ...]
    timeout: float
    hold: bool = False


@lru_cache
def spec_of(shape: Shape) -> WorkerSpec:
    """Return the spec: `once` needs the database, `often` and `quiet` nothing, `loose` keeps no order."""
    common: dict[str, Any] = {
        "batch_max": shape.batch_max,
        "concurrency": shape.concurrency,
        "linger_seconds": shape.linger,
        "timeout_seconds": shape.timeout,
    }
    answered = {"answer_topic": ANSWERS}

    def operation(name: str, topic: str, **more: Any) -> OperationSpec:
        return OperationSpec(
            name=name,
            topic=topic,
            event_type=f"onex.cmd.order-store.{name}.v1",
            completed_type=f"onex.evt.order-store.{name}-completed.v1",
            failed_type=f"onex.evt.order-store.{name}-failed.v1",
            **common,
            **more,
        )

    return order_store(
        subscribe=(COMMANDS, CONTROL),
        publish=(ANSWERS,),
        partitions=PARTITIONS,
        dependencies=("postgres",),
        operations=(
            operation("once", COMMANDS, needs=("postgres",), guarantee="effectively_once", **answered),
            operation("often", COMMANDS, **answered),
            operation("loose", CONTROL, ordering="none", **answered),
            operation("quiet", CONTROL),
        ),
        retry=RetrySpec(in_lane=shape.in_lane, tiers=shape.tiers),
        dead_letters=DeadLetterSpec(
            consecutive=10_000, ratio=1.0, window=10_000, then="hold" if shape.hold else "continue"
        ),
    )


TOPIC_OF: Final[dict[Operation, str]] = {"once": COMMANDS, "often": COMMANDS, "loose": CONTROL, "quiet": CONTROL}


def encode(one: Input) -> tuple[bytes | None, list[tuple[str, bytes]]]:
    """Return value and headers of an input."""
    if one.kind == "empty":
        return None, []
    if one.kind == "poison":
        return f"no envelope {one.number}".encode(), []
    name = "missing-thing" if one.kind == "foreign" else one.operation
    envelope = envelopes.Envelope(
        specversion="1.0",
        id=one.id,
        source=SOURCE,
        type=f"onex.cmd.order-store.{name}.v1",
        data=envelopes.encode_data(Request(one.number)),
    )
    return envelopes.encode(envelope), STRUCTURED_HEADERS


class Effect(msgspec.Struct, frozen=True):
    """An effect of an input, by one process."""

    number: int
    process: str


class Handler:
    """One operation in one process. Failures are counted over all processes, so that how often is up to the input."""

    def __init__(
        self,
        inputs: Sequence[Input],
        failed: Counter[int],
        mended: set[int],
        process: str,
        on_effect: Callable[[Effect], None],
        scheduler: VirtualScheduler,
    ) -> None:
        self._inputs = inputs
        self._failed = failed
        self._mended = mended
        self._process = process
        self._on_effect = on_effect
        self._scheduler = scheduler
        self._decoder = msgspec.json.Decoder(Request)

    def decode(self, data: msgspec.Raw) -> Request:
        """Return the request; that of a refused input is none."""
        request = decode_payload(self._decoder, data)
        if self._inputs[request.number].kind == "refused" and request.number % 2:
            raise InvalidPayloadError("refused before it is run")
        return request

    def isolation(self, requests: Sequence[Request]) -> IsolationLevel | None:
        """Return the default."""
        return None

    async def run(self, requests: Sequence[Request], context: BatchContext) -> Sequence[Response]:
        """Do what the inputs say, one after the other."""
        for request in requests:
            one = self._inputs[request.number]
            if one.seconds:
                await asyncio.sleep(one.seconds)
            if not one.late_failure:
                self._fail(one)
            effect = Effect(one.number, self._process)
            if context.session is not None:
                context.connection.effect(effect)
            elif not self._scheduler.over:
                self._on_effect(effect)
            if one.late_failure:
                self._fail(one)
        return [Response(request.number) for request in requests]

    def _fail(self, one: Input) -> None:
        if one.kind == "refused":
            raise BusinessError("refused", code="refused-here", details={})
        if (one.kind == "hopeless" and one.number not in self._mended) or (
            one.kind == "flaky" and self._failed[one.number] < one.failures
        ):
            self._failed[one.number] += 1
            if one.error == "transient":
                raise TransientError("not now", dependency="postgres")
            raise RuntimeError("not now")


class Node:
    """The node in one process."""

    def __init__(self, spec: WorkerSpec, handler: Handler) -> None:
        self.spec = spec
        self.handlers = {operation.name: handler for operation in spec.operations}


def draw_inputs(chance: random.Random, count: int, seconds: float, shape: Shape) -> list[Input]:
    """Return a load over few keys, in the order of publication."""
    keys: list[bytes | None] = [b"a", b"b", b"c", b"d", None]
    weights = [5, 4, 2, 1, 1]
    budget = shape.in_lane + len(shape.tiers)
    slow = chance.choice((0.0, 0.05, 0.3))
    trouble = chance.choice((0.05, 0.2, 0.5))
    inputs: list[Input] = []
    at = sorted(chance.uniform(0.0, seconds) for _ in range(count))
    for number in range(count):
        kind: Kind = "quick"
        if chance.random() < trouble:
            kind = chance.choices(
                ("flaky", "hopeless", "refused", "poison", "foreign", "empty"), weights=(8, 4, 2, 1, 1, 1)
            )[0]
        operation: Operation = chance.choices(("once", "often", "loose", "quiet"), weights=(4, 4, 1, 2))[0]
        if kind == "foreign":
            operation = "often"
        failures = chance.randint(1, max(1, budget - 1)) if kind == "flaky" and budget > 1 else 0
        one = Input(
            number=number,
            id=f"in-{number}",
            at=at[number],
            key=chance.choices(keys, weights=weights)[0],
            topic=TOPIC_OF[operation],
            operation=operation,
            kind="quick" if kind == "flaky" and not failures else kind,
            failures=failures,
            seconds=chance.uniform(0.0, 0.4) if chance.random() < slow else chance.choice((0.0, 0.0, 0.002, 0.01)),
            late_failure=operation in ("often", "quiet", "loose") and chance.random() < 0.3 and kind == "flaky",
            error=chance.choice(("transient", "unknown")),
        )
        inputs.append(one)
    return inputs


def with_duplicates(chance: random.Random, inputs: Sequence[Input], seconds: float) -> list[Input]:
    """Return the publications: the inputs, some of them again later."""
    again = [
        msgspec.structs.replace(one, at=one.at + chance.uniform(0.0, seconds))
        for one in inputs
        if one.kind in ("quick", "flaky") and chance.random() < 0.05
    ]
    return sorted([*inputs, *again], key=lambda one: one.at)
