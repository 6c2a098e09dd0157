"""Every metric of the fleet, declared once: name, kind, meaning, unit and labels.

What is not here cannot be registered. The metrics page of the docs is generated from this list. Labels are few and
bounded by the contract: never a key, an id or a message.
"""

from __future__ import annotations

from typing import ClassVar, Final, Literal

import msgspec

from omnibase_infra.shared.core.errors import ConfigurationError

MetricKind = Literal["counter", "gauge", "histogram"]
MetricUnit = Literal[
    "records", "seconds", "bytes", "connections", "partitions", "events", "state", "lines", "spans", "processes"
]
Across = Literal["sum", "max", "min"]

PREFIX: Final = "omnibase_"

SECONDS_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
LONG_SECONDS_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0)
BATCH_BUCKETS: Final = (1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0)


class MetricDefinition(msgspec.Struct, frozen=True):
    """One metric family.

    Attributes:
        name: as on `/metrics`; counters end in `_total`.
        meaning: one sentence for the person on call.
        unit: of the value.
        labels: in the order children are made with.
    """

    name: str
    meaning: str
    unit: MetricUnit
    labels: tuple[str, ...] = ("worker",)
    kind: ClassVar[MetricKind]

    def __post_init__(self) -> None:
        if not self.name.startswith(PREFIX) or self.name.endswith("_total") != (self.kind == "counter"):
            raise ConfigurationError(
                f"metric {self.name!r}: names start with {PREFIX!r}, and counters alone end in '_total'"
            )


class CounterDefinition(MetricDefinition, frozen=True):
    """A value that only grows while the process lives."""

    kind = "counter"


class GaugeDefinition(MetricDefinition, frozen=True):
    """A value that goes up and down.

    `across` says what the values of a node's processes make together: their sum, or the highest or lowest where each
    process tells the same thing, or the worst one is what matters.
    """

    across: Across = "sum"

    kind = "gauge"


class HistogramDefinition(MetricDefinition, frozen=True):
    """A distribution; `buckets` are upper bounds in the metric's unit, without infinity."""

    buckets: tuple[float, ...] = SECONDS_BUCKETS

    kind = "histogram"


_TOPIC: Final = ("worker", "topic")
_OPERATION: Final = ("worker", "operation")
_DEPENDENCY: Final = ("worker", "dependency")
_CLIENT: Final = ("worker", "client")

# --- the path of a record -------------------------------------------------------------------------------------------
RECORDS_CONSUMED: Final = CounterDefinition(
    "omnibase_records_consumed_total", "Records taken from the broker, repeats included.", "records", _TOPIC
)
RECORDS_FINISHED: Final = CounterDefinition(
    "omnibase_records_finished_total",
    "Records whose effect and outputs are confirmed, however they ended.",
    "records",
    _TOPIC,
)
RECORDS_COMPLETED: Final = CounterDefinition(
    "omnibase_records_completed_total", "Records that ended in success.", "records", _OPERATION
)
RECORDS_FAILED: Final = CounterDefinition(
    "omnibase_records_failed_total", "Records that ended in a `failed` answer.", "records", _OPERATION
)
RECORDS_RETRIED: Final = CounterDefinition(
    "omnibase_records_retried_total", "Attempts that failed and were or will be repeated.", "records", _OPERATION
)
RECORDS_DEAD: Final = CounterDefinition(
    "omnibase_records_dead_total", "Records written to the dead-letter topic, refused ones included.", "records", _TOPIC
)
RECORDS_IGNORED: Final = CounterDefinition(
    "omnibase_records_ignored_total", "Records that were for nobody here and were passed over.", "records", _TOPIC
)
RECORDS_PARKED: Final = CounterDefinition(
    "omnibase_records_parked_total",
    "Records written to a retry topic: failed ones, and those of their keys behind them.",
    "records",
    _TOPIC,
)
RECORDS_REFUSED: Final = CounterDefinition(
    "omnibase_records_refused_total", "Records no handler may see, by error code.", "records", ("worker", "code")
)
RATE_LIMITED: Final = CounterDefinition(
    "omnibase_rate_limited_total",
    "Records beyond a rate limit of the contract: made to wait, parked on the retry topic, or refused.",
    "records",
    ("worker", "operation", "decision"),
)
ANSWERS_PRODUCED: Final = CounterDefinition(
    "omnibase_answers_produced_total", "Answers and events the broker has confirmed.", "records", _OPERATION
)
INBOX_HITS: Final = CounterDefinition(
    "omnibase_inbox_hits_total", "Records processed before and answered from the stored result.", "records", _OPERATION
)
HANDLER_SECONDS: Final = HistogramDefinition(
    "omnibase_handler_seconds", "Time a handler took for one batch.", "seconds", _OPERATION
)
END_TO_END_SECONDS: Final = HistogramDefinition(
    "omnibase_end_to_end_seconds",
    "Time from the record's own time stamp to its confirmed end.",
    "seconds",
    _OPERATION,
    LONG_SECONDS_BUCKETS,
)
BATCH_RECORDS: Final = HistogramDefinition(
    "omnibase_batch_records", "Records handed to a handler at once.", "records", _OPERATION, BATCH_BUCKETS
)

# --- inside the worker ----------------------------------------------------------------------------------------------
IN_FLIGHT_RECORDS: Final = GaugeDefinition(
    "omnibase_in_flight_records", "Records consumed and not yet finished.", "records"
)
IN_FLIGHT_BYTES: Final = GaugeDefinition("omnibase_in_flight_bytes", "Size of the records in flight.", "bytes")
PARKED_RECORDS: Final = GaugeDefinition(
    "omnibase_parked_records", "Records in the retry topics that have not ended, of the partitions owned.", "records"
)
PARKED_KEYS: Final = GaugeDefinition(
    "omnibase_parked_keys", "Keys of which something is parked, and unordered records that are.", "records"
)
PAUSED_PARTITIONS: Final = GaugeDefinition(
    "omnibase_paused_partitions", "Assigned partitions that are paused, for back-pressure or an outage.", "partitions"
)
EVENT_LOOP_LAG_SECONDS: Final = HistogramDefinition(
    "omnibase_event_loop_lag_seconds", "How late the event loop ran a timer.", "seconds"
)
EVENT_LOOP_BLOCKS: Final = CounterDefinition(
    "omnibase_event_loop_blocks_total", "Times the event loop was blocked beyond the warning limit.", "events"
)
LOG_LINES_SUPPRESSED: Final = CounterDefinition(
    "omnibase_log_lines_suppressed_total", "Repeated warnings and errors that the rate limit held back.", "lines"
)
LOG_LINES_LOST: Final = CounterDefinition(
    "omnibase_log_lines_lost_total", "Log lines the output refused, for example a closed pipe.", "lines"
)
PROCESSES: Final = GaugeDefinition(
    "omnibase_processes", "Processes that are added up; only on the page that `omninode metrics` makes.", "processes"
)
SPANS_EXPORTED: Final = CounterDefinition("omnibase_spans_exported_total", "Spans the collector has taken.", "spans")
SPANS_DROPPED: Final = CounterDefinition(
    "omnibase_spans_dropped_total",
    "Spans that are gone: too many waited for the collector, or it did not take them.",
    "spans",
    ("worker", "reason"),
)
BUILD_INFO: Final = GaugeDefinition(
    "omnibase_build_info",
    "Always 1; the labels say what runs.",
    "state",
    ("worker", "version", "contract", "python"),
    across="max",
)

# --- the consumer group ---------------------------------------------------------------------------------------------
ASSIGNED_PARTITIONS: Final = GaugeDefinition(
    "omnibase_assigned_partitions", "Partitions this process owns.", "partitions"
)
LAG_RECORDS: Final = GaugeDefinition(
    "omnibase_lag_records", "Records behind the end of the log.", "records", ("worker", "topic", "partition")
)
COMMITS: Final = CounterDefinition("omnibase_commits_total", "Offset commits the broker accepted.", "events")
COMMIT_FAILURES: Final = CounterDefinition(
    "omnibase_commit_failures_total", "Offset commits that failed and will be repeated.", "events"
)
COMMIT_AGE_SECONDS: Final = GaugeDefinition(
    "omnibase_commit_age_seconds",
    "Time since the last accepted commit while finished records wait for one.",
    "seconds",
    across="max",
)
REBALANCES: Final = CounterDefinition(
    "omnibase_rebalances_total", "Rebalance callbacks: assigned, revoked or lost.", "events", ("worker", "event")
)
REBALANCE_SECONDS: Final = HistogramDefinition(
    "omnibase_rebalance_seconds", "Time spent in a rebalance callback.", "seconds"
)

# --- dependencies ---------------------------------------------------------------------------------------------------
BREAKER_STATE: Final = GaugeDefinition(
    "omnibase_breaker_state",
    "Circuit breaker: 0 closed, 1 half-open, 2 open.",
    "state",
    _DEPENDENCY,
    across="max",
)
BREAKER_TRIPS: Final = CounterDefinition(
    "omnibase_breaker_trips_total", "Times the circuit breaker opened.", "events", _DEPENDENCY
)
RETRIES: Final = CounterDefinition(
    "omnibase_retries_total",
    "Calls that were tried again, by what was called; `in-lane` are attempts of records in their lanes.",
    "events",
    _DEPENDENCY,
)
RETRIES_GIVEN_UP: Final = CounterDefinition(
    "omnibase_retries_given_up_total",
    "Calls that failed for good although another attempt might have worked: no attempts, time or budget were left.",
    "events",
    ("worker", "dependency", "reason"),
)
RETRY_BUDGET_EXHAUSTED: Final = CounterDefinition(
    "omnibase_retry_budget_exhausted_total",
    "Retries that found the budget of the process empty: they were given up, or waited longer.",
    "events",
    _DEPENDENCY,
)
RETRY_BUDGET_LEFT: Final = GaugeDefinition(
    "omnibase_retry_budget_left",
    "Retries the budget lets through at once; below 0: reserved ahead.",
    "events",
    _DEPENDENCY,
    across="min",
)
THROTTLED: Final = CounterDefinition(
    "omnibase_throttled_total",
    "Calls of a program beyond its own limit for a service: made to wait, or refused.",
    "events",
    ("worker", "dependency", "decision"),
)
POOL_CONNECTIONS: Final = GaugeDefinition(
    "omnibase_pool_connections", "Open connections of the pool.", "connections", _DEPENDENCY
)
POOL_IN_USE: Final = GaugeDefinition(
    "omnibase_pool_in_use_connections", "Connections lent out.", "connections", _DEPENDENCY
)
POOL_IDLE: Final = GaugeDefinition(
    "omnibase_pool_idle_connections", "Connections open and free.", "connections", _DEPENDENCY
)
POOL_WAITING: Final = GaugeDefinition(
    "omnibase_pool_waiting", "Tasks that wait for a connection.", "events", _DEPENDENCY
)

POOL_WAIT_SECONDS: Final = HistogramDefinition(
    "omnibase_pool_wait_seconds", "Wait for a connection of the pool, making one included.", "seconds", _DEPENDENCY
)
POOL_CONNECTS: Final = CounterDefinition(
    "omnibase_pool_connects_total", "Connections the pool made.", "connections", _DEPENDENCY
)
POOL_CONNECT_FAILURES: Final = CounterDefinition(
    "omnibase_pool_connect_failures_total",
    "Connections that could not be made, by error code.",
    "connections",
    ("worker", "dependency", "code"),
)
POOL_RETIRED: Final = CounterDefinition(
    "omnibase_pool_retired_total",
    "Connections closed to be replaced: for their age, their uses, new credentials, or a server that became a replica.",
    "connections",
    ("worker", "dependency", "reason"),
)
POOL_EXHAUSTED: Final = CounterDefinition(
    "omnibase_pool_exhausted_total", "Callers that got no connection since all stayed in use.", "events", _DEPENDENCY
)
POOL_OVERDUE: Final = CounterDefinition(
    "omnibase_pool_overdue_total",
    "Connections held beyond the leak bound; the log names where they were acquired.",
    "connections",
    _DEPENDENCY,
)
DEPENDENCY_HEALTH: Final = GaugeDefinition(
    "omnibase_dependency_health",
    "Health when last looked: 0 healthy, 1 degraded, 2 unhealthy.",
    "state",
    _DEPENDENCY,
    across="max",
)
DEPENDENCY_ROUND_TRIP_SECONDS: Final = HistogramDefinition(
    "omnibase_dependency_round_trip_seconds", "Round trip of a health check.", "seconds", _DEPENDENCY
)

QUERY_SECONDS: Final = HistogramDefinition(
    "omnibase_query_seconds", "Round trip of a named statement; a batch is one.", "seconds", ("worker", "statement")
)
QUERY_FAILURES: Final = CounterDefinition(
    "omnibase_query_failures_total", "Round trips of a statement that raised.", "events", ("worker", "statement")
)
SLOW_QUERIES: Final = CounterDefinition(
    "omnibase_slow_queries_total", "Round trips beyond the slow threshold.", "events", ("worker", "statement")
)

QUERY_OUTAGES: Final = CounterDefinition(
    "omnibase_query_outages_total",
    "Round trips that failed for the server or the connection, not for what was asked.",
    "events",
    ("worker", "statement"),
)
QUERY_PATTERN: Final = GaugeDefinition(
    "omnibase_query_pattern",
    "Always 1; says which fingerprint a statement has.",
    "state",
    ("worker", "statement", "fingerprint"),
    across="max",
)

INBOX_DAYS: Final = GaugeDefinition(
    "omnibase_inbox_partitions",
    "Partitions of the inbox, one a day; grows when days are no longer dropped.",
    "partitions",
    across="max",
)
INBOX_DEFAULT_RECORDS: Final = GaugeDefinition(
    "omnibase_inbox_default_records",
    "Messages whose day had no partition of its own, counted up to 10,000; grows when days are no longer added.",
    "records",
    across="max",
)
INBOX_DAYS_DROPPED: Final = CounterDefinition(
    "omnibase_inbox_partitions_dropped_total",
    "Days dropped from inbox and outbox, their retention being over.",
    "partitions",
)
INBOX_MAINTENANCE_FAILURES: Final = CounterDefinition(
    "omnibase_inbox_maintenance_failures_total",
    "Days that could not be added or dropped, and looks that failed.",
    "events",
)

# --- secrets ---------------------------------------------------------------------------------------------------------
SECRET_RENEWALS: Final = CounterDefinition(
    "omnibase_secret_renewals_total",
    "Times a secret was looked after, by setting and outcome: `renewed`, `replaced` by another value, `failed`.",
    "events",
    ("worker", "setting", "outcome"),
)
SECRET_EXPIRY: Final = GaugeDefinition(
    "omnibase_secret_expiry_timestamp_seconds",
    "Unix time at which a secret ends unless it is renewed before; absent for one without an end.",
    "seconds",
    ("worker", "setting"),
    across="min",
)

# --- the producer ---------------------------------------------------------------------------------------------------
PRODUCED_RECORDS: Final = CounterDefinition(
    "omnibase_produced_records_total", "Records the broker has confirmed, of every kind.", "records", _TOPIC
)
PRODUCER_QUEUE_RECORDS: Final = GaugeDefinition(
    "omnibase_producer_queue_records", "Records handed to the producer and not yet confirmed.", "records"
)
DELIVERY_ERRORS: Final = CounterDefinition(
    "omnibase_delivery_errors_total", "Records the broker did not confirm.", "records", _TOPIC
)

# --- Kafka clients --------------------------------------------------------------------------------------------------
KAFKA_CONNECTED_BROKERS: Final = GaugeDefinition(
    "omnibase_kafka_connected_brokers", "Brokers a client has a usable connection to.", "connections", _CLIENT
)
KAFKA_CLIENT_ERRORS: Final = CounterDefinition(
    "omnibase_kafka_client_errors_total",
    "Errors of a client as a whole: connections, logins, deliveries.",
    "events",
    _CLIENT,
)

CATALOGUE: Final[tuple[MetricDefinition, ...]] = tuple(
    value for value in globals().values() if isinstance(value, MetricDefinition)
)
