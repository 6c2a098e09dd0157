"""A real broker: what clients see of it, and how it comes back from every kind of end."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from omnibase_infra.shared.core.errors import LocalServiceError
from omnibase_infra.shared.local_services import KafkaService, kafka_aot, process_identity
from omnibase_infra.shared.local_services.kafka_aot import prepare_aot_cache
from omnibase_infra.shared.local_services.kafka_jars import fetch_kafka_jars
from omnibase_infra.shared.testing.tcp_proxy import TcpProxy

SECONDS = 20


@pytest.fixture
def kafka(tmp_path: Path) -> Iterator[KafkaService]:
    service = KafkaService(tmp_path / "kafka")
    yield service
    service.stop()


@pytest.fixture(scope="module")
def shared_kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaService]:
    service = KafkaService(tmp_path_factory.mktemp("shared") / "kafka")
    yield service
    service.stop()


@pytest.fixture
def running(shared_kafka: KafkaService) -> KafkaService:
    """One broker for all tests that do not harm its data; it runs when a test begins."""
    start(shared_kafka)
    return shared_kafka


def bootstrap(kafka: KafkaService) -> str:
    return kafka.variables()["OMNIBASE_KAFKA_BOOTSTRAP_SERVERS"]


def create_topic(kafka: KafkaService) -> str:
    topic = f"topic-{uuid.uuid4().hex}"
    admin = AdminClient({"bootstrap.servers": bootstrap(kafka)})
    for created in admin.create_topics([NewTopic(topic, 1)]).values():
        created.result(SECONDS)
    return topic


def produce(kafka: KafkaService, topic: str, *values: str) -> None:
    """Return when the broker has confirmed all values."""
    producer = Producer({"bootstrap.servers": bootstrap(kafka), "acks": "all"})
    failures: list[object] = []
    for value in values:
        producer.produce(topic, value, on_delivery=lambda error, _: failures.append(error) if error else None)
    assert producer.flush(SECONDS) == 0
    assert failures == []


def read_all(kafka: KafkaService, topic: str, count: int) -> list[str]:
    consumer = Consumer({"bootstrap.servers": bootstrap(kafka), "group.id": "reader"})
    with closing(consumer):
        consumer.assign([TopicPartition(topic, 0, 0)])
        records = consumer.consume(count, timeout=SECONDS)
        return [(record.value() or b"").decode() for record in records]


def start(kafka: KafkaService) -> None:
    kafka.prepare()
    kafka.start()


def pid_of(kafka: KafkaService) -> int:
    record = kafka.brokers[0].process.record()
    assert record is not None
    return record.pid


def test_records_and_address_outlive_a_stop_a_kill_and_a_lost_pid_file(running: KafkaService) -> None:
    address, topic = bootstrap(running), create_topic(running)
    produce(running, topic, "before")

    assert running.stop() is True
    assert running.status().state == "stopped"
    running.start()
    produce(running, topic, "stopped")

    os.kill(pid_of(running), signal.SIGKILL)  # as the system may; nothing of ours knows of it
    running.start()
    produce(running, topic, "killed")

    running.brokers[0].process.pid_file.unlink()
    start(running)
    produce(running, topic, "pid file lost")

    assert bootstrap(running) == address
    assert read_all(running, topic, 4) == ["before", "stopped", "killed", "pid file lost"]
    assert running.status().state == "running"


def test_starting_a_broker_that_runs_changes_nothing_and_takes_no_time(running: KafkaService) -> None:
    pid = pid_of(running)

    began = time.monotonic()
    start(running)

    assert time.monotonic() - began < 0.5
    assert pid_of(running) == pid


def test_topics_are_not_created_by_accident_and_both_group_protocols_work(running: KafkaService) -> None:
    topic = create_topic(running)
    produce(running, topic, "one")

    for protocol in ("classic", "consumer"):
        consumer = Consumer(
            {
                "bootstrap.servers": bootstrap(running),
                "group.id": protocol,
                "group.protocol": protocol,
                "auto.offset.reset": "earliest",
            }
        )
        with closing(consumer):
            consumer.subscribe([topic])
            (record,) = consumer.consume(1, timeout=SECONDS)
            assert record.value() == b"one"

    admin = AdminClient({"bootstrap.servers": bootstrap(running), "allow.auto.create.topics": True})
    admin.list_topics("accident", timeout=SECONDS)
    assert "accident" not in admin.list_topics(timeout=SECONDS).topics


def test_a_port_that_another_process_took_is_replaced_and_advertised(running: KafkaService) -> None:
    topic = create_topic(running)
    address = bootstrap(running)
    running.stop()

    with socket.create_server(("127.0.0.1", int(address.rpartition(":")[2]))):
        running.start()

        assert bootstrap(running) != address
        produce(running, topic, "reached by the advertised address")


def test_data_that_were_half_formatted_are_formatted_again(kafka: KafkaService) -> None:
    kafka.prepare()
    data = kafka.brokers[0].data
    (data / "meta.properties").unlink()
    left_over = data.parent / ".format-1-killed"
    shutil.copytree(data, left_over / "data")

    start(kafka)

    produce(kafka, create_topic(kafka), "works")
    assert not left_over.exists()


def test_data_with_topics_are_never_formatted_again(kafka: KafkaService) -> None:
    kafka.prepare()
    data = kafka.brokers[0].data
    (data / "orders-0").mkdir()
    (data / "meta.properties").unlink()

    with pytest.raises(LocalServiceError, match=r"holds partitions .orders-0.* but no meta\.properties"):
        kafka.prepare()

    assert (data / "orders-0").is_dir()


def test_a_broker_that_cannot_start_says_why_and_leaves_no_process(kafka: KafkaService) -> None:
    kafka.prepare()
    meta = kafka.brokers[0].data / "meta.properties"
    meta.write_text(meta.read_text().replace("node.id=1", "node.id=2"))

    with pytest.raises(LocalServiceError) as failure:
        kafka.start()

    assert re.search("kafka broker 1 ended (before it answered|at once)", str(failure.value))
    assert "node id" in str(failure.value).lower()
    assert process_identity.find(str(kafka.brokers[0].properties)) is None


def test_a_copied_folder_is_another_broker(running: KafkaService, tmp_path: Path) -> None:
    shutil.copytree(running.log_path.parent, tmp_path / "copy")
    copy = KafkaService(tmp_path / "copy")
    try:
        assert copy.status().state == "stopped"
        assert copy.stop() is False

        start(copy)

        assert bootstrap(copy) != bootstrap(running)
        assert pid_of(copy) != pid_of(running)
        assert running.status().state == "running"
    finally:
        copy.kill()


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    kafka = KafkaService(tmp_path / "Übungen, Teil 2" / "kafka")
    try:
        start(kafka)
        produce(kafka, create_topic(kafka), "works")
    finally:
        kafka.stop()
        kafka.delete_data()

    assert not (tmp_path / "Übungen, Teil 2" / "kafka").exists()


def test_data_of_a_running_broker_are_not_deleted(running: KafkaService) -> None:
    with pytest.raises(LocalServiceError, match="a broker runs"):
        running.delete_data()


def test_the_number_of_brokers_belongs_to_the_data(kafka: KafkaService, tmp_path: Path) -> None:
    kafka.prepare()

    with pytest.raises(LocalServiceError, match="holds the data of 1 brokers, not of 3"):
        KafkaService(tmp_path / "kafka", brokers=3).prepare()
    with pytest.raises(LocalServiceError, match="4 brokers asked for"):
        KafkaService(tmp_path / "kafka", brokers=4)


def test_an_address_is_unknown_before_the_first_start(kafka: KafkaService) -> None:
    with pytest.raises(LocalServiceError, match="never prepared"):
        kafka.variables()
    assert kafka.status().address == ""


@pytest.mark.slow
def test_three_brokers_go_on_when_one_is_killed(tmp_path: Path) -> None:
    kafka = KafkaService(tmp_path / "kafka", brokers=3)
    try:
        start(kafka)
        topic = create_topic(kafka)
        produce(kafka, topic, "three")

        kafka.brokers[0].process.kill()
        assert kafka.status().detail == "2 of 3 brokers run"
        produce(kafka, topic, "two")
        kafka.start()

        assert kafka.status().state == "running"
        assert read_all(kafka, topic, 2) == ["three", "two"]
    finally:
        kafka.stop()


def test_clients_that_come_through_a_proxy_are_sent_back_to_it(tmp_path: Path) -> None:
    kafka = KafkaService(tmp_path / "kafka", proxied=True)
    try:
        start(kafka)
        ((proxy_port, proxied_port),) = kafka.proxies()
        with TcpProxy(proxied_port, port=proxy_port) as proxy:
            client = AdminClient({"bootstrap.servers": f"127.0.0.1:{proxy_port}"})
            brokers = client.list_topics(timeout=10).brokers
            assert [broker.port for broker in brokers.values()] == [proxy_port]
            assert proxy.connections > 0
        kafka.stop()
        kafka.start()
        assert kafka.proxies() == [(proxy_port, proxied_port)]
    finally:
        kafka.kill()


def test_without_proxies_asked_for_there_is_no_second_listener(kafka: KafkaService) -> None:
    kafka.prepare()
    with pytest.raises(LocalServiceError, match="not prepared for proxies"):
        kafka.proxies()


@pytest.mark.slow
def test_the_start_up_cache_is_trained_anew_after_a_training_that_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jars = fetch_kafka_jars()
    monkeypatch.setattr(kafka_aot, "cache_directory", lambda: tmp_path)
    path = kafka_aot.aot_cache_path()
    killed = path.parent / ".train-killed"
    killed.mkdir(parents=True)

    assert prepare_aot_cache(jars) == path

    assert path.stat().st_size > 1_000_000
    assert not killed.exists()
