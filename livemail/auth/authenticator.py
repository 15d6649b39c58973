"""The one door: a `twisted.cred` Portal behind `IAuthenticator`, with failures slowed.

The Portal decides, so any checker and any realm of the Twisted world can stand behind it.  What this adds is order:

    wait for earlier failures → portal.login → success: trusted from here on
                                             → failure: counted, then answered when it has taken long enough

A client that leaves while its password is being checked has failed too, else hanging up early would be free guesses.
Credentials live in local variables and in the credentials object, and reach no log line, exception or repr.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from twisted.cred.credentials import UsernamePassword
from twisted.cred.error import LoginFailed, UnhandledCredentials
from twisted.cred.portal import Portal
from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger
from zope.interface import Interface, implementer

from livemail.auth.realm import ILoginNames, IMailUser
from livemail.auth.sasl import MECHANISMS
from livemail.auth.throttle import Throttle
from livemail.interfaces.filter import ConnectionInfo
from livemail.interfaces.identity import (
    AuthenticationFailed,
    AuthenticationUnavailable,
    IAuthenticator,
    ISASLExchange,
    Login,
)
from livemail.mail.errors import MailError, WireError

Adapt = Callable[[Any, str], IMailUser]
"""(foreign avatar, authcid) → IMailUser."""


@implementer(IAuthenticator)
class Authenticator:
    """See `IAuthenticator`.

    portal: its realm gives `IMailUser`, or one of ``foreign``: interfaces a foreign realm gives, in order of preference,
    with what makes an `IMailUser` of them (`livemail.auth.foreign.served`).
    """

    log = Logger()

    def __init__(
        self,
        portal: Portal,
        throttle: Throttle,
        clock: IReactorTime,
        foreign: Sequence[tuple[type[Interface], Adapt]] = (),
    ) -> None:
        self._portal = portal
        self._throttle = throttle
        self._clock = clock
        self._adapt: dict[Any, Adapt] = dict(foreign)
        self._names: ILoginNames | None = ILoginNames(portal.realm, None)

    def mechanisms(self) -> Sequence[str]:
        """See `IAuthenticator`."""
        return tuple(MECHANISMS)

    def start(self, mechanism: str, connection: ConnectionInfo) -> ISASLExchange:
        """See `IAuthenticator`."""
        exchange = MECHANISMS.get(mechanism.upper())
        if exchange is None:
            raise WireError("Unknown authentication mechanism", code=504, enhanced="5.5.4")

        async def verify(authcid: str, password: str, authzid: str) -> Login:
            return await self._login(authcid, password, authzid, connection)

        return exchange(verify)

    async def login(self, authcid: str, password: str, connection: ConnectionInfo) -> Login:
        """See `IAuthenticator`."""
        return await self._login(authcid, password, "", connection)

    async def _login(self, authcid: str, password: str, authzid: str, connection: ConnectionInfo) -> Login:
        waited = self._throttle.before(authcid, connection.peer, self._counted_as(authcid))
        if waited > 0:
            await deferLater(self._clock, waited)
        try:
            interface, avatar, logout = await self._ask(authcid, password, connection)
        except CancelledError:
            self._throttle.failed(authcid, connection.peer, self._counted_as(authcid))
            raise
        except UnhandledCredentials:
            self.log.error("No credentials checker takes passwords")  # noqa: TRY400
            raise AuthenticationUnavailable from None
        except LoginFailed:
            await self._refuse(authcid, connection, waited)
            raise AuthenticationFailed from None
        except MailError:
            raise
        except Exception as error:
            # Only the kind: a foreign checker's exception may quote the password.
            self.log.error("Checking credentials failed: {kind}", kind=type(error).__name__)  # noqa: TRY400
            raise AuthenticationUnavailable from None
        return self._admit(interface, avatar, logout, authcid, authzid, connection)

    def _counted_as(self, authcid: str) -> str:
        return self._names.counted_as(authcid) if self._names is not None else authcid

    async def _ask(self, authcid: str, password: str, connection: ConnectionInfo) -> tuple[Any, Any, Any]:
        try:
            credentials = UsernamePassword(authcid.encode(), password.encode("utf-8", "surrogateescape"))
        except UnicodeEncodeError:
            raise LoginFailed from None
        return cast(
            tuple[Any, Any, Any],
            await self._portal.login(credentials, connection, cast(Any, IMailUser), *self._adapt),
        )

    async def _refuse(self, authcid: str, connection: ConnectionInfo, waited: float) -> None:
        total = self._throttle.failed(authcid, connection.peer, self._counted_as(authcid))
        self.log.info(
            "{session} {service} {peer}: authentication failed for {authcid}",
            session=connection.session,
            service=connection.service,
            peer=connection.peer,
            authcid=ascii(authcid[:80]),
        )
        if total > waited:
            await deferLater(self._clock, total - waited)

    def _admit(
        self,
        interface: Any,
        avatar: Any,
        logout: Callable[[], None],
        authcid: str,
        authzid: str,
        connection: ConnectionInfo,
    ) -> Login:
        user = avatar if interface is IMailUser else self._adapt[interface](avatar, authcid)
        # RFC 4616 §2: to act as another is an authorization nobody has been given.
        if authzid and authzid != authcid and authzid.lower() != user.record.name:
            logout()
            raise AuthenticationFailed("Not authorized for that identity", condition="AUTHORIZATIONFAILED")
        self._throttle.succeeded(authcid, connection.peer)
        self.log.info(
            "{session} {service} {peer}: authenticated as {account}",
            session=connection.session,
            service=connection.service,
            peer=connection.peer,
            account=user.record.name,
        )
        return Login(user.record, user.account, logout)
