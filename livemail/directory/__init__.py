"""Which domains, accounts and addresses exist."""

from livemail.directory.book import AddressBook
from livemail.directory.store import StoreDirectory

__all__ = ["AddressBook", "StoreDirectory"]
