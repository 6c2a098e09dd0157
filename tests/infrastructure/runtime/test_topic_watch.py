"""Topics that are gone or made anew stop the worker, and from the first doubt on nothing is committed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

import pytest

from omnibase_infra.shared.core.errors import DependencyUnavailableError, TopicMissingError, TopicReplacedError
from omnibase_infra.shared.observability.structured_logger import get_logger
from omnibase_infra.shared.runtime import topic_watch
from omnibase_infra.shared.runtime.topic_watch import LOOKS, TopicWatch

Found = Mapping[str, str | None]


class EndedError(Exception):
    """The script has no more answers."""


class Brokers:
    """Answers each look with the next of its script; None is no answer."""

    def __init__(self, *script: Found | None) -> None:
        self._script = list(script)
        self.held: list[bool] = []
        self.watch = TopicWatch(self._look, self.held.append, get_logger())

    async def _look(self) -> Found:
        if not self._script:
            raise EndedError
        answer = self._script.pop(0)
        if answer is None:
            raise DependencyUnavailableError("away", dependency="kafka")
        return answer


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic_watch, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(topic_watch, "AGAIN_SECONDS", 0.0)


async def test_topics_that_stay_the_same_hold_nothing() -> None:
    brokers = Brokers({"a": "1", "b": "2"}, {"a": "1", "b": "2"}, None, {"a": "1", "b": "2"})
    with pytest.raises(EndedError):
        await brokers.watch.run()
    assert brokers.held == []
    assert brokers.watch.ids() == {"a": "1", "b": "2"}


async def test_a_topic_that_is_gone_ends_the_worker_and_is_named() -> None:
    brokers = Brokers({"a": "1", "b": "2"}, *[{"a": "1", "b": None}] * LOOKS)
    with pytest.raises(TopicMissingError, match=r"^b does not exist .*omninode topics apply"):
        await brokers.watch.run()
    assert brokers.held == [True] * LOOKS


async def test_a_topic_made_anew_ends_the_worker_and_tells_what_to_do() -> None:
    brokers = Brokers({"a": "1"}, {"a": None}, *[{"a": "9"}] * (LOOKS - 1))
    with pytest.raises(TopicReplacedError, match=r"^a was deleted and made anew: .*omninode offsets reset"):
        await brokers.watch.run()
    assert brokers.held == [True] * LOOKS
    assert brokers.watch.ids() == {"a": "1"}


async def test_a_broker_that_does_not_know_a_topic_for_a_moment_only_holds_up_commits() -> None:
    brokers = Brokers({"a": "1"}, *[{"a": None}] * (LOOKS - 1), {"a": "1"}, {"a": None}, {"a": "1"})
    with pytest.raises(EndedError):
        await brokers.watch.run()
    assert brokers.held == [True, True, False, True, False]


async def test_brokers_that_go_away_while_a_topic_is_doubtful_leave_it_so() -> None:
    brokers = Brokers({"a": "1"}, {"a": "9"}, None, None, *[{"a": "9"}] * (LOOKS - 1))
    with pytest.raises(TopicReplacedError):
        await brokers.watch.run()
    assert False not in brokers.held


async def test_a_worker_that_starts_before_the_brokers_remembers_what_it_finds_first() -> None:
    brokers = Brokers(None, None, {"a": "1"}, *[{"a": "2"}] * LOOKS)
    with pytest.raises(TopicReplacedError):
        await brokers.watch.run()


async def test_brokers_without_ids_tell_only_what_is_gone() -> None:
    brokers = Brokers({"a": ""}, {"a": ""}, *[{"a": None}] * LOOKS)
    with pytest.raises(TopicMissingError):
        await brokers.watch.run()
    assert brokers.watch.ids() == {}


async def test_whoever_needs_the_ids_waits_for_the_first_look_in_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic_watch, "FIRST_SECONDS", 0.05)
    brokers = Brokers({"a": "1"})
    began = time.monotonic()
    assert await asyncio.to_thread(brokers.watch.ids) == {}
    assert 0.05 <= time.monotonic() - began < 5
    monkeypatch.setattr(topic_watch, "FIRST_SECONDS", 5.0)
    asked = asyncio.create_task(asyncio.to_thread(brokers.watch.ids))
    with pytest.raises(EndedError):
        await brokers.watch.run()
    assert await asked == {"a": "1"}


async def test_whoever_was_frozen_gets_a_look_that_began_after_it_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic_watch, "LOOK_SECONDS", 60.0)
    brokers = Brokers({"a": "1"}, {"a": "1"})
    running = asyncio.create_task(brokers.watch.run())
    await asyncio.to_thread(brokers.watch.ids)
    thawed_at = time.monotonic()
    deadline = thawed_at + 5
    assert not brokers.watch.seen_since(thawed_at)
    while not brokers.watch.seen_since(thawed_at):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)
    assert not brokers.watch.seen_since(time.monotonic() + 60)
    with pytest.raises(EndedError):
        await running


async def test_a_look_that_finds_another_topic_is_none_that_lets_go_on() -> None:
    brokers = Brokers({"a": "1"}, *[{"a": "2"}] * LOOKS)
    began = time.monotonic()
    with pytest.raises(TopicReplacedError):
        await brokers.watch.run()
    assert brokers.watch.seen_since(began)
    assert not brokers.watch.seen_since(time.monotonic())
