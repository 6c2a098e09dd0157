"""Exit codes of every `omninode` command; scripts may rely on them."""

from __future__ import annotations

from typing import Final

OK: Final = 0
FAILED: Final = 1  # something did not work that may work later
USAGE: Final = 2  # the call, the settings or a contract are wrong; for `topics plan`: there are changes
UNHEALTHY: Final = 3  # something is not healthy, or drifts from its contract
TIMED_OUT: Final = 4  # no answer within the time-out
ANSWERED_FAILED: Final = 5  # the worker answered that it could not do it
