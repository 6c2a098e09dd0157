"""What contracts may say about kits. The generator implements kits; here is only what their options are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

import msgspec

from omnibase_infra.shared.contracts.model import POSTGRES_POOL, SETTINGS

KIT_ENTRY_POINTS: Final = "omnibase_infra.kits"

OptionRole = Literal["value", "statement_file", "statement_files", "definition"]


class KitOption(msgspec.Struct, frozen=True):
    """One key that a kit adds to its operations.

    Attributes:
        schema: JSON Schema of the value.
        role: what the value refers to; files and definitions are checked to exist.
    """

    description: str
    schema: Mapping[str, Any]
    required: bool = False
    default: Any = None
    role: OptionRole = "value"


class KitSchema(msgspec.Struct, frozen=True):
    """What a contract may say about operations of one kit.

    Attributes:
        needs: short names of the services every operation of the kit needs.
        uses: services it talks to, but can run without; they must be declared, too.
        control: its operations report on a dependency and live on the control topic.
        batchable: its operations may declare `batch`.
        read_only: its operations change nothing, whatever their options say.
        states_models: its operations state `request`, `response` and `needs` themselves.
    """

    name: str
    description: str
    options: Mapping[str, KitOption] = {}
    needs: tuple[str, ...] = ()
    uses: tuple[str, ...] = ()
    control: bool = False
    batchable: bool = False
    read_only: bool = False
    states_models: bool = False


class KnownService(msgspec.Struct, frozen=True):
    """A service of the container: the name contracts depend on, its class, and its short name.

    Attributes:
        is_server: whether something outside of the process answers behind it, which may be down.
    """

    dependency: str
    class_name: str
    short_name: str
    is_server: bool = True


SERVICES: Final = (
    KnownService(POSTGRES_POOL, "PostgresConnectionPool", "postgres"),
    KnownService("kafka_producer_pool", "KafkaProducerPool", "kafka"),
    KnownService("consul_client", "ConsulClient", "consul"),
    KnownService("vault_client", "VaultClient", "vault"),
    KnownService(SETTINGS, "Settings", "settings", is_server=False),
    KnownService("metrics_registry", "MetricsRegistry", "metrics", is_server=False),
)

# What `type: protocol` may name; `shared.registry.protocol_registry` says what each is in code.
PROTOCOL_NAMES: Final = ("ProtocolEventBus", "ProtocolEffectStore", "ProtocolEffectJournal")

_STATEMENT_PATH: Final = {
    "type": "string",
    "pattern": r"^statements/[a-z][a-z0-9_]*\.sql$",
    "examples": ["statements/insert_order.sql"],
}
_STATEMENTS_OPTION: Final = KitOption(
    description="The SQL files callers may name, relative to the contract. Default: every file in statements/.",
    schema={"type": "array", "minItems": 1, "uniqueItems": True, "items": _STATEMENT_PATH},
    role="statement_files",
)

_BUILT_IN: Final = (
    KitSchema(
        name="postgres.statement",
        description="One SQL statement; its parameters are the payload.",
        options={
            "statement": KitOption(
                description="The SQL file, relative to the contract.",
                schema=_STATEMENT_PATH,
                required=True,
                role="statement_file",
            )
        },
        needs=("postgres",),
        batchable=True,
    ),
    KitSchema(
        name="postgres.statements",
        description="Several SQL statements behind one operation; the payload names one and gives its parameters.",
        options={"statements": _STATEMENTS_OPTION},
        needs=("postgres",),
        batchable=True,
    ),
    KitSchema(
        name="postgres.transaction",
        description="Several named statements in order, in one transaction, all or nothing.",
        options={
            "statements": _STATEMENTS_OPTION,
            "max_statements": KitOption(
                description="How many statements one transaction may have.",
                schema={"type": "integer", "minimum": 1, "maximum": 1000},
                default=100,
            ),
        },
        needs=("postgres",),
    ),
    KitSchema(
        name="postgres.query",
        description="SQL text with bound parameters under a read-only role; off unless a process enables it.",
        options={
            "max_rows": KitOption(
                description="How many rows an answer may hold; a query that gives more is refused.",
                schema={"type": "integer", "minimum": 1, "maximum": 100_000},
                default=1000,
            )
        },
        needs=("postgres",),
        uses=("settings",),
        read_only=True,
    ),
    KitSchema(
        name="postgres.health",
        description="Whether PostgreSQL answers, and the state of the pool; runs while it is down.",
        uses=("postgres",),
        control=True,
        read_only=True,
    ),
    KitSchema(
        name="custom",
        description="Scaffolded once, then owned by people; its signature is checked.",
        options={
            "request": KitOption(
                description="Definition of the payload.",
                schema={"type": "string"},
                required=True,
                role="definition",
            ),
            "response": KitOption(
                description="Definition of the answer.",
                schema={"type": "string"},
                role="definition",
            ),
            "needs": KitOption(
                description="Short names of the services it cannot run without.",
                schema={"type": "array", "uniqueItems": True, "items": {"type": "string"}, "examples": [["postgres"]]},
                default=(),
            ),
            "read_only": KitOption(
                description="It changes nothing, so that repeating it is harmless.",
                schema={"type": "boolean"},
                default=False,
            ),
            "effect": KitOption(
                description="Where its effect is: in the transaction of its inbox row, or elsewhere, with a journal.",
                schema={"enum": ["transaction", "journal"], "examples": ["journal"]},
                default="transaction",
            ),
            "repeatable": KitOption(
                description="Whether an effect elsewhere may be made again when nobody knows how it ended.",
                schema={"type": "boolean"},
                default=False,
            ),
        },
        batchable=True,
        states_models=True,
    ),
)

BUILT_IN_KITS: Final[Mapping[str, KitSchema]] = {kit.name: kit for kit in _BUILT_IN}


def server_of(dependency: str) -> str | None:
    """Return the short name of the server behind a dependency, like `postgres` for `postgres_pool`; None: there is none."""
    return next((item.short_name for item in SERVICES if item.dependency == dependency and item.is_server), None)


SERVERS: Final = frozenset(service.short_name for service in SERVICES if service.is_server)
