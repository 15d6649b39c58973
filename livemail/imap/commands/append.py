"""APPEND.  RFC 3501 §6.3.11, RFC 4315 §3 APPENDUID, RFC 7889 APPENDLIMIT.

The message never waits in memory: what stands before its literal is parsed, the mailbox looked up and the size
compared while the client still waits for "+", and then the octets pass straight into the store's content sink.  With
LITERAL+ the octets come whatever we answer, and a refused message is read past.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from livemail.imap.grammar.cursor import Cursor
from livemail.imap.outcome import Done
from livemail.interfaces.storage import AppendItem, IContentSink
from livemail.mail.errors import MailError, TooBig, WireError

if TYPE_CHECKING:
    from livemail.imap.session import Session


class Append(msgspec.Struct, frozen=True):
    """flags: system bits.  date: seconds since the epoch (UTC) and zone in minutes east, None when not given."""

    mailbox: str
    flags: int
    keywords: tuple[str, ...]
    date: tuple[int, int] | None


def parse(cursor: Cursor) -> Append:
    """Parse what stands before the message; the message's literal must be next.  Raises InvalidName too."""
    cursor.space()
    mailbox = cursor.mailbox()
    cursor.space()
    flags = 0
    keywords: tuple[str, ...] = ()
    if cursor.peek() == 0x28:
        flags, keywords = cursor.flag_list()
        cursor.space()
    date = None
    if not cursor.at_literal():
        date = cursor.date_time()
        cursor.space()
    if not cursor.at_literal():
        raise WireError("Expected the message as a literal")
    return Append(mailbox, flags, keywords, date)


class Upload:
    """A message on its way in."""

    def __init__(self, command: Append, sink: IContentSink) -> None:
        self.command = command
        self.sink = sink
        self.failure: Exception | None = None

    def write(self, chunk: bytes) -> None:
        """Take the next octets; after a failure they go nowhere, and `run` answers with it."""
        if self.failure is None:
            try:
                self.sink.write(chunk)
            except Exception as error:
                self.failure = error
                self.sink.abort()

    def abort(self) -> None:
        """The message will not be complete."""
        self.sink.abort()


async def begin(session: Session, command: Append, size: int) -> Upload:
    """Decide whether a message of ``size`` octets may come.

    Raises TooBig, NoSuchMailbox, StorageFull; MailError for size 0, which cancels the command (RFC 3502 §6.3.11).
    """
    if size > session.site.settings.append_limit:
        raise TooBig
    if size == 0:
        raise MailError("A message is not empty")
    await session.account.mailbox(command.mailbox)
    return Upload(command, session.site.store.new_content(size))


async def run(session: Session, upload: Upload) -> Done:
    """File the message.  Raises what the upload met, NoSuchMailbox (deleted meanwhile), OverQuota, LimitReached."""
    if upload.failure is not None:
        raise upload.failure
    command = upload.command
    try:
        content = await upload.sink.finish()
    except BaseException:
        upload.abort()
        raise
    try:
        date, zone = command.date or (None, 0)
        item = AppendItem(content, command.flags, command.keywords, date, zone)
        appended = await session.account.append(command.mailbox, [item])
    finally:
        content.close()
    return Done("APPEND completed", b"APPENDUID %d %d" % (appended.uid_validity, appended.uids[0]))
