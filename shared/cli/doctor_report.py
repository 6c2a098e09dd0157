"""What a check found, and how checks are run: whatever one of them meets becomes a line of the report."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Literal

import msgspec

from omnibase_infra.shared.core.errors import OmnibaseError

_SHOWN: Final = 3

CheckState = Literal["ok", "wrong", "skipped"]


class CheckResult(msgspec.Struct, frozen=True):
    """One line of the report.

    Attributes:
        check: what was looked at, for example `topics`.
        state: `ok`, `wrong`, or `skipped` because something it builds on is wrong or not there.
        message: what was found.
        action: what to do; empty unless something is wrong.
    """

    check: str
    state: CheckState
    message: str
    action: str = ""


def ok(check: str, message: str) -> CheckResult:
    """Return a result that needs nobody."""
    return CheckResult(check, "ok", message)


def wrong(check: str, message: str, action: str) -> CheckResult:
    """Return a result that somebody has to act on."""
    return CheckResult(check, "wrong", message, action)


def skipped(check: str, message: str) -> CheckResult:
    """Return a result that nothing could be said about."""
    return CheckResult(check, "skipped", message)


def run_check(check: str, look: Callable[[], Iterable[CheckResult]], action: str = "") -> list[CheckResult]:
    """Return what a check found; errors, also unforeseen ones, are findings.

    Args:
        check: its name.
        look: finds results; what it yielded before an error is kept.
        action: what to do about an error that does not say so itself.
    """
    found: list[CheckResult] = []
    try:
        found.extend(look())
    except OmnibaseError as error:
        found.append(wrong(check, error.message, error.hint or action))
    except Exception as error:  # noqa: BLE001 - the other checks go on, and nobody is shown a traceback
        found.append(wrong(check, f"could not be looked at: {type(error).__name__}: {error}", "report this error"))
    return found


def listed(texts: Sequence[str]) -> str:
    """Return a few of the texts in one line, and how many more there are."""
    rest = f"; and {len(texts) - _SHOWN} more" if len(texts) > _SHOWN else ""
    return "; ".join(texts[:_SHOWN]) + rest
