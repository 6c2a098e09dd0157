"""The jars of the Kafka broker: fetched once by jgo, checked against pinned SHA-256 sums, kept in the user's cache."""

from __future__ import annotations

import hashlib
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omnibase_infra.shared.core.errors import LocalServiceError
from omnibase_infra.shared.core.settings import cache_directory
from omnibase_infra.shared.local_services.file_lock import file_lock
from omnibase_infra.shared.local_services.local_extra import require_package
from omnibase_infra.shared.local_services.service import ProgressCallback, Stopwatch, no_progress, waiting_for

KAFKA_VERSION = "4.1.0"
LOCK_FILE = Path(__file__).with_name(f"kafka-{KAFKA_VERSION}.sha256")
DOWNLOADS_AT_ONCE = 6
REQUEST_TIMEOUT_SECONDS = 20
ATTEMPTS = 4
BACKOFF_SECONDS = 0.5
LOCK_TIMEOUT_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class PinnedJar:
    """One jar by its Maven coordinate, with the SHA-256 it must have."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def coordinate(self) -> str:
        """Return group:artifact:version."""
        return f"{self.group}:{self.artifact}:{self.version}"

    @property
    def file_name(self) -> str:
        """Return the name of the jar file."""
        return f"{self.artifact}-{self.version}.jar"


def pinned_jars() -> list[PinnedJar]:
    """Return the jars that make the broker's class path."""
    lines = LOCK_FILE.read_text(encoding="utf-8").splitlines()
    pairs = [line.split() for line in lines if line and not line.startswith("#")]
    return [_pinned(sha256, *coordinate.split(":")) for sha256, coordinate in pairs]


def _pinned(sha256: str, group: str, artifact: str, version: str) -> PinnedJar:
    return PinnedJar(group, artifact, version, sha256)


def jars_key() -> str:
    """Return a short text that differs for each set of jars."""
    return f"{KAFKA_VERSION}-{hashlib.sha256(LOCK_FILE.read_bytes()).hexdigest()[:12]}"


def fetch_kafka_jars(progress: ProgressCallback = no_progress) -> list[Path]:
    """Return the broker's class path, downloading what the cache lacks.

    Safe against other processes that do the same, and against an end in the middle: a jar becomes part of the
    class path only after its checksum was right.

    Raises:
        LocalServiceError: a jar could not be fetched, or is not the one that was pinned.
    """
    jars = pinned_jars()
    home = cache_directory() / f"kafka-{jars_key()}"
    paths = [home / "jars" / jar.file_name for jar in jars]
    if all(path.exists() for path in paths):
        return paths
    with file_lock(home / "lock", timeout=LOCK_TIMEOUT_SECONDS, on_wait=waiting_for("kafka", progress)):
        missing = [(jar, path) for jar, path in zip(jars, paths, strict=True) if not path.exists()]
        if missing:
            _fetch_all(missing, home / "maven", progress)
            for cache in home.glob("*.aot"):
                cache.unlink()  # made with other files: Java compares their times
    return paths


def _fetch_all(missing: list[tuple[PinnedJar, Path]], repository: Path, progress: ProgressCallback) -> None:
    context = maven_context(repository)
    step = f"fetching {len(missing)} jars of Apache Kafka {KAFKA_VERSION} (43 MB, once per user)"
    with Stopwatch("kafka", step, progress), ThreadPoolExecutor(DOWNLOADS_AT_ONCE) as pool:
        downloads = [pool.submit(fetch_pinned, context, jar, path) for jar, path in missing]
        try:
            for download in downloads:
                download.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def maven_context(repository: Path) -> Any:
    """Return jgo's way to a repository of jars; what is downloaded passes through the folder `repository`."""
    # Nothing is imported from jgo before it is needed: it pulls in an HTTP client.
    require_package("jgo", "resolves the Kafka jars")
    from jgo.config import GlobalSettings
    from jgo.constants import MAVEN_CENTRAL_URL
    from jgo.maven import MavenContext

    # Mirrors of a company's network come first; what they serve is checked like everything else.
    repositories = {**GlobalSettings.load().repositories, "central": MAVEN_CENTRAL_URL}
    return MavenContext(repo_cache=repository, remote_repos=repositories, timeout=REQUEST_TIMEOUT_SECONDS)


def fetch_pinned(context: Any, jar: PinnedJar, target: Path) -> None:
    """Download one jar, some more times where the network fails, and move it to `target` when it is right.

    Raises:
        LocalServiceError: it could not be fetched, or is not the one that was pinned.
    """
    artifact = context.create_dependency(jar.coordinate).artifact
    reason = ""
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(BACKOFF_SECONDS * 2**attempt)
        try:
            downloaded = artifact.resolve()
        except (OSError, RuntimeError) as error:  # OSError is also what the HTTP client's errors derive from
            reason = str(error)
            # What did arrive would be taken for the whole the next time.
            artifact.cached_path.unlink(missing_ok=True)
            continue
        found = hashlib.sha256(downloaded.read_bytes()).hexdigest()
        if found == jar.sha256:
            target.parent.mkdir(parents=True, exist_ok=True)
            downloaded.replace(target)
            return
        # Cut short by an earlier end, or changed on its way: never used, fetched again.
        downloaded.unlink()
        reason = f"its SHA-256 is {found}, expected {jar.sha256}"
    raise LocalServiceError(
        f"{jar.coordinate} could not be fetched in {ATTEMPTS} attempts: {reason}",
        hint=(
            "check the network and proxy settings, or name a mirror under [repositories] in ~/.config/jgo.conf, and "
            "repeat; what was fetched already is kept"
        ),
    )
