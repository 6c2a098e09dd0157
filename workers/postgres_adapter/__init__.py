"""The versions of postgres_adapter."""
