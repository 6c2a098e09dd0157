"""A node counts what is its own: its contract asks for the metrics registry, and its processor is given it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from omnibase_infra.shared.generator.kits.discovery import installed_kits
from omnibase_infra.shared.testing.generated_node import GeneratedNode

CONTRACT = """\
name: NodeLabelDeskEffect
version: {major: 1, minor: 0, patch: 0}
node_type: effect
description: Prints labels, and counts them.
dependencies:
  - {name: metrics_registry, type: service, class_name: MetricsRegistry}
event_bus:
  subscribe: [onex.cmd.label-desk.requests.v1]
  publish: [onex.evt.label-desk.results.v1]
io_operations:
  - name: print_label
    description: Prints a label.
    kit: custom
    request: ModelLabel
    response: ModelLabel
    needs: [metrics]
definitions:
  ModelLabel:
    type: object
    required: [text]
    properties:
      text: {type: string}
delivery:
  guarantee: at_least_once
idempotency: A label printed twice is thrown away.
"""
SCRIPT = """\
import asyncio
from label_desk.v1_0_0.processors.print_label import PrintLabelProcessor
from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry
registry = MetricsRegistry(process_metrics=False)
processor = PrintLabelProcessor(registry)
asyncio.run(processor.run([None, None], None))
print(registry.exposition().decode())
"""


def test_a_processor_declares_and_counts_a_metric_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "label_desk" / "v1_0_0"
    folder.mkdir(parents=True)
    (folder / "contract.yaml").write_text(CONTRACT, "utf-8")
    node = GeneratedNode(folder, installed_kits())
    node.generate()
    processor = "processors/print_label.py"
    node.edit(
        processor,
        "        self._metrics_registry = metrics_registry\n",
        '        metrics_registry.declare(PRINTED)\n        self._printed = metrics_registry.counter(PRINTED, worker="label-desk")\n',
    )
    node.edit(
        processor,
        "from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry\n",
        "from omnibase_infra.shared.observability.metric_definitions import CounterDefinition\n"
        "from omnibase_infra.shared.observability.metrics_registry import MetricsRegistry\n",
    )
    node.edit(
        processor,
        "\n\nclass PrintLabelProcessor",
        '\nPRINTED = CounterDefinition("omnibase_label_desk_labels_printed_total", "Labels printed.", "events")\n'
        "\n\nclass PrintLabelProcessor",
    )
    node.edit(
        processor,
        "        return [self._outcome",
        "        self._printed.inc(len(requests))\n        return [self._outcome",
    )
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    environment.pop("PYTHONSAFEPATH", None)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, env=environment, check=False
    )
    assert 'omnibase_label_desk_labels_printed_total{worker="label-desk"} 2.0' in done.stdout, done.stderr
    assert node.check() == []
