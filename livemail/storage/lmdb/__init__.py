"""The mail store on LMDB and segment files."""

from livemail.storage.lmdb.store import LMDBStore

__all__ = ["LMDBStore"]
