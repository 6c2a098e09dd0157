"""Fetch what references in settings refer to: each secret once, however many settings take a value from it.

The client of the Vault server, and hvac with it, is imported when there is a `vault://` reference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Final

from pydantic import SecretStr

from omnibase_infra.shared.core.errors import DependencyUnavailableError, OmnibaseError, SettingsError
from omnibase_infra.shared.core.secret_references import SecretReference
from omnibase_infra.shared.core.settings import Settings, secret_references, variable
from omnibase_infra.shared.secrets.secret_files import read_secret_file

if TYPE_CHECKING:
    from omnibase_infra.shared.vault.vault_client import VaultClient, VaultSecret

# What it takes to reach the Vault server cannot lie in it.
VAULT_LOGIN: Final = ("vault_token", "vault_role_id", "vault_secret_id")


def resolve_secrets(settings: Settings) -> Settings:
    """Return the settings with the secrets in the place of their references. For commands and programs that end soon.

    Blocks while the Vault server is asked, if a reference names it. A lease that comes with a secret is not renewed:
    a process that lives longer uses `RotatingSecrets`.

    Raises:
        SettingsError: names every setting and reference that cannot be resolved, and why; never a value.
        DependencyUnavailableError: the Vault server cannot be reached now.
    """
    references = secret_references(settings)
    if not references:
        return settings
    settings = with_secrets(settings, read_files(of_scheme(references, "file")))
    wanted = of_scheme(references, "vault")
    if not wanted:
        return settings
    with closing(open_vault(settings, wanted)) as vault:
        return with_secrets(settings, values_of(wanted, read_vault(vault, wanted)))


def of_scheme(references: Mapping[str, SecretReference], scheme: str) -> dict[str, SecretReference]:
    """Return the references of one scheme, by field."""
    return {name: one for name, one in references.items() if one.scheme == scheme}


def with_secrets(settings: Settings, values: Mapping[str, str]) -> Settings:
    """Return the settings with these secrets."""
    return settings.model_copy(update={name: SecretStr(value) for name, value in values.items()})


def read_files(references: Mapping[str, SecretReference]) -> dict[str, str]:
    """Return what the files of `file://` references hold, by field.

    Raises:
        SettingsError: one cannot be had; names all of those.
    """
    values: dict[str, str] = {}
    problems: list[str] = []
    for name, reference in references.items():
        try:
            values[name] = read_secret_file(reference.path)
        except SettingsError as error:
            problems.append(f"{described(name, reference)} {error.message}")
    _raise_all(problems)
    return values


def open_vault(settings: Settings, wanted: Mapping[str, SecretReference]) -> VaultClient:
    """Return a client of the Vault server that `vault://` references need; nothing is asked yet.

    Raises:
        SettingsError: the settings do not say how to reach it and log in.
    """
    circular = [described(name, wanted[name]) for name in VAULT_LOGIN if name in wanted]
    _raise_all([f"{one} is what it takes to log in there" for one in circular])
    from omnibase_infra.shared.vault.vault_client import VaultClient, VaultOptions

    try:
        return VaultClient(VaultOptions.from_settings(settings))
    except SettingsError as error:
        users = ", ".join(variable(name) for name in wanted)
        raise SettingsError(error.message, hint=f"a vault:// reference is in {users}") from None


def read_vault(vault: VaultClient, wanted: Mapping[str, SecretReference]) -> dict[str, VaultSecret]:
    """Return the secrets that references name, by path: one read for each, so that user and password belong together.

    Raises:
        SettingsError: the server refuses some, or they lack the key; names all of those.
        DependencyUnavailableError: the server is not available.
    """
    secrets: dict[str, VaultSecret] = {}
    problems: list[str] = []
    for path in sorted({reference.path for reference in wanted.values()}):
        users = {name: reference for name, reference in wanted.items() if reference.path == path}
        try:
            secrets[path] = vault.read(path)
            values_of(users, secrets)
        except DependencyUnavailableError as error:
            raise DependencyUnavailableError(
                f"{', '.join(described(*one) for one in users.items())} cannot be read now; {error.message}",
                dependency=error.dependency,
                hint=error.hint,
            ) from error
        except SettingsError as error:
            problems.append(error.message)
        except OmnibaseError as error:
            problems += [f"{described(*one)} was refused, {error.message}" for one in users.items()]
    _raise_all(problems)
    return secrets


def values_of(wanted: Mapping[str, SecretReference], secrets: Mapping[str, VaultSecret]) -> dict[str, str]:
    """Return the value of each field from the secrets that were read.

    Raises:
        SettingsError: a secret lacks a key, or holds nothing under it; names all of those.
    """
    values = {name: secrets[reference.path].values.get(reference.key, "") for name, reference in wanted.items()}
    if missing := [name for name, value in values.items() if not value]:
        raise SettingsError("\n  ".join(f"{described(name, wanted[name])} has no such key" for name in missing))
    return values


def described(name: str, reference: SecretReference) -> str:
    """Return how errors and logs call a setting that holds a reference. No colon follows: it would read as a value."""
    return f"{variable(name)} (from {reference})"


def _raise_all(problems: Iterable[str]) -> None:
    if lines := list(problems):
        raise SettingsError("secrets cannot be resolved:\n  " + "\n  ".join(lines))
