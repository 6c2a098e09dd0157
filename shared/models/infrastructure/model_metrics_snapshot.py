"""The metrics of a service at one time, few enough to be read: what `/info` shows of them."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class ModelMetricsSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """Values of metrics, added up over their labels.

    Attributes:
        service: the worker's name.
        taken_at: RFC 3339, UTC.
        values: by the metric's name as `/metrics` has it; of a histogram its `_sum` and `_count`, no buckets.
    """

    service: str
    taken_at: str
    values: Mapping[str, float]
