"""The memory back end: everything `IMailStore` promises except surviving the process.  For tests, demos and embedding.

Every method finishes without suspending, and no file is touched.
"""

from livemail.storage.memory.store import MemoryStore

__all__ = ["MemoryStore"]
