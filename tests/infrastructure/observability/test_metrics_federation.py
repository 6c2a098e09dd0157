"""The pages of several processes as one: what counts adds up, states are taken as their declaration says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from omnibase_infra.shared.observability import metric_definitions as metric
from omnibase_infra.shared.observability.endpoint_files import WorkerEndpoint, announced, announced_endpoints
from omnibase_infra.shared.observability.metrics_federation import merged_page
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry


def page_of(worker: str, number: int) -> str:
    """Return the page of a process that has done `number` of everything."""
    registry = MetricsRegistry(process_metrics=False)
    labels = {"worker": worker, "version": "1.0.0", "contract": "abc", "python": "3.11"}
    registry.gauge(metric.BUILD_INFO, **labels).set(1)
    registry.counter(metric.COMMITS, worker=worker).inc(number)
    registry.gauge(metric.IN_FLIGHT_RECORDS, worker=worker).set(number)
    registry.gauge(metric.COMMIT_AGE_SECONDS, worker=worker).set(number)
    registry.gauge(metric.SECRET_EXPIRY, worker=worker, setting="kafka_sasl_password").set(1000 + number)
    registry.histogram(metric.REBALANCE_SECONDS, worker=worker).observe(0.01, number)
    return registry.exposition().decode()


def values(page: bytes) -> dict[str, float]:
    return {
        f"{sample.name}{{{sample.labels.get('worker', '')},{sample.labels.get('le', '')}}}": sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def test_counters_and_histograms_add_up_and_gauges_follow_their_declaration() -> None:
    found = values(merged_page([page_of("a", 3), page_of("a", 5), page_of("b", 7)]))
    assert found["omnibase_commits_total{a,}"] == 8
    assert found["omnibase_commits_total{b,}"] == 7
    assert found["omnibase_in_flight_records{a,}"] == 8
    assert found["omnibase_commit_age_seconds{a,}"] == 5
    assert found["omnibase_secret_expiry_timestamp_seconds{a,}"] == 1003
    assert found["omnibase_rebalance_seconds_count{a,}"] == 8
    assert found["omnibase_rebalance_seconds_bucket{a,+Inf}"] == 8
    assert found["omnibase_rebalance_seconds_bucket{a,0.005}"] == 0
    assert (found["omnibase_processes{a,}"], found["omnibase_processes{b,}"]) == (2, 1)


def test_a_page_alone_stays_what_it_was() -> None:
    page = page_of("a", 3)
    found = values(merged_page([page]))
    assert found.pop("omnibase_processes{a,}") == 1
    assert found == values(page.encode())


def test_the_merged_page_may_be_openmetrics() -> None:
    page = merged_page([page_of("a", 3), page_of("a", 5)], openmetrics=True).decode()
    names = {family.name for family in parse_openmetrics(page)}  # type: ignore[no-untyped-call]
    assert {"omnibase_commits", "omnibase_rebalance_seconds", "omnibase_processes"} <= names


def test_what_is_no_page_is_refused() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        merged_page(["nonsense"])


def test_an_endpoint_is_found_while_its_process_runs(tmp_path: Path) -> None:
    here = WorkerEndpoint("a", "test", os.getpid(), "http://127.0.0.1:1")
    with announced(tmp_path, here):
        assert announced_endpoints(tmp_path) == [here]
    assert announced_endpoints(tmp_path) == []


def test_the_file_of_a_process_that_was_killed_is_removed(tmp_path: Path) -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait(30)
    with announced(tmp_path, WorkerEndpoint("a", "test", ended.pid, "http://127.0.0.1:1")):
        assert announced_endpoints(tmp_path) == []
        assert list((tmp_path / "endpoints").iterdir()) == []


def test_a_file_that_is_none_of_ours_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "endpoints").mkdir()
    (tmp_path / "endpoints" / "x.json").write_text("{")
    assert announced_endpoints(tmp_path) == []


def test_without_a_state_folder_nothing_is_written(tmp_path: Path) -> None:
    with announced(tmp_path / "none", WorkerEndpoint("a", "test", 1, "http://127.0.0.1:1")):
        assert not (tmp_path / "none").exists()


def test_a_folder_that_cannot_be_written_costs_the_announcement_only(tmp_path: Path) -> None:
    (tmp_path / "endpoints").write_text("a file where the folder should be")
    with announced(tmp_path, WorkerEndpoint("a", "test", os.getpid(), "http://127.0.0.1:1")):
        assert announced_endpoints(tmp_path) == []
