"""Runs the command line as usual and writes down, when the process ends, which modules it has loaded.

OMNIBASE_LOADED_MODULES=FILE python -m omnibase_infra.shared.testing.import_probe run NODE
"""

from __future__ import annotations

import atexit
import os
import sys
from pathlib import Path


def _write_down(file: Path) -> None:
    modules: dict[str, object] = dict(sys.modules)
    # A module that something else marked as missing is in the table, too, with nothing behind it.
    names = sorted(name for name, module in modules.items() if module is not None)
    file.write_text("\n".join(names), encoding="utf-8")


if __name__ == "__main__":
    atexit.register(_write_down, Path(os.environ["OMNIBASE_LOADED_MODULES"]))
    from omnibase_infra.shared.cli.main import main

    main()
