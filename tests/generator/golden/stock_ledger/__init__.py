"""The versions of stock_ledger."""
