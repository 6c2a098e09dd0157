"""Logging captured as parsed lines, and taken down after each test."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from omnibase_infra.shared.core.settings import load_settings
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
from omnibase_infra.shared.observability.structured_logger import LogPipeline, configure_logging
from omnibase_infra.shared.testing.manual_clock import ManualClock


class CapturedLog:
    """What was written, and the pipeline that wrote it."""

    def __init__(self) -> None:
        self.stream: io.BytesIO = io.BytesIO()
        self.clock = ManualClock()
        self.pipeline: LogPipeline | None = None

    def configure(self, *, metrics: MetricsRegistry | None = None, **settings: Any) -> None:
        self.pipeline = configure_logging(
            load_settings(Path(os.devnull), env="test", **settings),
            worker="order-store",
            metrics=metrics,
            stream=self.stream,
            clock=self.clock,
        )

    @property
    def text(self) -> str:
        return self.stream.getvalue().decode()

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


@pytest.fixture
def bare_log() -> Iterator[CapturedLog]:
    captured = CapturedLog()
    yield captured
    if captured.pipeline is not None:
        captured.pipeline.close()
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def log(bare_log: CapturedLog) -> CapturedLog:
    bare_log.configure()
    return bare_log


@pytest.fixture
def last_line(log: CapturedLog) -> Callable[[], dict[str, Any]]:
    return lambda: log.lines[-1]
