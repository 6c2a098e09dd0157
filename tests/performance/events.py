"""The events that the no-op worker and the bare loops read: CloudEvents of about 600 bytes over 500 keys."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from omnibase_infra.shared.core import envelope as envelopes
from omnibase_infra.shared.core.headers import STRUCTURED_HEADERS
from omnibase_infra.shared.core.naming import Realm
from omnibase_infra.shared.core.ports import OutboundRecord

TOPIC: Final = "onex.evt.bench.things.v1"
EVENT_TYPE: Final = "onex.evt.bench.thing-happened.v1"
PARTITIONS: Final = 6
KEYS: Final = 500
BATCH: Final = 500


class ThingHappened(msgspec.Struct, frozen=True):
    """The payload."""

    number: int
    order_id: str
    customer_id: str
    sku: str
    quantity: int
    amount: str
    note: str


class ThingEnvelope(msgspec.Struct, frozen=True):
    """What a hand-written consumer decodes: envelope and payload in one pass, no checks beyond the types."""

    specversion: str
    id: str
    source: str
    type: str
    data: ThingHappened
    time: str | None = None
    subject: str | None = None
    datacontenttype: str | None = None
    dataschema: str | None = None
    correlationid: str | None = None
    causationid: str | None = None


def event_batches(realm: Realm, count: int) -> Iterator[list[OutboundRecord]]:
    """Yield `count` events in batches; the numbers of a key ascend."""
    for first in range(0, count, BATCH):
        yield [_event(realm, number) for number in range(first, min(first + BATCH, count))]


def _event(realm: Realm, number: int) -> OutboundRecord:
    thing = ThingHappened(
        number=number,
        order_id=f"order-{number:012d}",
        customer_id=f"customer-{number % KEYS}",
        sku="ABC-1234-XL",
        quantity=number % 9 + 1,
        amount="129.50",
        note="leave it with the neighbours on the second floor, or come again on Monday",
    )
    event = envelopes.original(
        source=realm.source("client"),
        event_type=EVENT_TYPE,
        subject=f"key-{number % KEYS}",
        dataschema="urn:omnibase:bench:ThingHappened:1.0.0",
        data=envelopes.encode_data(thing),
    )
    return OutboundRecord(TOPIC, envelopes.encode(event), event.record_key, STRUCTURED_HEADERS)
