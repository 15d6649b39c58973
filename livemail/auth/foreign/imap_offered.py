"""Our account as `IAccountIMAP`, for `twisted.mail.imap4.IMAP4Server` and whatever else is written for that interface.

Methods answer at once where our store does, else with a Deferred, as the interface allows.  The stock server does not
wait for the Deferred of CREATE, DELETE, RENAME and SUBSCRIBE: over a store whose writes take time it says OK early, and a
refusal that comes later is only logged.  Over the memory store it answers as it should.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.mail import imap4
from twisted.mail.interfaces import IAccountIMAP, IMailboxIMAPInfo, INamespacePresenter
from twisted.python.failure import Failure
from zope.interface import Interface, implementer

from livemail.auth.foreign.imap_message import text_of
from livemail.auth.foreign.imap_offered_mailbox import OfferedMailbox, later, refusing
from livemail.auth.foreign.imap_offered_message import at_once
from livemail.auth.realm import IMailUser
from livemail.interfaces.storage import IAccount, IMailStore
from livemail.mail.errors import InvalidName, NoSuchMailbox
from livemail.mail.names import SEPARATOR, canonical_name
from livemail.mail.patterns import compile_pattern

_MAX_PATTERN: Final = 1000


def _answer(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Return true or raise where the work is done, else the Deferred."""
    deferred = later(coroutine)
    if not deferred.called:
        return deferred
    results: list[Any] = []
    deferred.addBoth(results.append)
    if isinstance(results[0], Failure):
        results[0].raiseException()
    return True


@implementer(IMailboxIMAPInfo)
class _Listed:
    def __init__(self, attributes: list[str]) -> None:
        self._attributes = attributes

    def getFlags(self) -> list[str]:
        return self._attributes

    def getHierarchicalDelimiter(self) -> str:
        return SEPARATOR


@implementer(IAccountIMAP, INamespacePresenter)
class OfferedAccount:
    """One session's account.  store: gives content sinks for what is appended."""

    def __init__(self, account: IAccount, store: IMailStore) -> None:
        self._account = account
        self._store = store

    def addMailbox(self, name: bytes | str, mbox: object = None) -> Any:
        """See `IAccountIMAP`; a mailbox of somebody else's cannot be put into our storage."""
        if mbox is not None:
            raise imap4.MailboxException("Only new, empty mailboxes can be added")
        return self.create(name)

    def create(self, pathspec: bytes | str) -> Any:
        """See `IAccountIMAP`."""
        return _answer(self._create(text_of(pathspec)))

    async def _create(self, name: str) -> None:
        await self._account.create_mailbox(canonical_name(name))

    def select(self, name: bytes | str, rw: object = True) -> Deferred[OfferedMailbox | None]:
        """Fire with the mailbox, None when there is none."""
        return later(self._select(text_of(name), is_writeable=bool(rw)))

    async def _select(self, name: str, *, is_writeable: bool) -> OfferedMailbox | None:
        try:
            selected = await self._account.select(canonical_name(name), claim_recent=False)
        except (NoSuchMailbox, InvalidName):
            return None
        return OfferedMailbox(self._account, self._store, selected, is_writeable=is_writeable)

    def delete(self, name: bytes | str) -> Any:
        """See `IAccountIMAP`."""
        return _answer(self._delete(text_of(name)))

    async def _delete(self, name: str) -> None:
        await self._account.delete_mailbox(canonical_name(name))

    def rename(self, oldname: bytes | str, newname: bytes | str) -> Any:
        """See `IAccountIMAP`."""
        return _answer(self._rename(text_of(oldname), text_of(newname)))

    async def _rename(self, old: str, new: str) -> None:
        await self._account.rename_mailbox(canonical_name(old), canonical_name(new))

    def isSubscribed(self, name: bytes | str) -> bool:
        """Say it at once: the stock server takes a Deferred for yes.  Raises StoreSuspends."""
        listing = at_once(refusing(self._account.mailboxes()))
        return text_of(name) in listing.subscribed

    def subscribe(self, name: bytes | str) -> Any:
        """See `IAccountIMAP`."""
        return _answer(self._subscribe(text_of(name), is_subscribed=True))

    def unsubscribe(self, name: bytes | str) -> Any:
        """See `IAccountIMAP`."""
        return _answer(self._subscribe(text_of(name), is_subscribed=False))

    async def _subscribe(self, name: str, *, is_subscribed: bool) -> None:
        await self._account.subscribe(canonical_name(name), is_subscribed)

    def listMailboxes(self, ref: bytes | str, wildcard: bytes | str) -> Deferred[list[tuple[str, _Listed]]]:
        """Fire with (name, attributes) of the mailboxes that a reference and a pattern name."""
        return later(self._list(text_of(ref) + text_of(wildcard)))

    async def _list(self, pattern: str) -> list[tuple[str, _Listed]]:
        if len(pattern) > _MAX_PATTERN:
            raise InvalidName(f"A mailbox pattern has at most {_MAX_PATTERN} characters")
        if pattern[:5].upper() == "INBOX":
            pattern = "INBOX" + pattern[5:]
        is_named = compile_pattern(pattern)
        infos = (await self._account.mailboxes()).mailboxes
        superiors = {info.name.rpartition(SEPARATOR)[0] for info in infos}
        return [
            (
                info.name,
                _Listed(
                    [
                        "\\HasChildren" if info.name in superiors else "\\HasNoChildren",
                        *filter(None, [info.special_use]),
                    ]
                ),
            )
            for info in infos
            if is_named(info.name)
        ]

    def getPersonalNamespaces(self) -> list[list[bytes]]:
        """See `INamespacePresenter`."""
        return [[b"", b"/"]]

    def getSharedNamespaces(self) -> None:
        """Return none."""

    def getUserNamespaces(self) -> None:
        """Return none."""


def offered_imap(store: IMailStore) -> tuple[type[Interface], Callable[[IMailUser], Awaitable[object]]]:
    """Return what `MailRealm(directory, store, offered=[…])` takes to give `IAccountIMAP` avatars."""

    async def offer(user: IMailUser) -> OfferedAccount:
        return OfferedAccount(user.account, store)

    return IAccountIMAP, offer
