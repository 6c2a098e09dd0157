"""What a record counts for in the bound on bytes in flight: all that it holds in memory."""

from __future__ import annotations

import pytest

from omnibase_infra.shared.core.headers import STRUCTURED_HEADERS
from omnibase_infra.shared.core.naming import TopicName
from omnibase_infra.shared.core.worker_spec import OperationSpec
from omnibase_infra.shared.runtime.flow_control import FlowControl
from omnibase_infra.shared.runtime.lanes import Lane, Lanes
from omnibase_infra.shared.runtime.records import Headers, PartitionWork, Record

TOPIC = TopicName("cmd", "shop", "requests", 1)


def _record(work: PartitionWork, offset: int, value: bytes | None, headers: Headers | None = None) -> Record:
    record = Record(work, offset, 0, b"key", value, headers)
    work.enter([record])
    return record


@pytest.mark.parametrize(
    ("value", "headers", "size"),
    [
        (None, None, 3),
        (b"12345", None, 8),
        (b"12345", list(STRUCTURED_HEADERS), 8),
        (b"12345", [("a", b"1234"), ("bc", None)], 15),
    ],
)
def test_key_value_and_headers_count(value: bytes | None, headers: Headers | None, size: int) -> None:
    assert _record(PartitionWork(TOPIC, "dev." + str(TOPIC), 0), 0, value, headers).size == size


def test_a_few_large_records_fill_a_worker_and_leave_it_again() -> None:
    flow = FlowControl(max_records=1000, max_bytes=10_000)
    lanes = Lanes(flow.left)
    lane = Lane(OperationSpec(name="store", topic=str(TOPIC), event_type="t"), None, None)  # type: ignore[arg-type]
    lanes.add(lane)
    work = PartitionWork(TOPIC, "dev." + str(TOPIC), 0)
    records = [_record(work, offset, b"x" * 2500) for offset in range(4)]
    for record in records:
        record.lane = lane
        flow.entered(1, record.size)
    assert not flow.wait_for_room(0)
    lanes.finish(records)
    assert flow.wait_for_room(0)
    assert (flow.records, flow.bytes) == (0, 0)
