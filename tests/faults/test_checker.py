"""The checker finds every planted bug, names the record, and is content with a run that was well."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from tests.faults.checker import Answer, Effect, Input, Outcome, Run, check

KEYS, PER_KEY = 3, 4


def well(**changes: Any) -> Run:
    """Return a run of twelve inputs that all took effect and were answered, with parts replaced."""
    inputs = [Input(f"{key}-{number}", key, number) for number in range(1, PER_KEY + 1) for key in "abc"]
    values: dict[str, Any] = {
        "inputs": inputs,
        "effects": [Effect(one.id, str(one.key), one.sequence) for one in inputs],
        "answers": [answer(one.id) for one in inputs],
    }
    return Run(**(values | changes))


def answer(cause: str, outcome: Outcome = "completed", suffix: str = "") -> Answer:
    return Answer(f"answer-{cause}{suffix}", cause, outcome)


def without(run: Run, *ids: str) -> Run:
    """Return the run without the effects and answers of these inputs."""
    return msgspec.structs.replace(
        run,
        effects=[one for one in run.effects if one.id not in ids],
        answers=[one for one in run.answers if one.cause not in ids],
    )


def test_a_dead_letter_is_answered_if_its_envelope_can_be_read_and_else_must_not_be() -> None:
    junk, command = Input("junk", is_command=False), Input("command")
    run = Run(inputs=[junk, command], effects=[], dead=["junk", "command"])
    assert check(run).unanswered == ("command",)
    assert check(msgspec.structs.replace(run, answers=[answer("command", "failed")])).is_clean
    both = [answer("command", "failed"), answer("junk", "failed")]
    assert check(msgspec.structs.replace(run, answers=both)).misanswered == ("junk",)


def test_a_run_in_which_all_went_well_is_clean_and_balances() -> None:
    report = check(well())
    assert (report.is_clean, report.is_settled) == (True, True)
    assert (report.inputs, report.effects, report.dead, report.refused, report.in_flight) == (12, 12, 0, 0, 0)


def test_every_place_where_an_input_may_be_is_counted_once() -> None:
    run = without(well(), "a-1", "b-1", "c-1", "c-2")
    run = msgspec.structs.replace(
        run,
        answers=[*run.answers, answer("a-1", "failed"), answer("b-1", "failed")],
        dead=["a-1"],
        parked=["c-1"],
        uncommitted=["c-2", "c-3"],
    )
    report = check(run)
    assert (report.effects, report.dead, report.refused, report.in_flight) == (8, 1, 1, 2)
    assert report.inputs == report.effects + report.dead + report.refused + report.in_flight
    # Answers of a dead letter come when it died, so these two are late and nothing else is wrong.
    assert report.findings == {"disordered": ("a-1", "b-1")}


def test_commit_before_confirm_is_seen_as_loss() -> None:
    """The offset was committed, the process died, and neither effect nor answer is anywhere."""
    report = check(without(well(), "b-2", "c-4"))
    assert report.lost == ("b-2", "c-4")
    assert "12 inputs ≠ 10 effects" in str(report)
    assert "lost: b-2, c-4" in str(report)


def test_what_is_still_under_way_is_not_lost() -> None:
    report = check(msgspec.structs.replace(without(well(), "b-2"), uncommitted=["b-2"]))
    assert (report.is_clean, report.is_settled, report.in_flight) == (True, False, 1)


def test_a_dropped_record_is_seen_though_its_neighbours_were_answered() -> None:
    assert check(without(well(), "a-3")).findings == {"lost": ("a-3",)}


def test_a_doubled_effect_is_seen() -> None:
    run = well()
    twice = msgspec.structs.replace(run, effects=[*run.effects, Effect("c-4", "c", 4)])
    assert check(twice).findings == {"doubled": ("c-4",)}


def test_a_record_that_is_dead_or_parked_twice_is_seen() -> None:
    run = without(well(), "a-4", "b-4")
    run = msgspec.structs.replace(
        run, answers=[*run.answers, answer("a-4", "failed")], dead=["a-4", "a-4"], parked=["b-4", "b-4"]
    )
    assert check(run).findings == {"doubled": ("a-4", "b-4")}


def test_a_swap_within_a_key_is_seen_and_one_between_keys_is_not() -> None:
    run = well()
    effects = list(run.effects)
    effects[0], effects[1] = effects[1], effects[0]
    assert check(msgspec.structs.replace(run, effects=effects)).is_clean
    effects[0], effects[4] = effects[4], effects[0]
    assert check(msgspec.structs.replace(run, effects=effects)).findings == {"disordered": ("b-1",)}


def test_a_swap_of_answers_within_a_key_is_seen() -> None:
    run = well()
    answers = list(run.answers)
    answers[2], answers[5] = answers[5], answers[2]
    assert check(msgspec.structs.replace(run, answers=answers)).findings == {"disordered": ("c-1",)}


def test_an_answer_sent_again_after_a_crash_counts_where_it_was_first() -> None:
    run = well()
    assert check(msgspec.structs.replace(run, answers=[*run.answers, *run.answers[:5]])).is_clean


def test_an_answer_without_an_input_is_seen() -> None:
    run = well()
    stray = msgspec.structs.replace(run, answers=[*run.answers, answer("nobody")])
    assert check(stray).unexplained == ("nobody",)


@pytest.mark.parametrize("place", ["effects", "dead", "parked"])
def test_anything_else_without_an_input_is_seen(place: str) -> None:
    run = well()
    more: Any = Effect("nobody", "z", 1) if place == "effects" else "nobody"
    stray = msgspec.structs.replace(run, **{place: [*getattr(run, place), more]})
    assert check(stray).findings == {"unexplained": ("nobody",)}


def test_a_second_answer_of_another_id_is_seen() -> None:
    run = well()
    other = msgspec.structs.replace(run, answers=[*run.answers, answer("c-4", suffix="-again")])
    assert check(other).misanswered == ("c-4",)


def test_a_completed_answer_without_its_effect_is_seen() -> None:
    run = well()
    report = check(msgspec.structs.replace(run, effects=[one for one in run.effects if one.id != "a-2"]))
    assert report.findings == {"lost": ("a-2",), "misanswered": ("a-2",)}


def test_an_effect_that_nobody_was_told_of_is_seen_unless_it_is_still_under_way() -> None:
    run = well()
    silent = msgspec.structs.replace(run, answers=[one for one in run.answers if one.cause != "a-2"])
    assert check(silent).findings == {"unanswered": ("a-2",)}
    assert check(msgspec.structs.replace(silent, uncommitted=["a-2"])).is_clean
    assert check(msgspec.structs.replace(silent, answers=[], answered=False)).is_clean


def test_a_record_that_is_done_and_dead_is_seen() -> None:
    report = check(well(dead=["c-2"]))
    assert report.findings == {"contradictory": ("c-2",)}


def test_a_message_sent_twice_under_one_id_is_one_input() -> None:
    run = well()
    assert check(msgspec.structs.replace(run, inputs=[*run.inputs, run.inputs[3]])).inputs == 12


def test_records_without_a_key_have_no_order() -> None:
    inputs = [Input(f"n-{number}", None, 0) for number in range(3)]
    effects = [Effect(one.id, "n", 1) for one in inputs]
    assert check(Run(inputs, effects, [answer(one.id) for one in reversed(inputs)])).is_clean


@pytest.mark.parametrize("seed", range(20))
def test_one_random_bug_in_a_large_run_is_found_and_nothing_else_is_blamed(seed: int) -> None:
    chance = random.Random(seed)
    inputs = [Input(f"{number % 50}-{number // 50}", str(number % 50), number // 50) for number in range(2_000)]
    effects = [Effect(one.id, str(one.key), one.sequence) for one in inputs]
    answers = [answer(one.id) for one in inputs]
    victim = chance.randrange(50, 1_900)
    bug = chance.choice(["drop", "double", "swap"])
    if bug == "drop":
        del effects[victim], answers[victim]
        expected = {"lost": (inputs[victim].id,)}
    elif bug == "double":
        effects.append(effects[victim])
        later = effects[victim].sequence < 39
        expected = {"doubled": (inputs[victim].id,)} | ({"disordered": (inputs[victim].id,)} if later else {})
    else:
        effects[victim], effects[victim + 50] = effects[victim + 50], effects[victim]
        expected = {"disordered": (inputs[victim].id,)}
    assert check(Run(inputs, effects, answers)).findings == expected
