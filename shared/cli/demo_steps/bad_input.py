"""Bad input on purpose: what is sent, where the wire's rules say it goes, and where it was seen to go."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

from omnibase_infra.shared.cli.console import quiet
from omnibase_infra.shared.cli.demo_steps.observation import Observation, Observer, SeenDeadLetter
from omnibase_infra.shared.cli.demo_steps.plan import OPERATION
from omnibase_infra.shared.cli.demo_steps.stage import Stage
from omnibase_infra.shared.core import envelope as envelopes
from omnibase_infra.shared.core.headers import STRUCTURED_HEADERS
from omnibase_infra.shared.core.ports import OutboundRecord
from omnibase_infra.shared.core.worker_spec import OperationSpec
from omnibase_infra.shared.kafka.producer_pool import ProducerPool

Destination = Literal["dead letter", "failed answer"]

SEEN_SECONDS: Final = 30.0
# One key, hence one partition and one order: the good command at the end comes behind all the bad ones.
_KEY: Final = b"demo-bad-input"
NOWHERE: Final = "nowhere"


class BadInput(msgspec.Struct, frozen=True):
    """A record no worker can run. `id` is of its command, empty where there is none to answer."""

    what: str
    value: bytes
    goes_to: Destination
    code: str
    id: str = ""


class BadInputOutcome(msgspec.Struct, frozen=True, kw_only=True):
    """Where a bad input went. `went_to` is `nowhere` when it was seen in no topic within the time."""

    what: str
    expected: str
    expected_code: str
    went_to: str
    code: str
    message: str

    @property
    def holds(self) -> bool:
        """Return whether it went where it belongs."""
        return (self.went_to, self.code) == (self.expected, self.expected_code)


class BadInputs:
    """The bad records of one run, and a good command behind them."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._operation = next(item for item in stage.spec.operations if item.name == OPERATION)
        self.inputs = self._make()
        self.good = self._command()

    async def send(self, observer: Observer) -> None:
        """Send all and wait, within the time, until each and the good command has been answered or is dead."""
        records = [OutboundRecord(self._topic, item.value, _KEY, STRUCTURED_HEADERS) for item in self.inputs]
        records.append(OutboundRecord(self._topic, envelopes.encode(self.good), _KEY, STRUCTURED_HEADERS))
        async with ProducerPool(self._stage.settings, client_id="demo-bad-input", log=quiet) as producer:
            await producer.send(records)
        deadline = time.monotonic() + SEEN_SECONDS
        while time.monotonic() < deadline and not self._are_all_seen(observer.seen):
            await observer.wait_a_moment()

    def outcomes(self, seen: Observation) -> list[BadInputOutcome]:
        """Return where each went."""
        return [_outcome(item, seen) for item in self.inputs]

    def others(self, seen: Observation) -> list[SeenDeadLetter]:
        """Return the dead letters that are none of these, byte for byte."""
        meant = {item.value for item in self.inputs}
        return [letter for letter in seen.dead_letters if letter.value not in meant]

    def good_is_done(self, seen: Observation) -> bool:
        """Return whether the good command behind them completed."""
        return any(not answer.code for answer in seen.answers.get(self.good.id, ()))

    def _are_all_seen(self, seen: Observation) -> bool:
        return self.good_is_done(seen) and all(item.went_to != NOWHERE for item in self.outcomes(seen))

    @property
    def _topic(self) -> str:
        return self._operation.topic

    def _make(self) -> Sequence[BadInput]:
        misfit = self._command(payload=_event("one"))
        unknown = msgspec.structs.replace(self._command(), type=_other_operation(self._operation))
        expired = self._command(payload=_event(1), expirytime="2020-01-01T00:00:00Z")
        foreign = self._command(payload=_event(1), source="/omnibase/prod/client")
        typeless = {"specversion": "1.0", "id": str(uuid.uuid4()), "source": foreign.source, "data": {}}
        return [
            BadInput("half a JSON text", b'{"order": 17, "quantity":', "dead letter", "undecodable"),
            BadInput("an envelope without `type`", msgspec.json.encode(typeless), "dead letter", "invalid-envelope"),
            BadInput("a command from another realm", envelopes.encode(foreign), "dead letter", "forbidden"),
            _answered("a payload that does not fit", misfit, "invalid-payload"),
            _answered("an operation there is not", unknown, "unknown-operation"),
            _answered("a command that has expired", expired, "expired"),
        ]

    def _command(self, payload: Any = None, **attributes: Any) -> envelopes.Envelope:
        """Return a command; by default one that reads an order there is not, which is fine and changes nothing."""
        reading = {"statement": "get_order", "parameters": {"order_id": str(uuid.uuid4())}}
        given = {"source": self._stage.settings.realm.source("demo"), "partitionkey": _KEY.decode()} | attributes
        return envelopes.original(
            event_type=self._operation.event_type,
            dataschema=self._operation.request_schema or None,
            data=envelopes.encode_data(payload or reading),
            **given,
        )


def _answered(what: str, command: envelopes.Envelope, code: str) -> BadInput:
    return BadInput(what, envelopes.encode(command), "failed answer", code, command.id)


def _event(sequence: Any) -> dict[str, Any]:
    parameters = {"order_id": str(uuid.uuid4()), "sequence": sequence, "kind": "amended"}
    return {"statement": "append_order_event", "parameters": parameters}


def _other_operation(operation: OperationSpec) -> str:
    return operation.event_type.replace(operation.name.replace("_", "-"), "drop-everything")


def _outcome(item: BadInput, seen: Observation) -> BadInputOutcome:
    went_to, code, message = NOWHERE, "", ""
    for letter in seen.dead_letters:
        # The bytes are unchanged, or it is not this one.
        if letter.value == item.value:
            went_to, code, message = "dead letter", letter.code, letter.message
    for answer in seen.answers.get(item.id, ()) if item.id else ():
        went_to, code, message = "failed answer" if answer.code else "completed", answer.code, answer.message
    return BadInputOutcome(
        what=item.what,
        expected=item.goes_to,
        expected_code=item.code,
        went_to=went_to,
        code=code,
        message=message,
    )
