"""Events that tell what people did to a worker's dead letters: who, when, why, to which."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final, Literal, TypeAlias

import msgspec

from omnibase_infra.shared.core import envelope as envelopes
from omnibase_infra.shared.core.headers import STRUCTURED_HEADERS
from omnibase_infra.shared.core.naming import Realm, TopicName, dead_letter_actions_topic
from omnibase_infra.shared.core.ports import OutboundRecord
from omnibase_infra.shared.core.worker_spec import WorkerSpec
from omnibase_infra.shared.runtime.dead_letter_view import Place

Action: TypeAlias = Literal["redrive", "discard"]
Ending: TypeAlias = Literal["finished", "interrupted"]

STARTED: Final = "dead-letter-action-started"
RESOLVED: Final = "dead-letters-resolved"
FINISHED: Final = "dead-letter-action-finished"
SOURCE: Final = "omninode"


class DeadLetterAction(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The payload of each of the events about one run of `omninode dlq redrive` or `discard`.

    Attributes:
        action: what was asked for.
        redrive_id: of the run: the conversation of its events, and the `onex-redrive-id` of its records.
        by: who ran it.
        reason: why, of a discard.
        filters: which dead letters were meant.
        edited: whether the payload was changed on the way.
        selected: how many dead letters were meant and are to be done; in the first event.
        refused: how many were meant and cannot be done; in the first event.
        resolved: how many are done: by this transaction, and in the last event by the run.
        places: those done by this transaction, as `partition/offset` and `partition/first-last`.
        ending: how the run ended; in the last event.
    """

    action: Action
    redrive_id: str
    by: str
    reason: str | None = None
    filters: dict[str, Any] = {}
    edited: bool = False
    selected: int | None = None
    refused: int | None = None
    resolved: int | None = None
    places: list[str] = []
    ending: Ending | None = None


def audit_event(realm: Realm, spec: WorkerSpec, event: str, content: DeadLetterAction, now: float) -> OutboundRecord:
    """Return the record of an event.

    Args:
        realm: names the source.
        spec: of the worker whose dead letters they are.
        event: `STARTED`, `RESOLVED` or `FINISHED`.
        content: its payload.
        now: Unix seconds.
    """
    envelope = envelopes.original(
        source=realm.source(SOURCE),
        event_type=str(TopicName("evt", spec.worker, event, 1)),
        data=envelopes.encode_data(content),
        subject=spec.worker,
        correlationid=content.redrive_id,
        tenantid=realm.tenant or None,
        now=now,
    )
    topic = dead_letter_actions_topic(spec.worker, spec.major)
    return OutboundRecord(str(topic), envelopes.encode(envelope), envelope.record_key, STRUCTURED_HEADERS)


def place_runs(places: Iterable[Place]) -> list[str]:
    """Return places with neighbours taken together: `0/12`, `0/14-17`."""
    runs: list[tuple[int, int, int]] = []
    for partition, offset in sorted(places):
        if runs and runs[-1][0] == partition and runs[-1][2] == offset - 1:
            runs[-1] = (partition, runs[-1][1], offset)
        else:
            runs.append((partition, offset, offset))
    return [
        f"{partition}/{first}" if first == last else f"{partition}/{first}-{last}" for partition, first, last in runs
    ]
