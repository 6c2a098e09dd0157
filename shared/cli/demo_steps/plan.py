"""What a run of the demo is asked to do, and how it says that it could not do it."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Final

import msgspec

from omnibase_infra.shared.core.errors import OmnibaseError
from omnibase_infra.shared.local_services.log_reader import tail

NODE: Final = "postgres_adapter"
OPERATION: Final = "execute_statement"

_SHOWN_LOG_LINES: Final = 15


class DemoPlan(msgspec.Struct, frozen=True, kw_only=True):
    """One run.

    Attributes:
        commands / keys: how many order events, over how many orders.
        keep: leave topics and database when done.
        state: folder of the local services; logs go into `demo/<realm>` in it.
        name: short and random, in the names of everything that belongs to this run.
    """

    commands: int
    keys: int
    keep: bool
    state: Path
    name: str = msgspec.field(default_factory=lambda: secrets.token_hex(4))

    @property
    def tenant(self) -> str:
        """Return the tenant part of the realm."""
        return f"demo-{self.name}"

    @property
    def database(self) -> str:
        """Return the name of the database."""
        return f"demo_{self.name}"


class DemoError(OmnibaseError):
    """The demo could not go on; nothing is proved either way."""

    code = "demo-failed"


def with_log(message: str, *logs: Path) -> DemoError:
    """Return the error that shows the ends of logs."""
    ends = [f"the end of {path}:\n" + "\n".join(f"  {line}" for line in tail(path, _SHOWN_LOG_LINES)) for path in logs]
    return DemoError("\n".join([message, *ends]))
