"""LOGIN.  RFC 3501 §6.2.3."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from livemail.imap.capability import capability_code
from livemail.imap.grammar.cursor import Cursor
from livemail.imap.outcome import Done
from livemail.interfaces.filter import ConnectionInfo
from livemail.interfaces.identity import AuthenticationFailed
from livemail.mail.errors import MailError

if TYPE_CHECKING:
    from livemail.imap.session import Session


class Login(msgspec.Struct, frozen=True):
    """Name and password as sent."""

    authcid: bytes
    password: bytes

    def __repr__(self) -> str:
        return "Login(…)"


def parse(cursor: Cursor) -> Login:
    """Parse two astrings."""
    cursor.space()
    authcid = cursor.astring()
    cursor.space()
    password = cursor.astring()
    cursor.end()
    return Login(authcid, password)


async def run(session: Session, command: Login) -> Done:
    """Check name and password; the capabilities after login come with the OK (RFC 3501 §7.1)."""
    require_privacy(session)
    try:
        authcid, password = command.authcid.decode("utf-8"), command.password.decode("utf-8")
    except UnicodeDecodeError:
        session.login_failed()
        raise AuthenticationFailed from None
    try:
        login = await session.site.authenticator.login(authcid, password, connection_info(session))
    except AuthenticationFailed:
        session.login_failed()
        raise
    session.logged_in(login)
    return Done("Logged in", capability_code(session))


def require_privacy(session: Session) -> None:
    """Raise NO [PRIVACYREQUIRED] where a password would cross the network in the clear.  RFC 5530 §3."""
    if not session.may_login:
        raise MailError("Not without TLS", condition="PRIVACYREQUIRED")


def connection_info(session: Session) -> ConnectionInfo:
    """Who is asking, for the authenticator."""
    connection = session.connection
    return ConnectionInfo(connection.session_id, "imap", connection.peer, connection.peer_port, connection.tls)
