"""The queue: what is to be sent on, to whom, when next, and what became of it so far.

States of a recipient
    queued     never tried; due at once, or when FUTURERELEASE says
    deferred   tried, or waiting for a destination that is down; due at ``next_attempt``
    claimed    an attempt runs; a lease says until when it is believed to
    held       an administrator said so; nothing happens to it, it does not expire
    failing    decided without an attempt (dropped with a report); the runner only has to report it
    delivered, failed
               over; kept for `IQueue.message` until the last recipient of the message is, then the message is removed

        accept ──▶ queued ──▶ claimed ──▶ delivered │ failed      accept leads to claimed at once where an attendant
                     ▲  │       │  ▲                               has room for it
                     │  ▼       ▼  │
                     held ◀── deferred

Rules of the boundary, beside those of `livemail.interfaces.storage`
    Each call is one durable transaction, so a crash finds a recipient before or after it, never between.  `settle` files
    the report about a failure in the transaction that records the failure: there is one report, or none yet and the
    recipient is tried again.
    A lease is void when its time is over, or when the server that took it is not this one.  Its recipient is due again.
    So a recipient is delivered twice only if the peer took the message and neither we settled nor it expired: from the
    peer's reply to the commit of `settle`.
    Bulk calls take a place to go on from and return the next: a queue of a million is walked in bounded pieces.

Times are seconds since the epoch, UTC, with fractions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal, NewType, Protocol

import msgspec
from zope.interface import Interface

from livemail.interfaces.relay import Attempt, Reply
from livemail.interfaces.storage import Delivered, Delivery, IContentReader
from livemail.mail.content import Content
from livemail.mail.envelope import Envelope, Recipient, ReversePath
from livemail.mail.errors import MailError
from livemail.mail.ids import AccountId

QueueId = NewType("QueueId", int)
"""u64, ascending, never reused.  Written as `queue_id_text`."""

START = QueueId(0)
"""Below every queue id: where a walk through the queue begins."""

State = Literal["queued", "deferred", "claimed", "held", "failing", "delivered", "failed"]

MIN_PRIORITY, MAX_PRIORITY = -9, 9
"""RFC 6710 §2.  Higher is sooner, among the mail for one destination."""

MAX_HISTORY = 5
"""Attempts that are remembered with a recipient, the latest."""


_QUEUE_ID = re.compile(r"[Qq][0-9A-Fa-f]{1,16}", re.ASCII)


def queue_id_text(id_: QueueId) -> str:
    """Return an id as people and logs see it: ``Q`` and hexadecimal digits."""
    return f"Q{id_:X}"


def parse_queue_id(text: str) -> QueueId:
    """Read what `queue_id_text` wrote, in either case.  Raises ValueError."""
    if not _QUEUE_ID.fullmatch(text):
        raise ValueError(f"{text!r} is not a queue id; one looks like Q1F3")
    return QueueId(int(text[1:], 16))


# ------------------------------------------------------------------------------------------------------- what comes in


class Addressed(msgspec.Struct, frozen=True):
    """A recipient with the key of `IRouting.destination` for its domain."""

    recipient: Recipient
    destination: str


class Outgoing(msgspec.Struct, frozen=True):
    """A message for the queue.

    content: shared with other copies by its digest; the caller closes it.  prefix: whole header fields with CRLF sent in front
    of the content (trace of a forward, a signature).  submitter: whose mail it is, 0 for a stranger's or our own.
    transaction: the mail transaction's id in logs.  priority: MIN_PRIORITY to MAX_PRIORITY.  not_before: 0 for at once.
    created: 0 for now.  expires: when it is given up, 0 for the lifetime the queue is configured with.
    """

    content: Content
    reverse_path: ReversePath
    recipients: tuple[Addressed, ...]
    prefix: bytes = b""
    submitter: AccountId = AccountId(0)
    transaction: str = ""
    priority: int = 0
    not_before: float = 0.0
    created: float = 0.0
    expires: float = 0.0


class Filing(msgspec.Struct, frozen=True):
    """What one commit takes: copies for mailboxes, and messages for the queue."""

    deliveries: tuple[Delivery, ...] = ()
    outgoing: tuple[Outgoing, ...] = ()


class Filed(msgspec.Struct, frozen=True):
    """What became of a Filing, in its order.  A delivery is refused for itself; what is for the queue is all taken."""

    delivered: tuple[Delivered | MailError, ...] = ()
    queued: tuple[QueueId, ...] = ()


# ------------------------------------------------------------------------------------------------------ what is in it


class QueuedRecipient(msgspec.Struct, frozen=True):
    """One recipient in the queue.

    number: its place in the message, from 0.  attempts: how many there were.  last: the latest reply, None before the first;
    host: who gave it, "" when nobody did.  is_delay_reported: the sender was told that it takes long.
    history: the latest attempts, oldest first, at most MAX_HISTORY.  note: why it is held.  extended: seconds it was
    held, which its expiry is later.  verdict: of one that is ``failing``: what the report is to say.
    """

    number: int
    recipient: Recipient
    destination: str
    state: State
    next_attempt: float
    attempts: int = 0
    last: Reply | None = None
    host: str = ""
    is_delay_reported: bool = False
    history: tuple[Attempt, ...] = ()
    note: str = ""
    extended: float = 0.0
    verdict: Reply | None = None


class QueuedMessage(msgspec.Struct, frozen=True):
    """A message in the queue.  recipients: all of them, or those the call is about; by number.

    size: octets of prefix and content.  expires: 0 as in `Outgoing`.  open: recipients that are not over.  has_8bit, has_utf8_header: of the content.
    """

    id: QueueId
    reverse_path: ReversePath
    recipients: tuple[QueuedRecipient, ...]
    size: int
    submitter: AccountId
    transaction: str
    priority: int
    created: float
    expires: float
    open: int = 0
    has_8bit: bool = False
    has_utf8_header: bool = False


class DestinationInfo(msgspec.Struct, frozen=True):
    """What the queue knows of a destination.

    waiting: recipients queued or deferred; claimed, held: likewise.  failures: how often in a row it was found down;
    not_before: it is left alone until then; reply: what was the matter.  turn: when it is looked at next.
    """

    destination: str
    waiting: int
    claimed: int = 0
    held: int = 0
    failures: int = 0
    not_before: float = 0.0
    reply: Reply | None = None
    turn: float = 0.0


class QueueStats(msgspec.Struct, frozen=True):
    """Counts of the whole queue.  recipients: by state, those that are over left out.  oldest: creation of the oldest message, 0 for none."""

    messages: int
    octets: int
    recipients: Mapping[str, int]
    destinations: int
    oldest: float
    next_attempt: float


# -------------------------------------------------------------------------------------------------- claiming, settling


class ClaimLimits(msgspec.Struct, frozen=True):
    """How much to claim.

    jobs: at most so many attempts.  rooms: how many each of these destinations may get; others may get ``room``, one when
    they were found down.  probes: at most so many for destinations that were found down, so that a thousand dead ones do
    not take every connection.  recipients: in one job.  swept: recipients handed out beside the attempts, to be deferred
    because their destination is down, or to be reported because they are decided.
    """

    jobs: int
    rooms: Mapping[str, int] = msgspec.field(default_factory=dict)
    room: int = 1
    probes: int = 1
    recipients: int = 100
    swept: int = 500


class Claimed(msgspec.Struct, frozen=True):
    """One message with recipients of one destination, all claimed.

    failures: of the destination.  down: what was the matter with it, when it is to be left alone for now: defer without
    trying.  is_decided: the recipients are ``failing``: report, without trying.  content: as `IQueue.open_content` gives it,
    where it is small and still in memory; needs no closing.
    """

    message: QueuedMessage
    destination: str
    failures: int = 0
    down: Reply | None = None
    is_decided: bool = False
    content: IContentReader | None = None


class Claims(msgspec.Struct, frozen=True):
    """What `IQueue.claim` found.

    next_due: when something else becomes due, infinite for never.  is_more: something due was left for want of room.
    """

    jobs: tuple[Claimed, ...]
    next_due: float
    is_more: bool = False


class Outcome(msgspec.Struct, frozen=True):
    """What became of one claimed recipient.

    fate: ``deferred`` needs next_attempt; ``moved``: not tried, because its destination is another now.
    is_delay_reported: a report about the delay goes with this settlement.  was_tried: the attempt counts.
    """

    number: int
    fate: Literal["delivered", "deferred", "failed", "moved"]
    reply: Reply | None = None
    host: str = ""
    next_attempt: float = 0.0
    is_delay_reported: bool = False
    was_tried: bool = True
    destination: str = ""


class Settlement(msgspec.Struct, frozen=True):
    """The end of one `Claimed`.  attempts: connections it took.  report: filed in the same commit."""

    id: QueueId
    outcomes: tuple[Outcome, ...]
    attempts: tuple[Attempt, ...] = ()
    report: Filing | None = None


class DestinationNews(msgspec.Struct, frozen=True):
    """What an attempt taught about a destination; failures 0: it is well."""

    destination: str
    failures: int = 0
    not_before: float = 0.0
    reply: Reply | None = None


class Settled(msgspec.Struct, frozen=True):
    """is_done: False when the claim was not ours any more: then nothing was done, and nothing filed.

    filed: of the report.  is_removed: that was the message's last recipient.
    """

    is_done: bool
    is_removed: bool = False
    filed: Filed | None = None


# ------------------------------------------------------------------------------------------------------------ choosing


class Choice(msgspec.Struct, frozen=True):
    """Which recipients are meant: those for which everything given holds.  Empty: all that are not over.

    sender, recipient, domain: text in which ``*`` stands for anything, compared without case; sender ``<>`` is the null
    reverse-path.  destination: exactly.  created_before, created_after: 0 for any time.  transaction: exactly.
    """

    ids: frozenset[QueueId] = frozenset()
    states: frozenset[State] = frozenset()
    sender: str = ""
    recipient: str = ""
    domain: str = ""
    destination: str = ""
    transaction: str = ""
    created_before: float = 0.0
    created_after: float = 0.0


class Hold(msgspec.Struct, frozen=True, tag="hold"):
    """Leave it alone.  What is claimed is held if its attempt does not settle it."""

    note: str = ""


class Release(msgspec.Struct, frozen=True, tag="release"):
    """End a hold: due at once; the time it was held is added to its message's expiry."""


class Retry(msgspec.Struct, frozen=True, tag="retry"):
    """Due at once, and its destination is not left alone any more.  What is held stays held."""


class Drop(msgspec.Struct, frozen=True, tag="drop"):
    """Remove it without a word."""


class Fail(msgspec.Struct, frozen=True, tag="fail"):
    """Remove it with a report to the sender that says this."""

    reply: Reply


class Edit(msgspec.Struct, frozen=True, tag="edit"):
    """Change what is given.  recipient: replaces the address of each chosen recipient; destination is its key.

    The reverse-path, priority and expiry are the message's: they change for all its recipients.
    """

    recipient: Recipient | None = None
    destination: str = ""
    reverse_path: ReversePath | None = None
    priority: int | None = None
    expires: float = 0.0


Change = Hold | Release | Retry | Drop | Fail | Edit


class Changed(msgspec.Struct, frozen=True):
    """How far `IQueue.change` came.  busy: chosen but being attempted, where the change cannot wait for that.

    after: where to go on, None when all was seen.
    """

    seen: int
    changed: int
    busy: int
    after: QueueId | None


class Page(msgspec.Struct, frozen=True):
    """A piece of a list: messages with the chosen recipients.  after: where to go on, None at the end."""

    messages: tuple[QueuedMessage, ...]
    after: QueueId | None


# ---------------------------------------------------------------------------------------------------------- interfaces


class Attendant(Protocol):
    """Who works on a queue: hears what is due, and may get new mail claimed by the very commit that brings it."""

    def wake(self, when: float) -> None:
        """Something that was not became due at ``when``."""

    def keep_room(self, destination: str, recipients: int) -> bool:
        """Whether new mail with so many recipients of a destination could be begun at once.

        Then a place is kept for it until `begin` or `give_back`, one of which follows.
        """

    def begin(self, claimed: Claimed) -> None:
        """Mail that room was kept for is there, and claimed.  Must not raise."""

    def give_back(self, destination: str) -> None:
        """It is not: it was refused, or waits its turn as other mail does."""


class IQueue(Interface):
    """The queue of a store."""

    async def accept(filing: Filing) -> Filed:
        """File copies and queue messages in one durable commit.

        What the attendant has room for is claimed in that commit, unless mail for the same destination is due and waits,
        or the destination is down.

        Raises StorageFull, StorageFailed, Overloaded, LimitReached (the queue is full); then nothing was taken.
        """

    async def claim(limits: ClaimLimits, lease: float) -> Claims:
        """Claim what is due, the destination that was served longest ago first.  lease: seconds."""

    async def renew(claims: Sequence[tuple[QueueId, Sequence[int]]], lease: float) -> None:
        """Prolong leases of recipients (by number) to ``lease`` seconds from now; those that are void are left out."""

    async def settle(settlements: Sequence[Settlement], news: Sequence[DestinationNews] = ()) -> Sequence[Settled]:
        """Record what became of claims, and file the reports about it.  Raises StorageFull, StorageFailed, Overloaded."""

    async def reclaim() -> int:
        """Make what has a void lease due again.  Returns how many recipients."""

    async def change(choice: Choice, change: Change, after: QueueId = START, limit: int = 1000) -> Changed:
        """Change the chosen recipients of at most ``limit`` messages above ``after``."""

    async def find(choice: Choice, after: QueueId = START, limit: int = 1000) -> Page:
        """List the chosen recipients, by message, looking at no more than some multiple of ``limit`` messages."""

    async def message(id: QueueId) -> QueuedMessage | None:
        """One message with all its recipients, those that are over included."""

    async def open_content(id: QueueId) -> IContentReader | None:
        """Prefix and content of a message, None when it is gone.  The caller closes it."""

    async def destinations(after: str = "", limit: int = 1000) -> Sequence[DestinationInfo]:
        """Destinations above ``after`` in order."""

    async def stats() -> QueueStats:
        """Counts."""

    def attend(attendant: Attendant | None, lease: float = 0.0) -> None:
        """Tell ``attendant`` what is due, and offer new mail to it, claimed for ``lease`` seconds; None ends that."""


class Concerned(msgspec.Struct, frozen=True):
    """One recipient a report is about.  action: RFC 3464 §2.3.3's words; retry_until: for delays."""

    recipient: QueuedRecipient
    action: Literal["failed", "delayed", "delivered", "relayed", "expanded"]
    reply: Reply
    host: str = ""
    attempted: float = 0.0
    retry_until: float = 0.0


class Report(msgspec.Struct, frozen=True):
    """A composed report: a new message with its envelope (null reverse-path).  Who receives it closes the content."""

    content: Content
    envelope: Envelope


class Reporter(Protocol):
    """Composes reports about the recipients of one message.  RFC 3461, 3464.

    It decides by NOTIFY, RET and the reverse-path whether anything is to be said to anybody; where it goes, and that it goes in the
    commit that settles the recipients, is the queue's.
    """

    async def __call__(
        self, message: QueuedMessage, content: IContentReader, concerned: Sequence[Concerned]
    ) -> Sequence[Report]:
        """Return what to send: nothing, a report to the sender, or to postmaster for a bounce that failed.

        message: its recipients are those of the job.  content: prefix and content of the original, open; not closed here.
        Must not raise for anything the message contains.
        """
