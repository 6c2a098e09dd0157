"""Details of what is written: imports, names that clash, hashes that do not depend on the process, kits of others."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
import pytest

from omnibase_infra.shared.contracts.kits import KitSchema
from omnibase_infra.shared.contracts.model import Contract, Operation
from omnibase_infra.shared.core.errors import ConfigurationError, ContractError
from omnibase_infra.shared.core.ports import BatchContext, NotDone, ResolvableHandler
from omnibase_infra.shared.generator.emitters import struct_source
from omnibase_infra.shared.generator.formatting import FormattingError
from omnibase_infra.shared.generator.imports import docstring, names_in, without_clashes
from omnibase_infra.shared.generator.kits.interface import Kit, KitAnalysis, Servers, TestBlock
from omnibase_infra.shared.generator.plan import (
    AliasPlan,
    FieldPlan,
    GenerationPlan,
    KitOperation,
    OperationPlan,
    SourceFile,
    StructPlan,
)
from omnibase_infra.shared.generator.rendering import sentence, sql_literal
from omnibase_infra.shared.generator.signatures import signature_problems
from omnibase_infra.shared.testing.generated_node import GeneratedNode

GOLDEN = Path(__file__).parent / "golden"
REPOSITORY = Path(__file__).parents[2]

# Prints a hash over everything that a golden node renders to.
RENDER = """
import hashlib, sys
from pathlib import Path
from omnibase_infra.shared.generator.kits.discovery import installed_kits
from omnibase_infra.shared.generator.kits.interface import Servers
from omnibase_infra.shared.generator.targets import target_of
from omnibase_infra.shared.generator.workflow import render_node

folder = Path(sys.argv[1])
node = render_node(folder / "contract.yaml", target_of(folder), installed_kits(), Servers(lambda: 1 / 0))
print(hashlib.sha256(repr([(file.root, file.path, file.content) for file in node.files]).encode()).hexdigest())
"""

CARRIER = """\
name: NodeCarrierDeskEffect
version: {major: 1, minor: 0, patch: 0}
node_type: effect
description: Orders labels.
dependencies: [{name: postgres_pool, type: service, class_name: PostgresConnectionPool}]
event_bus: {subscribe: [onex.cmd.carrier-desk.requests.v1], publish: [onex.evt.carrier-desk.results.v1]}
io_operations:
  - {name: order_label, kit: custom, request: ModelLabel, effect: journal, repeatable: true}
definitions:
  ModelLabel: {type: object, required: [street], properties: {street: {type: string, examples: [Storgata]}}}
delivery: {guarantee: effectively_once}
"""


@pytest.mark.parametrize("name", ["stock_ledger/v1_2_3", "price_desk/v2_1_0"])
def test_two_processes_render_the_same_bytes(name: str, tmp_path: Path) -> None:
    hashes = {
        subprocess.run(
            [sys.executable, "-c", RENDER, str(GOLDEN / name)],
            cwd=folder,
            env=os.environ | {"PYTHONHASHSEED": seed, "LC_ALL": "C", "TZ": zone},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        ).stdout
        for seed, zone, folder in (("1", "UTC", REPOSITORY), ("4242", "Asia/Tokyo", tmp_path))
    }
    assert len(hashes) == 1


def test_templates_are_short() -> None:
    templates = list((REPOSITORY / "shared" / "generator").rglob("*.j2"))
    assert len(templates) > 15
    assert [path.name for path in templates if path.read_text().count("\n") >= 60] == []


def test_a_field_called_like_its_type_does_not_hide_the_type() -> None:
    model = StructPlan("ModelIt", "", (FieldPlan("date", "date | None"), FieldPlan("kind", "Literal['date']")))
    assert [field.annotation for field in without_clashes(model).fields] == ["date_type | None", "Literal['date']"]


def test_text_in_quotes_is_no_name() -> None:
    assert names_in("Annotated[str, Meta(pattern='UUID')] | None") == {"Annotated", "str", "Meta", "pattern", "None"}


def test_text_of_the_contract_cannot_break_out_of_a_docstring() -> None:
    assert '"""' not in docstring('ends """ here \\')
    compile(f'"""{docstring(chr(34) * 3 + " and a backslash " + chr(92))}."""', "text", "exec")


@pytest.mark.parametrize(
    "sql", ["SELECT 1", "SELECT\n1", "SELECT '\\n',\n1", 'SELECT """\n1', 'SELECT a AS\n"b"', "é\n\t'"]
)
def test_sql_survives_being_written_as_python(sql: str) -> None:
    assert eval(sql_literal(sql)) == sql


def test_a_sentence_ends_with_a_full_stop() -> None:
    assert [sentence(text) for text in ("", "Does it", "Done!", "two\n lines")] == [
        "",
        "Does it.",
        "Done!",
        "two lines.",
    ]


def test_structs_are_written_without_their_defaults() -> None:
    assert struct_source(FieldPlan("a", "int")) == "FieldPlan(name='a', annotation='int')"
    assert struct_source(("x",)) == "('x',)"


@pytest.mark.parametrize(
    ("actual", "problem"),
    [
        ("class P:\n    async def run(self, a: int, _context: str) -> int: ...", None),
        ("class P:\n    def __init__(self, x=1): ...\n    async def run(self, a: int, context: str) -> int: ...", None),
        ("class Q: ...", "the class P is missing"),
        ("class P: ...", "P.run is missing"),
        ("class P:\n    def run(self, a: int, context: str) -> int: ...", "line 2: P.run is `def run"),
        ("class P:\n    async def run(self, a: str, context: str) -> int: ...", "a: str"),
        (
            "class P:\n    def __init__(self, x): ...\n    async def run(self, a: int, context: str) -> int: ...",
            "give `needs`",
        ),
        ("class P(:", "line 1"),
    ],
)
def test_signatures_of_people_s_files_are_compared(actual: str, problem: str | None) -> None:
    scaffold = "class P:\n    async def run(self, a: int, _context: str) -> int: ...\n"
    problems = signature_problems(scaffold, actual)
    assert (problems == []) if problem is None else (problem in problems[0])


class EchoKit:
    """A third party's kit: answers with what it was asked."""

    name = "echo"
    schemas: Sequence[KitSchema] = (KitSchema(name="echo", description="Answers with the request.", read_only=True),)

    def analyse(self, contract: Contract, servers: Servers) -> KitAnalysis:
        return KitAnalysis(facts=contract.worker)

    def plan_operation(self, contract: Contract, operation: Operation, facts: Any) -> KitOperation:
        assert facts == contract.worker
        echo = StructPlan("ModelEcho", "What is said.", (FieldPlan("text", "str"),))
        answer = AliasPlan("ModelEchoAnswer", "The same.", "ModelEcho")
        return KitOperation("ModelEcho", "ModelEchoAnswer", models=(echo, answer), payloads=({"text": "hello"},))

    def emit(self, plan: GenerationPlan, operations: Sequence[OperationPlan]) -> Iterable[SourceFile]:
        for operation in operations:
            content = (
                f"{plan.header}\n\nclass {operation.processor}:\n"
                "    async def run(self, requests, context):\n        return requests\n"
            )
            yield SourceFile(f"processors/{operation.name}.py", content)

    def integration_tests(self, plan: GenerationPlan, operations: Sequence[OperationPlan]) -> TestBlock | None:
        return TestBlock(("import math",), "def test_echo() -> None:\n    assert math.pi > 3\n")


CONTRACT = """
name: NodeParrotEffect
version: {major: 1, minor: 0, patch: 0}
node_type: effect
description: Repeats.
event_bus:
  subscribe: [onex.cmd.parrot.requests.v1]
  publish: [onex.evt.parrot.results.v1]
io_operations:
  - {name: say, description: Says it again, kit: echo}
delivery: {guarantee: at_least_once}
idempotency: Saying it twice harms nobody.
"""


@pytest.fixture
def parrot(tmp_path: Path, kits: Mapping[str, Kit]) -> GeneratedNode:
    folder = tmp_path / "parrot" / "v1_0_0"
    folder.mkdir(parents=True)
    (folder / "contract.yaml").write_text(CONTRACT)
    return GeneratedNode(folder, {**kits, "echo": EchoKit()})


def test_a_kit_of_a_third_party_generates_a_node(parrot: GeneratedNode) -> None:
    parrot.generate()
    assert parrot.check() == []
    assert "class SayProcessor" in parrot.path("processors/say.py").read_text()
    assert "math.pi" in parrot.path("tests/test_integration.py").read_text()
    assert "schemas_of(installed_kits())" in parrot.path("tests/test_node.py").read_text()


def test_rate_limits_reach_the_worker_with_their_defaults(parrot: GeneratedNode) -> None:
    limits = "rate_limits:\n  - {per: tenant, limit: 1000/hour}\n"
    limits += "  - {per: client, limit: 5/minute, burst: 2, operation: say, on_limit: refuse}\n"
    parrot.edit("contract.yaml", "delivery:", limits + "delivery:")
    parrot.generate()
    spec = parrot.path("registry/spec.py").read_text()
    assert 'RateLimitSpec(per="tenant", count=1000, seconds=3600, burst=1000),' in spec
    refusing = 'RateLimitSpec(per="client", count=5, seconds=60, burst=2, operation="say", on_limit="refuse"),'
    assert refusing in spec


@pytest.fixture
def carrier(tmp_path: Path, kits: Mapping[str, Kit]) -> GeneratedNode:
    """A node whose effect is on a server elsewhere."""
    folder = tmp_path / "carrier_desk" / "v1_0_0"
    folder.mkdir(parents=True)
    (folder / "contract.yaml").write_text(CARRIER)
    return GeneratedNode(folder, kits)


def built(carrier: GeneratedNode, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return the node, as another test may have left another one by its name."""
    monkeypatch.syspath_prepend(str(carrier.folder.parents[1]))
    for name in [name for name in sys.modules if name.partition(".")[0] == "carrier_desk"]:
        del sys.modules[name]
    return import_module("carrier_desk.v1_0_0.node").NodeCarrierDeskEffect()


def test_an_effect_elsewhere_has_a_journal_and_a_way_to_look_how_it_ended(
    carrier: GeneratedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    carrier.generate()
    node = built(carrier, monkeypatch)
    (operation,) = node.spec.operations
    assert (operation.effect, operation.repeatable, operation.needs) == ("journal", True, ("postgres",))
    assert isinstance(node.handlers["order_label"], ResolvableHandler)
    assert carrier.check() == []
    assert "async def resolve_order_label" in carrier.path("tests/test_handlers.py").read_text()


async def test_who_looks_is_the_processor_that_people_write(
    carrier: GeneratedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    carrier.generate()
    carrier.edit("processors/order_label.py", "        return None\n", "        return NotDone()\n")
    node = built(carrier, monkeypatch)
    request = node.handlers["order_label"].decode(msgspec.Raw(b'{"street": "Storgata"}'))
    context = BatchContext([], None, node.spec, ("key",))
    assert await node.handlers["order_label"].resolve(request, context) == NotDone()


def test_a_processor_that_cannot_look_is_told_so(carrier: GeneratedNode) -> None:
    carrier.generate()
    carrier.edit("processors/order_label.py", "async def resolve", "async def look")
    assert any("OrderLabelProcessor.resolve is missing" in finding.message for finding in carrier.check())


def test_an_operation_cannot_take_the_name_by_which_another_is_looked_for(carrier: GeneratedNode) -> None:
    carrier.edit(
        "contract.yaml",
        "definitions:",
        "  - {name: resolve_order_label, kit: custom, request: ModelLabel}\ndefinitions:",
    )
    with pytest.raises(ContractError, match="an operation cannot be called 'resolve_order_label'"):
        carrier.generate()


def test_a_kit_that_writes_what_is_not_python_is_told_so(
    parrot: GeneratedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = SourceFile("processors/say.py", "def (:\n")
    monkeypatch.setattr(EchoKit, "emit", lambda *_: [bad])
    with pytest.raises(FormattingError, match=r"processors/say\.py"):
        parrot.generate()


def test_a_kit_that_writes_what_the_generator_writes_is_refused(
    parrot: GeneratedNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EchoKit, "emit", lambda *_: [SourceFile("node.py", "")])
    with pytest.raises(ConfigurationError, match=r"two emitters write node\.py"):
        parrot.generate()


@pytest.mark.parametrize("name", ["class", "handlers", "statements"])
def test_an_operation_with_a_name_that_code_cannot_have_is_refused(parrot: GeneratedNode, name: str) -> None:
    parrot.edit("contract.yaml", "name: say", f"name: {name}")
    with pytest.raises(ContractError, match=f"an operation cannot be called '{name}'"):
        parrot.generate()


def test_two_different_models_of_one_name_are_the_contract_s_mistake(parrot: GeneratedNode) -> None:
    other = "  - {name: ask, description: Asks, kit: custom, request: ModelEcho, response: ModelEcho}\ndefinitions:\n"
    other += "  ModelEcho: {type: object, properties: {loud: {type: boolean}}}\ndelivery:"
    parrot.edit("contract.yaml", "delivery:", other)
    with pytest.raises(ContractError, match="two different models would be called ModelEcho"):
        parrot.generate()
