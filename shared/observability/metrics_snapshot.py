"""A metrics page made small: one value per metric, for people and for `/info`."""

from __future__ import annotations

import math
import re
from typing import Final

from omnibase_infra.shared.models.infrastructure.model_metrics_snapshot import ModelMetricsSnapshot

# Of the interpreter's own metrics nobody asks at a glance.
_SHOWN: Final = ("omnibase_", "process_")
_LEFT_OUT: Final = ("_bucket", "_created")
_SAMPLE: Final = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{.*\})? ([^ ]+)(?: [0-9.]+)?\Z")


def snapshot_of(page: bytes, service: str, taken_at: str) -> ModelMetricsSnapshot:
    """Return the snapshot of a Prometheus text page.

    Args:
        page: as `/metrics` answers it. Takes milliseconds for a large one: call it from a thread.
        service: the worker's name.
        taken_at: RFC 3339, UTC.
    """
    values: dict[str, float] = {}
    for line in page.decode().splitlines():
        match = _SAMPLE.match(line)
        if match is None or not match[1].startswith(_SHOWN) or match[1].endswith(_LEFT_OUT):
            continue
        value = float(match[2])
        if math.isfinite(value):  # what is not has no form in JSON
            values[match[1]] = values.get(match[1], 0.0) + value
    return ModelMetricsSnapshot(service=service, taken_at=taken_at, values=dict(sorted(values.items())))
