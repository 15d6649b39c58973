"""Which domains, accounts and addresses exist."""

from livemail.directory.store import StoreDirectory

__all__ = ["StoreDirectory"]
