"""Kafka with TLS and SCRAM, real: who has the right credentials works, and who has not is told why, once and at once."""

from __future__ import annotations

import asyncio
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.integration.secured_fleet import ADAPTER, TALLY, SecuredFleet, has_ended

from omnibase_infra.shared.client.fleet_client import FleetClient
from omnibase_infra.shared.core.errors import KafkaAccessError
from omnibase_infra.shared.core.settings import Settings
from omnibase_infra.shared.kafka.admin import KafkaTopicAdmin
from omnibase_infra.shared.kafka.sasl_login import SaslLogin
from omnibase_infra.shared.testing.fleet import eventually
from omnibase_infra.shared.testing.kafka_fixtures import RecordedLog
from omnibase_infra.shared.testing.secured_kafka import REAUTHENTICATION_SECONDS

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def fleet(secured_fleet: SecuredFleet) -> SecuredFleet:
    return secured_fleet


def wrong(fleet: SecuredFleet, what: str) -> tuple[Settings, list[str]]:
    """Return settings with one thing wrong, and what every error about it says: place, what is wrong, what to do."""
    good = fleet.client
    place = str(good.kafka_bootstrap_servers)
    if what == "authority":
        settings = good.model_copy(update={"kafka_ssl_ca_location": fleet.kafka.stranger.certificate})
        return settings, [place, "certificate is not signed by", "stranger.pem", "OMNIBASE_KAFKA_SSL_CA_LOCATION"]
    if what == "host name":
        place = place.replace("localhost", "127.0.0.1")
        settings = good.model_copy(update={"kafka_bootstrap_servers": place})
        return settings, [place, "certificate is not for 127.0.0.1", "OMNIBASE_KAFKA_BOOTSTRAP_SERVERS"]
    if what == "expired":
        place = fleet.kafka.service.secured_address("EXPIRED")
        settings = good.model_copy(update={"kafka_bootstrap_servers": place})
        return settings, [place, "certificate has expired", "renew the broker's certificate"]
    settings = fleet.kafka.settings(fleet.realm, str(good.kafka_sasl_username), "not-the-password")
    return settings, [place, f"refuses user {good.kafka_sasl_username!r}", "OMNIBASE_KAFKA_SASL_PASSWORD"]


ALL_WRONG = ("authority", "host name", "expired", "password")


def assert_says(text: str, parts: list[str]) -> None:
    assert not [part for part in parts if part not in text], text
    assert "not-the-password" not in text
    assert "SSL routines" not in text, text  # the client library's words


async def test_the_right_credentials_work_for_worker_client_command_line_and_administration(
    fleet: SecuredFleet,
) -> None:
    fleet.prepare()
    adapter, tally = fleet.start(ADAPTER), fleet.start(TALLY)
    async with FleetClient(fleet.client) as client:
        counted = await client.request(TALLY, "count", {"key": "a", "sequence": 1}, timeout=40)
        healthy = await client.request(ADAPTER, "health_check", {}, timeout=40)
    assert (counted.payload.key, counted.payload.sequence) == ("a", 1)
    assert healthy.envelope.type.endswith("health-check-completed.v1")

    published = await asyncio.to_thread(
        fleet.command,
        *("publish", TALLY, "count", "--data", '{"key": "b", "sequence": 2}', "--wait"),
        settings=fleet.client,
    )
    assert published.exit_code == 0, published.output
    for command in (("topics", "check"), ("acls", "plan", "--client", f"User:{fleet.client.kafka_sasl_username}")):
        checked = await asyncio.to_thread(fleet.command, *command)
        assert checked.exit_code == 0, checked.output
    assert await asyncio.to_thread(adapter.terminate) == 0
    assert await asyncio.to_thread(tally.terminate) == 0


@pytest.mark.parametrize("what", ALL_WRONG)
async def test_what_is_wrong_is_one_clear_error_and_soon(
    fleet: SecuredFleet, what: str, capfd: pytest.CaptureFixture[str]
) -> None:
    settings, parts = wrong(fleet, what)
    began = time.monotonic()

    with pytest.raises(KafkaAccessError) as administration:
        await asyncio.to_thread(KafkaTopicAdmin(settings, log=RecordedLog()).topics, "")
    assert_says(str(administration.value), parts)
    async with FleetClient(settings, log=RecordedLog()) as client:
        with pytest.raises(KafkaAccessError) as publishing:
            await client.publish(TALLY, "count", {"key": "a", "sequence": 1})
    assert str(publishing.value) == str(administration.value)
    planned = await asyncio.to_thread(fleet.command, "topics", "plan", settings=settings)
    assert planned.exit_code == 2
    assert_says(planned.stderr, parts)
    assert planned.stderr.count("error:") == 1

    assert time.monotonic() - began < 15
    assert capfd.readouterr().err == ""


async def test_a_worker_with_something_wrong_ends_at_once_and_says_what(fleet: SecuredFleet) -> None:
    cases = [wrong(fleet, what) for what in ALL_WRONG]
    processes = [fleet.start(TALLY, settings) for settings, _ in cases]
    for process, (_, parts) in zip(processes, cases, strict=True):
        await has_ended(process)
        errors = [line for line in process.log.splitlines() if line.startswith("error:")]
        assert (process.exit_code, len(errors)) == (2, 1), process.log
        hints = [line for line in process.log.splitlines() if line.startswith("hint:")]
        assert_says(f"{errors[0]} {hints[0]}", parts)


async def test_credentials_change_under_load_and_no_request_is_lost(fleet: SecuredFleet, tmp_path: Path) -> None:
    fleet.prepare()
    files = {node: tmp_path / f"{node}.password" for node in (ADAPTER, TALLY)}
    for node, settings in fleet.workers.items():
        files[node].write_text(password_of(settings))
    processes = [
        fleet.start(
            node,
            OMNIBASE_KAFKA_SASL_PASSWORD=f"file://{files[node]}",
            OMNIBASE_SECRETS_FILE_CHECK_SECONDS="0.2",
        )
        for node in (ADAPTER, TALLY)
    ]
    login = SaslLogin(fleet.client)
    async with FleetClient(fleet.client, log=RecordedLog(), login=login) as client:
        load = Load(client)
        await load.warm_up()
        running = asyncio.create_task(load.run())
        await load.more(40)

        for node, settings in fleet.workers.items():
            fleet.kafka.set_password(str(settings.kafka_sasl_username), f"another-of-{node}")
        fleet.kafka.set_password(str(fleet.client.kafka_sasl_username), "another-of-the-client")
        # Until everybody was asked again and refused: this is what a change that comes late looks like.
        await asyncio.sleep(REAUTHENTICATION_SECONDS)
        for node, file in files.items():
            file.write_text(f"another-of-{node}\n")
        user = str(fleet.client.kafka_sasl_username)
        await login.renew(fleet.kafka.settings(fleet.realm, user, "another-of-the-client"))

        for process in processes:
            await eventually(partial(process.logged, "secret_changed"), "the worker reads its new password")
        # Long enough for every connection to prove the new password.
        await asyncio.sleep(REAUTHENTICATION_SECONDS)
        await load.more(60)
        load.stop()
        await running
    assert load.answered == load.sent > 100
    assert any("authentication" in str(line.get("message", "")).lower() for one in processes for line in one.lines())
    with pytest.raises(KafkaAccessError):
        await asyncio.to_thread(KafkaTopicAdmin(fleet.client, log=RecordedLog()).topics, "")
    for process in processes:
        assert await asyncio.to_thread(process.terminate) == 0, process.log[-3000:]
        assert "another-of-" not in process.log


def password_of(settings: Settings) -> str:
    assert settings.kafka_sasl_password is not None
    return settings.kafka_sasl_password.get_secret_value()


class Load:
    """Requests to both workers, a few at a time, each of which must be answered."""

    AT_ONCE = 4

    def __init__(self, client: FleetClient) -> None:
        self._client = client
        self._stopping = False
        self.sent = 0
        self.answered = 0

    async def warm_up(self) -> None:
        """Wait until both workers answer."""
        for node, operation, payload in (self._of(0), self._of(1)):
            await self._client.request(node, operation, payload, timeout=40)

    async def run(self) -> None:
        """Send until stopped; raises what a request raises."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self.AT_ONCE):
                group.create_task(self._one_after_the_other())

    async def more(self, count: int) -> None:
        """Wait until so many more were answered."""
        wanted = self.answered + count
        await eventually(lambda: self.answered >= wanted, f"{count} more answers (have {self.answered})")

    def stop(self) -> None:
        """Let each request under way be the last of its row."""
        self._stopping = True

    async def _one_after_the_other(self) -> None:
        while not self._stopping:
            self.sent += 1
            node, operation, payload = self._of(self.sent)
            await self._client.request(node, operation, payload, timeout=40)
            self.answered += 1

    def _of(self, number: int) -> tuple[str, str, dict[str, Any]]:
        if number % 2:
            return ADAPTER, "health_check", {}
        return TALLY, "count", {"key": f"key-{number % 7}", "sequence": number + 1}
