"""One account in memory: its mailboxes by name and id, its one ModSeq counter, its threads, and who watches it.

What a command changes is decided and checked first, then done, then published; nothing in between can fail or
suspend, so a refused call did nothing and every call is one transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.logger import Logger
from zope.interface import implementer

from livemail.interfaces.storage import FLAGS, KEYWORDS, SIZE, AccountRecord, IChangeListener, IWatch
from livemail.mail.changes import Added, Change, MailboxCreated
from livemail.mail.errors import LimitReached, MailboxExists, NoSuchMailbox
from livemail.mail.flags import DELETED
from livemail.mail.ids import UID, MailboxId, ModSeq
from livemail.mail.names import INBOX, SPECIAL_USE, canonical_name, superiors
from livemail.storage.memory.content import Body
from livemail.storage.memory.deleted import DeletedMessages, KeptMessage
from livemail.storage.memory.mailbox import Columns, Mailbox, Message, keyword_bits, keyword_names
from livemail.storage.memory.quota import MemoryLedger
from livemail.storage.settings import StorageSettings

log = Logger(namespace="livemail.storage.memory")


@implementer(IWatch)
class Watch:
    """A listener's place in an account."""

    def __init__(self, watches: list[Watch], listener: IChangeListener) -> None:
        self.listener: IChangeListener | None = listener
        self._watches = watches
        watches.append(self)

    def stop(self) -> None:
        """No call of the listener after this returns."""
        if self.listener is not None:
            self.listener = None
            self._watches.remove(self)


class AccountState:
    """Everything the store keeps of one account."""

    def __init__(
        self,
        record: AccountRecord,
        settings: StorageSettings,
        next_uid_validity: Callable[[], int],
        ledger: MemoryLedger,
    ) -> None:
        self.record = record
        self.is_removed = False
        self.modseq: ModSeq = 0
        self.by_name: dict[str, Mailbox] = {}
        self.by_id: dict[MailboxId, Mailbox] = {}
        self.subscribed: set[str] = set()
        self.watches: list[Watch] = []
        self.imported: dict[str, set[bytes]] = {}
        self.settings = settings
        self.settled = (0, 0)
        self.deleted = DeletedMessages(record.id, settings.undelete)
        self._ledger = ledger
        self._next_uid_validity = next_uid_validity
        self._last_mailbox = 0
        self._last_email = 0
        # Message-IDs are remembered past the expunge of their message, so that a late reply still joins its thread.
        self._threads: dict[bytes, int] = {}

    def furnish(self) -> None:
        """Create what every new account has, subscribed."""
        modseq = self.next_modseq()
        for name, special_use in {INBOX: "", **SPECIAL_USE}.items():
            self.new_mailbox(name, special_use, modseq)
        self.subscribed.update(self.by_name)

    # ------------------------------------------------------------------------------------------------ mailboxes

    def named(self, name: str) -> Mailbox:
        """Return a mailbox.  Raises NoSuchMailbox."""
        try:
            return self.by_name[name]
        except KeyError:
            raise NoSuchMailbox from None

    def numbered(self, mailbox: MailboxId) -> Mailbox:
        """Return a mailbox.  Raises NoSuchMailbox."""
        try:
            return self.by_id[mailbox]
        except KeyError:
            raise NoSuchMailbox from None

    def new_mailbox(self, name: str, special_use: str, modseq: ModSeq) -> Mailbox:
        """Create a mailbox whose name is free and allowed."""
        self._last_mailbox += 1
        made = Mailbox(MailboxId(self._last_mailbox), name, special_use, self._next_uid_validity(), modseq)
        self.by_name[name] = self.by_id[made.id] = made
        return made

    def missing(self, name: str) -> list[str]:
        """Return a free name behind those of its superiors that do not exist.  Raises MailboxExists, LimitReached."""
        if name in self.by_name:
            raise MailboxExists
        names = [*(above for above in superiors(name) if above not in self.by_name), name]
        limit = self._ledger.limits(self).mailboxes
        if limit and len(self.by_name) + len(names) > limit:
            raise LimitReached(f"An account has at most {limit} mailboxes")
        return names

    def create(self, names: Sequence[str], special_use: str, modseq: ModSeq) -> list[MailboxCreated]:
        """Create what `missing` returned; the special use is the last one's."""
        made = [self.new_mailbox(name, special_use if name == names[-1] else "", modseq) for name in names]
        return [MailboxCreated(box.id, modseq, box.name) for box in made]

    # ------------------------------------------------------------------------------------------------- messages

    def usage(self) -> tuple[int, int]:
        """Return octets and messages of all mailboxes."""
        boxes = self.by_name.values()
        return sum(box.size for box in boxes), sum(len(box.messages) for box in boxes)

    def check_quota(self, octets: int, messages: int) -> None:
        """Raises OverQuota when so much more is too much."""
        self._ledger.check(self, octets, messages)

    def columns(
        self, body: Body, prefix: bytes, state: tuple[int, int, ModSeq], date: tuple[int, int], saved: int
    ) -> Columns:
        """Return the columns of a new message.

        state: system flags, keyword bits, ModSeq.  date: seconds since the epoch and minutes east, as in `AppendItem`.
        saved: seconds since the epoch.
        """
        self._last_email += 1
        email = self._last_email
        size, header_size = len(prefix) + len(body.octets), len(prefix) + body.summary.header_size
        return (*state, *date, size, header_size, saved, email, self._thread_of(body, email))

    def transfer(
        self, messages: Sequence[Message], source: Mailbox, target: Mailbox, saved: int, modseq: ModSeq
    ) -> Added:
        """Add copies of messages of one mailbox to another, or to itself.  Raises LimitReached before anything is done."""
        used = 0
        for message in messages:
            used |= message.row[KEYWORDS]
        table = target.with_keywords(keyword_names(source.keywords, used))
        target.check_room(len(messages))
        target.keywords = table
        translated: dict[int, int] = {}
        uids: list[UID] = []
        for message in messages:
            old = message.row
            bits = translated.get(old[KEYWORDS])
            if bits is None:
                bits = keyword_bits(table, keyword_names(source.keywords, old[KEYWORDS]))
                translated[old[KEYWORDS]] = bits
            columns = (old[1], bits, modseq, *old[4:8], saved, *old[9:])
            uids.append(target.add(columns, message.prefix, message.body))
        return Added(target.id, modseq, tuple(uids))

    def put_by(self, mailbox: Mailbox, uids: Sequence[UID], now: int) -> None:
        """Keep messages that are about to leave a mailbox, for `livemail.interfaces.undelete`."""
        self.deleted.put_by(mailbox, uids, now, self._ledger.limits(self).octets)

    def take_back(self, kept: Sequence[KeptMessage], name: str, saved: int) -> tuple[list[UID], list[Change]]:
        """Add kept messages to a mailbox, made when missing.  Raises OverQuota, LimitReached, InvalidName before that.

        Returns their UIDs, and what is to be published.
        """
        messages = [each.message for each in kept]
        self.check_quota(octets_of(messages), len(messages))
        name = canonical_name(name)
        names = [] if name in self.by_name else self.missing(name)
        words = [word for each in kept for word in each.keywords]
        if names:
            Mailbox(MailboxId(0), name, "", 0, 0).with_keywords(words)
        else:
            self.by_name[name].with_keywords(words)
            self.by_name[name].check_room(len(messages))
        modseq = self.next_modseq()
        changes: list[Change] = [*self.create(names, "", modseq)] if names else []
        mailbox = self.by_name[name]
        mailbox.keywords = mailbox.with_keywords(words)
        uids = []
        for message, _, keywords in kept:
            old, bits = message.row, keyword_bits(mailbox.keywords, keywords)
            columns = (old[FLAGS] & ~DELETED, bits, modseq, *old[4:8], saved, *old[9:])
            uids.append(mailbox.add(columns, message.prefix, message.body))
        return uids, [*changes, Added(mailbox.id, modseq, tuple(uids))]

    def file(self, name: str, body: Body, prefix: bytes, flags: int, date: int, saved: int) -> tuple[Mailbox, UID]:
        """Deliver one message, and publish it.  Raises InvalidName, LimitReached, OverQuota before anything is done."""
        names: list[str] = []
        if name not in self.by_name:
            name = canonical_name(name)
            if name not in self.by_name:
                names = self.missing(name)
        else:
            self.by_name[name].check_room(1)
        self.check_quota(len(prefix) + len(body.octets), 1)
        return self.add_delivered(name, names, body, prefix, flags, date, saved)

    def add_delivered(
        self, name: str, names: Sequence[str], body: Body, prefix: bytes, flags: int, date: int, saved: int
    ) -> tuple[Mailbox, UID]:
        """Add one message that nothing refuses any more, and publish it.  names: mailboxes to make for it, its own last."""
        modseq = self.next_modseq()
        changes: list[Change] = [*self.create(names, "", modseq)] if names else []
        mailbox = self.by_name[name]
        uid = mailbox.add(self.columns(body, prefix, (flags, 0, modseq), (date, 0), saved), prefix, body)
        self.publish(None, [*changes, Added(mailbox.id, modseq, (uid,))])
        return mailbox, uid

    def _thread_of(self, body: Body, email: int) -> int:
        """Return the thread of a new message: that of the nearest message known of, else a new one."""
        summary = body.summary
        nearest_first = [summary.message_id, *reversed(summary.references)]
        threads = self._threads
        thread = next((threads[key] for key in nearest_first if key and key in threads), email)
        for key in nearest_first:
            if key:
                threads.setdefault(key, thread)
        return thread

    # ---------------------------------------------------------------------------------------------- change feed

    def next_modseq(self) -> ModSeq:
        """Return the ModSeq of the command that begins to change something now."""
        self.modseq += 1
        return self.modseq

    def publish(self, origin: object, changes: Sequence[Change]) -> None:
        """Tell every watch what one command changed."""
        for watch in tuple(self.watches):
            if watch.listener is None:  # stopped by a listener before it
                continue
            try:
                watch.listener.changed(self.modseq, origin, changes)
            except Exception:
                log.failure("a change listener of {account} raised", account=self.record.name)
        self._ledger.settle(self)


def octets_of(messages: Sequence[Message]) -> int:
    """Return what messages count against the quota."""
    return sum(message.row[SIZE] for message in messages)
