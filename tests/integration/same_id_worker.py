"""`omninode run` of a transactional worker with the transactional id that every process of this module has."""

from __future__ import annotations

from uuid import UUID

from omnibase_infra.shared.cli.main import main
from omnibase_infra.shared.runtime import transaction_setup


class _SameUuid:
    """Stands for the `uuid` module in there."""

    @staticmethod
    def uuid4() -> UUID:
        """Return the one id."""
        return UUID(int=7)


if __name__ == "__main__":
    transaction_setup.uuid = _SameUuid  # type: ignore[assignment,attr-defined]
    main()
