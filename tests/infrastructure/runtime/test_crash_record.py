"""Deaths are counted in commits: a clean stop never counts, the one record that kills is found, others are spared."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnibase_infra.shared.runtime.crash_record import (
    CLEAN,
    GROUP_RECORDS,
    WINDOW_RECORDS,
    CrashRecord,
    after,
    topic_id,
)

offsets = st.integers(0, 10**9)
groups = st.lists(offsets, max_size=GROUP_RECORDS, unique=True).map(lambda some: tuple(sorted(some)))
stories = st.builds(
    CrashRecord,
    deaths=st.integers(0, 20),
    until=offsets,
    running=groups,
    suspects=groups,
    guilty=groups,
    topic=st.text("abcXYZ09-_", max_size=22),
)


@given(stories, offsets, offsets)
def test_a_clean_stop_never_counts_as_a_death(story: CrashRecord, position: int, end: int) -> None:
    assert after(story.clean, position, end, story.topic) == CrashRecord(topic=story.topic)


@given(stories, offsets)
def test_where_nothing_is_left_to_run_nothing_can_have_killed(story: CrashRecord, position: int) -> None:
    assert after(story.metadata(position), position, position).deaths == 0


@given(offsets)
def test_a_partition_that_only_topics_apply_has_committed_has_no_story(position: int) -> None:
    assert after(None, position, position + 5) == after("", position, position + 5) == CrashRecord()


@given(st.text(max_size=40).filter(lambda text: not text.startswith(CLEAN)), offsets)
def test_metadata_of_somebody_else_is_no_story_and_no_error(metadata: str, position: int) -> None:
    assert after(metadata, position, position + 5).deaths in (0, 1)
    assert isinstance(topic_id(metadata), str)


@pytest.mark.parametrize("metadata", ["null", "[]", "5", '"x"', '{"d":"three"}', '{"r":7}', "{"])
def test_metadata_of_another_shape_is_no_story(metadata: str) -> None:
    assert after(metadata, 0, 5) == CrashRecord()
    assert topic_id(metadata) == ""


@given(stories, offsets)
def test_a_story_fits_beside_an_offset_and_says_of_which_topic_it_is(story: CrashRecord, position: int) -> None:
    told = story.metadata(position)
    assert len(told.encode()) < 4096
    assert topic_id(told) == topic_id(story.clean) == story.topic


@given(stories, offsets)
def test_past_what_may_have_killed_a_partition_commits_no_trouble(story: CrashRecord, beyond: int) -> None:
    assert story.metadata(story.until + beyond) == CrashRecord(topic=story.topic).metadata(0)


@given(stories, offsets, st.integers(1, 10**6))
def test_a_death_after_the_trouble_was_over_is_the_first_of_another(story: CrashRecord, beyond: int, left: int) -> None:
    position = story.until + beyond
    told = story.metadata(position)
    assert after(told, position, position + left) == CrashRecord(deaths=1, until=position + min(left, WINDOW_RECORDS))


@given(stories, offsets, st.integers(1, 10**6))
def test_nobody_is_guilty_that_was_not_suspect_and_alone(story: CrashRecord, position: int, left: int) -> None:
    told = after(story.metadata(position), position, position + left)
    if set(told.guilty) - set(story.guilty):
        (killer,) = story.running if len(story.running) == 1 else [one for one in story.running if one >= position]
        assert killer in story.suspects
        assert set(told.guilty) - set(story.guilty) == {killer}
    assert not set(told.guilty) & set(told.suspects) - set(story.guilty)


@given(stories, offsets, st.integers(1, 10**6))
def test_what_lies_below_the_commit_is_never_blamed(story: CrashRecord, position: int, left: int) -> None:
    told = after(story.metadata(position), position, position + left)
    assert all(offset >= position for offset in (*told.suspects, *told.guilty))


class Partition:
    """A partition whose owners die of some record, as `Careful` runs it: in groups, then suspects alone."""

    def __init__(self, killers: set[int], size: int, group: int) -> None:
        self.killers = killers
        self.size = size
        self.group = group
        self.buried: set[int] = set()
        self.ran: dict[int, int] = {}
        self.told = CLEAN
        self.position = 0
        self.finished: set[int] = set()
        self.deaths = 0

    def own(self) -> bool:
        """Run until the end or a death; return whether the end was reached."""
        story = after(self.told, self.position, self.size)
        self.finished = {offset for offset in self.finished if offset < self.position}
        waiting = [offset for offset in range(self.position, self.size) if offset not in self.finished]
        while waiting:
            group = self._choose(story, waiting)
            del waiting[: len(group)]
            if group[0] in story.guilty:
                self.buried.add(group[0])
            elif story.deaths:
                story = story.naming(group)
                self.told = story.metadata(self.position)
                if self._run(group):
                    return False
                story = story.cleared(group)
            else:
                self.told = story.metadata(self.position)
                if self._run(group):
                    return False
            self.finished.update(group)
            while self.position in self.finished:
                self.position += 1
            self.told = story.metadata(self.position)
        return True

    def _choose(self, story: CrashRecord, waiting: list[int]) -> list[int]:
        group: list[int] = []
        for offset in waiting[: self.group]:
            if offset in story.suspects or offset in story.guilty:
                return group or [offset]
            group.append(offset)
        return group

    def _run(self, group: list[int]) -> bool:
        for offset in group:
            self.ran[offset] = self.ran.get(offset, 0) + 1
            if offset in self.killers:
                self.deaths += 1
                return True
        return False


@given(st.sets(st.integers(0, 29), max_size=4), st.integers(1, 10))
def test_a_record_that_kills_every_process_is_run_three_times_and_no_innocent_one_is_quarantined(
    killers: set[int], group: int
) -> None:
    partition = Partition(killers, size=30, group=group)
    for _ in range(3 * len(killers) + 1):
        if partition.own():
            break
    assert partition.position == 30
    assert partition.buried == killers
    assert all(partition.ran[killer] <= 3 for killer in killers)


def test_one_record_needs_three_deaths_to_be_found() -> None:
    partition = Partition({5}, size=10, group=4)
    assert not partition.own()
    assert not partition.own()
    assert not partition.own()
    assert partition.own()
    assert (partition.deaths, partition.buried) == (3, {5})


def test_an_innocent_record_in_flight_is_not_quarantined_when_another_one_was_named() -> None:
    first = after(CrashRecord().metadata(3), 3, 100)
    assert (first.deaths, first.suspects, first.guilty) == (1, (), ())
    second = after(first.naming((3, 4, 5)).metadata(3), 3, 100)
    assert (second.deaths, second.suspects, second.guilty) == (2, (3, 4, 5), ())
    told = second.naming((3,)).cleared((3,)).naming((4,))
    third = after(told.metadata(4), 4, 100)
    assert (third.suspects, third.guilty) == ((5,), (4,))


def test_a_suspect_that_ran_alone_and_lived_is_suspect_no_more() -> None:
    story = CrashRecord(deaths=2, until=100, suspects=(3, 4))
    assert story.naming((3,)).cleared((3,)).suspects == (4,)


def test_what_was_in_doubt_stays_so_when_the_leader_does_not_say_where_the_partition_ends() -> None:
    story = CrashRecord(deaths=2, until=100, suspects=(4,)).naming((4,))
    assert after(story.metadata(3), 3, None) == CrashRecord(deaths=3, until=100, guilty=(4,))
    assert after(story.metadata(100), 100, None) == after(None, 3, None) == CrashRecord()


def test_three_deaths_without_anybody_named_find_nobody_guilty() -> None:
    told = CrashRecord().metadata(3)
    for _ in range(5):
        story = after(told, 3, 100)
        told = story.metadata(3)
    assert (story.deaths, story.suspects, story.guilty) == (5, (), ())
