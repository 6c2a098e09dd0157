"""Rights from contracts on a broker that enforces them: each worker does its work, nothing else, and is told what it lacks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition
from tests.integration.secured_fleet import ADAPTER, TALLY, SecuredFleet, has_ended

from omnibase_infra.shared.core.errors import ClusterRefusedError, DeliveryError
from omnibase_infra.shared.core.naming import TopicName
from omnibase_infra.shared.core.ports import OutboundRecord
from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.core.worker_spec import WorkerSpec
from omnibase_infra.shared.kafka.acls import KafkaAclAdmin
from omnibase_infra.shared.kafka.admin import KafkaTopicAdmin
from omnibase_infra.shared.kafka.consumer_factory import create_consumer
from omnibase_infra.shared.kafka.outbound_topics import OutboundTopics
from omnibase_infra.shared.kafka.permissions import require_permissions
from omnibase_infra.shared.kafka.producer_pool import ProducerPool
from omnibase_infra.shared.kafka.transaction_client import transaction_config
from omnibase_infra.shared.kafka.transactional_producer import TransactionalProducer
from omnibase_infra.shared.registry.nodes import load_spec
from omnibase_infra.shared.testing.fleet import WorkerProcess, eventually
from omnibase_infra.shared.testing.kafka_fixtures import RecordedLog
from omnibase_infra.topics.acls import AclRule

pytestmark = pytest.mark.timeout(120)

NODES: Final = (ADAPTER, TALLY)


@pytest.fixture
def fleet(secured_fleet: SecuredFleet) -> SecuredFleet:
    return secured_fleet


@pytest.mark.parametrize(("node", "other"), [NODES, NODES[::-1]])
async def test_a_worker_may_do_its_work_and_nothing_else(fleet: SecuredFleet, node: str, other: str) -> None:
    fleet.prepare()
    settings, own, foreign = fleet.workers[node], load_spec(node), load_spec(other)
    realm, log = fleet.realm, RecordedLog()

    await asyncio.to_thread(require_rights, settings, *rights(fleet, own))
    with pytest.raises(ClusterRefusedError) as refused:
        await asyncio.to_thread(require_rights, settings, *rights(fleet, foreign))
    reads, writes = rights(fleet, foreign)
    for part in (*reads, *writes, str(settings.kafka_sasl_username)):
        assert part in refused.value.message
    assert "omninode acls apply" in refused.value.hint

    # The brokers say so, too, to who does not ask first: commands to itself are among what a worker does not write.
    await assert_cannot_write(settings, [own.subscribe[0], *foreign.subscribe, *sorted(foreign.writable_topics())])
    group = realm.group(own.worker, own.major)
    assert_cannot_read(settings, [physical(fleet, one) for one in (str(own.dead_letter_topic), *own.publish)], group)
    assert_cannot_see(settings, [physical(fleet, one) for one in (*foreign.subscribe, *foreign.publish)], group)
    assert_cannot_join(settings, physical(fleet, own.subscribe[0]), realm.group(foreign.worker, foreign.major))
    await assert_cannot_run_transactions(settings, realm.transactional_id(foreign.worker, "v1.mine"))
    with pytest.raises(ClusterRefusedError):
        await asyncio.to_thread(KafkaTopicAdmin(settings, log=log).create, physical(fleet, "onex.evt.a.b.v1"), 1, 1, {})
    mine = AclRule(f"User:{settings.kafka_sasl_username}", "topic", physical(fleet, foreign.subscribe[0]), "read")
    with pytest.raises(ClusterRefusedError, match=r"super\.users"):
        await asyncio.to_thread(KafkaAclAdmin(settings, log=log).grant, [mine])


async def test_a_worker_without_rights_ends_and_names_them_all(fleet: SecuredFleet) -> None:
    made = await asyncio.to_thread(fleet.command, "topics", "apply")
    assert made.exit_code == 0, made.output

    without = fleet.start(TALLY)
    error = await ended_with_error(without)
    user = fleet.workers[TALLY].kafka_sasl_username
    assert f"do not let user {user!r} see" in error
    assert all(topic in error for topic in rights(fleet, load_spec(TALLY))[0])
    assert "hint: an administrator grants what contracts need by `omninode acls apply`" in without.log


async def test_a_worker_whose_rights_are_taken_away_ends_and_says_so(fleet: SecuredFleet) -> None:
    fleet.prepare()
    worker = fleet.start(TALLY)
    await eventually(worker.is_ready, "the worker is ready", 40)

    admin = KafkaAclAdmin(fleet.administrator, log=RecordedLog())
    topic = physical(fleet, load_spec(TALLY).subscribe[0])
    user = f"User:{fleet.workers[TALLY].kafka_sasl_username}"
    await asyncio.to_thread(admin.revoke, [AclRule(user, "topic", topic, "read")])

    error = await ended_with_error(worker)
    assert "do not let this worker read on" in error


def test_plan_and_apply_bring_the_cluster_to_the_contracts(fleet: SecuredFleet) -> None:
    assert fleet.command("topics", "apply").exit_code == 0
    planned = fleet.command("acls", "plan")
    group = f"+ User:{fleet.realm}.tally may read group {fleet.realm}.omnibase-infra.tally.consume.v1"
    assert (planned.exit_code, group in planned.stdout.splitlines()) == (2, True), planned.output
    ids = f"may write transactional-id {fleet.realm}.omnibase-infra.tally.v1.*"
    assert planned.stdout.count("transactional-id") == planned.stdout.count(ids) == 1

    assert fleet.command("acls", "apply").exit_code == 0
    again = fleet.command("acls", "apply")
    assert (again.exit_code, again.stdout) == (0, "0 rights granted, the cluster is as the contracts say\n")

    admin = KafkaAclAdmin(fleet.administrator, log=RecordedLog())
    topic = physical(fleet, "onex.evt.tally.results.v1")
    too_much = AclRule(f"User:{fleet.realm}.postgres-adapter", "topic", topic, "read")
    of_old = AclRule(f"User:{fleet.realm}.retired", "topic", topic, "all", "prefixed")
    of_others = AclRule("User:somebody-else", "topic", topic, "read")
    admin.grant([too_much, of_old, of_others])
    planned = fleet.command("acls", "plan")
    assert planned.exit_code == 2
    assert [line for line in planned.stdout.splitlines() if line[0] in "+-"] == [
        f"- {too_much}: no contract needs it",
        f"- {of_old}: no contract needs it",
    ]
    left = fleet.command("acls", "apply")
    assert (left.exit_code, "2 left" in left.stdout) == (1, True), left.output
    assert fleet.command("acls", "apply", "--revoke").exit_code == 0
    assert fleet.command("acls", "plan").exit_code == 0
    assert of_others in admin.rules()
    admin.revoke([of_others])


def test_an_operator_needs_nothing_beyond_the_prefix_of_the_realm(fleet: SecuredFleet) -> None:
    operator = fleet.new_user("operator")
    everything = [
        AclRule(f"User:{operator.kafka_sasl_username}", resource, f"{fleet.realm}.", "all", "prefixed")
        for resource in ("topic", "group", "transactional-id")
    ]
    KafkaAclAdmin(fleet.administrator, log=RecordedLog()).grant(everything)

    def run(*command: str) -> str:
        done = fleet.command(*command, settings=operator)
        assert done.exit_code == 0, f"{command}: {done.output}"
        return done.stdout

    async def send() -> None:
        async with ProducerPool(operator, client_id="operator", log=RecordedLog()) as pool:
            await pool.send([OutboundRecord(load_spec(TALLY).subscribe[0], b"no envelope")])

    run("topics", "apply")
    fleet.command("acls", "apply")
    asyncio.run(eventually(fleet.start(TALLY).is_ready, "the worker is ready", 40))
    asyncio.run(send())
    asyncio.run(eventually(lambda: "undecodable" in run("dlq", "list", TALLY), "the record is a dead letter"))
    run("dlq", "redrive", TALLY, "--yes")
    run("offsets", "show", TALLY)
    run("topics", "check")


def test_a_cluster_without_an_authorizer_is_told_so(fleet: SecuredFleet, kafka_settings: Settings) -> None:
    planned = fleet.command("acls", "plan", settings=kafka_settings)
    assert planned.exit_code == 1, planned.output
    assert "has no authorizer" in planned.stderr
    assert "authorizer.class.name" in planned.stderr


def physical(fleet: SecuredFleet, topic: str) -> str:
    return TopicName.parse(topic).physical(fleet.realm)


def rights(fleet: SecuredFleet, spec: WorkerSpec) -> tuple[list[str], list[str]]:
    """Return what a worker must be able to read, and to write."""
    retries = [str(topic) for topic in spec.retry_topics.values()]
    reads = [physical(fleet, topic) for topic in (*spec.subscribe, *retries)]
    return reads, [physical(fleet, topic) for topic in spec.writable_topics()]


def require_rights(settings: Settings, reads: Sequence[str], writes: Sequence[str]) -> None:
    require_permissions(settings, reads=reads, writes=writes, log=RecordedLog())


async def assert_cannot_write(settings: Settings, topics: Sequence[str]) -> None:
    async with ProducerPool(settings, client_id="intruder", log=RecordedLog()) as pool:
        with pytest.raises(DeliveryError) as refused:
            await pool.send([OutboundRecord(topic, b"{}") for topic in topics])
    assert len(refused.value.errors) == len(topics)
    assert all("authorization failed" in reason for reason in refused.value.errors.values())
    assert "omninode acls apply" in refused.value.hint


def assert_cannot_see(settings: Settings, topics: Sequence[str], group: str) -> None:
    consumer = create_consumer(settings, group=group, purpose="tail", client_id="intruder", log=RecordedLog())
    try:
        for topic in topics:
            error = consumer.list_topics(topic, timeout=10).topics[topic].error
            assert error is not None, topic
            assert error.name() == "TOPIC_AUTHORIZATION_FAILED"
    finally:
        consumer.close()


def assert_cannot_read(settings: Settings, topics: Sequence[str], group: str) -> None:
    consumer = create_consumer(settings, group=group, purpose="tail", client_id="intruder", log=RecordedLog())
    refused: set[str] = set()
    deadline = time.monotonic() + 20
    try:
        consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING) for topic in topics])
        while refused < set(topics) and time.monotonic() < deadline:
            if (message := consumer.poll(0.2)) is not None:
                error = message.error()
                assert error is not None, message.topic()
                assert error.name() == "TOPIC_AUTHORIZATION_FAILED"
                refused.add(str(message.topic()))
    finally:
        consumer.close()
    assert refused == set(topics)


def assert_cannot_join(settings: Settings, topic: str, group: str) -> None:
    consumer = create_consumer(settings, group=group, purpose="consume", client_id="intruder", log=RecordedLog())
    try:
        consumer.subscribe([topic])
        assert "GROUP_AUTHORIZATION_FAILED" in first_error(consumer)
    finally:
        consumer.close()


def first_error(consumer: Consumer) -> str:
    """Return the name of what a consumer is told instead of a record."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            message = consumer.poll(0.2)
        except KafkaException as error:
            return str(error.args[0].name())
        if message is not None:
            reported = message.error()
            assert reported is not None, "a record was read"
            return str(reported.name())
    raise AssertionError("no error came")


async def assert_cannot_run_transactions(settings: Settings, identity: str) -> None:
    config = transaction_config(settings, transactional_id=identity, client_id="intruder")
    producer = TransactionalProducer(config, OutboundTopics(settings.realm, None, ""), log=RecordedLog())
    producer.start()
    try:
        with pytest.raises(ClusterRefusedError, match="do not let this user run transactions"):
            await asyncio.wrap_future(producer.submit([]))
    finally:
        await producer.close(5)


async def ended_with_error(worker: WorkerProcess) -> str:
    """Wait until a worker has ended; return its one error."""
    await has_ended(worker)
    errors = [line for line in worker.log.splitlines() if line.startswith("error:")]
    assert (worker.exit_code, len(errors)) == (1, 1), worker.log
    return errors[0]
