"""One mailbox in memory: its messages in UID order, its counters, its keyword table, what was expunged from it.

Nothing here checks permission, publishes, or can fail half-way: `livemail.storage.memory.account` decides first and
then calls.  The counters are kept in step with the rows, never recounted; `IMailStore.check` recounts them.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Iterable, Sequence

from livemail.interfaces.storage import FLAGS, KEYWORDS, MODSEQ, SIZE, UID_, Changes, MailboxInfo, Row
from livemail.mail.errors import CannotCalculate, LimitReached
from livemail.mail.flags import DELETED, MAX_KEYWORDS, SEEN
from livemail.mail.ids import MAX_UID, UID, MailboxId, ModSeq, UIDSet
from livemail.storage.memory.content import Body

Columns = tuple[int, int, int, int, int, int, int, int, int, int]
"""A Row without its UID."""


class Message:
    """One message in one mailbox.  row: replaced as a whole, never changed, so that batches can share it."""

    __slots__ = ("body", "prefix", "row")

    def __init__(self, row: Row, prefix: bytes, body: Body) -> None:
        self.row = row
        self.prefix = prefix
        self.body = body


class Mailbox:
    """A mailbox of an account."""

    def __init__(self, id: MailboxId, name: str, special_use: str, uid_validity: int, modseq: ModSeq) -> None:  # noqa: A002
        self.id = id
        self.name = name
        self.special_use = special_use
        self.uid_validity = uid_validity
        self.uid_next: UID = 1
        self.unseen = 0
        self.deleted = 0
        self.size = 0
        self.highest_modseq = modseq
        self.recent_from: UID = 1
        self.keywords: tuple[str, ...] = ()
        self.messages: dict[UID, Message] = {}
        self.uids = array("I")
        self.expunged: deque[tuple[ModSeq, UIDSet]] = deque()
        self.floor: ModSeq = 0

    def info(self) -> MailboxInfo:
        """Return the mailbox as the interface shows it."""
        return MailboxInfo(
            id=self.id,
            name=self.name,
            special_use=self.special_use,
            uid_validity=self.uid_validity,
            uid_next=self.uid_next,
            exists=len(self.messages),
            unseen=self.unseen,
            deleted=self.deleted,
            size=self.size,
            highest_modseq=self.highest_modseq,
            recent_from=self.recent_from,
            keywords=self.keywords,
        )

    def first_unseen(self) -> int:
        """Return the 1-based position of the first message without \\Seen, 0 when there is none."""
        if not self.unseen:
            return 0
        return next(at for at, found in enumerate(self.messages.values(), 1) if not found.row[FLAGS] & SEEN)

    def chosen(self, uids: UIDSet | None) -> list[UID]:
        """Return the existing UIDs of a set (None: all), ascending."""
        return list(self.uids if uids is None else uids.select(self.uids))

    def with_keywords(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return the keyword table with these names in it; the first spelling of a name stays.  Raises LimitReached."""
        table = list(self.keywords)
        known = {name.lower() for name in table}
        for name in names:
            if name.lower() not in known:
                known.add(name.lower())
                table.append(name)
        if len(table) > MAX_KEYWORDS:
            raise LimitReached(f"A mailbox has at most {MAX_KEYWORDS} keywords")
        return tuple(table)

    def check_room(self, count: int) -> None:
        """Raises LimitReached when there are no UIDs for so many more messages."""
        if self.uid_next + count > MAX_UID + 1:
            raise LimitReached("The mailbox has given out all its UIDs")

    def add(self, columns: Columns, prefix: bytes, body: Body) -> UID:
        """Add a message under the next UID."""
        uid = self.uid_next
        self.uid_next = uid + 1
        row = (uid, *columns)
        self.messages[uid] = Message(row, prefix, body)
        self.uids.append(uid)
        self._count(row, 1)
        self.highest_modseq = row[MODSEQ]
        return uid

    def set_flags(self, modseq: ModSeq, changed: Sequence[tuple[UID, int, int]]) -> None:
        """Replace system flags and keyword bits of messages that exist."""
        for uid, flags, bits in changed:
            message = self.messages[uid]
            row = message.row
            self.unseen += (not flags & SEEN) - (not row[FLAGS] & SEEN)
            self.deleted += bool(flags & DELETED) - bool(row[FLAGS] & DELETED)
            message.row = (uid, flags, bits, modseq, *row[4:])
        self.highest_modseq = modseq

    def remove(self, modseq: ModSeq, uids: Sequence[UID], rows_kept: int) -> UIDSet:
        """Remove messages that exist, and remember that they were there.  uids: ascending, not empty."""
        for uid in uids:
            self._count(self.messages.pop(uid).row, -1)
        self.uids = array("I", self.messages)
        removed = UIDSet.of(uids)
        self.expunged.append((modseq, removed))
        while len(self.expunged) > rows_kept:
            self.floor = self.expunged.popleft()[0]
        self.highest_modseq = modseq
        return removed

    def changes(self, since: ModSeq) -> Changes:
        """Return what changed above ``since``.  Raises CannotCalculate when expunges that old are forgotten."""
        if since < self.floor:
            raise CannotCalculate
        if since >= self.highest_modseq:
            return Changes(self.highest_modseq, UIDSet(), UIDSet())
        changed = UIDSet.of([uid for uid, message in self.messages.items() if message.row[MODSEQ] > since])
        vanished = UIDSet([pair for modseq, uids in self.expunged if modseq > since for pair in uids.ranges])
        return Changes(self.highest_modseq, changed, vanished)

    def faults(self) -> list[str]:
        """Return what does not add up: counters against rows, UIDs against their order, bits against the table."""
        rows = [message.row for message in self.messages.values()]
        found: list[str] = []
        for name, kept, counted in (
            ("unseen", self.unseen, sum(not row[FLAGS] & SEEN for row in rows)),
            ("deleted", self.deleted, sum(bool(row[FLAGS] & DELETED) for row in rows)),
            ("size", self.size, sum(row[SIZE] for row in rows)),
            ("uids", list(self.uids), sorted(row[UID_] for row in rows)),
        ):
            if kept != counted:
                found.append(f"{name} is {kept}, the messages say {counted}")
        if rows and (rows[-1][UID_] >= self.uid_next or max(row[MODSEQ] for row in rows) > self.highest_modseq):
            found.append("a message is newer than the mailbox")
        if any(row[KEYWORDS] >> len(self.keywords) for row in rows):
            found.append("a message has a keyword without name")
        return found

    def _count(self, row: Row, sign: int) -> None:
        self.size += sign * row[SIZE]
        if not row[FLAGS] & SEEN:
            self.unseen += sign
        if row[FLAGS] & DELETED:
            self.deleted += sign


def keyword_bits(table: Sequence[str], names: Iterable[str]) -> int:
    """Return the bits of the names that a keyword table has, compared without case."""
    bit_of = {name.lower(): 1 << bit for bit, name in enumerate(table)}
    bits = 0
    for name in names:
        bits |= bit_of.get(name.lower(), 0)
    return bits


def keyword_names(table: Sequence[str], bits: int) -> list[str]:
    """Return the names of keyword bits."""
    return [name for bit, name in enumerate(table) if bits >> bit & 1]
