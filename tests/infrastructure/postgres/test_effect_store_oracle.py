"""Claim and store against a dictionary that does the same: any sequence of batches, commits and roll-backs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from omnibase_infra.shared.core.ports import AlreadyProcessed, Claim, Fresh, InboxMessage, Reused, StoredOutput
from omnibase_infra.shared.postgres.connection_pool import PoolOptions, PostgresConnectionPool
from omnibase_infra.shared.postgres.effect_store import PostgresEffectStore
from omnibase_infra.shared.testing.postgres_fixtures import PostgresDatabase

DAY_MS = 1_767_225_600_000

identities = st.tuples(st.sampled_from(["/a", "/b"]), st.sampled_from("123456"), st.sampled_from(["", "r"]))
payloads = st.sampled_from([b"p" * 16, b"q" * 16])
outputs = st.lists(
    st.builds(StoredOutput, st.sampled_from(["t.a", "t.b"]), st.none() | st.binary(max_size=4), st.binary(max_size=50)),
    max_size=3,
)
entries = st.tuples(identities, payloads, outputs)


@dataclass(frozen=True)
class Batch:
    entries: list[tuple[tuple[str, str, str], bytes, list[StoredOutput]]]
    commits: bool


batches = st.builds(Batch, st.lists(entries, max_size=8, unique_by=lambda entry: entry[0]), st.booleans())

Oracle = dict[tuple[str, str, str], tuple[bytes, tuple[StoredOutput, ...]]]


class RollBackError(Exception):
    pass


@pytest.fixture(scope="module")
def groups() -> Iterator[int]:
    """Every example has an inbox of its own, by its consumer group."""
    return iter(range(1_000_000))


def message_of(identity: tuple[str, str, str], payload: bytes) -> InboxMessage:
    source, ident, redrive = identity
    # Half of the messages lie on either side of midnight; the day follows from the identity, as it does from a UUIDv7.
    return InboxMessage(source, ident, redrive, payload, "t.cmd", 0, 0, DAY_MS - 1 + int(ident) % 2)


def expected_claim(oracle: Oracle, identity: tuple[str, str, str], payload: bytes) -> Claim:
    if identity not in oracle:
        return Fresh()
    known_payload, stored = oracle[identity]
    return AlreadyProcessed(stored) if known_payload == payload else Reused()


async def replay(dsn: str, group: str, sequence: list[Batch]) -> None:
    oracle: Oracle = {}
    async with PostgresConnectionPool(dsn, PoolOptions(minimum=0, maximum=1)) as pool:
        store = PostgresEffectStore(pool, group)
        for batch in sequence:
            messages = [message_of(identity, payload) for identity, payload, _ in batch.entries]
            try:
                async with store.session() as session:
                    claims = await session.claim(messages)
                    assert claims == [
                        expected_claim(oracle, identity, payload) for identity, payload, _ in batch.entries
                    ]
                    fresh = [
                        (message, entry)
                        for message, entry, claim in zip(messages, batch.entries, claims, strict=True)
                        if isinstance(claim, Fresh)
                    ]
                    await session.store([(message, stored) for message, (_, _, stored) in fresh])
                    if not batch.commits:
                        raise RollBackError
            except RollBackError:
                continue
            oracle |= {identity: (payload, tuple(stored)) for _, (identity, payload, stored) in fresh}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sequence=st.lists(batches, max_size=8))
def test_it_agrees_with_a_dictionary(
    postgres_test_db: PostgresDatabase, groups: Iterator[int], sequence: list[Batch]
) -> None:
    asyncio.run(replay(postgres_test_db.dsn, f"test.{next(groups)}", sequence))
