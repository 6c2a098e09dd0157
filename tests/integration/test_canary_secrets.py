"""Every secret setting of a real worker holds a canary; its failures are provoked; no canary shows anywhere."""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from confluent_kafka.admin import AdminClient
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from tests.integration.secured_fleet import ADAPTER, SecuredFleet

from omnibase_infra.shared.client.errors import AnsweredFailedError
from omnibase_infra.shared.client.fleet_client import FleetClient
from omnibase_infra.shared.core.naming import Realm
from omnibase_infra.shared.core.ports import OutboundRecord
from omnibase_infra.shared.core.settings import secret_names, variable
from omnibase_infra.shared.kafka.consumer_factory import ConsumerOptions, create_consumer
from omnibase_infra.shared.kafka.producer_pool import ProducerPool
from omnibase_infra.shared.kafka.security import security_config
from omnibase_infra.shared.registry.nodes import load_spec
from omnibase_infra.shared.testing.fleet import WorkerProcess, eventually
from omnibase_infra.shared.testing.kafka_fixtures import RecordedLog, read_topic
from omnibase_infra.shared.testing.openbao_fixtures import SecretMount
from omnibase_infra.shared.testing.otlp_receiver import OtlpReceiver, otlp_receiver
from omnibase_infra.shared.testing.postgres_fixtures import PostgresDatabase
from omnibase_infra.shared.testing.secured_kafka import SecuredKafka, environment_of

pytestmark = pytest.mark.timeout(180)

# A name, which PostgreSQL quotes when it refuses it; whoever is on call needs it.
NAMES = {"postgres_user"}
ORDER = {"customer_id": "c", "sku": "s", "quantity": 1, "unit_price": 1}


class Canaries(dict[str, str]):
    """A canary for each secret setting, and some for what secrets become."""

    def __init__(self) -> None:
        names = [*secret_names(), "rotated_postgres_password", "wrong_sasl_password"]
        super().__init__({name: f"canary{secrets.token_hex(10)}" for name in names})

    def found_in(self, text: str) -> list[str]:
        """Return the canaries that show in a text: as they are, or in base 64."""
        return [
            name
            for name, canary in self.items()
            if name not in NAMES
            and (canary in text or base64.b64encode(canary.encode()).decode().rstrip("=")[:-2] in text)
        ]


class Stage:
    """A worker's surroundings, in which every secret is a canary."""

    def __init__(self, fleet: SecuredFleet, mount: SecretMount, receiver: OtlpReceiver, dsn: str, folder: Path) -> None:
        self.fleet = fleet
        self.mount = mount
        self.receiver = receiver
        self.dsn = dsn
        self.folder = folder
        self.canaries = Canaries()
        self.sasl_file = folder / "sasl-password"
        self.path = ""
        self.processes: list[WorkerProcess] = []

    async def prepare(self) -> dict[str, str]:
        """Make the users and secrets; return the variables of the worker."""
        await self.run_sql(
            f'CREATE ROLE "{self.canaries["postgres_user"]}" LOGIN SUPERUSER'
            f" PASSWORD '{self.canaries['postgres_password']}'"
        )
        return await asyncio.to_thread(self._prepare)

    def _prepare(self) -> dict[str, str]:
        canaries, fleet = self.canaries, self.fleet
        user = f"{fleet.realm}.postgres-adapter"
        fleet.kafka.set_password(user, canaries["kafka_sasl_password"])
        self.sasl_file.write_text(canaries["kafka_sasl_password"] + "\n")
        place = urlsplit(self.dsn)
        dsn = urlunsplit(place._replace(netloc=f"nobody:{canaries['postgres_dsn']}@{place.hostname}:{place.port}"))
        self.path = self.mount.write(
            "pg",
            dsn=dsn,
            user=canaries["postgres_user"],
            password=canaries["postgres_password"],
            key=canaries["postgres_ssl_key_password"],
        )
        names = {"dsn": "dsn", "user": "user", "password": "password", "ssl_key_password": "key"}
        return {
            **{variable(f"postgres_{name}"): f"vault://{self.path}#{key}" for name, key in names.items()},
            **self._approle(),
            **self._client_key(),
            variable("kafka_sasl_password"): f"file://{self.sasl_file}",
            variable("otlp_endpoint"): self.receiver.endpoint,
            variable("otlp_headers"): f"authorization=Bearer {canaries['otlp_headers']}",
            variable("schema_registry_url"): "http://127.0.0.1:1",
            variable("schema_registry_user"): "worker",
            variable("schema_registry_password"): canaries["schema_registry_password"],
            variable("trace_sample_ratio"): "1",
            variable("log_level"): "debug",
            variable("secrets_refresh_seconds"): "1",
            variable("secrets_file_check_seconds"): "0.1",
            variable("postgres_pool_max"): "4",
        }

    def _approle(self) -> dict[str, str]:
        given = self.mount.approle(self.mount.policy())
        role = self.mount.client.auth.approle
        role.update_role_id(self.mount.name, self.canaries["vault_role_id"])
        role.create_custom_secret_id(self.mount.name, self.canaries["vault_secret_id"])
        return {
            variable("vault_addr"): given["vault_addr"],
            variable("vault_role_id"): self.canaries["vault_role_id"],
            variable("vault_secret_id"): self.canaries["vault_secret_id"],
        }

    def _client_key(self) -> dict[str, str]:
        files = self.fleet.kafka.authority.server("canary-client")
        secret = self.canaries["kafka_ssl_key_password"]
        key = load_pem_private_key(files.key.read_bytes(), None)
        encrypted = self.folder / "client.key"
        encrypted.write_bytes(
            key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(secret.encode()))
        )
        return {
            variable("kafka_ssl_certificate_location"): str(files.chain),
            variable("kafka_ssl_key_location"): str(encrypted),
            variable("kafka_ssl_key_password"): secret,
        }

    def start(self, **variables: str) -> WorkerProcess:
        """Start a worker as its own user on the broker, with these variables besides."""
        surroundings = environment_of(self.fleet.workers[ADAPTER], OMNIBASE_STATE_DIR=str(self.folder))
        log = self.folder / f"canary-{len(self.processes)}.log"
        self.processes.append(WorkerProcess(ADAPTER, surroundings | variables, log))
        return self.processes[-1]

    async def run_sql(self, *statements: str) -> None:
        connection = await asyncpg.connect(self.dsn)
        try:
            for statement in statements:
                await connection.execute(statement)
        finally:
            await connection.close()

    async def database_text(self) -> str:
        """Return all rows of inbox, outbox and orders."""
        connection = await asyncpg.connect(self.dsn)
        try:
            tables = await connection.fetch(
                "SELECT schemaname, tablename FROM pg_tables WHERE schemaname IN ('omnibase', 'orders')"
            )
            rows = [await connection.fetch(f'SELECT t::text FROM "{one[0]}"."{one[1]}" t') for one in tables]
            return "\n".join(str(row[0]) for each in rows for row in each)
        finally:
            await connection.close()

    def records_text(self) -> str:
        """Return every record of every topic of the realm: keys, values and headers."""
        settings = self.fleet.administrator
        admin = AdminClient({"bootstrap.servers": settings.kafka_bootstrap_servers or "", **security_config(settings)})
        names = [name for name in admin.list_topics(timeout=20).topics if name.startswith(f"{self.fleet.realm}.")]
        text: list[str] = []
        for name in names:
            consumer = create_consumer(
                settings,
                group=self.fleet.realm.group("canary-reader", 1),
                purpose="replay",
                client_id="canary-reader",
                log=RecordedLog(),
                options=ConsumerOptions(statistics_seconds=0),
            )
            with closing(consumer):
                text += [f"{name} {m.key()!r} {m.value()!r} {m.headers()!r}" for m in read_topic(consumer, name)]
        return "\n".join(text)


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with otlp_receiver("http") as running:
        yield running


@pytest.fixture
async def stage(
    secured_kafka: SecuredKafka,
    secret_mount: SecretMount,
    receiver: OtlpReceiver,
    postgres_migration_applied: PostgresDatabase,
    realm: Realm,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    no_environment: None,
) -> AsyncIterator[Stage]:
    monkeypatch.setenv("OMNIBASE_STATE_DIR", str(tmp_path))
    dsn = postgres_migration_applied.dsn
    fleet = SecuredFleet(secured_kafka, realm, tmp_path, tmp_path, dsn)
    stage = Stage(fleet, secret_mount, receiver, dsn, tmp_path)
    await asyncio.to_thread(fleet.prepare)
    yield stage
    for process in stage.processes:
        if process.exit_code is None:
            process.kill()
    # Roles belong to the server, not to the database that goes with the test.
    user = stage.canaries["postgres_user"]
    await stage.run_sql(f'DROP OWNED BY "{user}"', f'DROP ROLE "{user}"')


async def ended(worker: WorkerProcess, what: str, seconds: float = 30) -> None:
    await eventually(lambda: worker.exit_code is not None, f"the worker with {what} ends", seconds)


async def endpoints(worker: WorkerProcess) -> str:
    texts = [str(await asyncio.to_thread(worker.get, path)) for path in ("/livez", "/readyz", "/info")]
    return "\n".join([*texts, await asyncio.to_thread(worker.metrics)])


async def test_no_canary_shows_in_anything_that_a_failing_worker_tells(stage: Stage) -> None:
    worker = stage.start(OMNIBASE_OTLP_PROTOCOL="http", **await stage.prepare())
    seen: dict[str, str] = {}
    await eventually(worker.is_ready, "the worker is ready with all secrets resolved", 40)
    seen["command line"] = Path(f"/proc/{worker.pid}/cmdline").read_text()
    seen["endpoints when well"] = await endpoints(worker)

    async with FleetClient(stage.fleet.client) as client:
        await refused_and_failed(client)
        await garbage(stage)
        user, rotated = stage.canaries["postgres_user"], stage.canaries["rotated_postgres_password"]
        end_sessions = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = '{user}'"
        await stage.run_sql(f"ALTER ROLE \"{user}\" PASSWORD '{rotated}'", end_sessions)
        waiting = asyncio.create_task(client.request(ADAPTER, "execute_statement", order(), timeout=90))
        await eventually(lambda: worker.get("/readyz")[0] == 503, "PostgreSQL refuses the old password", 40)
        seen["endpoints when PostgreSQL refuses"] = await endpoints(worker)
        await asyncio.to_thread(stage.mount.write, "pg", **changed_secret(stage, rotated))
        assert (await waiting).payload.row_count == 1, "the new password is taken without a restart, nothing is lost"

        stage.sasl_file.write_text(stage.canaries["wrong_sasl_password"])
        await eventually(lambda: "uthentication failed" in worker.log, "the broker refuses the wrong password", 40)
        stage.sasl_file.unlink()
        stage.mount.client.secrets.kv.v2.delete_latest_version_of_secret("pg", mount_point=stage.mount.name)
        await eventually(lambda: len(worker.logged("secret_renewal_failed")) >= 2, "both failures are told", 40)
        stage.sasl_file.write_text(stage.canaries["kafka_sasl_password"])
        assert (await client.request(ADAPTER, "execute_statement", order(), timeout=60)).payload.row_count == 1
        seen["endpoints when secrets cannot be renewed"] = await endpoints(worker)
    assert await asyncio.to_thread(worker.terminate) == 0

    seen["log"] = worker.log
    seen["records"] = await asyncio.to_thread(stage.records_text)
    seen["database"] = await stage.database_text()
    seen["traces"] = str(stage.receiver.spans)
    provoked = {"secrets_resolved", "secret_changed", "secret_renewal_failed", "record_refused", "dependency_available"}
    assert provoked <= (told := {line["event"] for line in worker.lines()}), told
    assert "onex.dlq.postgres-adapter" in seen["records"]
    assert stage.receiver.spans
    assert any(stage.canaries["otlp_headers"] in str(one) for one in stage.receiver.headers), "the header is sent"
    shown = {place: found for place, text in seen.items() if (found := stage.canaries.found_in(text))}
    assert shown == {}


def order() -> dict[str, Any]:
    return {"statement": "insert_order", "parameters": ORDER | {"order_id": secrets.token_hex(16)}}


def changed_secret(stage: Stage, password: str) -> dict[str, str]:
    kept = stage.mount.client.secrets.kv.v2.read_secret_version(
        "pg", mount_point=stage.mount.name, raise_on_deleted_version=True
    )
    values: dict[str, str] = kept["data"]["data"]
    return values | {"password": password}


async def refused_and_failed(client: FleetClient) -> None:
    """Send what is answered `failed`: by the payload model, by a constraint, by what is switched off."""
    twice = order()
    await client.request(ADAPTER, "execute_statement", twice, timeout=40)
    negative = {"statement": "insert_order", "parameters": twice["parameters"] | {"quantity": -1}}
    for operation, payload in (
        ("execute_statement", twice),
        ("execute_statement", negative),
        ("query", {"sql": "SELECT current_setting('x')"}),
    ):
        with pytest.raises(AnsweredFailedError):
            await client.request(ADAPTER, operation, payload, timeout=40)


async def garbage(stage: Stage) -> None:
    """Send what becomes dead letters."""
    topic = load_spec(ADAPTER).subscribe[0]
    async with ProducerPool(stage.fleet.client, client_id="garbage", log=RecordedLog()) as producer:
        await producer.send([OutboundRecord(topic, value, b"k", []) for value in (b"no json", b"", b"{}")])


START_FAILURES: dict[str, dict[str, str]] = {
    "kafka_sasl_password": {},
    "kafka_ssl_key_password": {},
    "vault_secret_id": {},
    "vault_role_id": {},
    "vault_token": {"OMNIBASE_VAULT_ROLE_ID": "", "OMNIBASE_VAULT_SECRET_ID": ""},
    "kafka_oauth_client_secret": {
        "OMNIBASE_KAFKA_SASL_MECHANISM": "OAUTHBEARER",
        "OMNIBASE_KAFKA_SASL_USERNAME": "",
        "OMNIBASE_KAFKA_SASL_PASSWORD": "",
        "OMNIBASE_KAFKA_OAUTH_CLIENT_ID": "worker",
        "OMNIBASE_KAFKA_OAUTH_TOKEN_ENDPOINT_URL": "https://127.0.0.1:1/token",
    },
    "otlp_headers": {},
}


async def test_no_canary_shows_when_a_worker_cannot_start_for_a_wrong_secret(stage: Stage) -> None:
    good = await stage.prepare()
    workers = {
        name: stage.start(**(good | more | {variable(name): f"{stage.canaries[name]} wrong"}))
        for name, more in START_FAILURES.items()
    }
    for name, worker in workers.items():
        await ended(worker, f"a wrong {name}", 60)
        assert worker.exit_code != 0, name
    shown = {name: found for name, one in workers.items() if (found := stage.canaries.found_in(one.log))}
    assert shown == {}


async def test_a_malformed_address_or_reference_shows_nothing_of_itself(stage: Stage) -> None:
    good = await stage.prepare()
    canary = stage.canaries["postgres_dsn"]
    for wrong in (f"postgresql://ada:{canary}@host:port/db", f"//{canary}", f"postgresql://[{canary}", canary):
        worker = stage.start(**(good | {"OMNIBASE_POSTGRES_DSN": wrong}))
        await ended(worker, "a malformed address")
        assert worker.exit_code == 2, worker.log
        assert stage.canaries.found_in(worker.log) == []
        assert "OMNIBASE_POSTGRES_DSN is malformed" in worker.log


def test_every_secret_setting_has_its_part_in_these_tests() -> None:
    running = {"postgres_dsn", "postgres_user", "postgres_password", "postgres_ssl_key_password", "otlp_headers"}
    running |= {"kafka_sasl_password", "kafka_ssl_key_password", "vault_role_id", "vault_secret_id"}
    running |= {"schema_registry_password"}
    assert set(secret_names()) == running | set(START_FAILURES)
