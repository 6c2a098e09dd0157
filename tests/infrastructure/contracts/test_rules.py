"""Every rule, broken by one edit of a valid contract, is found at its place, by its id."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from omnibase_infra.shared.contracts.rules import Rule
from omnibase_infra.shared.testing.contract_folder import ContractFolder

INSERT = "statements/insert_order.sql"
GUARANTEE = "guarantee: effectively_once"
POOL = "  - {name: postgres_pool, type: service, class_name: PostgresConnectionPool, required: true}\n"
PRICE_LINE = "      amount: {type: string, format: decimal}\n"


class Breach(NamedTuple):
    """An edit, and the text at whose beginning the problem is; `after` only counts behind that text."""

    rule: Rule
    old: str
    new: str
    at: str
    after: str = ""
    says: str = ""


BREACHES = [
    Breach(Rule.YAML_SYNTAX, "node_type: effect", "node_type: effect: x", ": x"),
    Breach(
        Rule.YAML_DUPLICATE_KEY, "node_type: effect", "node_type: effect\nnode_type: effect", "node_type", "effect\n"
    ),
    Breach(Rule.YAML_BOOLEAN, "required: true", "required: yes", "yes"),
    Breach(Rule.YAML_TAB, "required: true}", "required:\n\ttrue}", "\t"),
    Breach(Rule.YAML_ALIAS, "partitions: 6", "partitions: *six", "*six"),
    Breach(Rule.YAML_KEY, "partitions: 6", "6: partitions", "6: partitions"),
    Breach(Rule.YAML_DOCUMENTS, "node_type: effect", "node_type: effect\n---", "---"),
    Breach(Rule.YAML_NUMBER, "ratio: 0.2", "ratio: .nan", ".nan"),
    Breach(Rule.YAML_SIZE, "ratio: 0.2", f"ratio: {'[' * 70}", "[", "ratio: " + "[" * 60),
    Breach(Rule.YAML_TAG, "partitions: 6", "partitions: !!int 6", "!!int"),
    Breach(Rule.UNKNOWN_KEY, "partitions: 6", "partitons: 6", "partitons", says="did you mean 'partitions'?"),
    Breach(
        Rule.UNKNOWN_KEY, "description: Stores", "workflows: {}\ndescription: Stores", "workflows", says="orchestrator"
    ),
    Breach(Rule.UNKNOWN_KEY, "ordering: key", "order: key", "order: key", says="did you mean 'ordering'?"),
    Breach(Rule.MISSING_KEY, "node_type: effect\n", "", "name:", says="'node_type' is missing"),
    Breach(
        Rule.MISSING_KEY,
        "  - name: health_check\n    kit: postgres.health",
        "  - name: health_check",
        "name: health",
        says="'kit'",
    ),
    Breach(
        Rule.WRONG_TYPE, "partitions: 6", "partitions: six", "six", says="expected a whole number, found the text 'six'"
    ),
    Breach(Rule.WRONG_TYPE, "partitions: 6", "partitions: true", "true", "partitions: ", says="found true"),
    Breach(
        Rule.WRONG_CHOICE,
        GUARANTEE,
        "guarantee: effectively-once",
        "effectively-once",
        says="did you mean 'effectively_once'",
    ),
    Breach(Rule.OUT_OF_RANGE, "partitions: 6", "partitions: 0", "0", "partitions: "),
    Breach(Rule.OUT_OF_RANGE, "timeout: 5s", "timeout: 0ms", "0ms", says="more than 0s"),
    Breach(Rule.OUT_OF_RANGE, "max: 500", "max: 1", "1", "max: "),
    Breach(Rule.MALFORMED, "timeout: 5s", "timeout: 5 s", "5 s", says="is not a duration"),
    Breach(Rule.MALFORMED, "50/second", "50/sec", "50/sec", says="is not a rate"),
    Breach(Rule.MALFORMED, "cpu: 100m", "cpu: lots", "lots", says="is not an amount of CPU"),
    Breach(Rule.MALFORMED, "name: insert_order", "name: InsertOrder", "InsertOrder", says="snake case"),
    Breach(
        Rule.MALFORMED,
        "order-store.results.v1",
        "order_store.results.v1",
        "onex.evt.order_store",
        says="not kebab case",
    ),
    Breach(
        Rule.MALFORMED,
        "  ModelPriceLine:",
        "  PriceLine: {type: object}\n  ModelPriceLine:",
        "PriceLine",
        "ModelPriceLine'}}\n",
        says="Model and",
    ),
    Breach(Rule.REPEATED, "needs: [postgres]", "needs: [postgres, postgres]", "postgres]", "needs: [postgres, "),
    Breach(Rule.NODE_TYPE_UNSUPPORTED, "node_type: effect", "node_type: reducer", "reducer", says="not supported yet"),
    Breach(
        Rule.NAME_FOLDER,
        "NodeOrderStoreEffect",
        "NodeOrderShopEffect",
        "NodeOrderShopEffect",
        says="NodeOrderStoreEffect",
    ),
    Breach(Rule.VERSION_FOLDER, "minor: 0", "minor: 2", "{major", says="v1_2_0/"),
    Breach(
        Rule.TOPIC_NAME,
        "onex.evt.billing.answers.v1",
        f"onex.evt.billing.{'a' * 230}.v1",
        "onex.evt.billing",
        says="249",
    ),
    Breach(
        Rule.TOPIC_KIND, "onex.evt.order-store.results", "onex.cmd.order-store.results", "onex.cmd.order-store.results"
    ),
    Breach(
        Rule.TOPIC_KIND, "onex.evt.shop.orders.v1, ext", "onex.retry.shop.orders.v1, ext", "onex.retry", says="derived"
    ),
    Breach(Rule.TOPIC_OWNER, "onex.cmd.order-store.requests", "onex.cmd.order-shop.requests", "onex.cmd.order-shop"),
    Breach(Rule.TOPIC_OWNER, "onex.evt.order-store.results", "onex.evt.order-shop.results", "onex.evt.order-shop"),
    Breach(
        Rule.TOPIC_OWNER,
        "- onex.cmd.order-store.control.v1",
        "- {topic: onex.cmd.order-store.control.v1, external: true}",
        "true",
        "control.v1, external: ",
    ),
    Breach(
        Rule.TOPIC_TWICE,
        "  publish:",
        "    - onex.cmd.order-store.requests.v1\n  publish:",
        "onex.cmd",
        "external: true}",
    ),
    Breach(
        Rule.TOPIC_NOT_SUBSCRIBED,
        "topic: onex.evt.shop.orders.v1\n",
        "topic: onex.evt.shop.order.v1\n",
        "onex.evt.shop.order.v1",
        says="did you mean 'onex.evt.shop.orders.v1'",
    ),
    Breach(
        Rule.TOPIC_NOT_SUBSCRIBED,
        "    - onex.cmd.order-store.control.v1\n",
        "",
        "name: health",
        says="order-store.control.v1",
    ),
    Breach(
        Rule.CONTROL_TOPIC,
        "kit: postgres.health",
        "kit: postgres.health\n    topic: onex.cmd.order-store.requests.v1",
        "onex.cmd",
        "kit: postgres.health",
    ),
    Breach(
        Rule.CONTROL_TOPIC,
        "    ordering: key",
        "    ordering: key\n    topic: onex.cmd.order-store.control.v1",
        "onex.cmd",
        "ordering: key",
    ),
    Breach(Rule.CONTROL_TOPIC, GUARANTEE, "guarantee: at_least_once", "name: price_order", says="use the topic"),
    Breach(
        Rule.TOPIC_WITHOUT_OPERATION,
        "  - name: health_check\n    kit: postgres.health\n",
        "",
        "onex.cmd.order-store.control",
    ),
    Breach(Rule.TRIGGER, "    on: onex.evt.shop.order-placed.v1\n", "", "name: note_order", says="say by `on`"),
    Breach(
        Rule.TRIGGER,
        "    ordering: key",
        "    topic: onex.cmd.order-store.requests.v1\n    on: onex.evt.shop.x.v1",
        "on: onex",
        says="remove `on`",
    ),
    Breach(Rule.TRIGGER, "on: onex.evt", "on: onex.intent", "onex.intent", says="of kind intent"),
    Breach(
        Rule.TRIGGER_TWICE,
        "  - name: health_check",
        "  - {name: mark_order, kit: custom, request: ModelPriceRequest, topic: onex.evt.shop.orders.v1, "
        "on: onex.evt.shop.order-placed.v1}\n  - name: health_check",
        "onex.evt.shop.order-placed",
        "mark_order",
        says="note_order",
    ),
    Breach(Rule.OPERATION_TWICE, "name: price_order", "name: insert_order", "insert_order", "ordering: key"),
    Breach(
        Rule.ANSWER_TOPIC, "  publish:\n    - onex.evt.order-store.results.v1\n", "", "event_bus:", says="results.v1"
    ),
    Breach(Rule.ONE_WAY, "    ordering: key", "    ordering: key\n    answer: false", "false"),
    Breach(Rule.REPLY_TOPIC, "onex.evt.billing.answers", "onex.cmd.billing.answers", "onex.cmd.billing"),
    Breach(
        Rule.RETRY_TOPIC_CLASH,
        "onex.cmd.order-store.control.v1",
        "onex.cmd.order-store.evt-shop-orders.v1",
        "onex.evt.shop.orders.v1, ext",
        says="onex.retry.order-store.evt-shop-orders.v1",
    ),
    Breach(
        Rule.UNKNOWN_KIT, "postgres.statement", "postgres.statment", "postgres.statment", says="'postgres.statement'"
    ),
    Breach(Rule.KIT_OPTION, f"    statement: {INSERT}\n", "", "name: insert_order", says="'statement'"),
    Breach(Rule.KIT_OPTION, "    ordering: key", "    max_rows: 3", "max_rows", says="an option of postgres.query"),
    Breach(Rule.KIT_DEPENDENCY, POOL, "", "postgres.statement", says="name: postgres_pool"),
    Breach(Rule.KIT_DEPENDENCY, "needs: [postgres]", "needs: [postgre]", "postgre]", says="did you mean 'postgres'?"),
    Breach(
        Rule.BATCH_KIT,
        "kit: postgres.health",
        "kit: postgres.health\n    batch: {max: 5}",
        "batch",
        "kit: postgres.health",
    ),
    Breach(Rule.BATCH_VALUES, "timeout: 5s", "timeout: 3ms", "5}", "linger_ms: ", says="the time-out is 3ms"),
    Breach(Rule.INBOX_NEEDS_POSTGRES, POOL, "", "effectively_once"),
    Breach(Rule.TRANSACTIONAL_EFFECT, GUARANTEE, "guarantee: transactional", "transactional", says="postgres_pool"),
    Breach(Rule.IDEMPOTENCY, GUARANTEE, "guarantee: at_least_once", "at_least_once", says="`idempotency`"),
    Breach(Rule.RETRY_TIERS, "[5s, 1m, 10m]", "[5s, 5s, 10m]", "5s, 10m", "tiers: [5s, ", says="more than 5s"),
    Breach(Rule.RETRY_TIERS, "[5s, 1m, 10m]", "[0s]", "0s", "tiers: "),
    Breach(Rule.DEAD_LETTER_LIMIT, "window: 1000", "window: 10", "100", "consecutive: "),
    Breach(
        Rule.JOURNAL,
        "name: price_order\n",
        "name: price_order\n    repeatable: true\n",
        "true",
        "repeatable: ",
        "`effect",
    ),
    Breach(
        Rule.JOURNAL,
        "name: price_order\n",
        "name: price_order\n    read_only: true\n    effect: journal\n",
        "journal",
        "effect: ",
        says="no effect",
    ),
    Breach(Rule.DEPENDENCY_TWICE, POOL, POOL + POOL, "postgres_pool", "true}"),
    Breach(
        Rule.DEPENDENCY_UNKNOWN, "name: postgres_pool", "name: postgres_pol", "postgres_pol", says="'postgres_pool'"
    ),
    Breach(
        Rule.DEPENDENCY_UNKNOWN, "PostgresConnectionPool", "PostgresPool", "PostgresPool", says="PostgresConnectionPool"
    ),
    Breach(
        Rule.DEPENDENCY_UNKNOWN,
        "class_name: ProtocolEventBus",
        "class_name: ProtocolEventBuz",
        "ProtocolEventBuz",
        says="did you mean 'ProtocolEventBus'",
    ),
    Breach(
        Rule.DEPENDENCY_UNKNOWN,
        "name: protocol_event_bus, type: protocol, class_name: ProtocolEventBus",
        "name: model_price, type: model, class_name: ModelPrice",
        "ModelPrice}",
        says="state its `module`",
    ),
    Breach(
        Rule.DEPENDENCY_UNUSED,
        POOL,
        POOL + "  - {name: consul_client, type: service, class_name: ConsulClient}\n",
        "consul_client",
        says="nothing needs",
    ),
    Breach(
        Rule.CAPABILITY_TWICE,
        "dependencies:",
        "  - {name: order_persistence, description: Again}\ndependencies:",
        "order_persistence",
        "orders}",
    ),
    Breach(Rule.RESOURCES, "limits: {memory: 512Mi}", "limits: {memory: 64Mi}", "64Mi", says="above the limit"),
    Breach(Rule.RESOURCES, "limits: {memory", "limits: {cpu: 50m, memory", "50m"),
    Breach(Rule.RESOURCES, "min: 1, max: 6", "min: 5, max: 4", "5, max"),
    Breach(Rule.RESOURCES, "min: 1, max: 6", "min: 1, max: 7", "7}", "max: ", says="would idle"),
    Breach(
        Rule.RATE_LIMIT, "operation: insert_order", "operation: insert_ordre", "insert_ordre", says="'insert_order'"
    ),
    Breach(
        Rule.REFUSAL_UNANSWERED,
        "operation: insert_order}]",
        "on_limit: refuse}]",
        "refuse",
        says="note_order answers nothing",
    ),
    Breach(
        Rule.DEFINITION_MISSING, "response: ModelPriceResponse", "response: ModelPriceRespons", "ModelPriceRespons\n"
    ),
    Breach(Rule.DEFINITION_MISSING, "definitions/ModelPriceLine", "definitions/ModelLine", "'#/definitions/ModelLine'"),
    Breach(Rule.DEFINITION_UNUSED, "    response: ModelPriceResponse\n", "", "ModelPriceResponse:"),
    Breach(Rule.DEFINITION_UNSUPPORTED, "{enum: [EUR, USD]}", "{oneOf: []}", "oneOf", says="has no form"),
    Breach(Rule.DEFINITION_UNSUPPORTED, '[string, "null"]', "[string, integer]", "[string, integer]"),
    Breach(
        Rule.DEFINITION_UNSUPPORTED, "format: decimal", "format: email", "email", says="uuid, date-time, date, decimal"
    ),
    Breach(
        Rule.DEFINITION_UNSUPPORTED,
        "type: array, items: {$ref: '#/definitions/ModelPriceLine'}",
        "type: array",
        "{type: array",
    ),
    Breach(Rule.DEFINITION_UNSUPPORTED, PRICE_LINE, "      amount: text\n", "text", "amount: "),
    Breach(
        Rule.DEFINITION_CONTRADICTION,
        "required: [sku, quantity]",
        "required: [sku, quantite]",
        "quantite",
        says="'quantity'",
    ),
    Breach(Rule.DEFINITION_CONTRADICTION, "minLength: 1, max", "minLength: 65, max", "65"),
    Breach(
        Rule.DEFINITION_CONTRADICTION,
        "{type: integer, minimum: 1}",
        "{type: integer, minLength: 1}",
        "minLength: 1}",
        "integer",
    ),
    Breach(
        Rule.DEFINITION_CYCLE,
        PRICE_LINE,
        PRICE_LINE + "      parts: {type: array, items: {$ref: '#/definitions/ModelPriceLine'}}\n",
        "ModelPriceLine:",
    ),
    Breach(
        Rule.STATEMENT_FILE,
        INSERT,
        "statements/insert_orders.sql",
        "statements/insert_orders.sql",
        says="insert_order.sql'",
    ),
]


@pytest.mark.parametrize("breach", BREACHES, ids=lambda breach: f"{breach.rule.name.lower()}-{breach.new[:20]!r}")
def test_a_breach_is_found_at_its_place(order_store: ContractFolder, breach: Breach) -> None:
    order_store.replace((breach.old, breach.new))
    problems, text = order_store.problems(), order_store.text()
    offset = text.index(breach.at, text.index(breach.after) + len(breach.after))
    place = (text.count("\n", 0, offset) + 1, offset - text.rfind("\n", 0, offset))
    found = [problem for problem in problems if problem.rule == breach.rule.id]
    assert [(problem.line, problem.column) for problem in found][:1] == [place], problems
    assert breach.says in found[0].message


@pytest.mark.parametrize(
    ("name", "text", "rule", "place"),
    [
        ("contract.yaml", None, Rule.FILE_UNREADABLE, "contract.yaml:1:1"),
        (INSERT, "SELECT 1", Rule.STATEMENT_HEADER, "insert_order.sql:1:1"),
        (INSERT, "-- name: insert_order :one\nSELECT $1", Rule.STATEMENT_PARAMETERS, "insert_order.sql:2:8"),
        (INSERT, "-- name: insert_order :one\nSELECT 1; SELECT 2", Rule.STATEMENT_SINGLE, "insert_order.sql:2:9"),
        (INSERT, "-- name: insert :one\nSELECT 1", Rule.STATEMENT_NAME, "insert_order.sql:1:1"),
        (INSERT, "-- name: insert_order :exec\nSELECT 1", Rule.STATEMENT_CARDINALITY, "insert_order.sql:1:1"),
        ("statements/old.sql", "-- name: old :one\nSELECT 1", Rule.STATEMENT_UNUSED, "old.sql:1:1"),
        ("migrations/0003_more.sql", "", Rule.MIGRATION_NAME, "0003_more.sql:1:1"),
        ("migrations/more.sql", "", Rule.MIGRATION_NAME, "more.sql:1:1"),
    ],
)
def test_a_breach_in_a_file_beside_the_contract_is_found(
    order_store: ContractFolder, name: str, text: str | None, rule: Rule, place: str
) -> None:
    if text is None:
        (order_store.folder / name).unlink()
    else:
        order_store.write(name, text)
    problems = order_store.problems()
    assert [problem.rule for problem in problems] == [rule.id]
    assert str(problems[0]).split(": ")[0].endswith(place)


def test_a_contradiction_of_order_and_dead_letters_is_found(order_store: ContractFolder) -> None:
    order_store.replace(
        ("    ordering: key", "    ordering: none"),
        ("    response: ModelPriceResponse", "    response: ModelPriceResponse\n    ordering: none"),
        ("    needs: [postgres]", "    needs: [postgres]\n    ordering: none"),
        ("kit: postgres.health", "kit: postgres.health\n    ordering: none"),
        (GUARANTEE, f"{GUARANTEE}\n  on_dead_letter: hold"),
    )
    assert [problem.rule for problem in order_store.problems()] == [Rule.ORDERING.id]


def test_every_rule_within_a_contract_has_a_test_here() -> None:
    here = {breach.rule for breach in BREACHES} | {
        Rule.ORDERING, Rule.FILE_UNREADABLE, Rule.STATEMENT_HEADER, Rule.STATEMENT_PARAMETERS, Rule.STATEMENT_SINGLE,
        Rule.STATEMENT_NAME, Rule.STATEMENT_CARDINALITY, Rule.STATEMENT_UNUSED, Rule.MIGRATION_NAME,
    }  # fmt: skip
    assert {rule for rule in Rule if not rule.id.startswith("CT5")} == here


def test_rules_are_documented_and_their_ids_unique() -> None:
    assert len({rule.id for rule in Rule}) == len(Rule)
    for rule in Rule:
        assert rule.id.startswith("CT")
        assert len(rule.id) == 5
        assert all(text.strip() == text and text for text in (rule.title, rule.why, rule.repair))
        assert rule.why.endswith(".")
        assert rule.repair.endswith(".")
