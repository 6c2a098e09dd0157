"""What `promtool check metrics` would say of a page of metrics: its rules, and promtool itself where there is one.

promtool is found on the PATH, or by OMNIBASE_PROMTOOL; Debian's package `prometheus` has it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

# Of what promtool's linter knows, the units that a worker could have, and the base unit it wants in their place.
_BASE_UNITS: Final = {
    "milliseconds": "seconds", "microseconds": "seconds", "nanoseconds": "seconds", "minutes": "seconds",
    "hours": "seconds", "days": "seconds", "weeks": "seconds", "bits": "bytes", "kilobytes": "bytes",
    "megabytes": "bytes", "gigabytes": "bytes", "percent": "ratio",
}  # fmt: skip
_ABBREVIATIONS: Final = {"s", "ms", "us", "ns", "sec", "b", "kb", "mb", "gb", "tb", "pb", "m", "h", "d"}
_TYPES: Final = {"counter", "gauge", "histogram", "summary", "untyped"}


def exposition_problems(page: str) -> list[str]:
    """Return what is wrong with a page in Prometheus' text format, each problem with the metric's name."""
    types = re.findall(r"^# TYPE (\S+) (\S+)$", page, re.MULTILINE)
    helps = dict(re.findall(r"^# HELP (\S+) (.+)$", page, re.MULTILINE))
    found = [
        f"{name}: declared {count} times" for name, count in Counter(name for name, _ in types).items() if count > 1
    ]
    for name, kind in types:
        if name not in helps:
            found.append(f"{name}: no help text")
        found += _wrong_with_the_name(name, kind)
    return [*found, *_wrong_with_samples(page), *_promtool(page)]


def _wrong_with_the_name(name: str, kind: str) -> Iterator[str]:
    words = name.split("_")
    if (kind == "counter") != name.endswith("_total"):
        yield f"{name}: counters, and only they, end in _total"
    if name.endswith(("_count", "_sum", "_bucket")):
        yield f"{name}: a suffix that is reserved"
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
        yield f"{name}: no snake case"
    for word in words:
        if word in _BASE_UNITS:
            yield f"{name}: use {_BASE_UNITS[word]} instead of {word}"
        if word in _ABBREVIATIONS:
            yield f"{name}: the abbreviation {word}"
        if word in _TYPES:
            yield f"{name}: its type {word} in its name"


def _wrong_with_samples(page: str) -> Iterator[str]:
    samples: Counter[tuple[str, str]] = Counter()
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            samples[sample.name, str(sorted(sample.labels.items()))] += 1
            for label in sample.labels:
                if label != label.lower() or label == "quantile":
                    yield f"{sample.name}: a label {label}"
    for (name, labels), count in samples.items():
        if count > 1:
            yield f"{name}{labels}: shown {count} times"


def _promtool(page: str) -> Iterator[str]:
    promtool = os.environ.get("OMNIBASE_PROMTOOL") or shutil.which("promtool")
    if not promtool:
        return
    done = subprocess.run(
        [promtool, "check", "metrics"], input=page, capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode:
        yield from (done.stdout + done.stderr).splitlines()
