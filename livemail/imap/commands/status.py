"""STATUS.  RFC 3501 §6.3.10, STATUS=SIZE RFC 8438, HIGHESTMODSEQ RFC 7162 §3.1.7, APPENDLIMIT RFC 7889 §3."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from livemail.imap.grammar.cursor import Cursor
from livemail.imap.outcome import Done
from livemail.mail import utf7
from livemail.mail.errors import WireError
from livemail.mail.uids import UIDRuns

if TYPE_CHECKING:
    from livemail.imap.session import Session

_FROM_INFO: Final = {
    "MESSAGES": "exists",
    "UIDNEXT": "uid_next",
    "UIDVALIDITY": "uid_validity",
    "UNSEEN": "unseen",
    "SIZE": "size",
    "HIGHESTMODSEQ": "highest_modseq",
}
_ITEMS: Final = frozenset({*_FROM_INFO, "RECENT", "APPENDLIMIT"})


class Status(msgspec.Struct, frozen=True):
    """items: upper-case, each once, in the client's order."""

    mailbox: str
    items: tuple[str, ...]


def parse(cursor: Cursor) -> Status:
    """Parse a name and a list of items.  Raises InvalidName too."""
    cursor.space()
    mailbox = cursor.mailbox()
    cursor.space()
    cursor.expect(b"(")
    items: dict[str, None] = {}
    while True:
        item = cursor.word()
        if item not in _ITEMS:
            raise WireError("Unknown item of STATUS")
        items[item] = None
        if cursor.take(b")"):
            break
        cursor.space()
    cursor.end()
    return Status(mailbox, tuple(items))


async def run(session: Session, command: Status) -> Done:
    """Tell the counters, one snapshot.  Raises NoSuchMailbox."""
    if "HIGHESTMODSEQ" in command.items:
        if "condstore" not in session.site.store.capabilities:
            raise WireError("Unknown item of STATUS")
        session.enabled.add("CONDSTORE")  # RFC 7162 §3.1: asking for it is saying that one understands it
    account = session.account
    recent = 0
    if "RECENT" in command.items:
        selected = await account.select(command.mailbox, claim_recent=False)
        info = selected.info
        uids = UIDRuns.of(selected.uids)
        recent = len(uids) - uids.position(info.recent_from)
    else:
        info = await account.mailbox(command.mailbox)
    values = {"RECENT": recent, "APPENDLIMIT": session.site.settings.append_limit}
    told = (f"{item} {values[item] if item in values else getattr(info, _FROM_INFO[item])}" for item in command.items)
    session.send(b"* STATUS " + utf7.to_astring(info.name) + b" (" + " ".join(told).encode("ascii") + b")\r\n")
    return Done("STATUS completed")
