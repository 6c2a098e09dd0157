"""OpenBao and Vault: reading secrets and renewing their leases. Imported, with hvac, only where one is asked for."""
