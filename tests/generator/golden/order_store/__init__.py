"""The versions of order_store."""
