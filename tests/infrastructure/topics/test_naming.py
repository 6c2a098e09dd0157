"""The public face of the names is the core's own grammar, nothing beside it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnibase_infra.shared.core import naming as core
from omnibase_infra.topics import naming

kebab = st.from_regex(r"[a-z][a-z0-9]{0,9}(-[a-z0-9]{1,6}){0,2}", fullmatch=True)
topics = st.builds(naming.TopicName, st.sampled_from(naming.TOPIC_KINDS), kebab, kebab, st.integers(1, 999))
realms = st.builds(naming.Realm, st.sampled_from(naming.ENVIRONMENTS), st.one_of(st.just(""), kebab))


def test_every_public_name_is_the_core_s() -> None:
    assert all(getattr(naming, name) is getattr(core, name) for name in naming.__all__)


@given(topics, realms)
def test_names_read_back_through_the_public_face(topic: naming.TopicName, realm: naming.Realm) -> None:
    assert naming.TopicName.parse(str(topic)) == topic
    assert naming.TopicName.parse_physical(topic.physical(realm), realm) == topic
    assert topic.physical(realm) == f"{realm}.{topic}"


@given(st.lists(topics, unique=True, min_size=2, max_size=5), kebab)
def test_sources_of_a_worker_share_a_retry_topic_only_where_lint_can_say_so(
    sources: list[naming.TopicName], worker: str
) -> None:
    retries = {naming.retry_topic(worker, source) for source in sources}

    spelled = {(source.version, "-".join((source.kind, source.producer, source.event))) for source in sources}
    assert len(retries) >= len({source.version for source in sources})
    assert len(retries) == len(sources) or len(spelled) < len(sources)


@pytest.mark.parametrize("kind", naming.TOPIC_KINDS)
def test_every_kind_of_the_wire_page_is_a_kind(kind: naming.TopicKind) -> None:
    assert naming.TopicName(kind, "a", "b", 1).kind == kind
