"""librdkafka's own reports become structured lines, a few of each kind, without secrets."""

from __future__ import annotations

import logging

from confluent_kafka import KafkaError

from omnibase_infra.shared.kafka.client_log import ClientLog
from omnibase_infra.shared.testing.kafka_fixtures import LogLine, RecordedLog

TEMPLATE = "%s [%s] %s"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_line_of_librdkafka_keeps_level_facility_and_text() -> None:
    log = RecordedLog()
    ClientLog(log, "worker-0").log(logging.ERROR, TEMPLATE, "FAIL", "rdkafka#producer-1", "connection refused")
    expected = {"client": "worker-0", "kind": "FAIL", "message": "connection refused"}
    assert log == [LogLine(logging.ERROR, "kafka_client_log", expected)]


def test_repetitions_are_counted_instead_of_written() -> None:
    log, clock = RecordedLog(), Clock()
    client = ClientLog(log, "worker-0", repeat_seconds=10, clock=clock)
    for _ in range(5):
        client.log(logging.ERROR, TEMPLATE, "FAIL", "x", "refused")
    client.log(logging.ERROR, TEMPLATE, "OTHER", "x", "another kind")
    clock.now += 10
    client.log(logging.ERROR, TEMPLATE, "FAIL", "x", "refused")
    clock.now += 10
    client.log(logging.ERROR, TEMPLATE, "FAIL", "x", "refused")
    seen = [(line.fields["kind"], line.fields.get("suppressed", 0)) for line in log]
    assert seen == [("FAIL", 0), ("OTHER", 0), ("FAIL", 4), ("FAIL", 0)]


def test_errors_are_warnings_unless_fatal() -> None:
    log = RecordedLog()
    client = ClientLog(log, "worker-0")
    client.error(KafkaError(KafkaError._ALL_BROKERS_DOWN, "1/1 brokers are down"))
    client.error(KafkaError(KafkaError.OUT_OF_ORDER_SEQUENCE_NUMBER, "sequence", fatal=True))
    seen = [(line.level, line.fields["kind"], line.fields["message"]) for line in log]
    assert seen == [
        (logging.WARNING, "_ALL_BROKERS_DOWN", "1/1 brokers are down"),
        (logging.ERROR, "OUT_OF_ORDER_SEQUENCE_NUMBER", "sequence"),
    ]


def test_secrets_in_texts_are_masked() -> None:
    log = RecordedLog()
    ClientLog(log, "worker-0").log(logging.ERROR, TEMPLATE, "OIDC", "x", "client_secret=hunter2 was refused")
    assert "hunter2" not in repr(log)


def test_lines_that_the_log_function_raised_on_are_told_with_the_next() -> None:
    lines = RecordedLog()
    broken = True

    def log(level: int, event: str, /, **fields: object) -> None:
        if broken:
            raise OSError("disk full")
        lines(level, event, **fields)

    client = ClientLog(log, "worker-0")
    client.event(logging.INFO, "one")
    client.event(logging.INFO, "two")
    broken = False
    client.event(logging.INFO, "three")
    client.event(logging.INFO, "four")
    assert [(line.event, line.fields.get("lost_lines")) for line in lines] == [("three", 2), ("four", None)]
