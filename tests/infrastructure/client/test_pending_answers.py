"""Which answer belongs to which request."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import msgspec
import pytest

from omnibase_infra.shared.client.errors import AnswersLostError
from omnibase_infra.shared.client.node_interface import NodeInterface
from omnibase_infra.shared.client.pending_answers import AnswerHead, PendingAnswers
from omnibase_infra.shared.core import envelope as envelopes
from omnibase_infra.shared.core.envelope import Envelope
from omnibase_infra.shared.core.worker_spec import OperationSpec


@pytest.fixture
def pending() -> PendingAnswers:
    return PendingAnswers()


@pytest.fixture
def operation(interface: NodeInterface) -> OperationSpec:
    return interface.operation("quote_price").spec


def command(correlationid: str | None = None) -> Envelope:
    return envelopes.original(
        source="/test",
        event_type="onex.cmd.price-quoter.quote-price.v1",
        data=envelopes.encode_data({}),
        correlationid=correlationid,
    )


def head_of(answer: Envelope) -> AnswerHead:
    return msgspec.json.decode(envelopes.encode(answer), type=AnswerHead)


def deliver(pending: PendingAnswers, *arrived: Envelope) -> None:
    pending.deliver((head_of(one), one) for one in arrived if pending.wants(head_of(one)))


async def test_each_request_gets_its_own_answer(
    pending: PendingAnswers, operation: OperationSpec, answers: SimpleNamespace
) -> None:
    first, second = command(), command()
    with pending.waiting(first, operation) as its, pending.waiting(second, operation) as others:
        deliver(pending, answers.completed(second, 2), answers.completed(first, 1))
        assert (await its).causationid == first.id
        assert (await others).causationid == second.id


async def test_requests_of_one_conversation_are_told_apart_by_causation(
    pending: PendingAnswers, operation: OperationSpec, answers: SimpleNamespace
) -> None:
    first, second = command("c"), command("c")
    with pending.waiting(first, operation) as its, pending.waiting(second, operation) as others:
        deliver(pending, answers.completed(second, 2))
        assert not its.done()
        assert (await others).causationid == second.id


async def test_a_duplicate_is_dropped(
    pending: PendingAnswers, operation: OperationSpec, answers: SimpleNamespace
) -> None:
    request = command()
    with pending.waiting(request, operation) as its:
        answer = answers.completed(request, 1)
        deliver(pending, answer, answer)
        assert (await its) == answer
        deliver(pending, answer)
        assert not pending.wants(head_of(answer))


async def test_a_late_answer_finds_nobody_and_harms_nobody(
    pending: PendingAnswers, operation: OperationSpec, answers: SimpleNamespace
) -> None:
    late, other = command("c"), command("c")
    with pending.waiting(late, operation):
        pass
    with pending.waiting(other, operation) as its:
        deliver(pending, answers.completed(late, 1))
        # Also when it was wanted while the thread looked and nobody is left when it arrives.
        pending.deliver([(head_of(answers.completed(late, 1)), answers.completed(late, 1))])
        assert not its.done()
    assert len(pending) == 0


async def test_other_events_of_the_command_are_no_answer(
    pending: PendingAnswers, operation: OperationSpec, answers: SimpleNamespace
) -> None:
    request = command()
    with pending.waiting(request, operation) as its:
        deliver(pending, answers.completed(request, 1, type="onex.evt.price-quoter.stock-reserved.v1"))
        assert not its.done()
        deliver(pending, answers.failed(request, "not-found", "no"))
        assert its.done()


async def test_an_answer_without_causation_is_known_by_its_conversation(
    pending: PendingAnswers, operation: OperationSpec, answers: SimpleNamespace
) -> None:
    request = command("c")
    with pending.waiting(request, operation) as its:
        deliver(pending, answers.completed(request, 1, causationid=None))
        assert its.done()


async def test_an_answer_without_causation_to_one_of_several_is_given_to_none(
    pending: PendingAnswers, operation: OperationSpec, answers: SimpleNamespace
) -> None:
    first, second = command("c"), command("c")
    with pending.waiting(first, operation) as its, pending.waiting(second, operation) as others:
        deliver(pending, answers.completed(first, 1, causationid=None))
        assert not its.done()
        assert not others.done()


async def test_a_cancelled_request_is_forgotten(pending: PendingAnswers, operation: OperationSpec) -> None:
    request = command()

    async def ask() -> None:
        with pending.waiting(request, operation) as its:
            await its

    task = asyncio.create_task(ask())
    await asyncio.sleep(0)
    assert len(pending) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert len(pending) == 0


async def test_everybody_is_told_when_no_answer_will_come(pending: PendingAnswers, operation: OperationSpec) -> None:
    first, second = command(), command()
    with pending.waiting(first, operation) as its, pending.waiting(second, operation) as others:
        pending.fail_all(lambda: AnswersLostError("gone"))
        for future in (its, others):
            with pytest.raises(AnswersLostError):
                await future
    assert len(pending) == 0
