"""A contract is loaded whole with its defaults, or every mistake of it is named in one run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from omnibase_infra.shared.contracts.kits import BUILT_IN_KITS, KitOption, KitSchema
from omnibase_infra.shared.contracts.loader import load_contract
from omnibase_infra.shared.contracts.model import Batch, RateLimit, Subscription
from omnibase_infra.shared.contracts.rules import Rule
from omnibase_infra.shared.contracts.units import Rate
from omnibase_infra.shared.core.errors import ContractError
from omnibase_infra.shared.core.naming import TopicName
from omnibase_infra.shared.testing.contract_folder import ContractFolder

MINIMAL = """\
name: NodePingEffect
version: {major: 3, minor: 1, patch: 4}
node_type: effect
description: Answers.
event_bus: {subscribe: [onex.cmd.ping.requests.v1], publish: [onex.evt.ping.results.v1]}
io_operations: [{name: ping_back, kit: custom, request: ModelPing, read_only: true}]
definitions: {ModelPing: {type: object}}
delivery: {guarantee: at_least_once}
"""

KEBAB = "([a-z][a-z0-9]*(-[a-z0-9]+)*) (did you mean 'order-store'?)"
TEN_MISTAKES = """\
name: NodeOrderStoreEffect
name: NodeOrderStoreEffect
version: {major: one, minor: 0, patch: 0}
node_type: efect
descripton: Stores orders.
dependencies:
  - {name: postgres_pool, type: service, class_name: PostgresConnectionPool, required: yes}
event_bus:
  subscribe: [onex.cmd.order_store.requests.v1, onex.cmd.order-store.requests.v1]
  publish: [onex.evt.order-shop.results.v1]
io_operations:
  - {name: insert_order, kit: postgres.statment, statement: statements/insert_order.sql}
  - {name: price_order, kit: custom, request: ModelPriceRequst, timeout: 5 seconds}
definitions:
  ModelPriceRequest: {type: object, properties: {sku: {type: string}}}
delivery:
  guarantee: effectively_once
  retry: {tiers: [1m, 5s]}
"""


def test_every_mistake_is_named_in_one_run(order_store: ContractFolder) -> None:
    order_store.write("contract.yaml", TEN_MISTAKES)
    lines = [str(problem).removeprefix(str(order_store.path)) for problem in order_store.problems()]
    assert lines == [
        ":2:1: the key 'name' appears twice, first in line 1; remove one [CT002]",
        ":3:18: expected a whole number, found the text 'one'; for example 1 [CT103]",
        ":4:12: the text 'efect' is not one of effect, compute, reducer, orchestrator; did you mean 'effect'? [CT104]",
        ":5:1: unknown key 'descripton'; did you mean 'description'? [CT101]",
        ":7:88: yes is a boolean to some readers and text to others; write true, false or 'yes' [CT003]",
        f":9:15: 'onex.cmd.order_store.requests.v1': the producer 'order_store' is not kebab case {KEBAB} [CT106]",
        ":10:13: the topic belongs to order-shop; order-store may publish only onex.evt.order-store.* [CT206]",
        ":12:31: unknown kit 'postgres.statment'; did you mean 'postgres.statement'? [CT230]",
        ":13:47: there is no definition 'ModelPriceRequst'; did you mean 'ModelPriceRequest'? [CT301]",
        ":13:74: '5 seconds' is not a duration, expected a number with ms, s, m, h or d, like '500ms' or '5s' [CT106]",
        ":18:23: the delay 5s does not grow, expected more than 1m [CT243]",
    ]


def test_a_minimal_contract_gets_its_defaults(tmp_path: Path) -> None:
    path = tmp_path / "ping.yaml"
    path.write_text(MINIMAL, encoding="utf-8")
    contract = load_contract(path)
    assert (contract.node, contract.worker, str(contract.version)) == ("ping", "ping", "3.1.4")
    assert contract.event_bus.subscribe == (Subscription(TopicName("cmd", "ping", "requests", 1)),)
    assert contract.event_bus.partitions == 6
    assert contract.delivery.retry.tiers == (5.0, 60.0, 600.0)
    assert contract.resources.replicas_max == 6
    operation = contract.operation("ping_back")
    assert str(operation.trigger) == "onex.cmd.ping.ping-back.v3"
    assert str(operation.completed) == "onex.evt.ping.ping-back-completed.v3"
    assert str(operation.failed) == "onex.evt.ping.ping-back-failed.v3"
    assert (operation.concurrency, operation.timeout, operation.ordering) == (16, 10.0, "key")
    assert (operation.batch, operation.needs, operation.answer) == (None, (), True)
    assert str(contract.answer_topic) == "onex.evt.ping.results.v1"
    assert str(contract.dead_letter_topic) == "onex.dlq.ping.dead-letters.v3"


def test_a_full_contract_is_read_as_written(order_store: ContractFolder) -> None:
    contract = load_contract(order_store.path)
    insert, price, note, health = contract.operations
    assert insert.batch == Batch(max=500, linger=0.005)
    assert (insert.concurrency, insert.timeout) == (4, 5.0)
    assert insert.statements == ("statements/insert_order.sql",)
    assert contract.statements["statements/insert_order.sql"].params == ("order_id", "quantity")
    assert (price.request, price.response) == ("ModelPriceRequest", "ModelPriceResponse")
    assert str(note.trigger) == "onex.evt.shop.order-placed.v1"
    assert not note.answer
    assert health.is_control
    assert contract.rate_limits == (RateLimit("client", Rate(50, 1.0), 100, "insert_order", "wait"),)
    assert contract.migrations == ("migrations/0001_orders.sql",)


def test_the_inbox_is_a_need_of_every_operation_that_has_one(order_store: ContractFolder) -> None:
    needs = {operation.name: operation.needs for operation in load_contract(order_store.path).operations}
    assert needs == {
        "insert_order": ("postgres",),
        "price_order": ("postgres",),
        "note_order": ("postgres",),
        "health_check": (),
    }


def test_the_example_of_the_design_page_is_a_valid_contract(order_store: ContractFolder) -> None:
    order_store.replace(
        ("    - onex.cmd.order-store.control.v1\n", ""),
        ("    - {topic: onex.evt.shop.orders.v1, external: true}\n", ""),
        ("  - name: health_check\n    kit: postgres.health\n", ""),
    )
    text = order_store.text()
    start, end = text.index("  - name: note_order"), text.index("definitions:")
    order_store.write("contract.yaml", text[:start] + text[end:])
    assert order_store.problems() == []


def test_a_kit_without_statements_of_its_own_takes_every_file(order_store: ContractFolder) -> None:
    order_store.write("statements/get_order.sql", "-- name: get_order :one\nSELECT 1\n")
    order_store.replace(("postgres.statement\n    statement: statements/insert_order.sql", "postgres.statements"))
    statements = load_contract(order_store.path).operation("insert_order").statements
    assert statements == ("statements/get_order.sql", "statements/insert_order.sql")


def test_a_kit_that_takes_every_file_needs_one(order_store: ContractFolder) -> None:
    (order_store.folder / "statements/insert_order.sql").unlink()
    order_store.replace(("postgres.statement\n    statement: statements/insert_order.sql", "postgres.statements"))
    assert [problem.rule for problem in order_store.problems()] == ["CT401"]


def test_a_third_partys_kit_is_checked_by_its_own_options(order_store: ContractFolder) -> None:
    carrier = KitSchema(
        "carrier.label",
        "Prints labels.",
        options={"dpi": KitOption("Dots per inch.", {"type": "integer", "minimum": 100}, required=True)},
    )
    kits = {**BUILT_IN_KITS, carrier.name: carrier}
    order_store.replace(
        ("kit: postgres.health", "kit: carrier.label\n    topic: onex.cmd.order-store.control.v1\n    dpi: 300")
    )
    assert load_contract(order_store.path, kits).operation("health_check").options == {"dpi": 300}
    order_store.replace(("dpi: 300", "dpi: 72"))
    with pytest.raises(ContractError, match=r"72 is below 100"):
        load_contract(order_store.path, kits)
    order_store.replace(("dpi: 72", "dpy: 300"))
    with pytest.raises(ContractError, match=r"unknown key 'dpy'; did you mean 'dpi'\?"):
        load_contract(order_store.path, kits)
    order_store.replace(("    dpy: 300\n", ""))
    with pytest.raises(ContractError, match=r"the kit carrier.label needs the key 'dpi' here: dots per inch \[CT231\]"):
        load_contract(order_store.path, kits)


def test_at_least_once_is_fine_when_everything_only_reads(order_store: ContractFolder) -> None:
    order_store.write("statements/insert_order.sql", "-- name: insert_order :one\nSELECT 1\n")
    order_store.replace(
        ("guarantee: effectively_once", "guarantee: at_least_once"),
        (
            "    response: ModelPriceResponse",
            "    response: ModelPriceResponse\n    read_only: true\n    needs: [postgres]",
        ),
        ("    needs: [postgres]\n    topic", "    needs: [postgres]\n    read_only: true\n    topic"),
    )
    assert order_store.problems() == []


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"none\.yaml:1:1: no such file or directory, expected a contract file"):
        load_contract(tmp_path / "none.yaml")
    with pytest.raises(ContractError, match=r":1:1: is a directory, expected a contract file"):
        load_contract(tmp_path)


@pytest.mark.parametrize("text", ["~", "[]", "text", "3", "- a\n- b"])
def test_a_document_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ContractError, match=r"c\.yaml:1:1: .*expected a mapping"):
        load_contract(path)


def test_problems_are_named_relative_to_where_people_are(
    order_store: ContractFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(order_store.root)
    order_store.replace(("partitions: 6", "partitions: 0"))
    order_store.write("statements/insert_order.sql", "SELECT 1")
    assert {problem.file for problem in order_store.problems()} == {
        "order_store/v1_0_0/contract.yaml",
        "order_store/v1_0_0/statements/insert_order.sql",
    }


def test_one_mistake_has_one_message(order_store: ContractFolder) -> None:
    for edit in (
        ("name: postgres_pool", "name: postgres_pol"),
        ("kit: postgres.health", "kit: postgres.healt"),
        ("partitions: 6", "partitions: yes"),
    ):
        before = order_store.text()
        order_store.replace(edit)
        assert len(order_store.problems()) == 1, edit
        order_store.write("contract.yaml", before)


def test_a_misspelt_key_has_one_message(order_store: ContractFolder) -> None:
    """What follows from a missing key is not reported when the key is there under a slightly wrong name."""
    before = order_store.text()
    inside_definitions = range(before.index("definitions:") + len("definitions:"), before.index("delivery:"))
    keys = list(re.finditer(r"(?<![\w.])[a-z_]{4,}(?=:(?: |\n))", before))
    assert len(keys) > 40
    for match in keys:
        if match.start() in inside_definitions:
            continue
        order_store.write("contract.yaml", f"{before[: match.end() - 1]}{before[match.end() :]}")
        problems = order_store.problems()
        assert [problem.rule for problem in problems] == ["CT101"], (match[0], problems)
        assert f"did you mean {match[0]!r}" in problems[0].message


def test_a_folder_that_is_no_node_name_is_named(tmp_path: Path) -> None:
    folder = ContractFolder(tmp_path, "Order-Store")
    folder.write("contract.yaml", MINIMAL.replace("major: 3, minor: 1, patch: 4", "major: 1, minor: 0, patch: 0"))
    assert [problem.message for problem in folder.problems()] == [
        "the folder 'Order-Store' is not a node name, expected snake case like order_store"
    ]


def test_holding_keys_needs_nothing_but_order(order_store: ContractFolder) -> None:
    order_store.write("contract.yaml", MINIMAL.replace("at_least_once", "at_least_once, on_dead_letter: hold"))
    assert Rule.INBOX_NEEDS_POSTGRES.id not in {problem.rule for problem in order_store.problems()}


def test_a_contract_answers_what_others_ask_of_it(order_store: ContractFolder) -> None:
    order_store.replace(
        ("- {topic: onex.evt.shop.orders.v1,", "- {topic: onex.evt.shop.orders.v1, partitions: 3, retention: 2h,")
    )
    contract = order_store.load()
    shop, requests = TopicName.parse("onex.evt.shop.orders.v1"), TopicName.parse("onex.cmd.order-store.requests.v1")
    assert (contract.partitions_of(shop), contract.partitions_of(requests)) == (3, 6)
    assert contract.event_bus.subscribe[2].retention == 7200.0
    assert str(contract.retry_topic(requests)) == "onex.retry.order-store.requests.v1"
    assert contract.needs("postgres")
    assert not contract.needs("vault")
    with pytest.raises(KeyError, match="order_store has no operation 'nope', only insert_order, price_order"):
        contract.operation("nope")
