from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from omnibase_infra.shared.core.errors import LocalServiceError
from omnibase_infra.shared.local_services import kafka_jars
from omnibase_infra.shared.local_services.kafka_jars import fetch_kafka_jars, jars_key, pinned_jars
from omnibase_infra.shared.local_services.service import Progress

JAR = b"the content of a jar" * 1000
JAR_PATH = "/org/example/thing/1.0/thing-1.0.jar"


class MavenRepository:
    """A repository of one jar that counts requests and fails as often as it is told to."""

    def __init__(self) -> None:
        self.files = {JAR_PATH: JAR}
        self.failures = 0
        self.requests: list[str] = []

    def serve(self) -> ThreadingHTTPServer:
        repository = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                repository.requests.append(self.path)
                content = repository.files.get(self.path)
                if repository.failures and self.path.endswith(".jar"):
                    repository.failures -= 1
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(JAR)))
                    self.end_headers()
                    self.wfile.write(JAR[:100])  # and the connection breaks
                    return
                self.send_response(404 if content is None else 200)
                self.send_header("Content-Length", str(len(content or b"")))
                self.end_headers()
                self.wfile.write(content or b"")

            def log_message(self, *_: Any) -> None:
                """Stay quiet."""

        return ThreadingHTTPServer(("127.0.0.1", 0), Handler)


@pytest.fixture
def repository(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[MavenRepository]:
    """A mirror named in the user's jgo configuration, an empty cache, and a lock file that pins one jar."""
    lock_file = tmp_path / "pinned.sha256"
    lock_file.write_text(f"# one jar\n{hashlib.sha256(JAR).hexdigest()}  org.example:thing:1.0\n")
    monkeypatch.setattr(kafka_jars, "LOCK_FILE", lock_file)
    monkeypatch.setattr(kafka_jars, "BACKOFF_SECONDS", 0.001)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    repository = MavenRepository()
    with repository.serve() as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        configuration = tmp_path / "jgo.conf"
        configuration.write_text(f"[repositories]\nmirror = {url}\n")
        monkeypatch.setenv("JGO_CONFIG_FILE", str(configuration))
        monkeypatch.setattr("jgo.constants.MAVEN_CENTRAL_URL", url)
        yield repository
        server.shutdown()
        thread.join()


def cached(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "omnibase-infra" / f"kafka-{jars_key()}" / "jars" / "thing-1.0.jar"


def test_a_jar_is_fetched_once(repository: MavenRepository, tmp_path: Path) -> None:
    events: list[Progress] = []

    assert fetch_kafka_jars(events.append) == [cached(tmp_path)]
    assert fetch_kafka_jars(events.append) == [cached(tmp_path)]

    assert cached(tmp_path).read_bytes() == JAR
    assert repository.requests.count(JAR_PATH) == 1
    assert [(event.done, event.step[:14]) for event in events] == [(False, "fetching 1 jar"), (True, "fetching 1 jar")]


def test_a_connection_that_breaks_in_the_middle_is_tried_again(repository: MavenRepository, tmp_path: Path) -> None:
    repository.failures = 2

    fetch_kafka_jars()

    assert cached(tmp_path).read_bytes() == JAR


def test_half_a_jar_that_a_killed_download_left_is_fetched_again(repository: MavenRepository, tmp_path: Path) -> None:
    half = cached(tmp_path).parent.parent / "maven" / JAR_PATH.lstrip("/")
    half.parent.mkdir(parents=True)
    half.write_bytes(JAR[:100])

    fetch_kafka_jars()

    assert cached(tmp_path).read_bytes() == JAR


def test_a_jar_that_is_not_the_pinned_one_is_never_used(repository: MavenRepository, tmp_path: Path) -> None:
    repository.files[JAR_PATH] = b"something else"

    with pytest.raises(LocalServiceError, match=r"org\.example:thing:1\.0 could not be fetched.*SHA-256"):
        fetch_kafka_jars()

    assert not cached(tmp_path).exists()


def test_a_repository_without_the_jar_is_reported_with_what_to_do(repository: MavenRepository) -> None:
    repository.files.clear()

    with pytest.raises(LocalServiceError, match=r"(?s)could not be fetched in 4 attempts.*mirror"):
        fetch_kafka_jars()


def test_a_start_up_cache_made_with_other_files_is_dropped(repository: MavenRepository, tmp_path: Path) -> None:
    fetch_kafka_jars()
    cache = cached(tmp_path).parent.parent / "broker.aot"
    cache.touch()
    cached(tmp_path).unlink()

    fetch_kafka_jars()

    assert not cache.exists()


def test_every_jar_of_the_broker_is_pinned_once() -> None:
    jars = pinned_jars()

    assert len({jar.file_name for jar in jars}) == len(jars) == 46
    assert all(len(jar.sha256) == 64 for jar in jars)
    versions = {jar.artifact: jar.version for jar in jars}
    assert versions["kafka_2.13"] == versions["kafka-clients"] == kafka_jars.KAFKA_VERSION
    assert versions["slf4j-simple"] == versions["slf4j-api"]
