"""A topic is known by its id: gone is None, made anew is another one, and brokers that are away are an error in time."""

from __future__ import annotations

import gc
import time
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient

from omnibase_infra.shared.core.errors import DependencyUnavailableError, SettingsError
from omnibase_infra.shared.core.settings import Settings, load_settings
from omnibase_infra.shared.kafka.admin import KafkaTopicAdmin
from omnibase_infra.shared.kafka.topic_identity import TopicIdentity
from omnibase_infra.shared.testing.kafka_fixtures import RecordedLog, TopicCreator

NO_FILE = Path("no-such-file")
ORDERS = "onex.evt.order-store.results.v1"
OTHERS = "onex.evt.order-store.others.v1"


def test_ids_stay_until_the_topic_is_deleted_and_are_others_when_it_is_made_anew(
    kafka_settings: Settings, kafka_topics_created: TopicCreator, kafka_log: RecordedLog
) -> None:
    topics = kafka_topics_created(ORDERS, OTHERS)
    identity = TopicIdentity(kafka_settings, topics, log=kafka_log)
    first = identity.look()
    assert list(first) == topics
    assert all(first.values())
    assert len(set(first.values())) == 2
    assert identity.look() == first

    gone, stays = topics
    client = AdminClient({"bootstrap.servers": str(kafka_settings.kafka_bootstrap_servers)})
    client.delete_topics([gone])[gone].result(10)
    deadline = time.monotonic() + 10
    while identity.look()[gone] is not None:
        assert time.monotonic() < deadline
    assert identity.look() == {gone: None, stays: first[stays]}

    KafkaTopicAdmin(kafka_settings, log=kafka_log).create(gone, 1, 1, {})
    again = identity.look()
    assert again[stays] == first[stays]
    assert again[gone] not in (None, "", first[gone])


def test_brokers_that_are_away_are_an_error_in_time_and_the_next_look_has_a_new_client(kafka_log: RecordedLog) -> None:
    nowhere = load_settings(NO_FILE, env="test", kafka_bootstrap_servers="127.0.0.1:1")
    identity = TopicIdentity(nowhere, ["a"], log=kafka_log, timeout_seconds=0.5)
    for _ in range(2):
        started = time.monotonic()
        with pytest.raises(DependencyUnavailableError, match=r"within 0.5 s") as caught:
            identity.look()
        assert time.monotonic() - started < 3
        assert caught.value.dependency == "kafka"


def test_a_client_that_failed_leaves_no_thread_behind_though_the_collector_never_comes_by(
    kafka_log: RecordedLog,
) -> None:
    """A worker collects seldom, and each of its outages used to leave a client with all its threads and sockets."""
    nowhere = load_settings(NO_FILE, env="test", kafka_bootstrap_servers="127.0.0.1:1")
    identity = TopicIdentity(nowhere, ["a"], log=kafka_log, timeout_seconds=0.3)
    before = threads()
    gc.disable()
    try:
        for _ in range(4):
            with pytest.raises(DependencyUnavailableError):
                identity.look()
        deadline = time.monotonic() + 10
        while threads() > before:
            assert time.monotonic() < deadline, f"{threads() - before} threads more than before"
            time.sleep(0.05)
    finally:
        gc.enable()


def threads() -> int:
    """Return how many threads this process has, those of libraries included."""
    return len(list(Path("/proc/self/task").iterdir()))


def test_settings_that_the_client_refuses_are_a_settings_error(kafka_log: RecordedLog, tmp_path: Path) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    secure = load_settings(
        NO_FILE,
        env="test",
        kafka_bootstrap_servers="127.0.0.1:1",
        kafka_security_protocol="SSL",
        kafka_ssl_ca_location=broken,
    )
    with pytest.raises(SettingsError, match="refuses the settings"):
        TopicIdentity(secure, ["a"], log=kafka_log).look()
