"""What a fleet may ask of a cluster; what is beyond it is named with file, line and column."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from omnibase_infra.shared.contracts.loader import load_contract
from omnibase_infra.shared.core.errors import ContractError, Problem
from omnibase_infra.shared.core.worker_spec import TopicSettings, WorkerSpec
from omnibase_infra.shared.testing.sample_fleet import order_store
from omnibase_infra.topics.catalogue import DAY, derive
from omnibase_infra.topics.declarations import from_spec
from omnibase_infra.topics.lint import lint
from omnibase_infra.topics.policy import TopicPolicy, require_policy, violations


def rules(spec: WorkerSpec, **limits: Any) -> list[str]:
    return [item.rule for item in violations(derive([from_spec(spec)]), TopicPolicy(**limits))]


def settings(topic: str, **values: Any) -> tuple[TopicSettings, ...]:
    return (TopicSettings(topic=topic, **values),)


def test_an_ordinary_fleet_is_within_the_policy(fleet: list[WorkerSpec]) -> None:
    assert violations(derive(map(from_spec, fleet))) == []


@pytest.mark.parametrize(
    ("spec", "limits", "rule"),
    [
        (order_store(partitions=201), {}, "TP001"),
        (order_store(partitions=3), {"max_partitions": 2}, "TP001"),
        (order_store(topic_settings=settings("onex.cmd.order-store.requests.v1", retention_seconds=60)), {}, "TP002"),
        (
            order_store(topic_settings=settings("onex.evt.order-store.results.v1", retention_seconds=500 * DAY)),
            {},
            "TP002",
        ),
        (order_store(max_record_bytes=1024 * 1024), {"max_message_bytes": 1024 * 1024}, "TP003"),
        (order_store(partitions=10), {"partition_budget": 50}, "TP004"),
    ],
)
def test_each_bound_has_a_rule(spec: WorkerSpec, limits: dict[str, Any], rule: str) -> None:
    assert set(rules(spec, **limits)) == {rule}


def test_the_budget_counts_retry_and_dead_letter_topics_too() -> None:
    # 3 sources and 2 retry topics of 10 partitions each, and 1 each of dead letters, resolutions and actions
    assert rules(order_store(partitions=10), partition_budget=53) == []
    assert rules(order_store(partitions=10), partition_budget=52) == ["TP004"]


def test_topics_of_others_are_not_judged() -> None:
    spec = order_store(
        subscribe=("onex.evt.shop.orders.v1",),
        topic_settings=settings("onex.evt.shop.orders.v1", partitions=900, retention_seconds=1, external=True),
    )

    assert rules(spec) == []


def test_a_refused_catalogue_names_the_contract_and_the_numbers() -> None:
    declarations = [from_spec(order_store(partitions=500))]

    with pytest.raises(ContractError) as caught:
        require_policy(derive(declarations), declarations)

    assert caught.value.problems[0] == Problem(
        "workers/order_store/v1_0_0/contract.yaml",
        1,
        1,
        "onex.cmd.order-store.control.v1 has 500 partitions, at most 200 are allowed",
        "TP001",
    )
    assert len(caught.value.problems) == 3


def located(tmp_path: Path, text: str, **limits: Any) -> list[tuple[str, int, str]]:
    path = tmp_path / "audit" / "v2_1_0" / "contract.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(text, encoding="utf-8")
    lines = text.splitlines()
    problems = lint([load_contract(path)], TopicPolicy(**limits))
    return [(item.rule, item.line, lines[item.line - 1][item.column - 1 :][:24]) for item in problems]


def test_lint_finds_the_value_that_decides(tmp_path: Path, audit_contract: str) -> None:
    assert located(tmp_path, audit_contract, max_partitions=3, max_retention=2 * DAY, max_message_bytes=65536) == [
        ("TP002", 8, "onex.cmd.audit.requests."),
        ("TP002", 10, "3d}"),
        ("TP001", 11, "4"),
        ("TP001", 11, "4"),
        ("TP003", 29, "65536}"),
        ("TP003", 29, "65536}"),
    ]


def test_lint_points_at_the_topic_where_nothing_is_stated(tmp_path: Path, audit_contract: str) -> None:
    text = audit_contract.replace("  partitions: 4\n", "")

    assert located(tmp_path, text, max_partitions=5)[0] == ("TP001", 8, "onex.cmd.audit.requests.")


def test_the_budget_is_blamed_on_the_partitions_of_the_largest_worker(tmp_path: Path, audit_contract: str) -> None:
    assert located(tmp_path, audit_contract, partition_budget=3) == [("TP004", 11, "4")]
