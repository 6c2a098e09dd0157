"""Our histogram shows exactly what prometheus_client's own would."""

from __future__ import annotations

from threading import Thread

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from omnibase_infra.shared.observability.batch_histogram import BatchHistogram
from omnibase_infra.shared.observability.metric_definitions import HistogramDefinition

BUCKETS = (0.5, 1.0, 10.0, 1000000.0)
DEFINITION = HistogramDefinition("omnibase_x_seconds", "Some time.", "seconds", ("worker",), BUCKETS)


def _page_of_ours(batches: list[list[float]]) -> bytes:
    registry = CollectorRegistry()
    family = BatchHistogram(DEFINITION)
    registry.register(family)
    for batch in batches:
        family.labels("w").observe_many(batch)
    return generate_latest(registry)


def _page_of_theirs(batches: list[list[float]]) -> bytes:
    registry = CollectorRegistry()
    child = Histogram(
        DEFINITION.name, DEFINITION.meaning, DEFINITION.labels, buckets=BUCKETS, registry=registry
    ).labels("w")
    for value in (value for batch in batches for value in batch):
        child.observe(value)
    return b"".join(line + b"\n" for line in generate_latest(registry).splitlines() if b"_created" not in line)


# Halves are exact in binary, so the sums are equal to the last digit whatever their order.
@given(st.lists(st.lists(st.integers(0, 4_000_000).map(lambda half: half / 2), max_size=20), min_size=1, max_size=5))
def test_it_counts_and_sums_like_prometheus_client(batches: list[list[float]]) -> None:
    assert _page_of_ours(batches) == _page_of_theirs(batches)


def test_a_value_can_be_counted_several_times_over() -> None:
    child = BatchHistogram(DEFINITION).labels("w")
    child.observe(0.75, times=3)
    assert child.snapshot() == ((0, 3, 0, 0, 0), 2.25)


def test_equal_labels_share_a_child() -> None:
    family = BatchHistogram(DEFINITION)
    assert family.labels("w") is family.labels("w")


def test_threads_lose_no_values() -> None:
    child = BatchHistogram(DEFINITION).labels("w")

    def observe() -> None:
        for _ in range(2_000):
            child.observe_many([0.25, 5.0])

    threads = [Thread(target=observe) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert child.snapshot() == ((8_000, 0, 8_000, 0, 0), 42_000.0)
