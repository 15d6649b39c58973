"""Which domains, accounts and addresses exist."""
