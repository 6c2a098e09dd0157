"""Which parked record runs when: order of a key, delays, holds, takeovers, repeats; and what is kept in memory."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hypothesis import given
from hypothesis import strategies as st

from omnibase_infra.shared.core.errors import InvalidEnvelopeError
from omnibase_infra.shared.core.naming import TopicName
from omnibase_infra.shared.runtime.parked_key import ParkedKey
from omnibase_infra.shared.runtime.parked_keys import PartitionParking
from omnibase_infra.shared.runtime.parked_records import Entry, ParkedState
from omnibase_infra.shared.runtime.records import DONE, Origin, PartitionWork, Record

SOURCE = TopicName.parse("onex.cmd.shop.requests.v1")
RETRY = TopicName.parse("onex.retry.shop.requests.v1")
OURS, THEIRS = "ours", "theirs"


class Desk:
    """A worker that does nothing but note what it is asked, and one partition pair of it.

    Attributes:
        log: what was let run, in order: original offsets, or "offset/redrive".
        went_on: offsets of source records that were let go.
    """

    def __init__(self, *, start: int = 0, folded: bool = True) -> None:
        self.clock = 0.0
        self.wall = 1_000.0
        self.room = 1_000_000
        self.log: list[str] = []
        self.went_on: list[int] = []
        self.skipped: list[int] = []
        self.refused: list[int] = []
        self.unloaded: list[Record] = []
        self.voided: list[int] = []
        self.seeks: list[int] = []
        self.follow: list[ParkedKey] = []
        self.running: dict[str, Record] = {}
        self.retry_log: list[tuple[Record, Entry]] = []
        self.next_offset = 0
        self.source = PartitionWork(SOURCE, f"dev.{SOURCE}", 0, start=start)
        self.retry = PartitionWork(RETRY, f"dev.{RETRY}", 0, source=SOURCE, start=0)
        self.parking = PartitionParking(self.source, self.retry, self, start=start, epoch=OURS, folded=folded)

    # -- `Host` ---------------------------------------------------------------------------------------------------

    def now(self, topic: str) -> float:
        assert topic == str(SOURCE)
        return self.clock

    def seconds_until(self, not_before: float) -> float:
        return max(0.0, not_before - self.wall)

    def has_room(self, *, due: bool = False) -> bool:
        return self.in_memory <= self.room * (2 if due else 1)

    def make_room(self) -> None:
        self.parking.let_go()

    @property
    def in_memory(self) -> int:
        """Return how many parked records have their contents."""
        return sum(record.value is not None and record.stage != DONE for record, _ in self.retry_log)

    def start(self, record: Record) -> None:
        assert record.value is not None, "it was unloaded"
        assert record.origin is not None
        name = f"{record.origin.offset}" + (f"/{record.origin.redrive_id}" if record.origin.redrive_id else "")
        self.log.append(name)
        assert name not in self.running
        self.running[name] = record

    def go_on(self, followers: Iterable[Record]) -> None:
        self.went_on += [record.offset for record in followers]

    def skip(self, record: Record) -> None:
        record.stage = DONE
        self.skipped.append(record.offset)

    def refuse(self, record: Record, error: Exception) -> None:
        self.refused.append(record.offset)

    def unload(self, record: Record) -> None:
        record.forget_content()
        self.unloaded.append(record)

    def sweep(self, parking: PartitionParking, offset: int) -> None:
        assert parking is self.parking
        self.seeks.append(offset)

    def park_followers(self, parking: PartitionParking, key: ParkedKey) -> None:
        assert parking is self.parking
        self.follow.append(key)

    def void(self, record: Record) -> None:
        assert record.origin is not None
        self.voided.append(record.origin.offset)

    # -- what happens ---------------------------------------------------------------------------------------------

    def from_source(self, offset: int, key: bytes | None = b"a") -> Record:
        return Record(self.source, offset, 0, key, b"{}", None)

    def arrives(self, offset: int, key: bytes | None = b"a", *, ordered: bool = True) -> bool:
        """Let a record come from the source; return whether it was taken over."""
        taken = self.parking.takes_over(self.from_source(offset, key), ordered=ordered)
        self.parking.source_read_to(offset + 1)
        return taken

    def append(
        self,
        offset: int,
        *,
        key: bytes | None = b"a",
        state: ParkedState | None = None,
        redrive: str = "",
        by: str = THEIRS,
        attempts: int = 1,
        due: float = 0.0,
        ordered: bool = True,
        refusal: Exception | None = None,
    ) -> Record:
        """Append an entry to the retry partition and read it; `due` is seconds from now."""
        written_by = "" if redrive and state is None else by
        origin = Origin(f"dev.{SOURCE}", 0, offset, 0, redrive)
        entry = Entry(state, "g", written_by, origin, attempts, self.wall + due if due else 0.0, "first", None)
        value = None if state is not None else b"{}"
        record = Record(self.retry, len(self.retry_log) + self.next_offset, 0, key, value, None)
        self.retry_log.append((record, entry))
        record.origin = origin
        self.parking.read(record, entry, ordered=ordered, refusal=refusal)
        return record

    def fold(self) -> None:
        self.parking.reached_end()

    def parks(self, offset: int, due: float = 0.0, behind: Sequence[int] = ()) -> ParkedKey:
        """Let a source record in flight fail and wait; the broker has it at once, and it is read back."""
        record = self.from_source(offset)
        record.attempts = 3
        key = self.parking.park(
            record, self.clock + due, ordered=True, behind=[self.from_source(one) for one in behind]
        )
        self.append(offset, by=OURS, attempts=3, due=due)
        self.parking.delivered(key, record)
        return key

    def ends(self, name: str) -> None:
        """Let a parked record that runs come to its end."""
        record = self.running.pop(name)
        record.stage = DONE
        self.parking.finished(record)

    def fails(self, name: str, delay: float) -> None:
        record = self.running.pop(name)
        record.attempts += 1
        self.parking.delay(record, self.clock + delay)

    def passes(self, seconds: float) -> None:
        self.clock += seconds
        self.wall += seconds
        self.parking.tick()

    def write_followers(self) -> list[int]:
        """Do what `park_followers` asks for; return the offsets that were written."""
        written: list[int] = []
        for key in self.follow:
            while key.followers:
                record = key.followers.popleft()
                self.parking.deliver(key, record, self.clock)
                self.append(record.offset, by=OURS, attempts=0)
                self.parking.delivered(key, record)
                written.append(record.offset)
        self.follow.clear()
        return written


# -- order ------------------------------------------------------------------------------------------------------------


@given(st.permutations(range(6)))
def test_a_key_runs_in_the_order_of_the_source_whatever_the_order_in_the_retry_topic(appended: list[int]) -> None:
    desk = Desk(start=10, folded=False)
    for offset in appended:
        desk.append(offset)
    desk.fold()
    for offset in range(6):
        assert desk.log == [str(one) for one in range(offset + 1)]
        desk.ends(str(offset))
    assert not desk.parking.keys
    assert desk.parking.size == 0


@given(st.lists(st.integers(0, 4), min_size=1, max_size=15))
def test_a_record_that_was_written_more_than_once_runs_once(appended: list[int]) -> None:
    desk = Desk(start=10, folded=False)
    for offset in appended:
        desk.append(offset)
    desk.fold()
    while desk.running:
        desk.ends(next(iter(desk.running)))
    assert desk.log == [str(offset) for offset in sorted(set(appended))]
    assert len(desk.skipped) == len(appended) - len(set(appended))


def test_keys_do_not_wait_for_each_other() -> None:
    desk = Desk(start=10, folded=False)
    desk.append(1, key=b"a")
    desk.append(2, key=b"b")
    desk.append(3, key=None)
    desk.append(4, key=b"a", ordered=False)
    desk.append(5, key=b"a", ordered=False)
    desk.fold()
    assert sorted(desk.log) == ["1", "2", "3", "4", "5"]


def test_records_of_the_source_follow_a_parked_key_and_others_do_not() -> None:
    desk = Desk()
    desk.arrives(0)
    desk.parks(0, due=5)
    assert desk.arrives(1, b"a")
    assert not desk.arrives(2, b"b")
    assert not desk.arrives(3, None, ordered=False)
    assert not desk.arrives(4, b"a", ordered=False)
    assert desk.write_followers() == [1]


def test_followers_of_a_head_that_runs_wait_in_memory_and_go_on_when_it_has_ended() -> None:
    desk = Desk()
    desk.arrives(0)
    desk.parks(0)
    assert desk.log == ["0"]
    assert desk.arrives(1)
    assert desk.arrives(2)
    assert not desk.follow
    desk.ends("0")
    assert desk.went_on == [1, 2]
    assert not desk.arrives(3)


def test_followers_of_a_head_that_fails_again_are_parked_behind_it_and_run_in_order() -> None:
    desk = Desk()
    desk.arrives(0)
    desk.parks(0)
    for offset in (1, 2):
        desk.arrives(offset)
    desk.fails("0", delay=5)
    assert desk.write_followers() == [1, 2]
    desk.passes(4.9)
    assert desk.log == ["0"]
    desk.passes(0.2)
    assert desk.log == ["0", "0"]
    desk.ends("0")
    desk.ends("1")
    desk.ends("2")
    assert desk.log == ["0", "0", "1", "2"]
    assert not desk.parking.keys


def test_those_that_waited_in_memory_behind_a_failing_record_go_with_it_in_their_order() -> None:
    desk = Desk()
    for offset in range(3):
        desk.arrives(offset)
    key = desk.parks(0, due=5, behind=[1, 2])
    desk.arrives(3)
    assert [record.offset for record in key.followers] == [1, 2, 3]


def test_nothing_runs_while_a_write_that_belongs_before_it_is_being_repeated() -> None:
    desk = Desk()
    desk.arrives(0)
    desk.arrives(1)
    first, second = desk.from_source(0), desk.from_source(1)
    key = desk.parking.park(first, 0.0, ordered=True)
    desk.parking.deliver(key, second, 0.0)
    desk.append(1, by=OURS)
    desk.parking.delivered(key, second)
    assert desk.log == []
    desk.append(0, by=OURS)
    desk.parking.delivered(key, first)
    assert desk.log == ["0"]
    desk.ends("0")
    assert desk.log == ["0", "1"]


def test_a_key_in_flight_is_not_run_from_the_retry_topic_beside_it() -> None:
    desk = Desk()
    desk.source.busy[b"a"] = None
    desk.append(1, redrive="r")
    assert desk.log == []
    del desk.source.busy[b"a"]
    desk.parking.key_is_free(b"a", [])
    assert desk.log == ["1/r"]


# -- the end of the source ------------------------------------------------------------------------------------------


def test_a_parked_record_waits_until_the_source_was_read_past_it() -> None:
    desk = Desk(start=3, folded=False)
    desk.append(5)
    desk.fold()
    assert desk.log == []
    assert desk.parking.waits_for_source
    desk.arrives(4, b"other")
    assert desk.log == []
    desk.arrives(5)  # the parked record itself, which was not committed in the source
    assert desk.log == ["5"]
    assert not desk.parking.waits_for_source


def test_records_of_the_source_below_a_parked_one_are_put_before_it() -> None:
    desk = Desk(start=3, folded=False)
    desk.append(5)
    desk.fold()
    assert desk.arrives(3)
    assert desk.arrives(4)
    assert desk.write_followers() == [3, 4]
    assert desk.arrives(5)
    assert desk.log == ["3"]
    desk.ends("3")
    desk.ends("4")
    assert desk.log == ["3", "4", "5"]


def test_a_source_record_that_is_parked_or_has_ended_already_counts_as_finished() -> None:
    desk = Desk(start=3, folded=False)
    desk.append(4, key=b"a")
    desk.append(5, key=b"b")
    desk.append(5, key=b"b", state=ParkedState.DONE)
    desk.fold()
    desk.skipped.clear()
    assert not desk.arrives(3, b"other")
    assert desk.arrives(4, b"a")
    assert desk.arrives(5, b"b")
    assert desk.skipped == [4, 5]
    assert not desk.arrives(6, b"b")


# -- the fold ---------------------------------------------------------------------------------------------------------


def test_nothing_runs_before_all_that_lay_in_the_retry_partition_was_read() -> None:
    desk = Desk(start=10, folded=False)
    desk.append(1)
    assert desk.log == []
    desk.fold()
    assert desk.log == ["1"]


def test_an_empty_retry_partition_needs_no_fold() -> None:
    desk = Desk(folded=True)
    assert not desk.arrives(0)
    desk.parks(0)
    assert desk.log == ["0"]


def test_what_an_owner_before_us_has_ended_is_not_run_again() -> None:
    desk = Desk(start=10, folded=False)
    desk.append(1)
    desk.append(2)
    desk.append(1, state=ParkedState.DONE)
    desk.append(1)  # and once more, by a repeated write
    desk.fold()
    assert desk.log == ["2"]
    assert sorted(desk.skipped) == [0, 2, 3]


def test_attempts_and_times_of_an_owner_before_us_are_taken_over() -> None:
    desk = Desk(start=10, folded=False)
    record = desk.append(1, attempts=3, due=1)
    desk.append(1, state=ParkedState.RETRY, attempts=4, due=30)
    desk.fold()
    desk.passes(29)
    assert desk.log == []
    desk.passes(2)
    assert desk.log == ["1"]
    assert desk.parking.keys[b"a"].records[1, ""].attempts == 4
    assert record.first_failed_at == "first"


def test_another_groups_entries_are_finished_and_garbage_is_refused() -> None:
    desk = Desk(start=10, folded=False)
    others, garbage = (Record(desk.retry, n, 0, b"a", b"{}", None) for n in (0, 1))
    desk.parking.read(others, None)
    desk.parking.read(garbage, InvalidEnvelopeError("not an entry"))
    assert (desk.skipped, desk.refused) == ([0], [1])
    desk.fold()
    assert not desk.parking.keys


def test_a_record_that_cannot_be_run_is_refused_when_all_is_known_and_the_next_of_its_key_runs_after_that() -> None:
    desk = Desk(start=10, folded=False)
    bad = desk.append(1, refusal=InvalidEnvelopeError("edited badly"))
    desk.append(2)
    assert desk.refused == []
    desk.fold()
    assert desk.refused == [bad.offset]
    assert desk.log == []
    desk.parking.tick()
    bad.stage = DONE
    desk.parking.finished(bad)
    assert desk.log == ["2"]


def test_a_redriven_record_that_cannot_be_run_is_refused_and_never_run() -> None:
    desk = Desk(start=10)
    bad = desk.append(1, redrive="r", refusal=InvalidEnvelopeError("edited badly"))
    desk.append(2, redrive="r")
    assert (desk.refused, desk.log) == ([bad.offset], [])
    bad.stage = DONE
    desk.parking.finished(bad)
    assert desk.log == ["2/r"]


# -- an owner before us that still writes ---------------------------------------------------------------------------


def test_a_stale_entry_is_ignored_and_voided_once_its_record_has_ended_here() -> None:
    desk = Desk()
    for offset in range(3):
        record = desk.from_source(offset)
        desk.source.enter([record])
    desk.parking.source_read_to(3)
    desk.append(1, by=THEIRS)
    desk.parking.tick()
    assert (desk.log, desk.voided) == ([], [])
    for record in desk.source.waiting()[:2]:
        record.stage = DONE
    desk.source.advance()
    desk.parking.tick()
    assert (desk.log, desk.voided) == ([], [1])
    assert not desk.parking.has_due


def test_a_stale_entry_of_a_record_that_was_parked_here_meanwhile_is_only_skipped() -> None:
    desk = Desk()
    desk.source.enter([desk.from_source(0)])
    desk.parking.source_read_to(1)
    stale = desk.append(0, by=THEIRS)
    desk.parks(0, due=5)
    desk.parking.tick()
    assert desk.voided == []
    assert stale.offset in desk.skipped
    desk.passes(6)
    assert desk.log == ["0"]


def test_an_entry_of_theirs_about_a_record_not_read_yet_is_taken_over() -> None:
    desk = Desk()
    desk.append(2, by=THEIRS)
    assert not desk.arrives(0, b"other")
    assert desk.arrives(1)
    desk.write_followers()
    assert desk.arrives(2)
    desk.ends("1")
    assert desk.log == ["1", "2"]


def test_markers_that_an_owner_before_us_writes_after_the_fold_change_nothing() -> None:
    desk = Desk()
    desk.arrives(0)
    desk.parks(0, due=5)
    for state in (ParkedState.DONE, ParkedState.RETRY, ParkedState.HELD, ParkedState.RELEASED):
        marker = desk.append(0, state=state, by=THEIRS, due=100)
        assert marker.offset in desk.skipped
    desk.passes(6)
    assert desk.log == ["0"]
    desk.ends("0")
    assert not desk.parking.keys


# -- redriven records and holds ---------------------------------------------------------------------------------------


def test_a_redriven_record_runs_before_all_that_is_parked_of_its_key() -> None:
    desk = Desk(start=10, folded=False)
    desk.append(4)
    desk.append(5)
    desk.append(2, redrive="r")
    desk.fold()
    desk.ends("2/r")
    desk.ends("4")
    assert desk.log == ["2/r", "4", "5"]


def test_a_record_redriven_twice_runs_twice() -> None:
    desk = Desk(start=10)
    desk.append(2, redrive="r1")
    desk.append(2, redrive="r2")
    desk.append(2, redrive="r1")
    desk.ends("2/r1")
    desk.ends("2/r2")
    assert desk.log == ["2/r1", "2/r2"]


def hold(desk: Desk, offset: int, redrive: str = "") -> Record:
    """Let a record die and its key be held, as `Completion` does; return the marker."""
    record = desk.running.pop(f"{offset}/{redrive}" if redrive else str(offset), None) or desk.from_source(offset)
    desk.parking.hold(record)
    marker = desk.append(offset, state=ParkedState.HELD, redrive=redrive, by=OURS)
    if record.origin is not None:
        desk.parking.finished(record)
    return marker


def test_a_held_key_keeps_its_followers_until_somebody_releases_it() -> None:
    desk = Desk()
    desk.arrives(0)
    marker = hold(desk, 0)
    assert desk.arrives(1)
    assert desk.write_followers() == [1]
    assert desk.log == []
    assert marker.offset not in desk.skipped  # no commit passes it
    desk.append(0, state=ParkedState.RELEASED, by="")
    assert desk.log == ["1"]
    assert marker.offset in desk.skipped
    desk.ends("1")
    assert not desk.arrives(2)


def test_a_held_key_is_held_by_the_next_owner_too() -> None:
    desk = Desk(start=1, folded=False)
    marker = desk.append(0, state=ParkedState.HELD)
    desk.append(1)
    desk.fold()
    assert desk.arrives(1)
    assert desk.log == []
    desk.append(0, state=ParkedState.RELEASED, by="")
    assert desk.log == ["1"]
    assert marker.offset in desk.skipped


def test_a_released_key_is_not_held_by_the_next_owner() -> None:
    desk = Desk(start=5, folded=False)
    desk.append(0, state=ParkedState.HELD)
    desk.append(1)
    desk.append(0, state=ParkedState.RELEASED, by="")
    desk.fold()
    assert desk.log == ["1"]


def test_redriving_the_dead_record_lets_its_key_go_when_it_has_ended() -> None:
    desk = Desk(start=1)
    marker = hold(desk, 0)
    desk.arrives(1)
    desk.write_followers()
    desk.append(0, redrive="r")
    assert desk.log == ["0/r"]
    desk.ends("0/r")
    assert desk.log == ["0/r", "1"]
    assert marker.offset in desk.skipped


def test_a_redriven_record_that_dies_again_holds_its_key_again_by_one_marker() -> None:
    desk = Desk(start=1)
    first = hold(desk, 0)
    desk.arrives(1)
    desk.write_followers()
    desk.append(0, redrive="r")
    second = hold(desk, 0, "r")
    assert desk.log == ["0/r"]
    assert first.offset in desk.skipped
    assert second.offset not in desk.skipped
    desk.append(0, redrive="q")
    desk.ends("0/q")
    assert desk.log == ["0/r", "0/q", "1"]
    assert second.offset in desk.skipped


def test_a_redriven_record_that_ended_under_an_owner_before_us_has_released_its_key() -> None:
    desk = Desk(start=5, folded=False)
    desk.append(0, state=ParkedState.HELD)
    desk.append(1)
    desk.append(0, redrive="r")
    desk.append(0, state=ParkedState.DONE, redrive="r")
    desk.fold()
    assert desk.log == ["1"]


def test_a_held_key_holds_back_only_what_comes_later() -> None:
    desk = Desk(start=4, folded=False)
    desk.append(5, state=ParkedState.HELD)
    desk.fold()
    assert desk.arrives(4)  # read again after a crash
    assert desk.write_followers() == [4]
    assert desk.arrives(5)
    assert desk.log == ["4"]
    desk.ends("4")
    desk.append(5, redrive="r")
    desk.ends("5/r")
    assert desk.log == ["4", "5/r"]
    assert not desk.parking.keys


def test_a_repeat_of_the_marker_that_lands_after_the_release_holds_nothing() -> None:
    desk = Desk(start=1, folded=False)
    desk.append(0, state=ParkedState.HELD)
    desk.append(0, state=ParkedState.RELEASED, by="")
    repeats = [desk.append(0, state=ParkedState.HELD) for _ in range(2)]
    desk.append(1)
    desk.arrives(1)
    desk.fold()
    desk.parking.source_read_to(2)
    assert desk.log == ["1"]
    assert all(marker.offset in desk.skipped for marker in repeats)


def test_the_original_of_a_held_record_that_is_parked_late_does_not_run_before_its_redrive() -> None:
    desk = Desk(start=4, folded=False)
    desk.append(3, state=ParkedState.HELD, redrive="first")
    late = desk.append(3)
    desk.append(3, redrive="second")
    desk.fold()
    assert late.offset in desk.skipped
    assert desk.log == ["3/second"]


def test_a_key_released_before_its_own_marker_was_read_is_free() -> None:
    desk = Desk()
    desk.arrives(0)
    desk.parking.hold(desk.from_source(0))
    desk.append(0, state=ParkedState.RELEASED, by="")
    desk.append(0, state=ParkedState.HELD, by=OURS)
    assert not desk.parking.keys
    assert not desk.arrives(1)


def test_followers_in_memory_are_parked_when_the_record_before_them_dies_and_holds_the_key() -> None:
    desk = Desk()
    desk.arrives(0)
    desk.parks(0)
    assert desk.arrives(1)
    assert not desk.follow
    hold(desk, 0)
    assert desk.write_followers() == [1]
    assert desk.log == ["0"]


# -- time -------------------------------------------------------------------------------------------------------------


def test_time_that_stands_still_delays_nothing_forward() -> None:
    desk = Desk()
    desk.arrives(0)
    desk.parks(0, due=5)
    desk.wall += 100  # the clock of the topic stands, the one on the wall does not
    desk.parking.tick()
    assert desk.log == []
    desk.passes(5)
    assert desk.log == ["0"]


def test_each_failure_may_wait_longer_and_the_key_waits_with_it() -> None:
    desk = Desk()
    desk.arrives(0)
    desk.parks(0, due=1)
    desk.arrives(1)
    desk.write_followers()
    desk.passes(1)
    for tier in (2, 4, 8):
        desk.fails("0", delay=tier)
        desk.passes(tier - 0.1)
        assert not desk.running
        desk.passes(0.2)
        assert list(desk.running) == ["0"]
    desk.ends("0")
    assert desk.log == ["0"] * 4 + ["1"]


def test_looking_at_a_key_that_waits_costs_nothing_later_however_often_it_was_looked_at() -> None:
    desk = Desk()
    desk.arrives(0)
    desk.parks(0, due=5)
    for offset in range(1, 500):
        desk.arrives(offset)
        desk.write_followers()
    assert len(desk.parking._due) == 1


def serve(desk: Desk) -> list[str]:
    """Do what is asked for until nothing is: read again, run, finish; return what ran."""
    done: list[str] = []
    for _ in range(1_000):
        seeks, desk.seeks = desk.seeks, []
        if seeks:
            read_again(desk, seeks[-1])
        elif desk.running:
            name = next(iter(desk.running))
            done.append(name)
            desk.ends(name)
        else:
            before = len(desk.log)
            desk.parking.tick()
            if len(desk.log) == before and not desk.seeks:
                return done
    raise AssertionError(f"it never comes to an end; so far {done}")


# -- memory -----------------------------------------------------------------------------------------------------------


def read_again(desk: Desk, begin: int) -> None:
    """Let the consumer do the seek that was asked for: the records come again, as new objects."""
    for record, entry in desk.retry_log[begin:]:
        again = Record(desk.retry, record.offset, 0, b"a", b"{}" if entry.state is None else None, None)
        again.origin = entry.origin
        desk.parking.read(again, entry)


def test_what_finds_no_room_is_read_again_when_it_is_due() -> None:
    desk = Desk(start=10, folded=False)
    desk.room = 1
    waiting = [desk.append(offset, due=5) for offset in range(4)]
    assert [record.value for record in waiting] == [b"{}", None, None, None]
    desk.fold()
    desk.passes(5)
    desk.ends("0")
    assert desk.seeks == [1]
    assert desk.log == ["0"]
    read_again(desk, 1)
    assert desk.log == ["0", "1"]
    serve(desk)
    assert desk.log == ["0", "1", "2", "3"]
    assert desk.parking.size == 0


def test_heads_that_wait_take_no_more_room_than_there_is_and_all_run_in_the_end() -> None:
    desk = Desk(start=100, folded=False)
    desk.room = 3
    for offset in range(30):
        desk.append(offset, key=None, due=5)
    desk.fold()
    assert desk.in_memory == 3
    desk.passes(5)
    done = serve(desk)
    assert sorted(done) == sorted(map(str, range(30)))
    assert desk.parking.size == 0


def test_heads_that_are_due_at_once_take_no_more_than_twice_the_room() -> None:
    desk = Desk(start=100, folded=False)
    desk.room = 3
    for offset in range(30):
        desk.append(offset, key=None)
    assert desk.in_memory == 6
    desk.fold()
    assert len(desk.running) == 6
    assert sorted(serve(desk)) == sorted(map(str, range(30)))


def test_one_record_larger_than_all_the_room_runs_all_the_same() -> None:
    desk = Desk(start=100, folded=False)
    desk.room = 0
    desk.append(0)
    desk.append(1)
    desk.fold()
    assert serve(desk) == ["0", "1"]


def test_a_record_that_fails_again_and_waits_makes_room_for_those_that_are_due() -> None:
    desk = Desk(start=100, folded=False)
    desk.room = 2
    for offset in range(8):
        desk.append(offset, key=None)
    desk.fold()
    for name in list(desk.running):
        desk.fails(name, delay=60)
    assert desk.in_memory == 2
    done = serve(desk)
    assert sorted(done) == [str(offset) for offset in range(4, 8)]
    desk.passes(60)
    assert sorted(serve(desk)) == [str(offset) for offset in range(4)]


def test_records_behind_a_held_key_do_not_keep_others_from_running() -> None:
    desk = Desk(start=100, folded=False)
    desk.room = 4
    desk.append(0, key=b"held", state=ParkedState.HELD)
    for offset in range(1, 20):
        desk.append(offset, key=b"held")
    for offset in range(20, 40):
        desk.append(offset, key=None)
    desk.fold()
    assert sorted(serve(desk)) == sorted(map(str, range(20, 40)))
    assert desk.in_memory <= 5


def test_held_heads_do_not_fill_the_room_of_the_redrive_that_lets_them_go() -> None:
    desk = Desk(start=200, folded=False)
    desk.room = 3
    for number in range(20):
        key = b"key-%d" % number
        desk.append(10 * number, key=key, state=ParkedState.HELD)
        desk.append(10 * number + 1, key=key)
    desk.fold()
    assert serve(desk) == []
    for number in range(20):
        desk.append(10 * number, key=b"key-%d" % number, redrive="r")
    done = serve(desk)
    assert sorted(done) == sorted([f"{10 * n}/r" for n in range(20)] + [str(10 * n + 1) for n in range(20)])


def test_what_was_read_first_but_runs_last_makes_room_for_what_runs_before_it() -> None:
    desk = Desk(start=200, folded=False)
    desk.room = 2
    for offset in (100, 101, 102, 103, 104):
        desk.append(offset, key=b"a")
    for offset in (3, 2, 1):
        desk.append(offset, key=b"a")
    desk.fold()
    assert serve(desk) == ["1", "2", "3", "100", "101", "102", "103", "104"]


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3), st.booleans()), min_size=1, max_size=40),
    st.integers(0, 4),
)
def test_everything_runs_in_the_order_of_its_key_however_little_room_there_is(
    entries: list[tuple[int, int, bool]], room: int
) -> None:
    desk = Desk(start=100, folded=False)
    desk.room = room
    where: dict[int, bytes] = {}
    for offset, number, late in entries:
        where.setdefault(offset, b"key-%d" % number)
        desk.append(offset, key=where[offset], due=3 if late else 0)
    desk.fold()
    done = [*serve(desk)]
    desk.passes(5)
    done += serve(desk)
    assert sorted(done) == sorted(map(str, where))
    for key in set(where.values()):
        of_key = [int(name) for name in done if where[int(name)] == key]
        assert of_key == sorted(of_key)
    assert desk.parking.size == 0


def test_entries_fetched_before_a_seek_do_not_end_the_reading_again() -> None:
    desk = Desk(start=10, folded=False)
    desk.room = 1
    desk.append(0, due=5)
    desk.append(1)
    desk.fold()
    desk.passes(5)
    desk.ends("0")
    assert desk.seeks == [1]
    for offset in (2, 3, 4):
        desk.append(offset, by=OURS, redrive="r")
    assert desk.seeks == [1]
    assert sorted(serve(desk)) == ["1", "2/r", "3/r", "4/r"]


def test_records_that_come_again_but_are_in_memory_or_done_change_nothing() -> None:
    desk = Desk(start=10, folded=False)
    desk.append(0, key=b"b")
    desk.append(1)
    desk.append(0, key=b"b", state=ParkedState.DONE)
    desk.fold()
    read_again(desk, 0)
    assert desk.log == ["1"]
    desk.ends("1")
    assert desk.log == ["1"]


def test_a_record_that_was_read_again_takes_the_room_of_the_one_that_was_read() -> None:
    desk = Desk(start=10, folded=False)
    desk.room = 0
    waiting = desk.append(1, due=5)
    waiting.size = 0  # as the worker leaves it
    desk.fold()
    desk.passes(5)
    read_again(desk, desk.seeks[0])
    assert desk.log == ["1"]
    assert waiting.size == 3


def test_what_has_ended_is_looked_through_rarely_though_a_held_key_keeps_the_commit_back() -> None:
    desk = Desk(start=0)
    desk.retry.enter([desk.append(0, state=ParkedState.HELD, by=OURS)])
    tables = set()
    for offset in range(1, 12_000):
        desk.next_offset = desk.append(offset, key=None, redrive="r").offset + 1
        desk.retry_log.clear()
        desk.ends(f"{offset}/r")
        tables.add(id(desk.parking._done))
    assert len(tables) <= 3


def test_a_partition_given_up_forgets_everything_and_late_news_of_it_do_no_harm() -> None:
    desk = Desk()
    desk.arrives(0)
    desk.arrives(1)
    key = desk.parks(0)
    late = desk.from_source(1)
    desk.parking.deliver(key, late, 0.0)
    desk.source.closed = True
    desk.parking.clear()
    desk.ends("0")
    desk.parking.delivered(key, late)
    desk.parking.tick()
    assert (desk.parking.size, desk.parking.keys, desk.parking.has_due) == (0, {}, False)
    assert desk.log == ["0"]
