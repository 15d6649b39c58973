"""The directory: the store's accounts, and the domains and aliases of the settings and of the store.

`resolve` runs for every RCPT, so its common case is two dictionary lookups and one read of the store: domains and aliases
are all in memory, folded, keyed and expanded before.  `load` reads those of the store; `livemail.directory.book` changes them
there and tells `domain_changed` and `alias_changed`.

Where both name the same address the settings win: what an administrator reads in his file is what happens.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from twisted.logger import Logger
from zope.interface import implementer

from livemail.directory.aliases import Aliases, Name, Place, fold
from livemail.directory.settings import DirectorySettings, parse_address
from livemail.interfaces.addresses import AliasRecord, DomainRecord
from livemail.interfaces.directory import (
    Backup,
    Elsewhere,
    IDirectory,
    LocalAccount,
    Resolution,
    Restricted,
    Restriction,
    Unknown,
)
from livemail.interfaces.storage import AccountRecord, IMailStore
from livemail.mail.address import MAX_LOCAL_PART_OCTETS, Address
from livemail.mail.domains import domain_key, spellings
from livemail.mail.ids import AccountId

log = Logger(namespace="livemail.directory")

POSTMASTER = "postmaster"
MAX_LOGIN_CHARACTERS = 512

Places = tuple[LocalAccount | Address, ...]

_ELSEWHERE = Elsewhere()
_UNKNOWN = Unknown()
_BACKUP = Backup()
MEMBERS = "members"
"""Among the senders of an alias: whoever is among its targets."""


@implementer(IDirectory)
class StoreDirectory:
    """Accounts from the store, the rest from the settings and, once `load` has run, from the store too."""

    def __init__(self, store: IMailStore, settings: DirectorySettings) -> None:
        """Raises ValueError, with every fault of the settings in its text."""
        faults = [f"{field} {text}" for field, text in settings.faults()]
        if faults:
            raise ValueError("; ".join(faults))
        self._store = store
        self._settings = settings
        default = settings.default_domain or next(each for each in settings.local_domains)
        self._default = domain_key(default)
        # Key of each local domain -> key of the domain its accounts are named with: an address literal has none of its own.
        self._local: dict[str, str] = {"": self._default}
        self._spellings: dict[str, tuple[str, ...]] = {}
        self._records: dict[str, DomainRecord] = {}
        self._backup = {domain_key(domain) for domain in settings.backup_domains}
        for domain in settings.local_domains:
            key = domain_key(domain)
            self._local[key] = self._default if key.startswith("[") else key
            self._spellings[key] = spellings(domain)
        self._aliases = Aliases(
            [
                (parse_address(alias.address), [parse_address(target) for target in alias.targets])
                for alias in settings.aliases
            ],
            settings.plus_separator,
            self._local_key,
        )
        self._configured_domains = frozenset(self._spellings) | self._backup
        self._configured_aliases = frozenset(self._aliases)
        self._plain_name = lru_cache(4096)(self._find_plain_name)
        self._postmaster = parse_address(settings.postmaster) if settings.postmaster else None
        self._first: AccountRecord | None = None

    # ------------------------------------------------------------------------------------------- the store's part

    async def load(self) -> None:
        """Read the store's domains and aliases."""
        for domain in await self._store.addresses.domains():
            self.domain_changed(domain.name, domain)
        for alias in await self._store.addresses.aliases():
            if self._local_key(alias.domain) is None:
                log.warn("the alias {alias} waits for its domain, which is not local now", alias=alias.address)
            self.alias_changed((alias.local_part, alias.domain), alias)

    def domain_changed(self, name: str, record: DomainRecord | None) -> None:
        """A domain of the store is new, another, or (None) gone."""
        if record is None:
            self._records.pop(name, None)
        else:
            self._records[name] = record
        if name not in self._configured_domains:
            role = record.role if record is not None else ""
            (self._backup.add if role == "backup" else self._backup.discard)(name)
            if role == "local":
                self._local[name] = name
                self._spellings[name] = spellings(name)
            else:
                self._local.pop(name, None)
                self._spellings.pop(name, None)
        self._aliases.forget_expansions()
        self._plain_name.cache_clear()

    def alias_changed(self, name: Name, record: AliasRecord | None) -> None:
        """An alias of the store is new, another, or (None) gone."""
        if name in self._configured_aliases:
            log.warn("the alias {alias} of the configuration file hides the one of the store", alias="@".join(name))
            return
        if record is None:
            self._aliases.remove(name)
        else:
            targets = [parse_address(target) for target in record.targets]
            if record.keep_copy:
                targets.append(Address(*name))
            self._aliases.put(name, targets, self._restriction(record, targets) if record.senders else None)
        self._plain_name.cache_clear()

    def _restriction(self, record: AliasRecord, targets: Sequence[Address]) -> Restriction:
        senders = {self._sender_key(target) for target in targets} if MEMBERS in record.senders else set()
        for sender in record.senders:
            if sender.startswith("@"):
                senders.add("@" + _key(sender[1:]))
            elif sender != MEMBERS:
                senders.add(self._sender_key(parse_address(sender)))
        return Restriction(record.address, frozenset(senders))

    def _sender_key(self, address: Address) -> str:
        return f"{fold(address.local_part)}@{_key(address.domain) if address.domain else self._default}"

    def may_write(self, sender: Address, restriction: Restriction) -> bool:
        """Whether a sender is among those who may; ``you+detail`` is ``you``."""
        local, _, domain = self._sender_key(sender).rpartition("@")
        base = self._aliases.place((local, domain)).base[0]
        return not restriction.senders.isdisjoint({f"{local}@{domain}", f"{base}@{domain}", f"@{domain}"})

    def local_domains(self) -> list[str]:
        """The domains accounts and aliases may be in, as accounts there are named, the default one first."""
        first = self._spellings[self._default][0]
        return list(dict.fromkeys([first, *(names[0] for key, names in self._spellings.items() if key[0] != "[")]))

    def domains(self) -> dict[str, tuple[DomainRecord, bool]]:
        """Return each domain with its settings, and whether it is the configuration file's."""
        found = {
            name: (self._records.get(name) or DomainRecord(name, "backup" if name in self._backup else "local"), True)
            for name in sorted(self._configured_domains)
        }
        return found | {name: (record, False) for name, record in self._records.items() if name not in found}

    def configured_aliases(self) -> list[AliasRecord]:
        """Return the configuration file's aliases, by domain and local part."""
        found = []
        for alias in self._settings.aliases:
            address = parse_address(alias.address)
            key = self._local_key(address.domain) or self._default
            found.append(AliasRecord(fold(address.local_part), key, alias.targets))
        return sorted(found, key=lambda record: (record.domain, record.local_part))

    async def leads_somewhere(self, address: str) -> bool:
        """Whether mail for an address would reach somebody, catch-alls left aside; elsewhere that is not for us to know."""
        return bool(await self._at(parse_address(address)))

    def is_configured_alias(self, name: Name) -> bool:
        """Whether an alias is the configuration file's."""
        return name in self._configured_aliases

    # ------------------------------------------------------------------------------------------------- addresses

    def is_local_domain(self, domain: str) -> bool:
        """Whether we are the final destination for a domain; "" stands for the default one."""
        return self._local_key(domain) is not None

    async def resolve(self, address: Address) -> Resolution:
        """Where mail for an address goes."""
        # Nearly all mail is for an account by its own name; four coroutines cost more than the read of the store.
        name = self._plain_name(address)
        if name:
            record = await self._store.account_named(name)
            if record is not None:
                return (LocalAccount(record.id, record.name),)
        key = self._local_key(address.domain)
        if key is None:
            return _BACKUP if self._backup and _key(address.domain) in self._backup else _ELSEWHERE
        place = self._aliases.place((fold(address.local_part), key))
        found = await self._resolved(place)
        if not found and place.base[0] == POSTMASTER:
            found = await self._postmaster_places(place)
        domain = self._records.get(key)
        if not found and domain is not None and domain.catch_all:
            address = parse_address(domain.catch_all)
            key = self._local_key(address.domain)
            if key is None:
                return (address,)
            found = await self._resolved(self._aliases.place((fold(address.local_part), key)))
        return found or _UNKNOWN

    async def _resolved(self, place: Place) -> Places | Restricted:
        """Return where a local address leads, and to whom it is restricted; nothing when nobody has it."""
        found = await self._places(place)
        expansion = self._aliases.expand(place) if found else None
        if expansion is None or not expansion.restrictions:
            return found
        return Restricted(found, expansion.restrictions)

    async def _at(self, address: Address) -> Places:
        """Return where an address of the settings leads, other catch-alls left aside."""
        key = self._local_key(address.domain)
        if key is None:
            return (address,)
        return await self._places(self._aliases.place((fold(address.local_part), key)))

    async def addresses_of(self, account: AccountId) -> Sequence[Address]:
        """Addresses the account may send as: its own name, and the aliases that lead to it.  Raises NoSuchAccount."""
        local, _, domain = (await self._store.account(account)).name.rpartition("@")
        names: list[Name] = [(local, domain)]
        key = self._local_key(domain)
        if key is not None:
            names += self._aliases.leading_to((fold(local), key))
        return [Address(*name) for name in dict.fromkeys(names)]

    # ---------------------------------------------------------------------------------------------------- logins

    async def account_for_login(self, login: str) -> AccountRecord | None:
        """The enabled account a user means: a full address, or a local part at the default domain."""
        login = login.strip()
        name = self._login_name(login) if login.isprintable() else None
        record = await self._record(name) if name is not None else None
        return record if record is not None and record.is_enabled else None

    def canonical_login(self, login: str) -> str:
        """Return what the account would be named; a login that can name none of ours as it is, without white space."""
        login = login.strip()
        name = self._login_name(login)
        return "@".join(name) if name is not None else login

    def _login_name(self, login: str) -> Name | None:
        """Return local part and domain key of the account a login means; None when none of ours can be meant."""
        if len(login) > MAX_LOGIN_CHARACTERS:
            return None
        local, at, domain = login.rpartition("@")
        if not at:
            local, domain = domain, ""
        key = self._local_key(domain)
        return (fold(local), key) if key is not None and local else None

    # --------------------------------------------------------------------------------------------------- details

    def _local_key(self, domain: str) -> str | None:
        """Return the key of the domain that the accounts of a local domain are named with; None when it is not local."""
        key = self._local.get(domain)
        return key if key is not None else self._local.get(_key(domain))

    def _find_plain_name(self, address: Address) -> str:
        """Return the only name of an account an address can mean; "" when the address may mean more, or other."""
        key = self._local_key(address.domain)
        if key is None:
            return ""
        place = self._aliases.place((fold(address.local_part), key))
        local = place.name[0]
        if (
            self._aliases.expand(place) is not None
            or len(local.encode("utf-8", "surrogatepass")) > MAX_LOCAL_PART_OCTETS
        ):
            return ""
        return f"{local}@{self._spellings[key][0]}"

    async def _places(self, place: Place) -> Places:
        """Return where a local address leads; nothing when it is neither alias nor account."""
        expansion = self._aliases.expand(place)
        if expansion is None:
            account = await self._account_at(place)
            return () if account is None else (account,)
        found: dict[LocalAccount | Address, None] = {}
        for leaf in expansion.leaves:
            if isinstance(leaf, Address):
                found[leaf] = None
                continue
            account = await self._account_at(leaf)
            if account is not None:
                found[account] = None
            else:
                log.warn(
                    "an alias {alias!r} leads to {name!r}, which does not exist",
                    alias="@".join(place.name),
                    name="@".join(leaf.name),
                )
        return tuple(found)

    async def _account_at(self, place: Place) -> LocalAccount | None:
        record = await self._record(place.name)
        if record is not None:
            return LocalAccount(record.id, record.name)
        if place.base == place.name:
            return None
        record = await self._record(place.base)
        return LocalAccount(record.id, record.name, place.detail) if record is not None else None

    async def _record(self, name: Name) -> AccountRecord | None:
        local, domain = name
        if len(local.encode("utf-8", "surrogatepass")) > MAX_LOCAL_PART_OCTETS:  # no account, and no key of an index
            return None
        for spelling in self._spellings[domain]:  # more than one only where the domain has U-labels
            record = await self._store.account_named(f"{local}@{spelling}")
            if record is not None:
                return record
        return None

    async def _postmaster_places(self, asked: Place) -> Places:
        """Return where postmaster's mail goes when its domain has neither alias nor account of that name.

        To the domain's or the configured address, else to postmaster at the default domain, else to the first account.
        RFC 5321 §4.5.1.
        """
        record = self._records.get(asked.base[1])
        own = parse_address(record.postmaster) if record is not None and record.postmaster else None
        for address in (own, self._postmaster, Address(POSTMASTER, "")):
            found = await self._at(address) if address is not None else ()
            if found:
                return found
        first = await self._first_account()
        return () if first is None else (LocalAccount(first.id, first.name, asked.detail),)

    async def _first_account(self) -> AccountRecord | None:
        """Return the account created first; remembered, because a stranger may ask often and reading all accounts is slow."""
        if self._first is not None:
            still = await self._store.account_named(self._first.name)
            if still is not None and still.id == self._first.id:
                return still
        self._first = min(await self._store.accounts(), key=lambda record: record.id, default=None)
        return self._first


@lru_cache(4096)
def _key(domain: str) -> str:
    """Return `domain_key`, and for what is no domain a word that is none either."""
    try:
        return domain_key(domain)
    except ValueError:
        return "."
