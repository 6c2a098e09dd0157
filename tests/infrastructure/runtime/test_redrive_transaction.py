"""What each way in which a transaction can end means for a redrive; the client beneath is scripted."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from omnibase_infra.shared.core.errors import DeliveryError, DependencyUnavailableError
from omnibase_infra.shared.core.naming import Realm
from omnibase_infra.shared.core.ports import OutboundRecord
from omnibase_infra.shared.core.settings import load_settings
from omnibase_infra.shared.kafka.transaction_client import ClientSpentError
from omnibase_infra.shared.kafka.transaction_errors import (
    OutputsRefusedError,
    ProducerFencedError,
    TransactionAbortedError,
)
from omnibase_infra.shared.runtime import redrive_transaction
from omnibase_infra.shared.runtime.redrive_transaction import RedriveFencedError, RedriveTransactions
from omnibase_infra.shared.testing.manual_clock import ManualClock
from omnibase_infra.shared.testing.sample_fleet import order_store

RECORD = OutboundRecord("onex.retry.order-store.requests.v1", b"value", b"key", partition=0)


class ScriptedClient:
    """Stands in for `TransactionClient`: each step ends as the script says, None for well.

    Attributes:
        opened / ran: scripts of `open` and `run`, shared by all clients.
        clients: those that were made.
    """

    def __init__(self) -> None:
        self.opened: Iterator[Exception | None] = iter(())
        self.ran: Iterator[Exception | None] = iter(())
        self.usable = True
        self.clients: list[dict[str, Any]] = []
        self.transactions: list[tuple[Any, Any]] = []
        self.closed = 0

    def __call__(self, config: dict[str, Any], **_: Any) -> ScriptedClient:
        self.clients.append(config)
        return self

    def open(self, _seconds: float) -> None:
        if (error := next(self.opened, None)) is not None:
            raise error

    def run(self, records: Any, topics: Any, offsets: Any, group: Any) -> None:
        assert (list(offsets), group) == ([], None)
        self.transactions.append((records, topics))
        if (error := next(self.ran, None)) is not None:
            raise error

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> ScriptedClient:
    scripted = ScriptedClient()
    monkeypatch.setattr(redrive_transaction, "TransactionClient", scripted)
    return scripted


def transactions(**options: Any) -> RedriveTransactions:
    settings = load_settings(Path(os.devnull), env="test", tenant="unit", kafka_bootstrap_servers="127.0.0.1:1")
    return RedriveTransactions(settings, order_store(), log=lambda *_, **__: None, **options)


def test_there_is_one_writer_of_a_worker_in_a_realm(client: ScriptedClient) -> None:
    with transactions() as entered:
        entered.write([RECORD])

    (config,) = client.clients
    assert config["transactional.id"] == Realm("test", "unit").transactional_id("order-store", "redrive")
    assert client.transactions == [([RECORD], ["test-unit.onex.retry.order-store.requests.v1"])]
    assert client.closed == 1


def test_brokers_that_are_starting_are_waited_for_with_new_clients(client: ScriptedClient) -> None:
    client.opened = iter([ClientSpentError("no coordinator"), ClientSpentError("no coordinator"), None])

    with transactions():
        assert (len(client.clients), client.closed) == (3, 2)


def test_patience_with_brokers_ends(client: ScriptedClient) -> None:
    clock = ManualClock()

    def refuse() -> Iterator[Exception]:
        while True:
            clock.advance(11)
            yield ClientSpentError("no coordinator")

    client.opened = refuse()
    with pytest.raises(DependencyUnavailableError, match="no Kafka broker let a redrive begin: no coordinator"):
        transactions(monotonic=clock.monotonic, patience_seconds=30).__enter__()
    assert (len(client.clients), client.closed) == (3, 3)


def test_one_that_begins_at_the_same_moment_is_fenced(client: ScriptedClient) -> None:
    client.opened = iter([ProducerFencedError("fenced")])

    with pytest.raises(RedriveFencedError, match="another redrive of this worker is running"):
        transactions().__enter__()
    assert client.closed == 1


def test_an_aborted_transaction_is_tried_again_by_the_same_client(client: ScriptedClient) -> None:
    """Had another run taken over meanwhile, that client would be fenced; a new one would not know."""
    client.ran = iter([TransactionAbortedError("no leader"), TransactionAbortedError("no leader"), None])

    with transactions() as entered:
        entered.write([RECORD])
        assert (len(client.transactions), len(client.clients)) == (3, 1)


def test_tries_end(client: ScriptedClient) -> None:
    client.ran = iter([TransactionAbortedError("no leader")] * 9)

    with transactions() as entered, pytest.raises(DeliveryError, match="taken back: no leader") as raised:
        entered.write([RECORD])
    assert "run the same command again" in raised.value.hint
    assert len(client.transactions) == 3


def test_a_client_that_cannot_go_on_is_not_replaced(client: ScriptedClient) -> None:
    client.ran = iter([TransactionAbortedError("a record was not taken")])
    client.usable = False

    with transactions() as entered, pytest.raises(DeliveryError, match="taken back"):
        entered.write([RECORD])
    assert (len(client.transactions), len(client.clients)) == (1, 1)


def test_what_the_broker_never_takes_is_not_tried_again(client: ScriptedClient) -> None:
    client.ran = iter([OutputsRefusedError("too large", errors={0: "too large"}, alone=True)])

    with transactions() as entered, pytest.raises(DeliveryError, match="taken back: too large"):
        entered.write([RECORD])
    assert len(client.transactions) == 1


@pytest.mark.parametrize(
    ("asked", "message"), [(False, "the transaction was given up"), (True, "nobody can tell yet whether")]
)
def test_after_a_time_out_nothing_more_is_written(client: ScriptedClient, asked: bool, message: str) -> None:
    client.ran = iter([ClientSpentError("timed out", maybe_committed=asked)])

    with transactions() as entered:
        with pytest.raises(DeliveryError, match=message):
            entered.write([RECORD])
        with pytest.raises(DeliveryError, match="an earlier transaction failed"):
            entered.write([RECORD])
    assert (len(client.transactions), len(client.clients), client.closed) == (1, 1, 1)


def test_one_that_was_fenced_says_what_to_do(client: ScriptedClient) -> None:
    client.ran = iter([ProducerFencedError("fenced")])

    with transactions() as entered, pytest.raises(RedriveFencedError) as raised:
        entered.write([RECORD])
    assert "look with `omninode dlq list`" in raised.value.hint
    assert client.closed == 1
