"""The realm: what an authenticated name stands for.

Checkers (ours or anybody's `ICredentialsChecker`) prove a name; the realm looks it up in the directory and gives the
account.  So a password file or an LDAP checker can be put in front of our accounts, and nobody gets in who has no account here.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from twisted.cred.error import LoginDenied
from twisted.cred.portal import IRealm
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface, implementer

from livemail.interfaces.directory import IDirectory
from livemail.interfaces.storage import AccountRecord, IAccount, IMailStore


class IMailUser(Interface):
    """The avatar livemail's own protocols ask a portal for."""

    record = Attribute("AccountRecord")
    account = Attribute("IAccount: a handle for this session alone")


@implementer(IMailUser)
class MailUser:
    """See `IMailUser`."""

    def __init__(self, record: AccountRecord, account: IAccount) -> None:
        self.record = record
        self.account = account


class ILoginNames(Interface):
    """What a realm may know beside its avatars."""

    def counted_as(login: str) -> str:  # noqa: N805
        """Return what failures of a login are counted under: the same text for all names that mean one account.

        Must not depend on whether there is such an account: how long an answer takes would tell it.
        """


Offer = Callable[[IMailUser], Awaitable[object]]


def no_logout() -> None:
    """Nothing is held for a login."""


@implementer(IRealm, ILoginNames)
class MailRealm:
    """Accounts of a store, by way of the directory.

    offered: other interfaces the realm gives, with what makes their avatar of an `IMailUser`
    (`livemail.auth.foreign.pop3.offered_pop3`), for protocols written for `twisted.mail`.
    """

    def __init__(
        self, directory: IDirectory, store: IMailStore, offered: Sequence[tuple[type[Interface], Offer]] = ()
    ) -> None:
        self._directory = directory
        self._store = store
        self._offered: dict[Any, Offer] = dict(offered)

    def requestAvatar(
        self, avatarId: bytes | str | tuple[()], mind: object, *interfaces: type[Interface]
    ) -> Deferred[tuple[type[Interface], object, Callable[[], None]]]:
        """Give an avatar for the first of ``interfaces`` that is `IMailUser` or offered.

        mind: the `ConnectionInfo` of who asks.  Fails with LoginDenied when the name has no enabled account, and with
        NotImplementedError when none of the interfaces can be given.
        """
        return Deferred.fromCoroutine(self._avatar(avatarId, interfaces))

    def counted_as(self, login: str) -> str:
        """Return the canonical login.  See `ILoginNames`."""
        return self._directory.canonical_login(login)

    async def _avatar(
        self, avatar_id: bytes | str | tuple[()], interfaces: tuple[Any, ...]
    ) -> tuple[Any, object, Callable[[], None]]:
        if isinstance(avatar_id, tuple):
            raise LoginDenied  # cred's ANONYMOUS
        name = avatar_id.decode("utf-8", "replace") if isinstance(avatar_id, bytes) else avatar_id
        record = await self._directory.account_for_login(name)
        if record is None:
            raise LoginDenied
        user = MailUser(record, await self._store.account(record.id))
        for interface in interfaces:
            if interface is IMailUser:
                return IMailUser, user, no_logout
            if interface in self._offered:
                return interface, await self._offered[interface](user), no_logout
        raise NotImplementedError(f"no avatar for {interfaces}")
