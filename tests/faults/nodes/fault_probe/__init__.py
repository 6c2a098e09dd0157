"""The versions of fault_probe."""
