"""Shared models are generated from model contracts, held to them, and stand for a node's models where they fit."""

from __future__ import annotations

import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from typer.testing import CliRunner

from omnibase_infra.shared.cli.generate_models import models_folder
from omnibase_infra.shared.cli.main import app
from omnibase_infra.shared.contracts.compatibility import incompatibilities
from omnibase_infra.shared.contracts.loader import load_contract
from omnibase_infra.shared.contracts.model import Contract, Dependency
from omnibase_infra.shared.contracts.model_contract import discover_model_contracts, load_model_contract
from omnibase_infra.shared.core import envelope
from omnibase_infra.shared.core.errors import ContractError
from omnibase_infra.shared.generator.definitions import definition_models
from omnibase_infra.shared.generator.kits.postgres.forms import PLANNERS
from omnibase_infra.shared.generator.names import snake_case
from omnibase_infra.shared.generator.plan import AliasPlan, FieldPlan, StructPlan
from omnibase_infra.shared.generator.shared_models import check_models, generate_models

CONTRACTS = discover_model_contracts(models_folder())
PLANNED = {
    "postgres": ("query_request", "query_response", "transaction_request", "health_response"),
    "kafka": ("message", "event_envelope", "producer_config"),
    "consul": ("kv_request", "kv_response", "service_registration"),
    "vault": ("secret_request", "secret_response"),
}


def _class(service: str, model: str) -> Any:
    return getattr(import_module(f"omnibase_infra.shared.models.{service}.{snake_case(model)}"), model)


@pytest.mark.parametrize("service", PLANNED)
def test_the_models_of_the_plan_are_there_under_its_names(service: str) -> None:
    modules = {path.stem for path in (models_folder() / service).glob("model_*.py")}
    assert {f"model_{service}_{name}" for name in PLANNED[service]} <= modules


@pytest.mark.parametrize("path", CONTRACTS, ids=lambda path: path.parent.name)
def test_the_committed_models_are_what_their_contracts_say(path: Path) -> None:
    assert check_models(path, "omninode generate models") == []


@pytest.mark.parametrize("path", CONTRACTS, ids=lambda path: path.parent.name)
def test_a_generated_class_and_its_published_schema_allow_the_same(path: Path) -> None:
    contract = load_model_contract(path)
    for model in contract.definitions:
        published = contract.schema(model)
        jsonschema.Draft202012Validator.check_schema(published)
        assert incompatibilities(published, msgspec.json.schema(_class(contract.name, model)), "FULL") == []


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Copy the shared models of Vault, generated."""
    shutil.copytree(models_folder() / "vault", tmp_path / "vault", ignore=shutil.ignore_patterns(".generation"))
    return tmp_path / "vault"


def test_an_edited_a_missing_and_a_strange_file_are_found_and_repaired(folder: Path) -> None:
    path = folder / "models.yaml"
    edited = folder / "model_vault_secret_request.py"
    edited.write_text(edited.read_text().replace("wrap_ttl_seconds", "wrap_seconds"))
    (folder / "schemas/model_vault_secret_response.schema.json").unlink()
    (folder / "model_vault_extra.py").write_text("")
    findings = {(Path(item.path).name, item.kind) for item in check_models(path, "omninode generate models")}
    assert findings == {
        ("model_vault_secret_request.py", "edited"),
        ("model_vault_secret_response.schema.json", "missing"),
        ("model_vault_extra.py", "orphan"),
    }
    generate_models(path)
    assert check_models(path, "omninode generate models") == []
    assert generate_models(path).written == ()


def test_a_changed_model_contract_makes_files_stale(folder: Path) -> None:
    path = folder / "models.yaml"
    path.write_text(path.read_text().replace("maximum: 3600", "maximum: 7200"))
    kinds = {item.kind for item in check_models(path, "omninode generate models")}
    assert kinds == {"stale"}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("name: vault", "name: vaults"), "1:7: the folder is 'vault', expected it to be called 'vaults'"),
        (("definitions:", "definition:"), "unknown key 'definition'"),
        (("type: integer, minimum: 1", "type: whole, minimum: 1"), "'whole'"),
        (("ModelVaultSecretResponse:", "VaultSecretResponse:"), "text that matches ^Model[A-Z]"),
        (("{type: string, minLength: 1, maxLength: 128", "{$ref: '#/definitions/ModelVaultMount'"), "ModelVaultMount"),
    ],
)
def test_a_mistake_in_a_model_contract_is_located(folder: Path, change: tuple[str, str], problem: str) -> None:
    path = folder / "models.yaml"
    path.write_text(path.read_text().replace(*change, 1))
    with pytest.raises(ContractError) as caught:
        load_model_contract(path)
    assert problem in str(caught.value)
    assert all(item.line >= 1 and item.file.endswith("models.yaml") for item in caught.value.problems)


def test_generate_knows_shared_models_by_name() -> None:
    runner = CliRunner()
    result = runner.invoke(app, ["generate", "models/vault", "--check"])
    assert (result.exit_code, result.output) == (0, "models/vault: as its model contract says\n")
    assert runner.invoke(app, ["generate", "models/vault", "--diff"]).output == ""
    unknown = runner.invoke(app, ["generate", "models/nothing", "--check"])
    assert "those of: consul, kafka, postgres, vault" in str(unknown.exception)


def test_a_real_envelope_fits_the_shared_model_of_the_envelope() -> None:
    sent = envelope.encode(
        envelope.original(source="a/b", event_type="onex.cmd.a.b.v1", data=msgspec.Raw(b'{"x":1}'), subject="s")
    )
    decoded = msgspec.json.decode(sent, type=_class("kafka", "ModelKafkaEventEnvelope"))
    assert (decoded.subject, decoded.data) == ("s", {"x": 1})
    names = {field.name for field in msgspec.structs.fields(envelope.Envelope)}
    assert names == {field.name for field in msgspec.structs.fields(type(decoded))}


# -- shared models in a node -------------------------------------------------------------------------------------------


def _own_forms() -> tuple[Contract, dict[str, StructPlan]]:
    """Return the adapter's contract without shared models, and the models that the kit makes by itself then."""
    path = models_folder().parent.parent / "workers/postgres_adapter/v1_0_0/contract.yaml"
    contract = load_contract(path)
    services = tuple(item for item in contract.dependencies if item.type != "model")
    bare = msgspec.structs.replace(contract, dependencies=services)
    plans = [PLANNERS[bare.operation(name).kit](bare, bare.operation(name), ()) for name in ("query", "health_check")]
    return contract, {m.name: m for plan in plans for m in plan.models if isinstance(m, StructPlan)}


def _shape(fields: tuple[FieldPlan, ...], renamed: dict[str, str]) -> list[tuple[str, str, str]]:
    """Return name, type and default of each field, where two spellings of one type are the same."""
    spelt = {
        "Annotated[Text, Meta(min_length=1)]": "Annotated[str, Meta(min_length=1, pattern='^[^\\\\x00]*$')]",
        "HealthState": "Literal['healthy', 'degraded', 'unhealthy']",
        "field(default_factory=list)": "[]",
        **renamed,
    }

    def plain(source: str) -> str:
        for one, other in spelt.items():
            source = source.replace(one, other)
        return source

    return [(field.name, plain(field.annotation), plain(field.default)) for field in fields]


def test_the_shared_models_are_field_by_field_what_the_kit_makes_by_itself() -> None:
    _, own = _own_forms()
    definitions = load_model_contract(models_folder() / "postgres/models.yaml").definitions
    shared = {model.name: model for model in definition_models(definitions)}
    renamed = {"ModelQueryColumn": "ModelPostgresColumn", "ModelHealthCheckPool": "ModelPostgresPoolStatus"}
    for one, other in {
        "ModelQueryRequest": "ModelPostgresQueryRequest",
        "ModelQueryResponse": "ModelPostgresQueryResponse",
        "ModelHealthCheckResponse": "ModelPostgresHealthResponse",
        **renamed,
    }.items():
        counterpart = shared[other]
        assert isinstance(counterpart, StructPlan)
        assert _shape(own[one].fields, renamed) == _shape(counterpart.fields, renamed)


def test_the_adapter_uses_the_shared_models_that_its_contract_lists_under_its_own_names() -> None:
    contract, _ = _own_forms()
    operation = contract.operation("query")
    models = PLANNERS[operation.kit](contract, operation, ()).models
    assert [(model.name, model.value) for model in models if isinstance(model, AliasPlan)] == [
        ("ModelQueryRequest", "ModelPostgresQueryRequest"),
        ("ModelQueryResponse", "ModelPostgresQueryResponse"),
    ]


def test_a_listed_shared_model_that_does_not_fit_is_refused() -> None:
    contract, _ = _own_forms()
    operation = contract.operation("query")
    other = msgspec.structs.replace(operation, options={**operation.options, "max_rows": 50})
    with pytest.raises(ContractError, match=r"max_rows is 50, and ModelPostgresQueryRequest, .* has 1000"):
        PLANNERS[operation.kit](contract, other, ())


def test_what_a_node_takes_as_a_transaction_fits_the_shared_transaction_request() -> None:
    from omnibase_infra.workers.postgres_adapter.v1_0_0.models import ModelExecuteTransactionRequest

    own = msgspec.json.schema(ModelExecuteTransactionRequest)
    shared = load_model_contract(models_folder() / "postgres/models.yaml").schema("ModelPostgresTransactionRequest")
    assert incompatibilities(own, shared, "BACKWARD") == []


def test_a_model_dependency_without_a_module_leaves_the_kit_s_own_model() -> None:
    contract, own = _own_forms()
    listed = Dependency("model_postgres_query_request", "model", "ModelPostgresQueryRequest")
    bare = msgspec.structs.replace(contract, dependencies=(*contract.dependencies[:2], listed))
    models = PLANNERS["postgres.query"](bare, bare.operation("query"), ()).models
    assert own["ModelQueryRequest"] in models
