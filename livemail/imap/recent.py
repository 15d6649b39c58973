"""Which session gets a message's \\Recent.  RFC 3501 §2.3.2.

The first read-write session that is told of a message has it.  Storage decides who was first, by a write, and a
session tells its client of new mail in the middle of a reply; so the claim is made in the background, one at a time per
view, and what it brought is told with the next responses.  A session that idles through a burst of mail therefore
costs the store one small write for the burst and delays nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from livemail.imap.view import View
from livemail.mail.errors import MailError
from livemail.mail.ids import UID
from livemail.net.coroutines import run

if TYPE_CHECKING:
    from livemail.interfaces.storage import IAccount

log = Logger("livemail.imap.recent")


class RecentClaims:
    """Claims for one view, as its ``claim``."""

    def __init__(self, account: IAccount) -> None:
        self.account = account
        self._is_claiming = False
        self._wanted: UID = 0

    def __call__(self, view: View, up_to: UID) -> None:
        """The client was told of every message below ``up_to``."""
        self._wanted = up_to
        if not self._is_claiming:
            self._is_claiming = True
            run(self._claim(view), self._claimed)

    async def _claim(self, view: View) -> None:
        up_to = 0
        while up_to < self._wanted:
            up_to = self._wanted
            view.claimed(await self.account.claim_recent(view.mailbox, up_to), up_to)

    def _claimed(self, _: None, error: BaseException | None) -> None:
        self._is_claiming = False
        # Without the claim the messages are not \Recent here, and still are for the next session: nothing is lost.
        if error is not None and not isinstance(error, MailError | CancelledError):
            log.error("Claiming \\Recent failed: {error!r}", error=error)
