"""What the generator knows about PostgreSQL. The kit is loaded by its entry point, so importing it imports psycopg."""

from omnibase_infra.shared.generator.kits.postgres.kit import KIT

__all__ = ["KIT"]
