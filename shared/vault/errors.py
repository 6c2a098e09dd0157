"""What the Vault server said no to, as errors of the project's tree. No message holds a value of a secret."""

from __future__ import annotations

from typing import Final

from omnibase_infra.shared.core.errors import OmnibaseError

DEPENDENCY: Final = "vault"


class VaultRefusedError(OmnibaseError):
    """The Vault server understood the request and said no: a policy, a wrong path, a bad log-in."""

    code = "vault-refused"


class VaultSecretMissingError(VaultRefusedError):
    """There is no such secret, or its newest version is deleted."""

    code = "vault-secret-missing"


class VaultLeaseEndedError(VaultRefusedError):
    """A lease can't be renewed: it has ended, was revoked, or has reached its longest time."""

    code = "vault-lease-ended"
