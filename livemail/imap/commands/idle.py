"""IDLE.  RFC 2177."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from livemail.imap.grammar.cursor import Cursor
from livemail.imap.outcome import Done
from livemail.mail.errors import WireError

if TYPE_CHECKING:
    from livemail.imap.session import Session

_LINE_LIMIT: Final = 1024


class Idle(msgspec.Struct, frozen=True):
    """Wait for news."""


def parse(cursor: Cursor) -> Idle:
    """Parse nothing."""
    cursor.end()
    return Idle()


async def run(session: Session, _command: Idle) -> Idling:
    """Begin to tell the client of changes as they happen."""
    session.send(b"+ idling\r\n")
    return Idling(session)


class Idling:
    """IDLE until DONE.

    The idle timeout runs on (a client repeats IDLE every 29 minutes, RFC 2177 §3): what we say to keep the line warm is
    no sign of life of the client's.
    """

    flushes = True
    limit = _LINE_LIMIT

    def __init__(self, session: Session) -> None:
        self._session = session
        self._every = session.site.settings.idle_keep_alive
        self._timer: Any = None
        self._again()

    def _again(self) -> None:
        if self._every:
            self._timer = self._session.connection.owner.clock.callLater(self._every, self._keep_alive)

    def _keep_alive(self) -> None:
        if self._session.connection.is_closing:
            return
        self._session.send(b"* OK Still here\r\n")
        self._session.connection.flush()
        self._again()

    async def line(self, line: bytes) -> Done:
        """Take the end of IDLE.  Raises WireError for anything but DONE.

        Fatal when the line promises a literal: its octets would be read as commands.
        """
        if line.upper() != b"DONE":
            raise WireError("Expected DONE", fatal=line.endswith(b"+}"))
        return Done("IDLE completed")

    def stop(self) -> None:
        """No more keep-alives."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
