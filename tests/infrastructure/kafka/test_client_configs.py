"""Producers' and consumers' properties, whole, by purpose; and that librdkafka accepts each of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, Producer

from omnibase_infra.shared.core.errors import SettingsError
from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.kafka.consumer_factory import (
    DEFAULT_OPTIONS,
    ConsumePurpose,
    ConsumerOptions,
    consumer_config,
    create_consumer,
)
from omnibase_infra.shared.kafka.producer_config import ProducerOptions, producer_config
from omnibase_infra.shared.testing.kafka_fixtures import RecordedLog

pytestmark = pytest.mark.usefixtures("no_environment")

# Nothing listens there; creating a client awaits no connection.
SERVERS = "127.0.0.1:1"
GROUP = "test.omnibase-infra.a.consume.v1"


def settings(**values: Any) -> Settings:
    return Settings(env="test", **({"kafka_bootstrap_servers": SERVERS} | values))


READER = {
    "bootstrap.servers": SERVERS,
    "client.id": "a",
    "group.id": GROUP,
    "security.protocol": "PLAINTEXT",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",
    "allow.auto.create.topics": False,
    "isolation.level": "read_committed",
    "fetch.queue.backoff.ms": 10,
    "fetch.wait.max.ms": 100,
    "fetch.message.max.bytes": 131072,
    "queued.min.messages": 20_000,
    "queued.max.messages.kbytes": 16_384,
    "topic.metadata.refresh.interval.ms": 60_000,
    "reconnect.backoff.ms": 50,
    "reconnect.backoff.max.ms": 2_000,
    "enable.metrics.push": False,
    "log.connection.close": False,
    "statistics.interval.ms": 5_000,
}


def consumer(purpose: ConsumePurpose, options: ConsumerOptions = DEFAULT_OPTIONS, **values: Any) -> dict[str, Any]:
    return consumer_config(settings(**values), group=GROUP, purpose=purpose, client_id="a", options=options)


def test_a_group_member_of_the_classic_protocol_is_cooperative_and_commits_by_itself() -> None:
    assert consumer("consume") == READER | {
        "group.protocol": "classic",
        "partition.assignment.strategy": "cooperative-sticky",
        "session.timeout.ms": 45_000,
        "heartbeat.interval.ms": 3_000,
        "max.poll.interval.ms": 300_000,
    }


def test_a_group_member_of_kip_848_leaves_session_and_assignor_to_the_broker() -> None:
    assert consumer("consume", kafka_group_protocol="consumer") == READER | {
        "group.protocol": "consumer",
        "max.poll.interval.ms": 300_000,
    }


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_static_membership_is_by_instance_id(protocol: str) -> None:
    config = consumer("consume", kafka_group_protocol=protocol, kafka_group_instance_id="pod-0")
    assert config["group.instance.id"] == "pod-0"


def test_a_short_session_has_more_heartbeats_and_a_long_one_lengthens_the_poll_interval() -> None:
    assert consumer("consume", kafka_session_timeout_seconds=6)["heartbeat.interval.ms"] == 2_000
    config = consumer("consume", kafka_session_timeout_seconds=600)
    assert config["max.poll.interval.ms"] == config["session.timeout.ms"] == 600_000


@pytest.mark.parametrize("purpose", ["tail", "answers"])
def test_readers_without_a_group_have_no_membership(purpose: ConsumePurpose) -> None:
    assert consumer(purpose, kafka_group_instance_id="pod-0") == READER


def test_a_replay_is_told_where_partitions_end() -> None:
    assert consumer("replay") == READER | {"enable.partition.eof": True}


def test_consumer_options_are_applied_and_overrides_win() -> None:
    config = consumer(
        "consume",
        ConsumerOptions(
            max_poll_interval_seconds=60,
            statistics_seconds=0,
            fetched_records=10,
            fetched_kilobytes=100,
            overrides={"fetch.wait.max.ms": 7, "check.crcs": True},
        ),
    )
    expected = {
        "max.poll.interval.ms": 60_000,
        "statistics.interval.ms": 0,
        "queued.min.messages": 10,
        "queued.max.messages.kbytes": 100,
        "fetch.wait.max.ms": 7,
        "check.crcs": True,
    }
    assert config.items() >= expected.items()


WRITER = {
    "bootstrap.servers": SERVERS,
    "client.id": "a-0",
    "security.protocol": "PLAINTEXT",
    "enable.idempotence": True,
    "acks": "all",
    "partitioner": "murmur2_random",
    "compression.type": "lz4",
    "linger.ms": 2,
    "message.max.bytes": 1024 * 1024 + 64 * 1024,
    "queue.buffering.max.messages": 50_000,
    "queue.buffering.max.kbytes": 65_536,
    "delivery.timeout.ms": 300_000,
    "allow.auto.create.topics": False,
    "reconnect.backoff.ms": 50,
    "reconnect.backoff.max.ms": 2_000,
    "enable.metrics.push": False,
    "log.connection.close": False,
    "statistics.interval.ms": 5_000,
}


def test_a_producer_is_idempotent_ordered_and_acknowledged_by_all() -> None:
    assert producer_config(settings(), client_id="a-0") == WRITER


def test_a_producer_takes_the_largest_record_and_its_retry_headers() -> None:
    config = producer_config(settings(max_record_bytes=5_000_000), client_id="a-0")
    assert config["message.max.bytes"] == 5_000_000 + 64 * 1024


def test_producer_options_are_applied_and_overrides_win() -> None:
    options = ProducerOptions(
        linger_ms=0.5,
        queue_records=100,
        queue_kilobytes=200,
        delivery_timeout_seconds=1.5,
        statistics_seconds=0.2,
        overrides={"acks": "1"},
    )
    expected = {
        "linger.ms": 0.5,
        "queue.buffering.max.messages": 100,
        "queue.buffering.max.kbytes": 200,
        "delivery.timeout.ms": 1_500,
        "statistics.interval.ms": 200,
        "acks": "1",
    }
    assert producer_config(settings(), client_id="a", options=options).items() >= expected.items()


def test_there_is_no_default_broker() -> None:
    nowhere = settings(kafka_bootstrap_servers=None)
    with pytest.raises(SettingsError, match="OMNIBASE_KAFKA_BOOTSTRAP_SERVERS is not set"):
        producer_config(nowhere, client_id="a")
    with pytest.raises(SettingsError, match="OMNIBASE_KAFKA_BOOTSTRAP_SERVERS is not set"):
        consumer_config(nowhere, group=GROUP, purpose="tail", client_id="a")


SASL = {"kafka_sasl_username": "worker", "kafka_sasl_password": "secret"}
SECURE: list[dict[str, Any]] = [
    {},
    {"kafka_security_protocol": "SSL"},
    {"kafka_security_protocol": "SASL_SSL", "kafka_sasl_mechanism": "PLAIN", **SASL},
    {"kafka_security_protocol": "SASL_PLAINTEXT", "kafka_sasl_mechanism": "SCRAM-SHA-256", **SASL},
    {"kafka_security_protocol": "SASL_SSL", "kafka_sasl_mechanism": "SCRAM-SHA-512", **SASL},
    {
        "kafka_security_protocol": "SASL_SSL",
        "kafka_sasl_mechanism": "OAUTHBEARER",
        "kafka_oauth_token_endpoint_url": "https://127.0.0.1:1/token",
        "kafka_oauth_client_id": "worker",
        "kafka_oauth_client_secret": "secret",
        "kafka_oauth_scope": "kafka",
    },
]


@pytest.mark.parametrize("values", SECURE, ids=lambda item: "-".join(map(str, item.values())) or "PLAINTEXT")
@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_librdkafka_accepts_every_purpose_with_every_security(protocol: str, values: dict[str, Any]) -> None:
    chosen = settings(kafka_group_protocol=protocol, kafka_group_instance_id="pod-0", **values)
    log = RecordedLog()
    for purpose in ("consume", "replay", "tail", "answers"):
        create_consumer(chosen, group=GROUP, purpose=purpose, client_id="a", log=log).close()
    Producer(producer_config(chosen, client_id="a") | {"logger": log})


@pytest.mark.parametrize("names", [("ca",), ("certificate", "key")])
def test_certificates_reach_librdkafka_which_says_what_is_wrong_with_them(
    names: tuple[str, ...], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("no certificate")
    files = {f"kafka_ssl_{name}_location": broken for name in names}
    chosen = settings(kafka_security_protocol="SSL", **files)
    with pytest.raises(SettingsError, match=rf"refuses the settings of consumer a: .*ssl\.{names[0]}\.location"):
        create_consumer(chosen, group=GROUP, purpose="tail", client_id="a", log=RecordedLog())


def test_an_unknown_property_is_a_settings_error() -> None:
    with pytest.raises(SettingsError, match=r"refuses the settings of consumer a: .*no\.such\.property"):
        create_consumer(
            settings(),
            group=GROUP,
            purpose="tail",
            client_id="a",
            log=RecordedLog(),
            options=ConsumerOptions(overrides={"no.such.property": 1}),
        )


@pytest.fixture
def unreachable() -> Iterator[tuple[Consumer, RecordedLog, list[str]]]:
    log, errors = RecordedLog(), list[str]()
    consumer = create_consumer(
        settings(),
        group=GROUP,
        purpose="tail",
        client_id="a",
        log=log,
        on_error=lambda error: errors.append(error.name()),
    )
    yield consumer, log, errors
    consumer.close()


def test_errors_of_a_consumer_go_to_the_callback_and_the_log_and_never_to_stderr(
    unreachable: tuple[Consumer, RecordedLog, list[str]], capfd: pytest.CaptureFixture[str]
) -> None:
    consumer, log, errors = unreachable
    for _ in range(100):
        if "_ALL_BROKERS_DOWN" in errors:
            break
        consumer.poll(0.1)
    assert {"_TRANSPORT", "_ALL_BROKERS_DOWN"} <= set(errors)
    assert {line.event for line in log} == {"kafka_client_error", "kafka_client_log"}
    assert all(line.fields["client"] == "a" for line in log)
    assert capfd.readouterr() == ("", "")
