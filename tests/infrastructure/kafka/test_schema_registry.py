"""Schemas are published to a registry over its REST API, under the level of each subject, and nothing else is touched."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from omnibase_infra.shared.cli.main import app
from omnibase_infra.shared.core.errors import DependencyUnavailableError, SettingsError
from omnibase_infra.shared.core.naming import Realm
from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.kafka.schema_registry import SchemaRegistryClient, SchemaRegistryRefusedError
from omnibase_infra.shared.testing.certificates import TestAuthority
from omnibase_infra.shared.testing.schema_registry_server import SchemaRegistryServer, confluent_differences
from omnibase_infra.topics.payload_schemas import PayloadSchema, Role
from omnibase_infra.topics.schema_publishing import (
    RegisterSchema,
    SetCompatibility,
    apply_schemas,
    plan_schemas,
    stray_subjects,
)
from omnibase_infra.topics.schema_subjects import Subject, closed, subjects_of

REALM = Realm("dev")
PASSWORD = "canary-5d1f"
RUN = CliRunner()


def _settings(url: str, **more: Any) -> Settings:
    return Settings.model_validate({"env": "dev", "schema_registry_url": url, **more})


def _object(*required: str, **properties: str) -> dict[str, Any]:
    types = {name: {"type": kind} for name, kind in properties.items()}
    return {"type": "object", "properties": types, "required": list(required)}


def _payload(role: Role, schema: dict[str, Any], version: tuple[int, int, int] = (1, 0, 0)) -> PayloadSchema:
    kind = "cmd" if role == "request" else "evt"
    return PayloadSchema(
        worker="order-store",
        version=version,
        operation="insert_order",
        role=role,
        topic=f"onex.{kind}.order-store.x.v1",
        event_type=f"onex.{kind}.order-store.insert-order.v1",
        model="ModelX",
        schema=schema,
    )


def _subjects(*payloads: PayloadSchema, level: str = "BY_ROLE") -> list[Subject]:
    return subjects_of(payloads, REALM, level)


FIRST = (_payload("request", _object("id", id="string")), _payload("response", _object("n", n="integer")))
COMMAND = "dev.onex.cmd.order-store.insert-order.v1"
ANSWER = "dev.onex.evt.order-store.insert-order.v1"


@pytest.fixture
def server() -> Iterator[SchemaRegistryServer]:
    """Run a registry."""
    with SchemaRegistryServer().running() as running:
        yield running


def test_subjects_are_planned_published_and_then_as_the_contracts_say(server: SchemaRegistryServer) -> None:
    client = SchemaRegistryClient(_settings(server.url))
    subjects = _subjects(*FIRST)
    planned = plan_schemas(client, subjects)
    assert planned.actions == (
        SetCompatibility(COMMAND, None, "BACKWARD"),
        RegisterSchema(COMMAND, "order-store insert_order request", 0),
        SetCompatibility(ANSWER, None, "FORWARD"),
        RegisterSchema(ANSWER, "order-store insert_order response", 0),
    )
    assert not any(request.startswith(("PUT", "POST /subjects")) for request in server.requests)
    assert apply_schemas(client, subjects).done == planned.actions
    assert plan_schemas(client, subjects).unchanged == (COMMAND, ANSWER)
    assert apply_schemas(client, subjects).done == ()
    assert server.levels == {COMMAND: "BACKWARD", ANSWER: "FORWARD"}
    assert json.loads(server.versions[COMMAND][0][1]) == closed(FIRST[0].schema)
    registered = client.lookup(COMMAND, subjects[0].schema)
    assert registered is not None
    assert (registered.version, client.lookup(COMMAND, '{"type": "object"}')) == (1, None)


def test_what_callers_do_not_notice_is_taken_by_us_and_by_the_registry(server: SchemaRegistryServer) -> None:
    client = SchemaRegistryClient(_settings(server.url))
    apply_schemas(client, _subjects(*FIRST))
    later = (
        _payload("request", _object("id", id="string", note="string"), (1, 1, 0)),
        _payload("response", _object("n", "m", n="integer", m="integer"), (1, 1, 0)),
    )
    report = apply_schemas(client, _subjects(*FIRST, *later))
    assert report.is_complete
    assert [(action.subject, action.follows) for action in report.done if isinstance(action, RegisterSchema)] == [
        (COMMAND, 1),
        (ANSWER, 1),
    ]


def test_what_breaks_callers_is_refused_before_the_registry_is_asked_and_others_go_on(
    server: SchemaRegistryServer,
) -> None:
    client = SchemaRegistryClient(_settings(server.url))
    apply_schemas(client, _subjects(*FIRST))
    later = (
        _payload("request", _object("id", "note", id="string", note="string"), (1, 1, 0)),
        _payload("response", _object("n", "m", n="integer", m="integer"), (1, 1, 0)),
    )
    report = apply_schemas(client, _subjects(*later))
    (refusal,) = report.refusals
    assert str(refusal) == (
        f"{COMMAND}: order-store insert_order request breaks what is registered: $.note: the reader requires it, and "
        "the writer does not know it [property-required, breaks BACKWARD]"
    )
    assert [action.subject for action in report.done] == [ANSWER]
    assert len(server.versions[COMMAND]) == 1


def test_what_only_the_registry_refuses_is_left_with_its_reasons(server: SchemaRegistryServer) -> None:
    client = SchemaRegistryClient(_settings(server.url))
    apply_schemas(client, _subjects(*FIRST, level="FULL"))
    more = _subjects(_payload("request", _object("id", id="string", note="string"), (1, 1, 0)), level="FULL")
    (refusal,) = plan_schemas(client, more).refusals
    assert refusal.reasons == ("PROPERTY_ADDED_TO_OPEN_CONTENT_MODEL at #/properties/note",)


def test_a_level_is_set_before_the_schema_is_judged_by_it(server: SchemaRegistryServer) -> None:
    client = SchemaRegistryClient(_settings(server.url))
    apply_schemas(client, _subjects(FIRST[0], level="FULL"))
    report = apply_schemas(client, _subjects(_payload("request", _object(id="integer"), (1, 1, 0)), level="NONE"))
    assert report.is_complete
    assert server.levels[COMMAND] == "NONE"


def test_a_step_that_fails_leaves_the_rest_of_its_subject_only(server: SchemaRegistryServer) -> None:
    client = SchemaRegistryClient(_settings(server.url))
    server.failing.add(f"/config/{ANSWER}")
    with pytest.raises(DependencyUnavailableError, match="failed at GET"):
        plan_schemas(client, _subjects(*FIRST))
    server.failing = {f"/subjects/{COMMAND}/versions"}
    report = apply_schemas(client, _subjects(*FIRST))
    assert [type(failure.action) for failure in report.failed] == [RegisterSchema]
    assert {action.subject for action in report.done} == {COMMAND, ANSWER}
    server.failing = set()
    assert [action.subject for action in apply_schemas(client, _subjects(*FIRST)).done] == [COMMAND]


def test_subjects_of_the_realm_that_no_contract_asks_for_are_found(server: SchemaRegistryServer) -> None:
    client = SchemaRegistryClient(_settings(server.url))
    apply_schemas(client, _subjects(*FIRST))
    client.register("dev.onex.evt.gone.x.v1", "{}")
    client.register("prod.onex.evt.gone.x.v1", "{}")
    client.register("somebody-else-value", "{}")
    assert stray_subjects(client, _subjects(*FIRST), REALM) == ["dev.onex.evt.gone.x.v1"]


# -- being let in ------------------------------------------------------------------------------------------------------


def test_tls_and_a_password_let_in_and_a_wrong_one_does_not(tmp_path: Path) -> None:
    authority = TestAuthority(tmp_path)
    files = authority.server()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(files.chain, files.key)
    login = {"schema_registry_user": "writer", "schema_registry_password": PASSWORD}
    trusted = {"schema_registry_ca_location": authority.certificate}
    with SchemaRegistryServer("writer", PASSWORD, tls).running() as server:
        assert SchemaRegistryClient(_settings(server.url, **login, **trusted)).subjects() == []
        for wrong in ({}, {**login, "schema_registry_password": f"{PASSWORD}-x"}):
            with pytest.raises(SchemaRegistryRefusedError, match="401, Unauthorized") as refused:
                SchemaRegistryClient(_settings(server.url, **wrong, **trusted)).subjects()
            assert PASSWORD not in f"{refused.value} {refused.value!r}"
        other = TestAuthority(tmp_path, "other").certificate
        client = SchemaRegistryClient(_settings(server.url, **login, schema_registry_ca_location=other))
        with pytest.raises(DependencyUnavailableError, match="its certificate is not trusted") as untrusted:
            client.subjects()
        assert PASSWORD not in f"{untrusted.value!r} {vars(client)}"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"schema_registry_url": None}, "OMNIBASE_SCHEMA_REGISTRY_URL is not set"),
        ({"schema_registry_url": "registry:8081"}, "is no address"),
        ({"schema_registry_url": "https://a:99999"}, "Port out of range"),
        ({"schema_registry_url": f"https://u:{PASSWORD}@a"}, "holds a login"),
        ({"schema_registry_url": "https://a", "schema_registry_user": "u"}, "go together"),
        (
            {"schema_registry_url": "http://far", "schema_registry_user": "u", "schema_registry_password": PASSWORD},
            "would go over the wire in clear",
        ),
        ({"schema_registry_url": "https://a", "schema_registry_ca_location": "/no/such.pem"}, "CA_LOCATION: /no/such"),
    ],
)
def test_settings_that_cannot_work_are_said_before_anything_is_sent(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        SchemaRegistryClient(Settings.model_validate({"env": "dev", **settings}))
    assert says in str(caught.value)
    assert PASSWORD not in str(caught.value)


def test_nobody_at_the_address_is_one_clear_error() -> None:
    client = SchemaRegistryClient(_settings("http://127.0.0.1:1", schema_registry_timeout_seconds=1))
    with pytest.raises(DependencyUnavailableError, match=r"schema registry 127\.0\.0\.1 cannot be reached"):
        client.subjects()


def test_what_is_no_registry_is_refused_with_what_to_check(server: SchemaRegistryServer) -> None:
    with pytest.raises(SchemaRegistryRefusedError, match="404") as caught:
        SchemaRegistryClient(_settings(f"{server.url}/wrong")).latest("a")
    assert "OMNIBASE_SCHEMA_REGISTRY_URL" in caught.value.hint


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command_plans_applies_and_checks_all_payloads_of_the_fleet(
    server: SchemaRegistryServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMNIBASE_ENV", "dev")
    monkeypatch.setenv("OMNIBASE_SCHEMA_REGISTRY_URL", server.url)
    planned = RUN.invoke(app, ["schemas", "plan"])
    assert planned.exit_code == 2
    assert "+ dev.onex.cmd.postgres-adapter.query.v1: postgres-adapter query request, new" in planned.stdout
    assert "24 changes, 0 refusals, 0 subjects unchanged" in planned.stdout
    applied = RUN.invoke(app, ["schemas", "apply"])
    assert (applied.exit_code, applied.stdout.splitlines()[-1]) == (0, "24 changes made, as the contracts say")
    assert RUN.invoke(app, ["schemas", "plan"]).exit_code == 0
    server.versions["dev.onex.evt.gone.x.v1"] = [(99, "{}")]
    checked = RUN.invoke(app, ["schemas", "check", "--json"])
    assert (checked.exit_code, json.loads(checked.stdout)["stray"]) == (2, ["dev.onex.evt.gone.x.v1"])
    query = server.versions["dev.onex.cmd.postgres-adapter.query.v1"][0][1]
    assert json.loads(query)["title"] == "ModelQueryRequest"
    assert "$id" not in json.loads(query)
    for versions in server.versions.values():
        document = json.loads(versions[0][1])
        assert confluent_differences(document, document) == []


def test_payload_schemas_are_exported_and_held_to_the_nodes(tmp_path: Path) -> None:
    words = ["schemas", "export", "--output", str(tmp_path)]
    assert RUN.invoke(app, [*words, "--check"]).exit_code == 1
    assert RUN.invoke(app, words).exit_code == 0
    assert RUN.invoke(app, [*words, "--check"]).exit_code == 0
    (tmp_path / "gone.schema.json").write_text("{}")
    stray = RUN.invoke(app, [*words, "--check"])
    assert (stray.exit_code, "gone.schema.json: no contract asks for it" in stray.stdout) == (1, True)
    RUN.invoke(app, words)
    assert not (tmp_path / "gone.schema.json").exists()
