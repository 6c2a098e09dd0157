"""A real PostgreSQL that speaks TLS, for tests of certificates and logins.

The server of the `local` extra is built without TLS, so the programs are those of Zonky's build: a jar pinned by its
SHA-256, fetched once per user into the cache. Certificates can be exchanged while it runs.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import signal
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from omnibase_infra.shared.core.errors import LocalServiceError
from omnibase_infra.shared.core.settings import cache_directory
from omnibase_infra.shared.local_services import free_ports
from omnibase_infra.shared.local_services.file_lock import file_lock
from omnibase_infra.shared.local_services.kafka_jars import PinnedJar, fetch_pinned, maven_context
from omnibase_infra.shared.local_services.postgres_cluster import DATABASE, SUPERUSER, PostgresCluster
from omnibase_infra.shared.local_services.postgres_service import SERVER_OPTIONS
from omnibase_infra.shared.local_services.server_process import ServerProcess, wait_until_ready
from omnibase_infra.shared.local_services.unprivileged_user import UnprivilegedUser, shared_folder, user_to_drop_to
from omnibase_infra.shared.local_services.whole_folders import clear_left_in_progress, folder_in_progress, remove_whole
from omnibase_infra.shared.testing.certificates import ServerCertificate

VERSION: Final = "18.0.0"
HOST: Final = "localhost"
_READY_SECONDS: Final = 60.0
_LOCK_SECONDS: Final = 300.0
_RELOADED: Final = "reloading configuration files"
_SHA256: Final = {
    "linux-amd64": "5dbbdf754ddb3ae2169b7864de4b7c294ec6add47999331a64f1c6c85e862a0c",
    "linux-arm64v8": "d1422a51547b9ef34e3c371d0709892f37bbc47ef478e25c4dcc6d8d45b14c4c",
    "darwin-amd64": "cfe6b5dcfc8a4483db5d1d23ef73c172c5ca1a2574565760895f054c4325f3ee",
    "darwin-arm64v8": "5c69780b31fe4b6f5d3a8f824f46bffa4376ba6182befa64cc42f1539db091ec",
}
# Passwords over TLS only: what is not encrypted finds no line, and is refused.
_ACCESS: Final = "hostssl all all 127.0.0.1/32 scram-sha-256\nhostssl all all ::1/128 scram-sha-256\n"


class TlsPostgres:
    """A running server. `dsn` is without TLS parameters; who connects adds them."""

    def __init__(self, cluster: PostgresCluster, process: ServerProcess, port: int) -> None:
        self._cluster = cluster
        self._process = process
        self.port = port

    def dsn(self, host: str = HOST, *, user: str = SUPERUSER, password: str | None = None) -> str:
        """Return its address by one of its names, as the superuser or somebody else."""
        secret = self._cluster.password() if password is None else password
        return f"postgresql://{user}:{secret}@{host}:{self.port}/{DATABASE}"

    def use(self, certificate: ServerCertificate) -> None:
        """Serve this certificate from the next connection on."""
        _install(certificate, self._cluster)
        record = self._process.record()
        assert record is not None, "the server has ended"
        seen = self._process.log_path.read_text(encoding="utf-8").count(_RELOADED)
        os.kill(record.pid, signal.SIGHUP)
        log = self._process.log_path
        wait_until_ready(
            [self._process], lambda: log.read_text(encoding="utf-8").count(_RELOADED) > seen, timeout=_READY_SECONDS
        )


@contextmanager
def tls_postgres(folder: Path, certificate: ServerCertificate) -> Iterator[TlsPostgres]:
    """Run a server with one superuser and one database for the length of the block.

    Args:
        folder: for the log and, where the server's user can enter it, the data.
        certificate: served first.

    Raises:
        LocalServiceError: its programs cannot be had for this machine, or it does not start.
    """
    user = user_to_drop_to()
    programs = _programs(user)
    home = folder / "tls-postgres"
    if user is not None and not user.can_enter(folder):
        digest = hashlib.sha256(str(folder).encode()).hexdigest()[:16]
        home = shared_folder(user, [Path("/var/lib/omnibase-infra")]) / f"tls-postgres-{digest}"
    home.mkdir(exist_ok=True)
    home.chmod(0o755)
    cluster = PostgresCluster(home, user)
    process = ServerProcess(
        "postgres with TLS",
        pid_file=folder / "tls-postgres.pid",
        log_path=folder / "tls-postgres.log",
        marker=str(cluster.data),
        stop_signals=((signal.SIGINT, 10.0), (signal.SIGQUIT, 5.0)),
    )
    try:
        cluster.initialise(programs)
        _install(certificate, cluster)
        (home / "access.conf").write_text(_ACCESS, encoding="ascii")
        (port,) = free_ports.choose(1)
        options = SERVER_OPTIONS | {
            "port": str(port),
            "fsync": "off",
            "ssl": "on",
            "ssl_cert_file": str(home / "server.crt"),
            "ssl_key_file": str(home / "server.key"),
            "hba_file": str(home / "access.conf"),
        }
        settings = [f"--{name}={value}" for name, value in options.items()]
        command: list[str | Path] = [programs / "postgres", "-D", cluster.data, *settings]
        process.spawn(command, user=user, cwd=cluster.data)
        wait_until_ready([process], lambda: cluster.is_ready(port), timeout=_READY_SECONDS)
        yield TlsPostgres(cluster, process, port)
    finally:
        process.stop()
        remove_whole(home)


def _install(certificate: ServerCertificate, cluster: PostgresCluster) -> None:
    for source, name, mode in ((certificate.chain, "server.crt", 0o644), (certificate.key, "server.key", 0o600)):
        target = cluster.home / name
        shutil.copyfile(source, target)
        target.chmod(mode)
        if cluster.user is not None:
            os.chown(target, cluster.user.uid, cluster.user.gid)


def _programs(user: UnprivilegedUser | None) -> Path:
    """Return the folder with `postgres` and `initdb`, fetched and unpacked when this user has not done so before."""
    machine = "arm64v8" if platform.machine() in ("arm64", "aarch64") else "amd64"
    build = f"{sys.platform}-{machine}"
    if build not in _SHA256:
        raise LocalServiceError(f"there is no PostgreSQL with TLS for {build}")
    root = cache_directory()
    if user is not None:
        root = shared_folder(user, [root, Path("/var/cache/omnibase-infra"), Path("/var/tmp/omnibase-infra")])  # noqa: S108
    target = root / f"postgresql-tls-{VERSION}"
    with file_lock(target.with_name(target.name + ".lock"), timeout=_LOCK_SECONDS):
        if not target.exists():
            jar = root / f"postgresql-tls-{VERSION}.jar"
            artifact = f"embedded-postgres-binaries-{build}"
            pinned = PinnedJar("io.zonky.test.postgres", artifact, VERSION, _SHA256[build])
            fetch_pinned(maven_context(root / "maven"), pinned, jar)
            _unpack(jar, target)
            jar.unlink()
    return target / "bin"


def _unpack(jar: Path, target: Path) -> None:
    clear_left_in_progress(target.parent, f"unpack-{target.name}")
    with folder_in_progress(target.parent, f"unpack-{target.name}") as temporary, zipfile.ZipFile(jar) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".txz"))
        tree = temporary / "tree"
        with archive.open(name) as packed, tarfile.open(fileobj=packed, mode="r:xz") as files:
            files.extractall(tree, filter="data")
        for path in (tree, *tree.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        tree.rename(target)
