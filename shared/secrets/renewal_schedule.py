"""When a secret is looked after again. Pure: times in seconds, chance as an argument."""

from __future__ import annotations

from typing import Final

from omnibase_infra.shared.resilience.retry_policy import RetryPolicy

# A lease is renewed after this share of its time, less up to `_SPREAD` of it: a fleet started together must not ask
# together, and a third of the time is left for an outage of the server.
_RENEW_AT: Final = 2 / 3
_SPREAD: Final = 0.1
# A lease that is granted for less than this share of its first time nears its longest time: new credentials are due.
_TOO_SHORT: Final = 0.5
# It never ends: the value there is may be good for longer than anybody says.
_AGAIN: Final = RetryPolicy(attempts=1, base=1.0, cap=30.0, jitter="equal")


def renewal_delay(lease_seconds: float, chance: float) -> float:
    """Return how long to wait before renewing something that is good for `lease_seconds`. `chance` is in [0, 1)."""
    return lease_seconds * (_RENEW_AT - _SPREAD * chance)


def refresh_delay(seconds: float, chance: float) -> float:
    """Return how long to wait before reading again what has no end: `seconds`, give or take a tenth."""
    return seconds * (1 - _SPREAD + 2 * _SPREAD * chance)


def retry_delay(failures: int, seconds_left: float | None, chance: float) -> float:
    """Return how long to wait after a failure: 1 s, doubling to 30 s, sooner when little time is left, half by chance."""
    delay = _AGAIN.ceiling(failures)
    if seconds_left is not None:
        delay = min(delay, max(_AGAIN.base, seconds_left / 4))
    return _AGAIN.jittered(delay, spread=lambda seconds: seconds * chance)


def is_running_out(granted_seconds: float, first_seconds: float) -> bool:
    """Return whether a renewed lease got so little time that it is near its end for good."""
    return granted_seconds < first_seconds * _TOO_SHORT
