"""Who waits for which answer. The event loop's, but for `wants`, which the answer thread asks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import msgspec

from omnibase_infra.shared.core.envelope import Envelope
from omnibase_infra.shared.core.errors import OmnibaseError
from omnibase_infra.shared.core.worker_spec import OperationSpec


class AnswerHead(msgspec.Struct, frozen=True):
    """Those attributes of a record that say whose answer it is. Empty ones mean that it is none of ours."""

    specversion: str = ""
    type: str = ""
    causationid: str | None = None
    correlationid: str | None = None


Arrival: TypeAlias = tuple[AnswerHead, Envelope | OmnibaseError]


class _Waiter:
    __slots__ = ("answer", "conversation", "types")

    def __init__(self, conversation: str, types: frozenset[str], answer: asyncio.Future[Envelope]) -> None:
        self.conversation = conversation
        self.types = types
        self.answer = answer


class PendingAnswers:
    """The requests that wait, by message id. An answer is taken once; duplicates and late ones find nobody."""

    def __init__(self) -> None:
        self._waiters: dict[str, _Waiter] = {}
        # Needed for answers of foreign workers that tell the conversation only.
        self._conversations: dict[str, set[str]] = {}

    def __len__(self) -> int:
        return len(self._waiters)

    @contextmanager
    def waiting(self, request: Envelope, operation: OperationSpec) -> Iterator[asyncio.Future[Envelope]]:
        """Yield the future of the answer; nobody waits for it any more after the block."""
        answer = asyncio.get_running_loop().create_future()
        types = frozenset((operation.completed_type, operation.failed_type))
        self._waiters[request.id] = _Waiter(request.conversation, types, answer)
        self._conversations.setdefault(request.conversation, set()).add(request.id)
        try:
            yield answer
        finally:
            self._forget(request.id)
            if not answer.cancel() and not answer.cancelled():
                answer.exception()  # seen, also where the block ended for another reason

    def wants(self, head: AnswerHead) -> bool:
        """Return whether somebody may wait for this answer. Safe from any thread, and only a guess there."""
        if head.causationid is not None:
            return head.causationid in self._waiters
        return head.correlationid is not None and head.correlationid in self._conversations

    def deliver(self, arrivals: Iterable[Arrival]) -> None:
        """Hand answers, or what is wrong with them, to those who wait for them."""
        for head, arrived in arrivals:
            message_id = self._addressee(head)
            if message_id is None:
                continue
            answer = self._waiters[message_id].answer
            self._forget(message_id)
            if answer.done():
                continue
            if isinstance(arrived, Envelope):
                answer.set_result(arrived)
            else:
                answer.set_exception(arrived)

    def fail_all(self, error: Callable[[], OmnibaseError]) -> None:
        """Tell everybody who waits that no answer will come; each gets an error of its own."""
        for message_id in list(self._waiters):
            answer = self._waiters[message_id].answer
            self._forget(message_id)
            if not answer.done():
                answer.set_exception(error())

    def _addressee(self, head: AnswerHead) -> str | None:
        """Return the message id of the request that an answer replies to.

        Other events that the command caused have its causation id, too: the type tells them from the answer.
        """
        candidates: Iterable[str]
        if head.causationid is not None:
            candidates = (head.causationid,)
        else:
            candidates = self._conversations.get(head.correlationid or "", ())
        fitting = [one for one in candidates if one in self._waiters and head.type in self._waiters[one].types]
        # Several requests of one conversation cannot be told apart without a causation id.
        return fitting[0] if len(fitting) == 1 else None

    def _forget(self, message_id: str) -> None:
        waiter = self._waiters.pop(message_id, None)
        if waiter is None:
            return
        members = self._conversations[waiter.conversation]
        members.discard(message_id)
        if not members:
            del self._conversations[waiter.conversation]
