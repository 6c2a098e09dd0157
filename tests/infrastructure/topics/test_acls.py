"""Rights from contracts: what a worker needs, nothing more, and what a cluster has too much of."""

from __future__ import annotations

import pytest

from omnibase_infra.shared.core.naming import Realm
from omnibase_infra.shared.core.worker_spec import WorkerSpec
from omnibase_infra.shared.testing.sample_fleet import billing, order_store
from omnibase_infra.topics.acls import AclRule, client_rules, plan, worker_principals, worker_rules

REALM = Realm("prod", "acme")
TEMPLATE = "User:{realm}.{worker}"
STORE, BILLING = "User:prod-acme.order-store", "User:prod-acme.billing"


def of(rules: tuple[AclRule, ...], who: str) -> set[tuple[str, str, str]]:
    return {(rule.operation, rule.resource, rule.name) for rule in rules if rule.principal == who}


def test_a_worker_reads_and_writes_what_its_contract_lists_and_is_a_member_of_its_group(
    fleet: list[WorkerSpec],
) -> None:
    assert of(worker_rules(fleet, REALM, TEMPLATE), BILLING) == {
        ("read", "topic", "prod-acme.onex.evt.order-store.results.v1"),
        ("read", "topic", "prod-acme.onex.evt.shop.orders.v1"),
        ("read", "topic", "prod-acme.onex.retry.billing.evt-order-store-results.v1"),
        ("read", "topic", "prod-acme.onex.retry.billing.evt-shop-orders.v1"),
        ("write", "topic", "prod-acme.onex.retry.billing.evt-order-store-results.v1"),
        ("write", "topic", "prod-acme.onex.retry.billing.evt-shop-orders.v1"),
        ("write", "topic", "prod-acme.onex.evt.billing.answers.v1"),
        ("write", "topic", "prod-acme.onex.dlq.billing.dead-letters.v1"),
        ("read", "group", "prod-acme.omnibase-infra.billing.consume.v1"),
    }


def test_transactional_workers_alone_may_run_transactions_under_ids_of_their_own() -> None:
    rules = worker_rules([order_store(guarantee="transactional"), billing()], REALM, TEMPLATE)
    assert [rule for rule in rules if rule.resource == "transactional-id"] == [
        AclRule(STORE, "transactional-id", "prod-acme.omnibase-infra.order-store.v1.", "write", "prefixed")
    ]
    # A shorter prefix would take in the ids of workers whose names begin alike, a longer one those of no process.
    assert all(rule.pattern == "literal" for rule in rules if rule.resource != "transactional-id")


def test_all_majors_of_a_worker_have_one_principal_and_a_group_each() -> None:
    rules = worker_rules([order_store(), order_store(version="2.0.0")], REALM, TEMPLATE)
    assert {rule.principal for rule in rules} == {STORE}
    groups = {rule.name for rule in rules if rule.resource == "group"}
    assert groups == {f"prod-acme.omnibase-infra.order-store.consume.v{major}" for major in (1, 2)}


def test_a_client_sends_commands_and_reads_answers() -> None:
    assert of(client_rules([order_store()], REALM, "User:shop"), "User:shop") == {
        ("write", "topic", "prod-acme.onex.cmd.order-store.requests.v1"),
        ("write", "topic", "prod-acme.onex.cmd.order-store.control.v1"),
        ("read", "topic", "prod-acme.onex.evt.order-store.results.v1"),
        ("read", "group", "prod-acme.omnibase-infra.client.consume.v1"),
    }


def test_a_plan_names_what_is_missing_and_what_workers_may_beyond_it(fleet: list[WorkerSpec]) -> None:
    wanted = worker_rules(fleet, REALM, TEMPLATE)
    surplus = [
        AclRule(STORE, "topic", "prod-acme.onex.cmd.billing.x.v1", "all"),
        AclRule(BILLING, "cluster", "c", "alter"),
    ]
    of_retired = AclRule("User:prod-acme.retired-worker", "topic", "t", "read")
    others = [AclRule("User:admin", "topic", "t", "read"), AclRule("User:prod-other.order-store", "topic", "t", "read")]

    everyone = worker_principals(TEMPLATE, REALM)
    planned = plan(wanted, [*wanted[1:], *surplus, of_retired, *others], everyone)
    assert planned.missing == wanted[:1]
    assert set(planned.surplus) == {*surplus, of_retired}
    assert planned.unchanged == wanted[1:]
    assert not planned.is_empty

    chosen = worker_principals(TEMPLATE, REALM, ["billing"])
    assert plan(wanted, [*wanted, *surplus, of_retired], chosen).surplus == (surplus[1],)
    assert plan(wanted, [*wanted, *others], everyone).is_empty


@pytest.mark.parametrize(
    ("template", "matching", "other"),
    [
        ("User:{worker}", "User:order-store", "User:Admin"),
        ("User:CN={worker},OU={realm}", "User:CN=order-store,OU=prod-acme", "User:CN=order-store,OU=dev"),
    ],
)
def test_principals_follow_the_template(template: str, matching: str, other: str) -> None:
    assert {rule.principal for rule in worker_rules([order_store()], REALM, template)} == {matching}
    everyone = worker_principals(template, REALM)
    assert everyone.fullmatch(matching)
    assert not everyone.fullmatch(other)


def test_a_rule_reads_as_a_sentence_and_as_a_call_of_kafkas_tool() -> None:
    rule = AclRule(STORE, "transactional-id", "a.b.", "write", "prefixed")
    assert str(rule) == f"{STORE} may write transactional-id a.b.*"
    assert rule.command("broker:9092") == (
        f"kafka-acls.sh --bootstrap-server broker:9092 --add --allow-principal '{STORE}' --operation Write "
        "--transactional-id a.b. --resource-pattern-type prefixed"
    )
