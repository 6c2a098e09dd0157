"""What must hold in every run: nothing lost, nothing twice where that is promised, order kept, commits behind the work."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from tests.simulation.workload import ANSWERS, COMMANDS, CONTROL, REALM, Effect, Input

from omnibase_infra.shared.core import envelope as envelopes
from omnibase_infra.shared.core.headers import TransportHeader
from omnibase_infra.shared.core.worker_spec import WorkerSpec
from omnibase_infra.shared.testing.simulated_kafka import Commit, Place, SimulatedCluster, StoredRecord

# What each input may end in. "either" is an effect or a dead letter, where chance decides how often it fails.
ENDS_OF_KIND = {
    "quick": {"effect"},
    "flaky": {"effect"},
    "hopeless": {"dead"},
    "refused": {"answer"},
    "poison": {"dead"},
    "foreign": {"answer"},
    "empty": set[str](),
}


class Checker:
    """Follows a run and keeps what was wrong.

    Attributes:
        problems: one line for each broken promise.
        trace: what happened, in order; equal in every replay of a seed.
    """

    def __init__(
        self, cluster: SimulatedCluster, spec: WorkerSpec, group: str, inputs: Sequence[Input], *, chancy: bool
    ) -> None:
        self.problems: list[str] = []
        self.trace: list[str] = []
        self._cluster = cluster
        self._spec = spec
        self._group = group
        self._inputs = inputs
        self._chancy = chancy
        self._holds = spec.dead_letters.then == "hold"
        self._let_go_before: set[int] = set()
        self._dead_letters = "test." + str(spec.dead_letter_topic)
        self._answers = "test." + ANSWERS
        self._sources = {"test." + COMMANDS, "test." + CONTROL}
        self._retries = {retry.physical(REALM): source.physical(REALM) for source, retry in spec.retry_topics.items()}
        self.published: dict[tuple[str, int, int], Input] = {}
        self.first_place: dict[int, tuple[str, int, int]] = {}
        self.effects: dict[int, list[Effect]] = defaultdict(list)
        self.dead: set[int] = set()
        self.quarantined: set[int] = set()
        self.redrives: dict[int, set[str]] = defaultdict(set)
        self.dead_redrives: set[tuple[int, str]] = set()
        self.held: dict[tuple[str, int, bytes], set[int]] = defaultdict(set)
        self.answers: dict[int, set[tuple[str, str]]] = defaultdict(set)
        self.parked: dict[tuple[str, int, int], list[StoredRecord]] = defaultdict(list)
        self._assigned: Counter[tuple[str, str, int]] = Counter()
        self._places: Counter[int] = Counter()
        self._last_of: dict[tuple[str, str, int, bytes], int] = {}
        self._order: dict[tuple[str, int, bytes], list[tuple[int, str]]] = defaultdict(list)
        self._ended: set[tuple[str, int, int]] = set()
        cluster.on_append.append(self._appended)
        cluster.on_commit.append(self._committed)

    def note(self, what: str) -> None:
        """Add a line to the trace."""
        self.trace.append(f"{self._cluster.scheduler.now:.6f} {what}")

    def problem(self, what: str) -> None:
        """Note a broken promise."""
        self.problems.append(f"at {self._cluster.scheduler.now:.3f} s: {what}")
        self.note(f"PROBLEM {what}")

    def redriven(self, place: tuple[str, int, int], redrive_id: str) -> None:
        """Note that a dead letter is put back to work."""
        number = self.published[place].number
        self.note(f"redrive {number} {redrive_id}")
        self.redrives[number].add(redrive_id)

    def discarded(self, place: tuple[str, int, int]) -> None:
        """Note that nobody will work on a dead letter any more."""
        self.note(f"discard {self.published[place].number}")
        self._let_go_before.add(self.published[place].number)
        self._let_go(place)

    def _let_go(self, place: tuple[str, int, int]) -> None:
        key = self.published[place].key
        if key is not None:
            self.held[place[0], place[1], key].discard(place[2])

    # -- what is told while it runs ---------------------------------------------------------------------------------

    def publish(self, one: Input, record: StoredRecord) -> None:
        """Note where an input lies."""
        place = (record.topic, record.partition, record.offset)
        self.published[place] = one
        self.first_place.setdefault(one.number, place)
        self._places[one.number] += 1
        self.note(f"input {one.number} {one.operation} {one.kind} key={one.key!r} at {place}")

    def assigned(self, process: str, places: Iterable[Place]) -> None:
        """Note that a process owns partitions from now on."""
        for place in places:
            self._assigned[process, place[0], place[1]] += 1

    def effect(self, effect: Effect) -> None:
        """Note an effect that happened."""
        self.note(f"effect {effect.number} by {effect.process}")
        one = self._inputs[effect.number]
        if one.operation == "once" and len(self.effects[effect.number]) > len(self.redrives[effect.number]):
            self.problem(f"input {one.number} has its effect twice")
        if one.kind in ("refused", "poison", "foreign", "empty") or (
            one.kind == "hopeless" and not one.late_failure and not self.redrives[one.number]
        ):
            self.problem(f"input {one.number} is {one.kind} and has an effect")
        self.effects[effect.number].append(effect)
        self._check_owner_order(effect, one)
        self._ends(self.first_place[effect.number], "effect")
        if one.kind != "hopeless" or not one.late_failure:
            self._let_go(self.first_place[effect.number])

    def _check_owner_order(self, effect: Effect, one: Input) -> None:
        """Check that one owner does not go back in a key, not even where it repeats what others did before it.

        Only within its first ownership: what still runs from an earlier one may come in between.
        """
        topic, partition, offset = self.first_place[effect.number]
        if one.key is None or one.operation == "loose" or self._places[one.number] > 1 or self.redrives[one.number]:
            return
        if self._assigned[effect.process, topic, partition] != 1:
            return
        key = (effect.process, topic, partition, one.key)
        if offset < self._last_of.get(key, 0):
            self.problem(f"{effect.process} went back in key {one.key!r}: {self._last_of[key]}, then {offset}")
        self._last_of[key] = offset

    def _appended(self, record: StoredRecord) -> None:
        if record.topic == self._answers:
            self._answered(record)
        elif record.topic == self._dead_letters:
            place = _original(record)
            self.note(f"dead letter of {place}")
            if place not in self.published:
                self.problem(f"a dead letter of {place}, where nothing was")
            else:
                number = self.published[place].number
                self.dead.add(number)
                if (TransportHeader.ERROR_CODE, b"quarantined") in record.headers:
                    self.quarantined.add(number)
                self._ends(place, "dead")
                self._died(place, record)
        elif record.topic in self._retries:
            self._retried(record)

    def _died(self, place: tuple[str, int, int], record: StoredRecord) -> None:
        one = self.published[place]
        headers = dict(record.headers)
        if redrive_id := (headers.get(TransportHeader.REDRIVE_ID) or b"").decode():
            self.dead_redrives.add((one.number, redrive_id))
        if not self._holds or one.key is None or one.operation == "loose" or one.kind == "poison":
            return
        if one.number not in self._let_go_before and not self.effects[one.number]:
            self.held[place[0], place[1], one.key].add(place[2])

    def _answered(self, record: StoredRecord) -> None:
        answer = envelopes.decode(record.value, None)
        number = int((answer.causationid or "in--1").removeprefix("in-"))
        kind = "failed" if answer.type.endswith("-failed.v1") else "completed"
        self.note(f"answer {number} {kind} {answer.id}")
        if number not in self.first_place:
            self.problem(f"an answer to input {number}, which was not sent")
            return
        self.answers[number].add((kind, answer.id))
        if len({one for known, one in self.answers[number] if known == kind}) > 1 + len(self.redrives[number]):
            self.problem(f"input {number} has {kind} answers of different ids")
        one = self._inputs[number]
        if kind == "completed" and not self.effects[number]:
            self.problem(f"input {number} is answered completed before its effect")
        if one.operation in ("once", "often") and one.kind in ("refused", "foreign"):
            self._ends(self.first_place[number], "answer")

    def _retried(self, record: StoredRecord) -> None:
        headers = {name: (value or b"").decode() for name, value in record.headers}
        state = headers.get("onex-parked-state", "parked" if record.value is not None else "?")
        source = self._retries[record.topic]
        offset = headers.get(TransportHeader.ORIGINAL_OFFSET, "?")
        self.note(f"{state} {source}[{record.partition}]@{offset} at {record.offset} {headers.get('onex-attempt', '')}")
        if state in ("done", "held") and TransportHeader.REDRIVE_ID not in headers:
            ended = (source, record.partition, int(offset))
            if not self._is_finished(ended, may_be_parked=False):
                self.problem(f"{ended} is marked {state} before its outputs are in the log")
        if state == "parked":
            place = _original(record)
            if place[1] != record.partition:
                self.problem(f"{place} is parked in partition {record.partition}")
            self.parked[place].append(record)

    def _ends(self, place: tuple[str, int, int], how: str) -> None:
        """Note the first outcome of an input and check the order of its key."""
        if place in self._ended:
            return
        self._ended.add(place)
        one = self.published[place]
        topic, partition, offset = place
        if one.key is None or one.operation == "loose" or one.kind == "poison":
            return  # what no handler may see waits for nothing
        ended = self._order[topic, partition, one.key]
        if ended and ended[-1][0] > offset:
            self.problem(
                f"key {one.key!r} of {topic}[{partition}]: {offset} ({how}) comes after {ended[-1][0]} ({ended[-1][1]})"
            )
        ended.append((offset, how))
        if before := [held for held in self.held[topic, partition, one.key] if held < offset]:
            self.problem(f"key {one.key!r} of {topic}[{partition}]: {offset} ({how}) though {before} are held")

    def _committed(self, group: str, place: Place, commit: Commit, by: str) -> None:
        self.note(f"commit {place} {commit.offset} by {by} {commit.metadata}")
        if commit.offset > self._cluster.logs[place].end:
            self.problem(f"{place} is committed at {commit.offset}, beyond its end")
        if place[0] in self._sources:
            for record in self._cluster.logs[place].before(commit.offset):
                if not self._is_finished((*place, record.offset), may_be_parked=True):
                    self.problem(f"{place} is committed at {commit.offset}, {record.offset} is unfinished")
        elif place[0] in self._retries:
            self._check_retry_commit(place, commit)

    def _check_retry_commit(self, place: Place, commit: Commit) -> None:
        """A parked record may be passed when it is finished, parked again later, or not passed in its source."""
        source = self._retries[place[0]]
        for record in self._cluster.logs[place].before(commit.offset):
            if record.value is None:
                continue
            original = _original(record)
            redrive_id = (dict(record.headers).get(TransportHeader.REDRIVE_ID) or b"").decode()
            if redrive_id:
                self._check_redrive_passed(place, commit, original, redrive_id)
                continue
            if self._is_finished(original, may_be_parked=False):
                continue
            if self._cluster.position(self._group, (source, place[1])) <= original[2]:
                continue
            if any(again.offset >= commit.offset for again in self.parked[original]):
                continue
            self.problem(f"{place} is committed at {commit.offset}, parked {original} is unfinished")

    def _check_redrive_passed(
        self, place: Place, commit: Commit, original: tuple[str, int, int], redrive_id: str
    ) -> None:
        number = self.published[original].number
        if (number, redrive_id) not in self.dead_redrives and not self.effects[number] and not self.answers[number]:
            self.problem(f"{place} is committed at {commit.offset}, {redrive_id} of {original} is unfinished")

    def _is_finished(self, place: tuple[str, int, int], *, may_be_parked: bool) -> bool:
        one = self.published.get(place)
        if one is None or one.kind == "empty" or one.number in self.dead:
            return True
        if may_be_parked and place in self.parked:
            return True
        if one.operation == "quiet":
            return bool(self.effects[one.number]) or one.kind == "refused"
        return bool(self.answers[one.number])

    # -- at the end -------------------------------------------------------------------------------------------------

    def finish(self) -> None:
        """Check what every input ended in, once nothing more will happen."""
        for place, one in self.published.items():
            self._check_end(place, one)

    def _check_end(self, place: tuple[str, int, int], one: Input) -> None:
        ends: set[str] = set()
        if self.effects[one.number] and not (one.kind == "hopeless" and one.late_failure):
            ends.add("effect")
        if one.number in self.dead:
            ends.add("dead")
        answers = {kind for kind, _ in self.answers[one.number]}
        if answers == {"failed"} and one.kind in ("refused", "foreign") and not ends:
            ends.add("answer")
        expected = ENDS_OF_KIND[one.kind]
        if "dead" in ends and self.redrives[one.number]:
            self._check_redriven(place, one, ends)
            return
        if one.kind == "refused" and one.operation == "quiet":
            expected = set()
        if ends != expected and not self._may_be(one, ends):
            self.problem(
                f"input {one.number} at {place} ({one.kind}, {one.operation}) ended in {sorted(ends) or 'nothing'}"
            )
        if "effect" in ends and "dead" not in ends and one.operation != "quiet" and answers != {"completed"}:
            self.problem(f"input {one.number} has its effect and the answers {sorted(answers)}")

    def _check_redriven(self, place: tuple[str, int, int], one: Input, ends: set[str]) -> None:
        """A redriven record ends once more: in an effect, an answer, or as a dead letter of that redrive."""
        again = {redrive_id for number, redrive_id in self.dead_redrives if number == one.number}
        answered = one.kind in ("refused", "foreign")
        if self.redrives[one.number] - again and not answered and not self.effects[one.number]:
            self.problem(
                f"input {one.number} at {place} was redriven and ended in nothing: {self.redrives[one.number]}"
            )
        if one.kind not in ("hopeless", "poison") and not self._may_be(one, {"dead"}):
            self.problem(f"input {one.number} at {place} ({one.kind}, {one.operation}) ended in {sorted(ends)}")

    def _may_be(self, one: Input, ends: set[str]) -> bool:
        """Return whether chance may have decided: a failure that was not the input's own, or one twice at once."""
        if one.number in self.quarantined:
            return True  # processes died while it ran; nobody can tell that they were killed from outside
        if not self._chancy or one.kind not in ("quick", "flaky", "refused", "foreign"):
            return False
        return bool(ends) and (one.operation != "once" or len(ends) == 1)


def _original(record: StoredRecord) -> tuple[str, int, int]:
    headers = {name: (value or b"").decode() for name, value in record.headers}
    return (
        headers[TransportHeader.ORIGINAL_TOPIC],
        int(headers[TransportHeader.ORIGINAL_PARTITION]),
        int(headers[TransportHeader.ORIGINAL_OFFSET]),
    )
