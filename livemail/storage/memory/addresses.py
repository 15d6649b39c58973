"""Domains and aliases of the memory back end."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from zope.interface import implementer

from livemail.interfaces.addresses import AliasRecord, DomainRecord, IAddressBook
from livemail.mail.errors import AliasExists, DomainExists, DomainInUse, NoSuchAlias, NoSuchDomain


@implementer(IAddressBook)
class MemoryAddressBook:
    """See `IAddressBook`."""

    def __init__(self, check_open: Callable[[], None], logins: Callable[[], Iterable[str]]) -> None:
        """check_open: raises when the store is closed.  logins: of all its accounts."""
        self._check_open = check_open
        self._logins = logins
        self._domains: dict[str, DomainRecord] = {}
        self._aliases: dict[tuple[str, str], AliasRecord] = {}

    async def domains(self) -> Sequence[DomainRecord]:
        """See `IAddressBook.domains`."""
        self._check_open()
        return [self._domains[name] for name in sorted(self._domains)]

    async def put_domain(self, record: DomainRecord, *, is_new: bool) -> None:
        """See `IAddressBook.put_domain`."""
        self._check_open()
        if is_new and record.name in self._domains:
            raise DomainExists
        if not is_new and record.name not in self._domains:
            raise NoSuchDomain
        self._domains[record.name] = record

    async def remove_domain(self, name: str) -> None:
        """See `IAddressBook.remove_domain`."""
        self._check_open()
        if name not in self._domains:
            raise NoSuchDomain
        accounts = sum(login.endswith(f"@{name}") for login in self._logins())
        aliases = sum(domain == name for domain, _ in self._aliases)
        if accounts or aliases:
            raise DomainInUse.of(name, accounts, aliases)
        del self._domains[name]

    async def aliases(self) -> Sequence[AliasRecord]:
        """See `IAddressBook.aliases`."""
        self._check_open()
        return [self._aliases[key] for key in sorted(self._aliases)]

    async def alias(self, local_part: str, domain: str) -> AliasRecord | None:
        """See `IAddressBook.alias`."""
        self._check_open()
        return self._aliases.get((domain, local_part))

    async def put_alias(self, record: AliasRecord, *, is_new: bool) -> None:
        """See `IAddressBook.put_alias`."""
        self._check_open()
        key = (record.domain, record.local_part)
        if is_new and key in self._aliases:
            raise AliasExists
        if not is_new and key not in self._aliases:
            raise NoSuchAlias
        self._aliases[key] = record

    async def remove_alias(self, local_part: str, domain: str) -> None:
        """See `IAddressBook.remove_alias`."""
        self._check_open()
        if self._aliases.pop((domain, local_part), None) is None:
            raise NoSuchAlias

    def clear(self) -> None:
        """Forget everything."""
        self._domains.clear()
        self._aliases.clear()
