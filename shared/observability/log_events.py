"""The names of everything that is logged: what dashboards and alerts match on.

A log line's `event` is one of these. Details go into fields, never into the name.
"""

from __future__ import annotations

from enum import StrEnum


class LogEvent(StrEnum):
    """Event names, grouped by what they are about."""

    # the worker's life
    WORKER_STARTING = "worker_starting"
    WORKER_READY = "worker_ready"
    WORKER_NOT_READY = "worker_not_ready"
    WORKER_STOPPING = "worker_stopping"
    WORKER_STOPPED = "worker_stopped"
    WORKER_FAILED = "worker_failed"
    DRAIN_TIMEOUT = "drain_timeout"
    CONNECTION_RETRY = "connection_retry"

    # records
    BATCH_DONE = "batch_done"
    BATCH_FAILED = "batch_failed"
    RECORD_RETRIED = "record_retried"
    RECORD_FAILED = "record_failed"
    RECORD_PARKED = "record_parked"
    RECORD_DEAD = "record_dead"
    RECORD_REFUSED = "record_refused"
    STALE_ENTRY = "stale_entry"
    CAREFUL_START = "careful_start"
    CAREFUL_END = "careful_end"
    RECORD_IGNORED = "record_ignored"
    DEAD_LETTER_LIMIT = "dead_letter_limit"
    DELIVERY_FAILED = "delivery_failed"

    # the consumer group
    PARTITIONS_ASSIGNED = "partitions_assigned"
    PARTITIONS_REVOKED = "partitions_revoked"
    PARTITIONS_LOST = "partitions_lost"
    PARTITIONS_PAUSED = "partitions_paused"
    PARTITIONS_RESUMED = "partitions_resumed"
    COMMIT_FAILED = "commit_failed"
    TRANSACTION_ABORTED = "transaction_aborted"
    OUTPUT_REFUSED = "output_refused"
    OFFSET_OUT_OF_RANGE = "offset_out_of_range"
    TOPIC_DOUBTFUL = "topic_doubtful"
    BROKER_ERROR = "broker_error"

    # the Kafka client
    KAFKA_CLIENT_LOG = "kafka_client_log"
    KAFKA_CLIENT_ERROR = "kafka_client_error"
    KAFKA_PRODUCER_FATAL = "kafka_producer_fatal"
    KAFKA_PRODUCER_GAVE_UP = "kafka_producer_gave_up"
    KAFKA_PRODUCER_CALLBACK_FAILED = "kafka_producer_callback_failed"
    KAFKA_PRODUCER_THREAD_STUCK = "kafka_producer_thread_stuck"
    KAFKA_PRODUCER_NOT_OPEN = "kafka_producer_not_open"
    KAFKA_PRODUCER_REPLACED = "kafka_producer_replaced"
    KAFKA_TRANSACTION_UNRESOLVED = "kafka_transaction_unresolved"
    KAFKA_RECORDS_UNCONFIRMED = "kafka_records_unconfirmed"

    # dependencies
    DEPENDENCY_UNAVAILABLE = "dependency_unavailable"
    DEPENDENCY_AVAILABLE = "dependency_available"
    DEPENDENCY_BUSY = "dependency_busy"
    BREAKER_CHANGED = "breaker_changed"
    POOL_EXHAUSTED = "pool_exhausted"
    POOL_CONNECTION_DROPPED = "pool_connection_dropped"
    POOL_CLOSED_BY_FORCE = "pool_closed_by_force"
    POOL_MISCONFIGURED = "pool_misconfigured"
    POOL_LOGIN_REFUSED = "pool_login_refused"
    POOL_CREDENTIALS_CHANGED = "pool_credentials_changed"
    POOL_CONNECTION_OVERDUE = "pool_connection_overdue"
    SLOW_QUERY = "slow_query"
    EFFECT_RESOLVED = "effect_resolved"
    INBOX_MAINTAINED = "inbox_maintained"
    INBOX_MAINTENANCE_FAILED = "inbox_maintenance_failed"

    # secrets
    SECRETS_RESOLVED = "secrets_resolved"
    SECRET_CHANGED = "secret_changed"  # noqa: S105 - the name of an event
    SECRET_RENEWED = "secret_renewed"  # noqa: S105 - the name of an event
    SECRET_RENEWAL_FAILED = "secret_renewal_failed"  # noqa: S105 - the name of an event
    SECRET_CHANGE_NOT_TAKEN = "secret_change_not_taken"  # noqa: S105 - the name of an event
    SECRETS_NOT_GIVEN_BACK = "secrets_not_given_back"

    # the process
    EVENT_LOOP_BLOCKED = "event_loop_blocked"
    EVENT_LOOP_UNBLOCKED = "event_loop_unblocked"
    HEALTH_SERVER_STARTED = "health_server_started"
    ENDPOINT_NOT_ANNOUNCED = "endpoint_not_announced"
    HEALTH_ENDPOINT_FAILED = "health_endpoint_failed"
    TRACE_EXPORT_FAILED = "trace_export_failed"
    LINES_SUPPRESSED = "lines_suppressed"
    LIBRARY_MESSAGE = "library_message"
