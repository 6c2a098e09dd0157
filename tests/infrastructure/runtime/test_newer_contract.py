"""A record for a newer version of the worker is told by its schema's name, and by nothing else."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from omnibase_infra.shared.runtime.newer_contract import newer_contract
from omnibase_infra.shared.testing.sample_fleet import order_store

SPEC = msgspec.structs.replace(order_store(), version="1.2.3")
OWN = "urn:omnibase:order-store:ModelOrder:1.2.3"
LANE: Any = SimpleNamespace(operation=SimpleNamespace(request_schema=OWN))


def record(schema: str | None) -> Any:
    return SimpleNamespace(envelope=SimpleNamespace(dataschema=schema))


@pytest.mark.parametrize("version", ["1.2.4", "1.3.0", "1.10.0"])
def test_a_later_version_of_the_same_major_has_to_wait(version: str) -> None:
    error = newer_contract(SPEC, LANE, record(f"urn:omnibase:order-store:ModelOrder:{version}"))
    assert error is not None
    assert version in error.message
    assert "1.2.3" in error.message
    assert error.retryable


@pytest.mark.parametrize(
    "schema",
    [
        None,
        OWN,
        "urn:omnibase:order-store:ModelOrder:1.2.2",
        "urn:omnibase:order-store:ModelOrder:1.2",
        "urn:omnibase:order-store:ModelOrder:2.0.0",  # another major version is another type
        "urn:omnibase:billing:ModelOrder:1.9.9",
        "urn:omnibase:order-store:ModelOrder:1.9.9:more",
        "urn:omnibase:order-store:ModelOrder:1.9.¹",
        "urn:omnibase:order-store:ModelOrder:1.9." + "9" * 40,
        "https://example.org/order.json",
        "",
    ],
)
def test_any_other_schema_is_run(schema: str | None) -> None:
    assert newer_contract(SPEC, LANE, record(schema)) is None
