"""The settings of one command: read, checked, and their references to secrets resolved for as long as it runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from omnibase_infra.shared.core.settings import Settings, load_settings
from omnibase_infra.shared.secrets.resolution import resolve_secrets


def load_process_settings(env_file: Path | None = None, **overrides: Any) -> Settings:
    """Return the settings with their secrets; as `load_settings` otherwise. Asks the Vault server when one is named.

    Raises:
        SettingsError: names every variable that is missing or malformed, or every reference that cannot be resolved.
        DependencyUnavailableError: the Vault server cannot be reached.
    """
    return resolve_secrets(load_settings(env_file, **overrides))
