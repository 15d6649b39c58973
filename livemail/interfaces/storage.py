"""Storage: accounts, mailboxes, messages, and the feed of their changes.

Rules of the boundary
    One call is one durable transaction: when it returns, what it did survives power loss and every later call, in any
    process, sees it.  A refused call (MailError) did nothing.
    Arguments and results are batches.  No transaction object crosses the boundary.
    Storage speaks UIDs, never sequence numbers; names are canonical (`livemail.mail.names.canonical_name`).
    Bulk reads are asynchronous iterators of bounded batches, each batch one snapshot: back-pressure is the reader's not
    asking for the next.  A message expunged between batches is simply absent.
    Changes reach listeners after durability and before the call that made them returns, in ModSeq order per account.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

import msgspec
from zope.interface import Attribute, Interface

from livemail.interfaces.story import KeptStory
from livemail.mail.changes import Change
from livemail.mail.content import Content
from livemail.mail.errors import MailError
from livemail.mail.flags import FlagChange
from livemail.mail.ids import UID, AccountId, MailboxId, ModSeq, UIDSet

# ---------------------------------------------------------------------------------------------------------- values


class AccountRecord(msgspec.Struct, frozen=True):
    """An account as the store keeps it.

    name: canonical login, ``local@domain``, lower-case NFC.  password: hash in PHC string format, "" for none.
    created: seconds since the epoch, UTC.  storage: where its messages are, "lmdb" (segments) or "maildir".
    """

    id: AccountId
    name: str
    password: str
    created: int
    is_enabled: bool = True
    storage: str = "lmdb"


class MailboxInfo(msgspec.Struct, frozen=True):
    """A mailbox with its counters, one snapshot.

    size: octets of all messages.  recent_from: the lowest UID no read-write SELECT has been told of (RFC 3501 §2.3.2
    \\Recent).  keywords: names of the keyword bits, bit 0 first.
    special_use: one attribute with its backslash, or "".
    """

    id: MailboxId
    name: str
    special_use: str
    uid_validity: int
    uid_next: UID
    exists: int
    unseen: int
    deleted: int
    size: int
    highest_modseq: ModSeq
    recent_from: UID
    keywords: tuple[str, ...]


class MailboxList(msgspec.Struct, frozen=True):
    """All mailboxes of an account by name, ascending, and all names subscribed to (existing or not)."""

    mailboxes: tuple[MailboxInfo, ...]
    subscribed: frozenset[str]


class Selected(msgspec.Struct, frozen=True):
    """What opening a mailbox needs: one snapshot.  uids: all UIDs, ascending; the receiver's own, and best as `livemail.mail.uids.UIDRuns`.

    first_unseen: 1-based position in ``uids`` of the first message without \\Seen, 0 when there is none.
    """

    info: MailboxInfo
    uids: Sequence[UID]
    first_unseen: int


class AppendItem(msgspec.Struct, frozen=True):
    """One message for `IAccount.append`.

    internal_date: seconds since the epoch, UTC; zone: minutes east of UTC, as the appender wrote it.
    """

    content: Content
    flags: int = 0
    keywords: tuple[str, ...] = ()
    internal_date: int | None = None
    zone: int = 0


class Appended(msgspec.Struct, frozen=True):
    """APPENDUID's values.  RFC 4315 §3."""

    mailbox: MailboxId
    uid_validity: int
    uids: tuple[UID, ...]


class Delivery(msgspec.Struct, frozen=True):
    """One copy of a message for one mailbox.

    mailbox: name, created with its superiors when it is missing.  prefix: whole header fields with CRLF put before the
    content for this recipient only (Return-Path, Delivered-To); kept apart, so that the content is stored once.
    """

    account: AccountId
    mailbox: str
    content: Content
    prefix: bytes = b""
    flags: int = 0
    internal_date: int | None = None


class Delivered(msgspec.Struct, frozen=True):
    """Where a Delivery went."""

    account: AccountId
    mailbox: MailboxId
    uid_validity: int
    uid: UID


class Stored(msgspec.Struct, frozen=True):
    """Result of `IAccount.store`.

    changed: (uid, system flags, keyword bits) of every message the command names and the condition allowed, changed or
    not, UIDs ascending.  modseq: of those that did change; 0 when none did.  modified: UIDs refused by UNCHANGEDSINCE.
    keywords: names of the keyword bits.
    """

    changed: tuple[tuple[UID, int, int], ...]
    modseq: ModSeq
    modified: UIDSet
    keywords: tuple[str, ...]


class Copied(msgspec.Struct, frozen=True):
    """COPYUID's values: source[i] became target[i], both ascending; empty when no message was there.  RFC 4315 §3."""

    mailbox: MailboxId
    uid_validity: int
    source: tuple[UID, ...]
    target: tuple[UID, ...]


class FetchWant(msgspec.Struct, frozen=True):
    """Which columns a fetch needs beside the rows.  Every true word costs; leave out what is not asked for.

    contents: whole messages, prefix included, where they are at most ``contents_up_to`` octets, else None.
    changed_since: only messages with a higher ModSeq.
    """

    envelopes: bool = False
    structures: bool = False
    fields: bool = False
    parts: bool = False
    contents: bool = False
    contents_up_to: int = 64 * 1024
    changed_since: ModSeq = 0


Row = tuple[int, int, int, int, int, int, int, int, int, int, int]
"""One message's fixed record, a plain tuple because a hundred thousand of them come out of one C call.

uid, system flags, keyword bits, modseq, internal date (s, UTC), its zone (minutes east), size (octets, prefix included),
header size (octets, prefix included), save date (s, UTC), email id, thread id: indexed with the constants below.
"""

UID_, FLAGS, KEYWORDS, MODSEQ, DATE, ZONE, SIZE, HEADER_SIZE, SAVED, EMAIL_ID, THREAD_ID = range(11)


class FetchBatch(msgspec.Struct):
    """Up to about 1,000 messages, or 1 MiB of contents; columns run parallel to ``rows``, None where not wanted.

    prefixes come with ``fields`` and ``contents``; fields[i] is None when they were too large to be cached (read the header
    from the content) and does not include the prefix.  parts offsets count from the content's first octet, without
    the prefix.  contents[i] is None when the message is larger than asked for.
    """

    rows: Sequence[Row]
    keywords: tuple[str, ...]
    envelopes: Sequence[bytes] | None = None
    structures: Sequence[bytes] | None = None
    prefixes: Sequence[bytes] | None = None
    fields: Sequence[bytes | None] | None = None
    parts: Sequence[bytes] | None = None
    contents: Sequence[bytes | None] | None = None


class Changes(msgspec.Struct, frozen=True):
    """What changed in one mailbox above a ModSeq.  changed: UIDs that exist; vanished: UIDs expunged since."""

    modseq: ModSeq
    changed: UIDSet
    vanished: UIDSet


class Problem(msgspec.Struct, frozen=True):
    """One inconsistency `IMailStore.check` found.  kind: stable word; where: account, mailbox, UID, file and offset."""

    kind: str
    where: str
    detail: str


class Repaired(msgspec.Struct, frozen=True):
    """What a repair did, or would do.  kind, where: as in `Problem`; action: for the administrator."""

    kind: str
    where: str
    action: str


class Report(msgspec.Struct, frozen=True):
    """What `IMailStore.check` saw."""

    accounts: int
    mailboxes: int
    messages: int
    contents: int
    octets: int
    problems: tuple[Problem, ...]


class Progress(Protocol):
    """Told now and then how far long work is."""

    def __call__(self, done: int, total: int, what: str) -> None:
        """done of total (0: not known) things called ``what``."""


# ------------------------------------------------------------------------------------------------------- interfaces


class IChangeListener(Interface):
    """Who wants to know what happens in an account."""

    def changed(modseq: ModSeq, origin: object, changes: Sequence[Change] | None) -> None:
        """Changes up to ``modseq`` are durable.  Must not raise, must not block, must not write to the store.

        origin: the `IAccount` handle that made them, or None.  changes: None means "something: ask `IAccount.changes`".
        """


class IWatch(Interface):
    """A subscription to an account's changes."""

    def stop() -> None:
        """No call of the listener after this returns.  Allowed more than once."""


class IContentSink(Interface):
    """Takes the octets of one message: to memory first, to a spool file when they grow, hashed and scanned in passing."""

    size = Attribute("octets written so far")

    def write(chunk: bytes) -> None:
        """Take the next octets.  Raises TooBig over the limit, StorageFull before the disk's reserve is touched."""

    async def finish() -> Content:
        """No more octets follow.  A large content is flushed to disk before this returns.  The caller closes it."""

    def abort() -> None:
        """Forget everything; no file remains.  Allowed more than once, and after `finish` (then it does nothing)."""


class IContentReader(Interface):
    """Reads one stored message, prefix included; stays readable after the message is expunged, until closed."""

    size = Attribute("octets, prefix included")
    prefix_size = Attribute("octets of the delivery prefix before the content")

    async def read(offset: int, length: int) -> bytes:
        """Return the octets [offset, offset+length) of prefix + content, fewer at the end.

        Raises StorageFailed when what is on disk is not what was stored.
        """

    def close() -> None:
        """Give back what reading needs.  Allowed more than once."""


class IAccount(Interface):
    """One account's mailboxes; a cheap handle, one per session, so that changes can name their origin."""

    id = Attribute("AccountId")
    name = Attribute("canonical login")

    async def mailboxes() -> MailboxList:
        """Return every mailbox with its counters, and the subscriptions."""

    async def mailbox(name: str) -> MailboxInfo:
        """Return one mailbox.  Raises NoSuchMailbox."""

    async def create_mailbox(name: str, special_use: str = "") -> MailboxInfo:
        """Create a mailbox and its missing superiors.  Raises MailboxExists, InvalidName, LimitReached."""

    async def rename_mailbox(old: str, new: str) -> None:
        """Rename with all inferiors; superiors of ``new`` are created.  RFC 9051 §6.3.6.

        Renaming INBOX moves its messages to a new mailbox and leaves INBOX empty; its inferiors stay.
        Raises NoSuchMailbox, MailboxExists, InvalidName, NotPermitted (a mailbox below itself).
        """

    async def delete_mailbox(name: str) -> None:
        """Delete a mailbox and its messages.  Raises NoSuchMailbox, NotPermitted (INBOX, or it has inferiors)."""

    async def subscribe(name: str, is_subscribed: bool) -> None:
        """Add or remove a name from the subscriptions; it need not exist.  Idempotent."""

    async def select(name: str, claim_recent: bool) -> Selected:
        """Open a mailbox.  With ``claim_recent`` this caller takes the \\Recent of all messages (read-write SELECT).

        info.recent_from is the value before the claim.  Raises NoSuchMailbox.
        """

    async def claim_recent(mailbox: MailboxId, up_to: UID) -> UID:
        """Take the \\Recent of messages below ``up_to``; return recent_from as it was before."""

    async def append(mailbox: str, items: Sequence[AppendItem]) -> Appended:
        """Append messages, all or none.  Raises NoSuchMailbox, OverQuota, StorageFull, LimitReached (keywords)."""

    def fetch(mailbox: MailboxId, uids: UIDSet, want: FetchWant) -> AsyncIterator[FetchBatch]:
        """Read messages in UID order; those that do not exist are left out.  Raises NoSuchMailbox (deleted meanwhile)."""

    async def open_content(mailbox: MailboxId, uid: UID) -> IContentReader | None:
        """Open one message for reading; None when it does not exist (any more)."""

    async def store(
        mailbox: MailboxId, uids: UIDSet, change: FlagChange, unchanged_since: ModSeq | None = None
    ) -> Stored:
        """Change flags.  One ModSeq for the whole command; messages whose flags stay equal keep theirs.

        unchanged_since: RFC 7162 §3.1.3; 0 refuses every message.  Raises NoSuchMailbox, LimitReached (keywords).
        """

    async def copy(mailbox: MailboxId, uids: UIDSet, target: str) -> Copied:
        """Copy with flags, keywords and internal date, all or none.  Raises NoSuchMailbox (the target), OverQuota."""

    async def move(mailbox: MailboxId, uids: UIDSet, target: str) -> Copied:
        """Move in one transaction; into the same mailbox it gives new UIDs.  RFC 6851.  Raises as `copy`."""

    async def expunge(mailbox: MailboxId, uids: UIDSet | None, only_deleted: bool = True) -> UIDSet:
        """Remove messages (None: all) that have \\Deleted, or without that condition.  Returns the UIDs removed."""

    async def changes(mailbox: MailboxId, since: ModSeq) -> Changes:
        """What changed above ``since``.  Raises CannotCalculate, NoSuchMailbox."""

    def watch(listener: IChangeListener) -> IWatch:
        """Subscribe to this account's changes, this handle's own included."""


class IMailStore(Interface):
    """One store; opened and closed by `livemail.app`."""

    addresses = Attribute("`livemail.interfaces.addresses.IAddressBook`: domains and aliases")
    capabilities = Attribute("frozenset of words: condstore objectid single-instance keywords …")
    queue = Attribute("livemail.interfaces.queue.IQueue: what goes out, in the same durable commits")

    def new_content(size_hint: int = 0) -> IContentSink:
        """Begin a message's content.  size_hint: announced octets, 0 when unknown.

        Raises StorageFull when the disk is near its reserve, TooBig when the hint is over the limit.
        """

    async def account(id: AccountId) -> IAccount:
        """Open an account.  Raises NoSuchAccount."""

    async def deliver(batch: Sequence[Delivery]) -> Sequence[Delivered | MailError]:
        """File every delivery in one durable commit; results in the order of the batch.

        A delivery that is refused (no such account, over quota) fails alone; StorageFull, StorageFailed and Overloaded
        are raised and nothing was filed.
        """

    def note(transaction: str, story: bytes, digest: bytes = b"") -> None:
        """Keep a story (`livemail.interfaces.story`) with the next commit; a later one of the same transaction replaces it.

        digest: of the content that is about to be filed or queued: the story goes into the commit that does so.  Bounded by
        `StorageSettings.story_rows`; never raises.
        """

    def flush_stories() -> None:
        """Commit the stories that wait, when no other commit has taken them along.  Call it every second or so."""

    async def story(transaction: str) -> KeptStory | None:
        """One transaction's story, those that wait included."""

    async def find_stories(text: bytes, limit: int, progress: Progress | None = None) -> Sequence[KeptStory]:
        """Stories that contain some octets (a Message-ID, an address), the latest first, at most ``limit``."""

    async def account_named(name: str) -> AccountRecord | None:
        """Look up a canonical login."""

    async def accounts() -> Sequence[AccountRecord]:
        """All accounts by name, ascending."""

    async def add_accounts(accounts: Sequence[tuple[str, str]]) -> Sequence[AccountRecord | MailError]:
        """Create accounts from (canonical login, password hash), each with INBOX and the special-use mailboxes,
        subscribed.  One that exists fails alone (AccountExists)."""

    async def set_password(name: str, password: str) -> AccountRecord:
        """Replace the hash.  Raises NoSuchAccount."""

    async def remove_account(name: str) -> None:
        """Remove an account with all its mail.  Raises NoSuchAccount."""

    async def check(progress: Progress | None = None) -> Report:
        """Read everything and compare: index with content, counters with rows, references with contents."""

    async def close() -> None:
        """Finish what was accepted, then release files and threads.  Later calls raise StorageFailed."""
