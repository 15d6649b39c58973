"""What an administrator can do, as coroutines over the store.  Arguments and results are what JSON can say."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

import msgspec
from twisted.internet.defer import Deferred, gatherResults

from livemail.interfaces.quota import IQuotaStore
from livemail.interfaces.storage import AccountRecord, IMailStore, Progress
from livemail.interfaces.undelete import IUndelete
from livemail.mail.address import MAX_DOMAIN_OCTETS, MAX_LOCAL_PART_OCTETS
from livemail.mail.domains import domain_key
from livemail.mail.errors import AccountExists, MailError, NoSuchAccount

EX_PROBLEMS: Final = 1
EX_USAGE: Final = 64
EX_DATA: Final = 65
EX_NO_STORE: Final = 66
EX_NO_ACCOUNT: Final = 67
EX_UNAVAILABLE: Final = 69
EX_EXISTS: Final = 73
EX_TEMPORARY: Final = 75
EX_NO_PERMISSION: Final = 77

MAX_PASSWORD_OCTETS: Final = 1024


class Refused(Exception):
    """An operation was not done.  The text is for the administrator; status is the command's exit status."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.text = text
        self.status = status


def canonical_login(name: str, domains: Sequence[str]) -> str:
    """Complete and check an account's name: ``local@domain``, lower-case NFC; without domain the first of ``domains``.

    Raises Refused.
    """
    text = unicodedata.normalize("NFC", name.strip()).lower()
    local, at, domain = text.rpartition("@")
    if not at:
        local, domain = domain, domains[0]
    if (
        not local
        or any(c in local for c in ' "()<>[]:;@\\,+')
        or any(unicodedata.category(c)[0] in "CZ" for c in local)
    ):
        raise Refused(
            f"{name!r} is not an account name; write name or name@domain without spaces, quotes or +", EX_DATA
        )
    if local.startswith(".") or local.endswith(".") or ".." in local:
        raise Refused(f"{name!r} is not an account name; dots stand between characters", EX_DATA)
    if len(local.encode()) > MAX_LOCAL_PART_OCTETS or len(domain.encode()) > MAX_DOMAIN_OCTETS:
        raise Refused(f"{name!r} is too long; a local part has at most {MAX_LOCAL_PART_OCTETS} octets", EX_DATA)
    named = next((each.lower() for each in domains if _same_domain(each, domain)), None)
    if named is None:
        known = ", ".join(domains[:5]) + (", …" if len(domains) > 5 else "")
        raise Refused(
            f"{domain} is not a local domain of this server ({known}); `livemail domain add {domain}` makes it one",
            EX_DATA,
        )
    return f"{local}@{named}"


def _same_domain(one: str, other: str) -> bool:
    """A-labels and U-labels of a domain are one domain."""
    try:
        return one.lower() == other or domain_key(one) == domain_key(other)
    except ValueError:
        return False


def check_password(password: str) -> None:
    """Refuse what no client could send back.  Raises Refused."""
    if not password:
        raise Refused("the password is empty; write one (a line on standard input with --password-stdin)", EX_DATA)
    if any(unicodedata.category(c) == "Cc" for c in password):
        raise Refused("the password has control characters in it; write one without", EX_DATA)
    if len(password.encode()) > MAX_PASSWORD_OCTETS:
        raise Refused(f"the password is longer than {MAX_PASSWORD_OCTETS} octets", EX_DATA)


class Operations:
    """Everything the control socket and the command offer."""

    def __init__(
        self,
        store: IMailStore,
        domains: Callable[[], Sequence[str]],
        hash_password: Callable[[str], Coroutine[Any, Any, str]],
    ) -> None:
        """domains: returns the local ones, the default first."""
        self._store = store
        self._domains = domains
        self.hash_password = hash_password
        self._table: dict[str, Callable[[Mapping[str, Any], Progress], Awaitable[Any]]] = {
            "ping": self._ping,
            "account.add": self._add,
            "account.list": self._list,
            "account.show": self._show,
            "account.quota": self._quota,
            "account.password": self._password,
            "account.remove": self._remove,
            "store.check": self._check,
        }

    def add(self, operation: str, function: Callable[[Mapping[str, Any], Progress], Awaitable[Any]]) -> None:
        """Offer one more operation."""
        self._table[operation] = function

    async def perform(self, operation: str, arguments: Mapping[str, Any], progress: Progress) -> Any:
        """Do one operation.  Raises Refused, and nothing else that is not a bug."""
        function = self._table.get(operation)
        if function is None:
            raise Refused(f"this server does not know {operation!r}; it is of another version", EX_UNAVAILABLE)
        try:
            return await function(arguments, progress)
        except AccountExists as error:
            raise Refused(str(error), EX_EXISTS) from None
        except MailError as error:
            raise Refused(str(error), EX_TEMPORARY if error.temporary else EX_PROBLEMS) from None

    async def _ping(self, _arguments: Mapping[str, Any], _progress: Progress) -> Any:
        return {"pid": os.getpid()}

    async def _hash_all(self, passwords: Sequence[str]) -> list[str]:
        """Hash side by side, as many as the hasher lets run at once."""
        return list(await gatherResults([Deferred.fromCoroutine(self.hash_password(each)) for each in passwords]))

    async def _add(self, arguments: Mapping[str, Any], progress: Progress) -> Any:
        """accounts: [[name, password], …]: every one is checked before the first is made.  only_check: none is made."""
        wanted: list[tuple[str, str]] = []
        faults: list[str] = []
        seen: set[str] = set()
        for name, password in arguments["accounts"]:
            try:
                login = canonical_login(name, self._domains())
                check_password(password)
            except Refused as refused:
                faults.append(refused.text)
                continue
            faults.append(f"{login} stands here twice" if login in seen else "")
            seen.add(login)
            wanted.append((login, password))
        if any(faults) or arguments.get("only_check"):
            return {"added": [], "faults": faults, "exists": []}
        added: list[str] = []
        exists: list[str] = []
        for start in range(0, len(wanted), 64):
            some = [(n, p) for n, p in wanted[start : start + 64] if await self._store.account_named(n) is None]
            exists += [n for n, _ in wanted[start : start + 64] if n not in {known for known, _ in some}]
            hashes = await self._hash_all([password for _, password in some])
            made = (
                await self._store.add_accounts([(n, h) for (n, _), h in zip(some, hashes, strict=True)]) if some else []
            )
            for (name, _), record in zip(some, made, strict=True):
                if isinstance(record, AccountRecord):
                    added.append(name)
                elif isinstance(record, AccountExists):
                    exists.append(name)
                else:
                    raise record
            progress(min(start + 64, len(wanted)), len(wanted), "accounts")
        return {"added": added, "faults": [], "exists": exists}

    async def _list(self, _arguments: Mapping[str, Any], _progress: Progress) -> Any:
        return [_told(record) for record in await self._store.accounts()]

    async def _known(self, name: str) -> AccountRecord:
        login = canonical_login(name, self._domains())
        record = await self._store.account_named(login)
        if record is None:
            raise Refused(f"there is no account {login}; `livemail account list` shows all", EX_NO_ACCOUNT)
        return record

    async def _show(self, arguments: Mapping[str, Any], _progress: Progress) -> Any:
        record = await self._known(arguments["name"])
        account = await self._store.account(record.id)
        listed = await account.mailboxes()
        mailboxes = [
            {"name": box.name, "messages": box.exists, "unseen": box.unseen, "octets": box.size}
            for box in listed.mailboxes
        ]
        told = {**_told(record), "mailboxes": mailboxes}
        kept = IUndelete(account, None)
        if kept is not None:
            told["deleted"] = msgspec.to_builtins(await kept.kept())
        store = IQuotaStore(self._store, None)
        if store is not None:
            told["quota"] = msgspec.to_builtins(list(await store.quotas(record.name)))
        return told

    async def _quota(self, arguments: Mapping[str, Any], _progress: Progress) -> Any:
        """name: of one account; "" for every account, every domain and the store."""
        name = (await self._known(arguments["name"])).name if arguments.get("name") else ""
        store = IQuotaStore(self._store, None)
        if store is None:
            raise Refused("this store keeps no quotas", EX_UNAVAILABLE)
        return msgspec.to_builtins(list(await store.quotas(name)))

    async def _password(self, arguments: Mapping[str, Any], _progress: Progress) -> Any:
        record = await self._known(arguments["name"])
        check_password(arguments["password"])
        hashed = await self.hash_password(arguments["password"])
        try:
            await self._store.set_password(record.name, hashed)
        except NoSuchAccount:
            raise Refused(f"{record.name} was removed meanwhile", EX_NO_ACCOUNT) from None
        return {"name": record.name}

    async def _remove(self, arguments: Mapping[str, Any], _progress: Progress) -> Any:
        record = await self._known(arguments["name"])
        await self._store.remove_account(record.name)
        return {"name": record.name}

    async def _check(self, _arguments: Mapping[str, Any], progress: Progress) -> Any:
        return msgspec.to_builtins(await self._store.check(progress))


def _told(record: AccountRecord) -> dict[str, Any]:
    """An account without its secrets."""
    return {
        "name": record.name,
        "id": int(record.id),
        "created": record.created,
        "enabled": record.is_enabled,
        "storage": record.storage,
        "has_password": bool(record.password),
    }
