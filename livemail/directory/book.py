"""Changing the store's domains and aliases: checked against everything the directory knows, kept, and in effect at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from livemail.directory.aliases import Name, fold
from livemail.directory.settings import parse_address
from livemail.directory.store import MEMBERS, StoreDirectory
from livemail.interfaces.addresses import AliasRecord, DomainRecord, DomainRole, IAddressBook
from livemail.interfaces.runtime import Now
from livemail.interfaces.storage import IMailStore
from livemail.mail.address import Address
from livemail.mail.domains import domain_key, spellings
from livemail.mail.errors import DomainInUse

MAX_TARGETS: Final = 10_000
"""Of one alias: at some 6 µs each, RCPT for the largest takes less than a tenth of a second."""


class NotPossible(Exception):
    """What was asked for makes no sense here; the text says why and what to do."""


class NotThere(NotPossible):
    """There is no such domain or alias."""


class StillUsed(NotPossible):
    """Accounts or aliases are left."""


class AlreadyThere(NotPossible):
    """The configuration file or the store has it."""


class AddressBook:
    """Domains and aliases, as the administrator changes them.

    Raises, everywhere, NotPossible, and what `IAddressBook` raises.
    """

    def __init__(self, store: IMailStore, directory: StoreDirectory, now: Now) -> None:
        self._store = store
        self._book: IAddressBook = store.addresses
        self._directory = directory
        self._now = now

    # ---------------------------------------------------------------------------------------------------- domains

    async def add_domain(self, name: str, role: DomainRole, catch_all: str, postmaster: str) -> DomainRecord:
        """Keep another domain."""
        key = domain_name(name)
        known = self._directory.domains().get(key)
        if known is not None and known[1]:
            raise AlreadyThere(f"{key} is a domain of the configuration file already; nothing was changed")
        if known is not None:
            raise AlreadyThere(f"{key} exists already; `livemail domain set {key}` changes it")
        record = DomainRecord(key, role, created=int(self._now()))
        record = await self._with_addresses(record, catch_all, postmaster, is_local=role == "local")
        await self._book.put_domain(record, is_new=True)
        self._directory.domain_changed(key, record)
        return record

    async def set_domain(
        self, name: str, role: DomainRole | None, catch_all: str | None, postmaster: str | None
    ) -> DomainRecord:
        """Change a domain's settings; None leaves one as it is.  Those of the configuration file's domains are kept here too."""
        key = domain_name(name)
        record, is_configured = self._domain(key)
        if role is not None and role != record.role:
            if is_configured:
                raise NotPossible(f"{key} is a {record.role} domain in the configuration file; change it there")
            if role == "backup":
                await self._refuse_users(key)
            record = msgspec.structs.replace(record, role=role)
        record = await self._with_addresses(record, catch_all, postmaster, is_local=record.role == "local")
        is_new = not any(each.name == key for each in await self._book.domains())
        await self._book.put_domain(record, is_new=is_new)
        self._directory.domain_changed(key, record)
        return record

    async def remove_domain(self, name: str) -> DomainRecord:
        """Forget a domain nothing is left of."""
        key = domain_name(name)
        record, is_configured = self._domain(key)
        if is_configured:
            raise NotPossible(f"{key} is a domain of the configuration file; remove it there, from [directory]")
        try:
            await self._book.remove_domain(key)
        except DomainInUse as error:
            advice = "`livemail account list` and `livemail alias list` show them; remove them first"
            raise StillUsed(f"{error.text}; {advice}") from None
        self._directory.domain_changed(key, None)
        return record

    def _domain(self, key: str) -> tuple[DomainRecord, bool]:
        known = self._directory.domains().get(key)
        if known is None:
            raise NotThere(
                f"there is no domain {key}; `livemail domain list` shows all, `livemail domain add` adds one"
            )
        return known

    async def _with_addresses(
        self, record: DomainRecord, catch_all: str | None, postmaster: str | None, *, is_local: bool
    ) -> DomainRecord:
        if not is_local and (catch_all or postmaster):
            raise NotPossible(
                f"{record.name} is a backup domain: its own host knows its addresses, so it has no catch-all"
            )
        if catch_all is not None:
            record = msgspec.structs.replace(record, catch_all=await self._reachable(catch_all, record.name))
        if postmaster is not None:
            record = msgspec.structs.replace(record, postmaster=await self._reachable(postmaster, record.name))
        return record

    async def _reachable(self, text: str, domain: str) -> str:
        """Return an address, completed with this domain; "" as it is."""
        address = self.completed(text, domain)
        is_known = domain in self._directory.domains()  # a domain that is being added has nobody yet
        if address and is_known and not await self._directory.leads_somewhere(address):
            raise NotPossible(f"there is no account or alias {address}; add it first")
        return address

    async def count(self, key: str) -> tuple[int, int]:
        """Return how many accounts and aliases of the store a domain has.  key: see `domain_name`."""
        ends = tuple(f"@{name}" for name in spellings(key))
        accounts = sum(each.name.endswith(ends) for each in await self._store.accounts())
        return accounts, sum(each.domain == key for each in await self._book.aliases())

    async def _refuse_users(self, key: str) -> None:
        accounts, aliases = await self.count(key)
        if accounts or aliases:
            left = DomainInUse.of(key, accounts, aliases).text
            raise StillUsed(f"{left}; remove them, then make it a backup domain")

    # ---------------------------------------------------------------------------------------------------- aliases

    async def add_alias(
        self, address: str, targets: Sequence[str], senders: Sequence[str], *, keep_copy: bool
    ) -> AliasRecord:
        """Keep another alias."""
        name = self._alias_name(address)
        if self._directory.is_configured_alias(name):
            raise AlreadyThere(f"{'@'.join(name)} is an alias of the configuration file already; nothing was changed")
        if await self._book.alias(*name) is not None:
            address = "@".join(name)
            raise AlreadyThere(f"{address} exists already; `livemail alias set {address} --add TARGET` adds to it")
        record = AliasRecord(name[0], name[1], (), keep_copy=keep_copy, created=int(self._now()))
        return await self._put(record, self._targets(targets), self._senders(senders), is_new=True)

    async def set_alias(
        self,
        address: str,
        *,
        add: Sequence[str],
        drop: Sequence[str],
        senders: Sequence[str] | None,
        keep_copy: bool | None,
    ) -> AliasRecord:
        """Change an alias; None leaves a setting as it is."""
        record = await self.alias(address)
        dropped = set(self._targets(drop))
        missing = dropped - set(record.targets)
        if missing:
            raise NotPossible(
                f"{record.address} does not lead to {', '.join(sorted(missing)[:5])}; nothing was changed"
            )
        kept = [target for target in record.targets if target not in dropped]
        if keep_copy is not None:
            record = msgspec.structs.replace(record, keep_copy=keep_copy)
        wanted = record.senders if senders is None else self._senders(senders)
        return await self._put(record, [*kept, *self._targets(add)], wanted, is_new=False)

    async def remove_alias(self, address: str) -> AliasRecord:
        """Forget an alias."""
        record = await self.alias(address)
        await self._book.remove_alias(record.local_part, record.domain)
        self._directory.alias_changed((record.local_part, record.domain), None)
        return record

    async def aliases(self) -> Sequence[AliasRecord]:
        """Return all aliases of the store."""
        return await self._book.aliases()

    async def alias(self, address: str) -> AliasRecord:
        """Return one alias of the store."""
        name = self._alias_name(address)
        found = await self._book.alias(*name)
        if found is None:
            if self._directory.is_configured_alias(name):
                raise NotPossible(f"{'@'.join(name)} is an alias of the configuration file; change it there")
            raise NotThere(f"there is no alias {'@'.join(name)}; `livemail alias list` shows all")
        return found

    async def _put(
        self, record: AliasRecord, targets: Sequence[str], senders: Sequence[str], *, is_new: bool
    ) -> AliasRecord:
        record = msgspec.structs.replace(record, targets=tuple(dict.fromkeys(targets)), senders=tuple(senders))
        if not record.targets:
            raise NotPossible(f"{record.address} would lead nowhere; name at least one target, or remove it")
        if len(record.targets) > MAX_TARGETS:
            raise NotPossible(f"{record.address} would have {len(record.targets)} targets; {MAX_TARGETS} are the most")
        own_account = await self._store.account_named(record.address)
        names_itself = record.address in record.targets
        if (record.keep_copy or names_itself) and own_account is None:
            what = "a copy is to be kept for" if record.keep_copy else "the alias names as its own target"
            raise NotPossible(f"there is no account {record.address}, which {what}; add the account first")
        await self._book.put_alias(record, is_new=is_new)
        self._directory.alias_changed((record.local_part, record.domain), record)
        return record

    def _alias_name(self, text: str) -> Name:
        address = self._parsed(text)
        key = domain_key(address.domain) if address.domain else domain_key(self._directory.local_domains()[0])
        if not self._directory.is_local_domain(key) or key.startswith("["):
            known = ", ".join(self._directory.local_domains()[:5])
            raise NotPossible(f"{key} is not a local domain ({known}); `livemail domain add {key}` makes it one")
        return fold(address.local_part), key

    def _targets(self, texts: Sequence[str]) -> list[str]:
        return [self.completed(text) for text in texts]

    def _senders(self, texts: Sequence[str]) -> list[str]:
        return [text if text == MEMBERS else _sender_domain(text) or self.completed(text) for text in texts]

    def completed(self, text: str, domain: str = "") -> str:
        """Return an address with a domain, the default one where none is given; "" as it is."""
        if not text:
            return ""
        address = self._parsed(text)
        domain = domain_key(address.domain or domain or self._directory.local_domains()[0])
        local = fold(address.local_part) if self._directory.is_local_domain(domain) else address.local_part
        return f"{local}@{domain}"

    @staticmethod
    def _parsed(text: str) -> Address:
        try:
            return parse_address(text)
        except ValueError as error:
            raise NotPossible(f"{text!r} is not an address: {error}") from None


def domain_name(text: str) -> str:
    """Return a domain's key.  Raises NotPossible."""
    try:
        key = domain_key(text.strip())
    except ValueError as error:
        raise NotPossible(f"{text!r} is not a domain: {error}") from None
    if key.startswith("["):
        raise NotPossible(f"{text!r} is an address literal; those stand in [directory] local_domains only")
    return key


def _sender_domain(text: str) -> str:
    return f"@{domain_name(text[1:])}" if text.startswith("@") else ""
