"""What the demo proves, from what lies in the topics and the database after the workers have ended. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import pairwise

import msgspec

from omnibase_infra.shared.cli.demo_steps.bad_input import BadInputOutcome
from omnibase_infra.shared.cli.demo_steps.observation import Observation, SeenAnswer, SeenDeadLetter
from omnibase_infra.shared.cli.demo_steps.worker_processes import WorkerReport


class Proof(msgspec.Struct, frozen=True):
    """A promise, checked: what was expected and what was seen, and an example where they differ."""

    what: str
    expected: int
    seen: int
    example: str = ""

    @property
    def holds(self) -> bool:
        """Return whether it was kept."""
        return self.expected == self.seen


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What the proofs are made from.

    Attributes:
        sent: ids of the commands of the load.
        expected: by order, the sequences that were sent.
        stored: by order, the sequences of its rows, in the order in which they were stored.
        observation: all answers and dead letters.
        bad_inputs: where the bad records went.
        others: dead letters that are none of them.
        good_is_done: whether the good command behind the bad ones completed.
        stopped: the workers that were ended by SIGTERM.
    """

    sent: AbstractSet[str]
    expected: Mapping[str, Sequence[int]]
    stored: Mapping[str, Sequence[int]]
    observation: Observation
    bad_inputs: Sequence[BadInputOutcome]
    others: Sequence[SeenDeadLetter]
    good_is_done: bool
    stopped: Sequence[WorkerReport]


def prove(evidence: Evidence) -> list[Proof]:
    """Return every proof, those that hold and those that do not."""
    return [
        *_rows(evidence.expected, evidence.stored),
        *_answers(evidence.sent, evidence.observation),
        *_refused(evidence),
        Proof(
            "workers that SIGTERM ended with exit code 0",
            len(evidence.stopped),
            sum(worker.exit_code == 0 for worker in evidence.stopped),
        ),
    ]


def repeated_answers(sent: AbstractSet[str], observation: Observation) -> int:
    """Return how many answers were sent again, with the same id: allowed, and what readers sort out by that id."""
    ids = [[answer.id for answer in observation.answers.get(command, ())] for command in sent]
    return sum(len(one) - len(set(one)) for one in ids)


def _rows(expected: Mapping[str, Sequence[int]], stored: Mapping[str, Sequence[int]]) -> list[Proof]:
    pairs = {(order, sequence) for order, sequences in expected.items() for sequence in sequences}
    rows = [(order, sequence) for order, sequences in stored.items() for sequence in sequences]
    distinct = set(rows)
    repeated = [pair for pair, count in Counter(rows).items() if count > 1]
    disordered = [order for order in expected if not _ascends(stored.get(order, ()))]
    return [
        Proof("rows stored", len(pairs), len(rows)),
        Proof("events stored more than once", 0, len(repeated), _first(repeated)),
        Proof("events lost", 0, len(pairs - distinct), _first(pairs - distinct)),
        Proof("rows nobody sent", 0, len(distinct - pairs), _first(distinct - pairs)),
        Proof(
            "keys whose rows are in the order they were sent",
            len(expected),
            len(expected) - len(disordered),
            "".join(f"order {order}: {list(stored.get(order, ()))}" for order in disordered[:1]),
        ),
    ]


def _first(events: Iterable[tuple[str, int]]) -> str:
    return "".join(f"order {order}, sequence {sequence}" for order, sequence in sorted(events)[:1])


def _ascends(sequences: Sequence[int]) -> bool:
    return bool(sequences) and all(first <= second for first, second in pairwise(sequences))


def _answers(sent: AbstractSet[str], observation: Observation) -> list[Proof]:
    by_command = {command: observation.answers.get(command, []) for command in sorted(sent)}
    open_ones = [command for command, answers in by_command.items() if not _completed(answers)]
    several = [command for command, answers in by_command.items() if len({answer.id for answer in answers}) > 1]
    return [
        Proof(
            "commands answered `completed`",
            len(sent),
            len(sent) - len(open_ones),
            "".join(f"command {command}: {_why_open(by_command[command])}" for command in open_ones[:1]),
        ),
        Proof("commands with different answers", 0, len(several), "".join(f"command {one}" for one in several[:1])),
    ]


def _completed(answers: Sequence[SeenAnswer]) -> bool:
    return bool(answers) and not any(answer.code for answer in answers)


def _why_open(answers: Sequence[SeenAnswer]) -> str:
    failed = next((answer for answer in answers if answer.code), None)
    return f"{failed.code}: {failed.message}" if failed else "no answer"


def _refused(evidence: Evidence) -> list[Proof]:
    meant = sum(item.expected == "dead letter" for item in evidence.bad_inputs)
    found = sum(item.went_to == "dead letter" for item in evidence.bad_inputs)
    others = evidence.others
    return [
        Proof(
            "dead letters apart from the bad input",
            0,
            len(others),
            "".join(f"{letter.code}: {letter.message}" for letter in others[:1]),
        ),
        Proof("dead letters of the bad input", meant, found),
        Proof(
            "bad inputs that went where they belong",
            len(evidence.bad_inputs),
            sum(item.holds for item in evidence.bad_inputs),
        ),
        Proof("good commands behind them, completed", 1, int(evidence.good_is_done)),
    ]
