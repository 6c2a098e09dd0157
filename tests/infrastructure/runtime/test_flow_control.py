"""Flow control bounds records and bytes, with room again only well below the bound."""

from __future__ import annotations

import threading
import time

from omnibase_infra.shared.runtime.flow_control import FlowControl


def test_there_is_room_below_both_bounds() -> None:
    flow = FlowControl(10, 1000)
    flow.entered(9, 999)
    assert flow.wait_for_room(0)
    assert (flow.records, flow.bytes) == (9, 999)


def test_either_bound_ends_the_room() -> None:
    many, large = FlowControl(10, 1000), FlowControl(10, 1000)
    many.entered(10, 1)
    large.entered(1, 1000)
    assert not many.wait_for_room(0)
    assert not large.wait_for_room(0)


def test_once_full_it_stays_full_until_well_below_the_bound() -> None:
    flow = FlowControl(10, 1000)
    flow.entered(10, 10)
    assert not flow.wait_for_room(0)
    flow.left(1, 1)
    assert not flow.wait_for_room(0), "one record less must not resume partitions: each pause drops what was fetched"
    flow.left(3, 3)
    assert flow.wait_for_room(0)
    flow.entered(3, 3)
    assert flow.wait_for_room(0)


def test_a_wait_ends_when_enough_has_left() -> None:
    flow = FlowControl(10, 1000)
    flow.entered(10, 10)
    leaving = threading.Timer(0.02, flow.left, (10, 10))
    leaving.start()
    began = time.monotonic()
    assert flow.wait_for_room(10)
    assert time.monotonic() - began < 5
    leaving.join()


def test_a_wait_can_be_interrupted() -> None:
    flow = FlowControl(1, 1000)
    flow.entered(1, 1)
    interrupting = threading.Timer(0.02, flow.interrupt)
    interrupting.start()
    began = time.monotonic()
    flow.wait_for_room(10)
    assert time.monotonic() - began < 5
    interrupting.join()
