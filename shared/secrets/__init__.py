"""The secrets of a process: references in settings are resolved once at the start, and kept fresh while it runs."""

from __future__ import annotations

from omnibase_infra.shared.secrets.resolution import resolve_secrets
from omnibase_infra.shared.secrets.rotating_secrets import RotatingSecrets

__all__ = ["RotatingSecrets", "resolve_secrets"]
