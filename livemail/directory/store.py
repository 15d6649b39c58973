"""The directory over the store's accounts and the settings' domains and aliases.

`resolve` runs for every RCPT, so its common case is two dictionary lookups and one read of the store: everything the
settings fix is folded, keyed and expanded before.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from twisted.logger import Logger
from zope.interface import implementer

from livemail.directory.aliases import Aliases, Name, Place, fold
from livemail.directory.settings import DirectorySettings, parse_address
from livemail.interfaces.directory import Elsewhere, IDirectory, LocalAccount, Resolution, Unknown
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


@implementer(IDirectory)
class StoreDirectory:
    """Accounts from the store, everything else from the settings."""

    def __init__(self, store: IMailStore, settings: DirectorySettings) -> None:
        """Raises ValueError, with every fault of the settings in its text."""
        faults = [f"{field} {text}" for field, text in settings.faults()]
        if faults:
            raise ValueError("; ".join(faults))
        self._store = store
        default = settings.default_domain or next(each for each in settings.local_domains)
        self._default = domain_key(default)
        # Key of each local domain -> key of the domain its accounts are named with: an address literal has none of its own.
        self._local: dict[str, str] = {"": self._default}
        self._spellings: dict[str, tuple[str, ...]] = {}
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
        self._plain_name = lru_cache(4096)(self._find_plain_name)
        self._postmaster = parse_address(settings.postmaster) if settings.postmaster else None
        self._first: AccountRecord | None = None

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
            return _ELSEWHERE
        place = self._aliases.place((fold(address.local_part), key))
        found = await self._places(place)
        if not found and place.base[0] == POSTMASTER:
            found = await self._postmaster_places(place)
        return found or _UNKNOWN

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
        leaves = self._aliases.expand(place)
        if leaves is None:
            account = await self._account_at(place)
            return () if account is None else (account,)
        found: dict[LocalAccount | Address, None] = {}
        for leaf in leaves:
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

        To the configured address, else to postmaster at the default domain, else to the first account.  RFC 5321 §4.5.1.
        """
        for address in (self._postmaster, Address(POSTMASTER, "")):
            if address is None:
                continue
            key = self._local_key(address.domain)
            if key is None:
                return (address,)
            found = await self._places(self._aliases.place((fold(address.local_part), key)))
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
