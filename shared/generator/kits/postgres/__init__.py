"""What the generator knows about PostgreSQL. Loaded by its entry point."""

from omnibase_infra.shared.generator.kits.postgres.kit import KIT

__all__ = ["KIT"]
