"""Domains and aliases of the LMDB back end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from zope.interface import implementer

from livemail.interfaces.addresses import AliasRecord, DomainRecord, IAddressBook
from livemail.storage.disk import Disk
from livemail.storage.lmdb.operations.addresses import PutAlias, PutDomain, RemoveAlias, RemoveDomain
from livemail.storage.lmdb.operations.group import Operation
from livemail.storage.lmdb.reader import Reader


class Write(Protocol):
    """`LMDBStore.write`."""

    def __call__(self, operation: Operation, *, frees: bool = False) -> Deferred[Any]:
        """Run an operation in the next group."""


@implementer(IAddressBook)
class LMDBAddressBook:
    """See `IAddressBook`."""

    def __init__(self, reader: Callable[[], Reader], write: Write, disk: Disk) -> None:
        """reader: raises when the store is closed."""
        self._reader = reader
        self._write = write
        self._disk = disk

    async def domains(self) -> Sequence[DomainRecord]:
        """See `IAddressBook.domains`."""
        return self._reader().domains()

    async def put_domain(self, record: DomainRecord, *, is_new: bool) -> None:
        """See `IAddressBook.put_domain`.  Raises StorageFull."""
        self._disk.refuse_if_full()
        await self._write(PutDomain(record, is_new=is_new))

    async def remove_domain(self, name: str) -> None:
        """See `IAddressBook.remove_domain`."""
        await self._write(RemoveDomain(name), frees=True)

    async def aliases(self) -> Sequence[AliasRecord]:
        """See `IAddressBook.aliases`."""
        return self._reader().aliases()

    async def alias(self, local_part: str, domain: str) -> AliasRecord | None:
        """See `IAddressBook.alias`."""
        return self._reader().alias(local_part, domain)

    async def put_alias(self, record: AliasRecord, *, is_new: bool) -> None:
        """See `IAddressBook.put_alias`.  Raises StorageFull."""
        self._disk.refuse_if_full()
        await self._write(PutAlias(record, is_new=is_new))

    async def remove_alias(self, local_part: str, domain: str) -> None:
        """See `IAddressBook.remove_alias`."""
        await self._write(RemoveAlias(local_part, domain), frees=True)
