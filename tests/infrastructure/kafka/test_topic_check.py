"""A missing topic is one clear line; a broker that does not answer is another."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from omnibase_infra.shared.core.errors import DependencyUnavailableError, SettingsError, TopicMissingError
from omnibase_infra.shared.core.settings import Settings, load_settings
from omnibase_infra.shared.kafka.topic_check import missing_topics, require_topics
from omnibase_infra.shared.testing.kafka_fixtures import RecordedLog, TopicCreator

NO_FILE = Path("no-such-file")
ORDERS = "onex.evt.order-store.results.v1"


def test_topics_that_exist_pass(
    kafka_settings: Settings, kafka_topics_created: TopicCreator, kafka_log: RecordedLog
) -> None:
    (topic,) = kafka_topics_created(ORDERS)
    require_topics(kafka_settings, [topic], log=kafka_log)
    require_topics(kafka_settings, [], log=kafka_log)
    assert kafka_log == []


def test_every_missing_topic_is_named_in_one_line_and_none_is_created(
    kafka_settings: Settings, kafka_topics_created: TopicCreator, kafka_log: RecordedLog
) -> None:
    (topic,) = kafka_topics_created(ORDERS)
    absent = [f"{kafka_settings.realm}.onex.evt.b.b.v1", f"{kafka_settings.realm}.onex.evt.a.a.v1"]
    for _ in range(2):
        assert missing_topics(kafka_settings, [*absent, topic], log=kafka_log) == sorted(absent)
    with pytest.raises(TopicMissingError) as caught:
        require_topics(kafka_settings, [*absent, topic], log=kafka_log)
    assert str(caught.value) == (
        f"2 of 3 topics do not exist on {kafka_settings.kafka_bootstrap_servers}, or are not visible to this client: "
        f"{absent[1]}, {absent[0]} (run `omninode topics apply`)"
    )


def test_a_broker_that_does_not_answer_is_named_with_the_reason_in_time(
    kafka_log: RecordedLog, capfd: pytest.CaptureFixture[str]
) -> None:
    nowhere = load_settings(NO_FILE, env="test", kafka_bootstrap_servers="127.0.0.1:1")
    started = time.monotonic()
    with pytest.raises(DependencyUnavailableError) as caught:
        missing_topics(nowhere, ["a"], log=kafka_log, timeout_seconds=0.5)
    assert time.monotonic() - started < 3
    assert caught.value.dependency == "kafka"
    assert "no Kafka broker at 127.0.0.1:1 answered within 0.5 s" in str(caught.value)
    assert "Connection refused" in str(caught.value)
    assert capfd.readouterr().err == ""


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
    with pytest.raises(SettingsError, match=r"refuses the settings: .*ssl\.ca\.location"):
        missing_topics(secure, ["a"], log=kafka_log)
    with pytest.raises(SettingsError, match="OMNIBASE_KAFKA_BOOTSTRAP_SERVERS is not set"):
        missing_topics(load_settings(NO_FILE, env="test", kafka_bootstrap_servers=""), ["a"], log=kafka_log)
