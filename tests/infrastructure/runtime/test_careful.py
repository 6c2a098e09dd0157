"""After a death records run one group at a time, each named in a commit before it runs; nobody waits for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import pytest

from omnibase_infra.shared.core.naming import TopicName
from omnibase_infra.shared.observability.structured_logger import get_logger
from omnibase_infra.shared.runtime import careful as module
from omnibase_infra.shared.runtime.careful import FIRST_RECORDS, Careful
from omnibase_infra.shared.runtime.crash_record import GROUP_RECORDS, CrashRecord
from omnibase_infra.shared.runtime.records import DONE, PartitionWork, Record

SOURCE = TopicName.parse("onex.cmd.shop.requests.v1")
RETRY = TopicName.parse("onex.retry.shop.requests.v1")


class Commits:
    """The consumer thread's side: keeps what each commit says; fails as often as told; may not answer at all."""

    def __init__(self) -> None:
        self.said: list[dict[int, tuple[int, ...]]] = []
        self.failures = 0
        self.silent = False
        self.hurried: list[bool] = []

    def commit_now(self, works: Sequence[PartitionWork], committed: Callable[[bool], None]) -> None:
        if self.silent:
            return
        if self.failures:
            self.failures -= 1
            committed(False)
            return
        self.said.append({work.partition: work.crash.running for work in works})
        committed(True)


@pytest.fixture
def commits() -> Commits:
    return Commits()


@pytest.fixture
def careful(commits: Commits, monkeypatch: pytest.MonkeyPatch) -> Careful:
    monkeypatch.setattr(module, "_AGAIN_SECONDS", 0.001)
    made = Careful(get_logger())
    made.commit_now = commits.commit_now
    made.hurry = commits.hurried.append
    return made


def work_with(story: CrashRecord, partition: int = 0, *, retry: bool = False, start: int = 0) -> PartitionWork:
    source = SOURCE if retry else None
    work = PartitionWork(RETRY if retry else SOURCE, "physical", partition, source=source, start=start)
    work.crash = story
    return work


def records(work: PartitionWork, *offsets: int) -> list[Record]:
    made = [Record(work, offset, 0, b"k", b"{}", None) for offset in offsets]
    work.enter(made)
    return made


DIED_ONCE = CrashRecord(deaths=1, until=100)
DIED_TWICE = CrashRecord(deaths=2, until=100, suspects=(4, 6))


async def test_nothing_is_careful_while_nobody_died(careful: Careful, commits: Commits) -> None:
    work = work_with(CrashRecord())
    careful.watch([work])
    assert not careful.wants(records(work, 0))
    assert not commits.hurried


async def test_after_a_death_in_one_partition_all_run_one_at_a_time(careful: Careful, commits: Commits) -> None:
    troubled, other = work_with(DIED_ONCE), work_with(CrashRecord(), 1)
    careful.watch([troubled, other])
    assert careful.wants(records(other, 0))
    assert commits.hurried == [True]


async def test_groups_run_one_after_the_other(careful: Careful) -> None:
    work = work_with(DIED_ONCE)
    careful.watch([work])
    running = 0
    seen: list[int] = []

    async def run(offset: int) -> None:
        nonlocal running
        async with careful.turn(records(work, offset)) as may_run:
            assert may_run
            running += 1
            seen.append(running)
            await asyncio.sleep(0)
            running -= 1

    await asyncio.gather(*(run(offset) for offset in range(5)))
    assert seen == [1] * 5


async def test_records_are_named_in_a_commit_before_they_run_and_cleared_after(
    careful: Careful, commits: Commits
) -> None:
    work = work_with(DIED_ONCE)
    careful.watch([work])
    async with careful.turn(records(work, 0, 1, 2)) as may_run:
        assert may_run
        assert commits.said == [{0: (0, 1, 2)}]
    assert commits.said == [{0: (0, 1, 2)}, {0: ()}]


async def test_with_the_next_group_waiting_its_commit_says_that_the_one_before_has_run(
    careful: Careful, commits: Commits
) -> None:
    one, two = work_with(DIED_ONCE), work_with(DIED_ONCE, 1)
    careful.watch([one, two])
    go_on = asyncio.Event()

    async def first() -> None:
        async with careful.turn(records(one, 0)):
            await go_on.wait()

    async def second() -> None:
        async with careful.turn(records(two, 5)):
            pass

    tasks = [asyncio.create_task(first()), asyncio.create_task(second())]
    while not commits.said or not careful._waiting:
        await asyncio.sleep(0)
    go_on.set()
    await asyncio.gather(*tasks)
    assert commits.said[:2] == [{0: (0,)}, {0: (), 1: (5,)}]


async def test_a_commit_that_fails_is_repeated_before_anything_runs(careful: Careful, commits: Commits) -> None:
    work = work_with(DIED_ONCE)
    careful.watch([work])
    commits.failures = 3
    async with careful.turn(records(work, 0)) as may_run:
        assert may_run
        assert commits.failures == 0
        assert commits.said == [{0: (0,)}]


async def test_a_group_whose_partition_is_given_up_while_it_waits_for_its_commit_does_not_run(
    careful: Careful, commits: Commits
) -> None:
    work = work_with(DIED_ONCE)
    careful.watch([work])
    commits.silent = True

    async def run() -> bool:
        async with careful.turn(records(work, 0)) as may_run:
            return may_run

    task = asyncio.create_task(run())
    while careful._answer is None:
        await asyncio.sleep(0)
    work.closed = True
    careful.forget([work])
    assert await asyncio.wait_for(task, 5) is False


async def test_nobody_waits_for_the_thread_that_commits_while_other_partitions_are_given_up(
    careful: Careful, commits: Commits
) -> None:
    kept, given_up = work_with(DIED_ONCE), work_with(DIED_ONCE, 1)
    careful.watch([kept, given_up])
    commits.silent = True

    async def run(work: PartitionWork) -> bool:
        async with careful.turn(records(work, 0)) as may_run:
            return may_run

    tasks = [asyncio.create_task(run(work)) for work in (kept, given_up)]
    while careful._answer is None or not careful._waiting:
        await asyncio.sleep(0)
    given_up.closed = True
    careful.forget([given_up])
    assert await asyncio.wait_for(asyncio.gather(*tasks), 5) == [False, False]
    assert kept.crash.running == (), "it has not run, so that nothing may blame it"
    commits.silent = False
    careful.watch([])
    assert await asyncio.wait_for(run(kept), 5)


async def test_a_group_that_fails_frees_the_turn_and_stays_named(careful: Careful) -> None:
    work = work_with(DIED_ONCE)
    careful.watch([work])
    with pytest.raises(RuntimeError):
        async with careful.turn(records(work, 0)):
            raise RuntimeError("a fault of ours")
    async with careful.turn(records(work, 1)) as may_run:
        assert may_run


async def test_one_that_is_cancelled_while_it_waits_frees_its_place(careful: Careful) -> None:
    work = work_with(DIED_ONCE)
    careful.watch([work])

    async def run() -> None:
        async with careful.turn(records(work, 1)):
            raise AssertionError("it was cancelled before")

    async with careful.turn(records(work, 0)):
        task = asyncio.create_task(run())
        while not careful._waiting:
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    assert careful._waiting == 0
    async with careful.turn(records(work, 2)) as may_run:
        assert may_run


# -- who runs with whom ---------------------------------------------------------------------------------------------


def test_a_group_is_no_larger_than_a_commit_can_name(careful: Careful) -> None:
    work = work_with(DIED_ONCE)
    batch = records(work, *range(200))
    assert careful.choose(batch) == batch[:GROUP_RECORDS]


def test_suspects_and_guilty_ones_run_alone(careful: Careful) -> None:
    work = work_with(CrashRecord(deaths=3, until=100, suspects=(4, 5), guilty=(7,)))
    batch = records(work, *range(3, 10))
    chosen: list[list[int]] = []
    while batch:
        group = careful.choose(batch)
        chosen.append([record.offset for record in group])
        batch = batch[len(group) :]
    assert chosen == [[3], [4], [5], [6], [7], [8, 9]]
    assert [careful.is_guilty(record) for record in records(work, 20, 21)] == [False, False]


def test_a_guilty_record_is_known(careful: Careful) -> None:
    work = work_with(CrashRecord(deaths=3, until=100, guilty=(7,)))
    assert [careful.is_guilty(record) for record in records(work, 6, 7)] == [False, True]


async def test_a_record_that_does_not_run_and_one_that_cannot_have_killed_are_not_named(
    careful: Careful, commits: Commits
) -> None:
    work = work_with(CrashRecord(deaths=3, until=10, guilty=(7,)))
    careful.watch([work])
    async with careful.turn(records(work, 7, 8, 10)):
        assert work.crash.running == (8,)


# -- how long -------------------------------------------------------------------------------------------------------


async def test_a_first_death_is_forgiven_after_so_many_records(careful: Careful, commits: Commits) -> None:
    work = work_with(CrashRecord(deaths=1, until=1_000_000))
    careful.watch([work])
    for begin in range(0, FIRST_RECORDS, 50):
        group = records(work, *range(begin, begin + 50))
        assert careful.wants(group)
        async with careful.turn(group):
            pass
    assert not careful.wants(records(work, FIRST_RECORDS))
    assert commits.hurried == [True, False]


async def test_after_a_second_death_all_that_may_have_killed_is_run_carefully(
    careful: Careful, commits: Commits
) -> None:
    work = work_with(DIED_TWICE)
    careful.watch([work])
    group = records(work, *range(100))
    for record in group[:99]:
        assert careful.wants([record])
        async with careful.turn([record]):
            record.stage = DONE
        work.advance()
    assert careful.wants(group[99:])
    group[99].stage = DONE
    work.advance()
    assert not careful.wants(records(work, 100))
    assert commits.hurried == [True, False]


async def test_a_partition_given_up_needs_no_care_any_more(careful: Careful, commits: Commits) -> None:
    work, other = work_with(DIED_TWICE), work_with(CrashRecord(), 1)
    careful.watch([work, other])
    careful.forget([work])
    assert not careful.wants(records(other, 0))
    assert commits.hurried == [True, False]


async def test_what_is_parked_is_named_when_it_runs_and_slows_nothing_else(careful: Careful, commits: Commits) -> None:
    retry, source = work_with(DIED_TWICE, retry=True), work_with(CrashRecord(), 1)
    careful.watch([retry, source])
    assert commits.hurried == [False]
    assert not careful.wants(records(source, 0))
    parked = records(retry, 4)
    assert careful.wants(parked)
    async with careful.turn(parked) as may_run:
        assert may_run
        assert commits.said == [{0: (4,)}]


async def test_a_retry_partition_past_its_trouble_is_not_named_any_more(careful: Careful) -> None:
    retry = work_with(CrashRecord(deaths=1, until=3), retry=True, start=3)
    careful.watch([retry])
    assert not careful.wants(records(retry, 3))
