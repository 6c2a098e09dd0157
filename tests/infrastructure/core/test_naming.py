"""Topic, realm and group names: one grammar, and every refusal names what is wrong."""

from __future__ import annotations

import contextlib
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnibase_infra.shared.core.errors import InvalidNameError
from omnibase_infra.shared.core.naming import (
    ENVIRONMENTS,
    LONGEST_TENANT,
    MAX_NAME_LENGTH,
    TOPIC_KINDS,
    GroupPurpose,
    Realm,
    TopicName,
    dead_letter_actions_topic,
    dead_letter_topic,
    operation_type,
    resolutions_topic,
    retry_topic,
    worker_name,
)

kebab = st.from_regex(r"[a-z][a-z0-9]{0,11}(-[a-z0-9]{1,8}){0,3}", fullmatch=True)
tenants = st.one_of(st.just(""), st.from_regex(r"[a-z0-9]{1,8}(-[a-z0-9]{1,7}){0,2}", fullmatch=True))
realms = st.builds(Realm, st.sampled_from(ENVIRONMENTS), tenants)
topics = st.builds(TopicName, st.sampled_from(TOPIC_KINDS), kebab, kebab, st.integers(1, 10**6))


@given(topics)
def test_a_logical_name_reads_back_as_itself(topic: TopicName) -> None:
    assert TopicName.parse(str(topic)) == topic


@given(realms)
def test_a_realm_reads_back_as_itself(realm: Realm) -> None:
    assert Realm.parse(str(realm)) == realm


@given(topics, realms)
def test_a_physical_name_reads_back_as_itself_in_its_own_realm(topic: TopicName, realm: Realm) -> None:
    physical = topic.physical(realm)

    assert TopicName.parse_physical(physical, realm) == topic
    assert len(physical) <= MAX_NAME_LENGTH


@given(topics, realms, realms)
def test_a_physical_name_belongs_to_one_realm_only(topic: TopicName, realm: Realm, other: Realm) -> None:
    if realm == other:
        return
    with pytest.raises(InvalidNameError, match="not in the realm"):
        TopicName.parse_physical(topic.physical(realm), other)


@given(st.text(max_size=300))
def test_any_text_is_parsed_or_refused_by_the_one_error(text: str) -> None:
    for parse in (TopicName.parse, Realm.parse):
        with contextlib.suppress(InvalidNameError):
            assert str(parse(text)) == text


@given(topics, st.text(max_size=40))
def test_one_changed_segment_is_parsed_as_written_or_refused(topic: TopicName, segment: str) -> None:
    for position in range(5):
        segments = str(topic).split(".")
        segments[position] = segment
        text = ".".join(segments)
        with contextlib.suppress(InvalidNameError):
            assert str(TopicName.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "1 segments, expected 5"),
        ("onex.cmd.postgres-adapter.requests", "4 segments, expected 5"),
        ("onex.cmd.postgres-adapter.requests.v1.x", "6 segments, expected 5"),
        ("omni.cmd.postgres-adapter.requests.v1", "first segment is 'omni'"),
        ("onex.command.postgres-adapter.requests.v1", "kind 'command' is not one of"),
        ("onex.cmd.PostgresAdapter.requests.v1", "producer 'PostgresAdapter' is not kebab case"),
        ("onex.cmd.postgres_adapter.requests.v1", "did you mean 'postgres-adapter'"),
        ("onex.cmd.postgres-adapter.Requests.v1", "event 'Requests' is not kebab case"),
        ("onex.cmd.postgres-adapter..v1", "the event is empty"),
        ("onex.cmd..requests.v1", "the producer is empty"),
        ("onex.cmd.-a.requests.v1", "producer '-a'"),
        ("onex.cmd.a--b.requests.v1", "producer 'a--b'"),
        ("onex.cmd.a.requests.1", "version is '1'"),
        ("onex.cmd.a.requests.v0", "version is 'v0'"),
        ("onex.cmd.a.requests.v01", "version is 'v01'"),
        ("onex.cmd.a.requests.v1\n", "version is 'v1\\\\n'"),
        ("onex.cmd.a.requests.v٣", "version is 'v٣'"),
        ("dev.onex.cmd.a.requests.v1", "a realm prefix has no place in a logical name"),
        ("onex.cmd.a.requests.v" + "9" * 5000, "characters, Kafka allows 249"),
        ("onex.cmd." + "a" * 200 + ".requests.v1", "with the longest realm"),
    ],
)
def test_a_refused_topic_name_names_the_segment(text: str, message: str) -> None:
    with pytest.raises(InvalidNameError, match=message.replace("(", r"\(")):
        TopicName.parse(text)


def test_a_misspelt_kind_gets_a_suggestion() -> None:
    with pytest.raises(InvalidNameError, match="did you mean 'snapshot'"):
        TopicName.parse("onex.snapshots.a.state.v1")


def test_the_realm_prefix_error_says_what_to_write() -> None:
    with pytest.raises(InvalidNameError, match=r"write 'onex\.evt\.a\.b\.v1'"):
        TopicName.parse("prod-acme.onex.evt.a.b.v1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "environment ''"),
        ("production", "environment 'production' is not one of local, dev, test, staging, prod"),
        ("dev-", "the tenant is empty"),
        ("dev-Acme", "the tenant is not kebab case"),
        ("dev-a.b", "the tenant is not kebab case"),
        ("dev-" + "a" * (LONGEST_TENANT + 1), "more than 24 characters"),
    ],
)
def test_a_refused_realm_names_the_part(text: str, message: str) -> None:
    with pytest.raises(InvalidNameError, match=message):
        Realm.parse(text)


@given(realms, kebab, st.integers(1, 999), st.sampled_from(get_args(GroupPurpose)))
def test_group_names_hold_realm_service_worker_purpose_and_major(
    realm: Realm, worker: str, major: int, purpose: GroupPurpose
) -> None:
    group = realm.group(worker, major, purpose)

    assert group.split(".") == [str(realm), "omnibase-infra", worker, purpose, f"v{major}"]
    assert len(group) <= MAX_NAME_LENGTH


@given(realms, realms, kebab, kebab, st.integers(1, 99), st.integers(1, 99))
def test_two_groups_have_one_name_only_when_they_are_the_same(
    realm: Realm, other_realm: Realm, worker: str, other_worker: str, major: int, other_major: int
) -> None:
    same = (realm, worker, major) == (other_realm, other_worker, other_major)

    assert (realm.group(worker, major) == other_realm.group(other_worker, other_major)) is same


def test_a_refused_group_name_names_the_part() -> None:
    realm = Realm("dev")
    with pytest.raises(InvalidNameError, match="worker 'Postgres' is not kebab case"):
        realm.group("Postgres", 1)
    with pytest.raises(InvalidNameError, match="purpose 'read' is not one of"):
        realm.group("postgres", 1, "read")  # type: ignore[arg-type]
    with pytest.raises(InvalidNameError, match="major version is at least 1"):
        realm.group("postgres", 0)
    with pytest.raises(InvalidNameError, match="at most 249"):
        realm.group("p" * 240, 1)


def test_operation_types_follow_the_wire_page() -> None:
    assert str(operation_type("cmd", "postgres-adapter", "execute_statement")) == (
        "onex.cmd.postgres-adapter.execute-statement.v1"
    )
    assert str(operation_type("evt", "postgres-adapter", "execute_statement", "completed", 2)) == (
        "onex.evt.postgres-adapter.execute-statement-completed.v2"
    )
    assert worker_name("postgres_adapter") == "postgres-adapter"


def test_retry_and_dead_letter_topics_follow_the_wire_page() -> None:
    source = TopicName.parse("onex.cmd.order-store.requests.v2")

    assert str(retry_topic("order-store", source)) == "onex.retry.order-store.requests.v2"
    assert str(dead_letter_topic("order-store", 3)) == "onex.dlq.order-store.dead-letters.v3"
    assert str(resolutions_topic("order-store", 3)) == "onex.dlq.order-store.resolutions.v3"
    assert str(dead_letter_actions_topic("order-store", 3)) == "onex.evt.order-store.dead-letter-actions.v3"


def test_sources_that_share_an_event_name_have_retry_topics_of_their_own() -> None:
    sources = [
        TopicName.parse(text)
        for text in (
            "onex.cmd.orchestrator.results.v1",
            "onex.evt.orchestrator.results.v1",
            "onex.evt.postgres-adapter.results.v1",
            "onex.evt.kafka-adapter.results.v1",
            "onex.intent.kafka-adapter.results.v1",
        )
    ]

    assert len({retry_topic("orchestrator", source) for source in sources}) == len(sources)
