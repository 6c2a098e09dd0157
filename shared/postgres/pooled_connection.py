"""The connections of our pools: JSON as plain values, the pool's metrics at hand, nothing left behind by a lender."""

from __future__ import annotations

from typing import Any

import asyncpg
import msgspec

from omnibase_infra.shared.postgres.query_metrics import QueryMetrics

Connection = asyncpg.pool.PoolConnectionProxy


class ConnectionHistory:
    """What a pool remembers of one connection: when it is too old (event loop's time), uses, and its credentials."""

    __slots__ = ("generation", "too_old_at", "uses")

    def __init__(self, generation: int, too_old_at: float) -> None:
        self.generation = generation
        self.too_old_at = too_old_at
        self.uses = 0


class MeteredConnection(asyncpg.Connection):
    """A connection that carries its pool's metrics, so that kit code finds them, and costs nothing to give back.

    asyncpg resets the session with a round trip at each release, which took 40 % of a short statement's time. Our
    sessions leave nothing behind: settings, locks and cursors are those of a transaction. Who runs other people's
    SQL asks the pool for the full reset.
    """

    __slots__ = ("history", "query_metrics")

    history: ConnectionHistory
    query_metrics: QueryMetrics

    def get_reset_query(self) -> str:
        """Return no statement; a transaction that is still open is rolled back all the same."""
        return ""

    async def execute(self, query: str, *args: object, timeout: float | None = None) -> str:  # noqa: ASYNC109
        """Run a command as asyncpg does, and let no failed transaction pass for a committed one.

        Raises:
            InFailedSQLTransactionError: PostgreSQL answered COMMIT with a rollback, since an error inside the
                transaction was caught and ignored.
        """
        status = await super().execute(query, *args, timeout=timeout)
        if query == "COMMIT;" and status != "COMMIT":
            raise asyncpg.InFailedSQLTransactionError("an error inside the transaction was ignored: it was rolled back")
        return status


def is_lost(connection: asyncpg.Connection | Connection[asyncpg.Record]) -> bool:
    """Return whether a connection taken from a pool has been closed, by whichever side."""
    try:
        return connection.is_closed()
    except asyncpg.InterfaceError:
        return True  # the pool has taken a broken one back already


async def set_json_codecs(connection: asyncpg.Connection) -> None:
    """Make `json` and `jsonb` columns plain Python values, by msgspec. Also for connections outside a pool."""
    await connection.set_type_codec(
        "jsonb", schema="pg_catalog", format="binary", encoder=_encode_jsonb, decoder=_decode_jsonb
    )
    await connection.set_type_codec(
        "json", schema="pg_catalog", format="binary", encoder=_encode_json, decoder=_json_decoder.decode
    )


class JsonValue:
    """A list inside an array of JSON values; the driver would take a bare list for another array dimension."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value


_json_encoder = msgspec.json.Encoder()
_json_decoder = msgspec.json.Decoder()


def _encode_json(value: Any) -> bytes:
    return _json_encoder.encode(value.value if type(value) is JsonValue else value)


def _encode_jsonb(value: Any) -> bytes:
    # jsonb's binary form is a version byte and the text.
    return b"\x01" + _encode_json(value)


def _decode_jsonb(data: bytes) -> Any:
    return _json_decoder.decode(memoryview(data)[1:])
