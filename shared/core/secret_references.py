"""References to secrets: what a setting may hold in the place of a secret, so that the secret stays where it is kept.

`vault://mount/path#key` names a key of a secret in OpenBao or Vault, `file:///path` a file that holds nothing else.
This module knows their form alone; `shared.secrets` fetches what they refer to.
"""

from __future__ import annotations

import re
from typing import Final, Literal

import msgspec

from omnibase_infra.shared.core.errors import SettingsError

_SCHEMES: Final = ("vault://", "file://")
_VAULT: Final = re.compile(r"(?P<path>[^/#?\s]+(?:/[^/#?\s]+)+)#(?P<key>[^#\s]+)")
_VAULT_FORM: Final = "vault://mount/path#key"
_FILE_FORM: Final = "file:///absolute/path"


class SecretReference(msgspec.Struct, frozen=True, order=True):
    """Where a secret is kept. It is no secret itself and may be logged.

    Attributes:
        scheme: who keeps it.
        path: of the secret in the Vault server, mount first; or of the file.
        key: which value of that secret; empty for a file, which holds one.
    """

    scheme: Literal["vault", "file"]
    path: str
    key: str = ""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.path}#{self.key}" if self.key else f"{self.scheme}://{self.path}"


def is_reference(text: str) -> bool:
    """Return whether a value is meant as a reference, well formed or not."""
    return text.startswith(_SCHEMES)


def parse_reference(text: str) -> SecretReference | None:
    """Return what a value refers to, None for a value that is the secret itself.

    Raises:
        SettingsError: it is meant as a reference and is malformed; the message says how, without naming a setting.
    """
    if not is_reference(text):
        return None
    scheme, _, rest = text.partition("://")
    if scheme == "file":
        return _parse_file(text, rest)
    match = _VAULT.fullmatch(rest)
    if match is None or ".." in match["path"].split("/"):
        raise SettingsError(f"{text} is no reference of the form {_VAULT_FORM}")
    return SecretReference("vault", match["path"], match["key"])


def _parse_file(text: str, path: str) -> SecretReference:
    if not path.startswith("/") or path.endswith("/"):
        raise SettingsError(f"{text} is no reference of the form {_FILE_FORM}")
    if "#" in path:
        raise SettingsError(
            f"{text} has a #key: the file of a {_FILE_FORM} reference holds the secret and nothing else"
        )
    return SecretReference("file", path)
