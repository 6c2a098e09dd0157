"""librdkafka's statistics, reduced to lag, connected brokers and what was fetched ahead."""

from __future__ import annotations

import json
from typing import Any

from omnibase_infra.shared.kafka.statistics import PartitionStatistics, parse_statistics


def partition(**values: Any) -> PartitionStatistics:
    return PartitionStatistics(**{"partition": 0, "fetch_state": "active", **values})


def test_lag_is_what_lies_behind_the_committed_offset() -> None:
    assert partition(consumer_lag=7, committed_offset=3, ls_offset=10).lag == 7
    assert partition(consumer_lag=0, committed_offset=10, ls_offset=10).lag == 0


def test_before_the_first_commit_lag_counts_from_the_position_or_the_start_of_the_log() -> None:
    assert partition(ls_offset=10, lo_offset=2).lag == 8
    assert partition(ls_offset=10, lo_offset=2, app_offset=6).lag == 4


def test_lag_is_unknown_rather_than_wrong() -> None:
    assert partition().lag is None
    assert partition(ls_offset=10).lag is None
    assert partition(committed_offset=4, lo_offset=0).lag is None


def test_partitions_that_are_not_consumed_have_no_lag() -> None:
    assert partition(fetch_state="none", consumer_lag=5).lag is None
    assert partition(fetch_state="stopped", consumer_lag=5).lag is None
    assert partition(partition=-1, consumer_lag=5).lag is None


def test_a_report_is_parsed_by_the_fields_that_are_known() -> None:
    active = {"fetch_state": "active", "consumer_lag": 3, "fetchq_cnt": 4, "fetchq_size": 400}
    report = {
        "name": "worker#consumer-1",
        "type": "consumer",
        "msg_cnt": 5,
        "msg_max": 100,
        "brokers": {
            "a:9092/bootstrap": {"nodeid": -1, "state": "UP", "rtt": {"avg": 1}},
            "a:9092/1": {"nodeid": 1, "state": "UP"},
            "b:9092/2": {"nodeid": 2, "state": "DOWN"},
            "GroupCoordinator": {"nodeid": 1, "state": "UP"},
        },
        "topics": {
            "t": {
                "age": 1,
                "partitions": {
                    "0": {"partition": 0, **active},
                    "1": {"partition": 1, **active, "fetch_state": "none"},
                    "-1": {"partition": -1, "fetch_state": "none", "fetchq_cnt": 0, "fetchq_size": 0},
                },
            }
        },
    }
    statistics = parse_statistics(json.dumps(report))
    assert (statistics.name, statistics.msg_cnt, statistics.msg_max) == ("worker#consumer-1", 5, 100)
    assert statistics.connected_brokers() == 1
    assert statistics.lag() == {("t", 0): 3}
    assert statistics.fetched() == (8, 800)


def test_a_report_without_topics_is_empty() -> None:
    statistics = parse_statistics("{}")
    assert (statistics.lag(), statistics.connected_brokers(), statistics.fetched()) == ({}, 0, (0, 0))
