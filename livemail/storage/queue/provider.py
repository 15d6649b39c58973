"""`IQueue` as every store of ours provides it: packing, unpacking, and whom to wake; the engine runs the operations."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure
from zope.interface import implementer

from livemail.interfaces.queue import (
    START,
    Attendant,
    Change,
    Changed,
    Choice,
    Claimed,
    ClaimLimits,
    Claims,
    DestinationInfo,
    DestinationNews,
    Filed,
    Filing,
    IQueue,
    Outgoing,
    Page,
    QueuedMessage,
    QueuedRecipient,
    QueueId,
    QueueStats,
    Settled,
    Settlement,
)
from livemail.interfaces.runtime import Now
from livemail.interfaces.storage import Delivery, IContentReader
from livemail.mail.content import Content
from livemail.storage.queue import reading
from livemail.storage.queue.choosing import ApplyChange
from livemail.storage.queue.offers import Offer, give_back, offers_of
from livemail.storage.queue.operations import (
    Accept,
    Claim,
    ClaimedRows,
    Entry,
    FilingParts,
    Reclaim,
    Renew,
    Settle,
    SettlementParts,
)
from livemail.storage.queue.records import (
    MAX_TIME,
    QUEUED,
    MessageRow,
    RecipientRow,
    class_of,
    milliseconds,
    pack_message,
    pack_recipient,
    to_message,
    to_recipient,
    unpack_message,
    unpack_recipient,
)
from livemail.storage.queue.transaction import QueueTransaction

T = TypeVar("T")

_HEADER_OCTETS: Final = 256 * 1024
"""How much of a header is looked at for octets above 127; a longer one counts as having them."""


class QueueOperation(Protocol):
    """What the engine runs in a transaction."""

    def run(self, queue: QueueTransaction) -> Any:
        """Do it."""


@implementer(IQueue)
class StoreQueue(ABC):
    """The queue of a store."""

    def __init__(self, now: Now, instance: int, capacity: int) -> None:
        """instance: a number no other opening of the store has; capacity: recipients the queue may hold, 0 for any number."""
        self._now = now
        self._instance = instance
        self._capacity = capacity
        self._attendant: Attendant | None = None
        self._lease = 0.0

    # ------------------------------------------------------------------------------------------ what an engine provides

    @abstractmethod
    def _do(self, operation: QueueOperation, filings: Sequence[Filing] = (), *, frees: bool = False) -> Deferred[Any]:
        """Run an operation in a transaction of its own; it is durable when the Deferred fires.

        filings: whose contents it brings (`contents_of`).  frees: it makes room, or is needed to.
        Raises MailError, or the Deferred fails with it.
        """

    @abstractmethod
    def _read(self, read: Callable[[QueueTransaction], T]) -> T:
        """Read in one snapshot."""

    @abstractmethod
    def _prepared(self, deliveries: Sequence[Delivery]) -> Any:
        """Return deliveries as `Contents.deliver` takes them."""

    @abstractmethod
    def _check_room(self) -> None:
        """Raise StorageFull when no new mail should be taken."""

    @abstractmethod
    async def open_content(self, id: QueueId) -> IContentReader | None:  # noqa: A002
        """See `IQueue.open_content`."""

    # ---------------------------------------------------------------------------------------------------------- IQueue

    async def accept(self, filing: Filing) -> Filed:
        """See `IQueue.accept`."""
        self._check_room()
        attendant = self._attendant
        offers = offers_of(filing, attendant) if attendant is not None else ()
        try:
            now = self._now()
            rows = [self._row(each, now) for each in filing.outgoing]
            parts = self._parts(filing, rows, now, offers)
            until = milliseconds(now + self._lease)
            accepting = self._do(Accept(parts, self._capacity, milliseconds(now), until, self._instance), [filing])
        except BaseException:
            give_back(attendant, offers)
            raise
        if not offers:
            filed: Filed = (await accepting)[0]
            self._due_of(filing)
            return filed
        # Who waits may be gone before the commit is made; what it claims is begun all the same.
        done: Deferred[Filed] = Deferred()
        accepting.addCallbacks(
            self._accepted,
            self._refused,
            callbackArgs=(filing, rows, attendant, offers, done),
            errbackArgs=(attendant, offers, done),
        )
        return await done

    async def claim(self, limits: ClaimLimits, lease: float) -> Claims:
        """See `IQueue.claim`."""
        now = self._now()
        operation = Claim(limits, milliseconds(now), milliseconds(now + lease), self._instance)
        rows, following, is_more = await self._do(operation, frees=True)
        next_due = float("inf") if following >= MAX_TIME else following / 1000
        return Claims(tuple(_claimed(each) for each in rows), next_due, is_more)

    async def renew(self, claims: Sequence[tuple[QueueId, Sequence[int]]], lease: float) -> None:
        """See `IQueue.renew`."""
        await self._do(Renew(claims, milliseconds(self._now() + lease), self._instance), frees=True)

    async def settle(
        self, settlements: Sequence[Settlement], news: Sequence[DestinationNews] = ()
    ) -> Sequence[Settled]:
        """See `IQueue.settle`."""
        parts = [
            SettlementParts(
                Settlement(each.id, each.outcomes, each.attempts),
                self._report_parts(each.report) if each.report is not None else None,
            )
            for each in settlements
        ]
        filings = [each.report for each in settlements if each.report is not None]
        operation = Settle(parts, news, milliseconds(self._now()), self._instance)
        settled: Sequence[Settled] = await self._do(operation, filings, frees=not filings)
        for each, done in zip(settlements, settled, strict=True):
            if done.is_done:
                if each.report is not None:
                    self._due_of(each.report)
                if not done.is_removed:
                    for outcome in each.outcomes:
                        if outcome.fate == "deferred":
                            self._due(outcome.next_attempt)
                        elif outcome.fate == "moved":
                            self._due(self._now())
        return settled

    async def reclaim(self) -> int:
        """See `IQueue.reclaim`."""
        count: int = await self._do(Reclaim(milliseconds(self._now()), self._instance), frees=True)
        if count:
            self._due(self._now())
        return count

    async def change(self, choice: Choice, change: Change, after: QueueId = START, limit: int = 1000) -> Changed:
        """See `IQueue.change`."""
        changed: Changed = await self._do(
            ApplyChange(choice, change, after, limit, milliseconds(self._now())), frees=True
        )
        if changed.changed:
            self._due(self._now())
        return changed

    async def find(self, choice: Choice, after: QueueId = START, limit: int = 1000) -> Page:
        """See `IQueue.find`."""
        return self._read(lambda queue: reading.find(queue, choice, after, limit))

    async def message(self, id: QueueId) -> QueuedMessage | None:  # noqa: A002
        """See `IQueue.message`."""
        return self._read(lambda queue: reading.message(queue, id))

    async def destinations(self, after: str = "", limit: int = 1000) -> Sequence[DestinationInfo]:
        """See `IQueue.destinations`."""
        return self._read(lambda queue: reading.destinations(queue, after, limit))

    async def stats(self) -> QueueStats:
        """See `IQueue.stats`."""
        return self._read(reading.stats)

    def attend(self, attendant: Attendant | None, lease: float = 0.0) -> None:
        """See `IQueue.attend`."""
        self._attendant = attendant
        self._lease = lease

    # ------------------------------------------------------------------------------------------- claimed when accepted

    def _accepted(
        self,
        accepted: tuple[Filed, list[tuple[str, ...]]],
        filing: Filing,
        rows: Sequence[MessageRow],
        attendant: Attendant,
        offers: Sequence[Offer],
        done: Deferred[Filed],
    ) -> None:
        filed, claimed = accepted
        done.callback(filed)
        begun = 0
        for offer in offers:
            if offer.destination not in claimed[offer.at]:
                attendant.give_back(offer.destination)
                continue
            begun += len(offer.numbers)
            row, outgoing = rows[offer.at], filing.outgoing[offer.at]
            recipients = [
                QueuedRecipient(
                    number, outgoing.recipients[number].recipient, offer.destination, "claimed", row.created
                )
                for number in offer.numbers
            ]
            message = to_message(filed.queued[offer.at], row, recipients)
            attendant.begin(Claimed(message, offer.destination, content=offer.content))
        if begun < sum(len(each.recipients) for each in filing.outgoing):
            self._due_of(filing)

    def _refused(self, failure: Failure, attendant: Attendant, offers: Sequence[Offer], done: Deferred[Filed]) -> None:
        give_back(attendant, offers)
        done.errback(failure)

    # -------------------------------------------------------------------------------------------------------- the rest

    def _due(self, when: float) -> None:
        if self._attendant is not None:
            self._attendant.wake(when)

    def _due_of(self, filing: Filing) -> None:
        if self._attendant is not None and filing.outgoing:
            self._attendant.wake(min(each.not_before or self._now() for each in filing.outgoing))

    def _report_parts(self, filing: Filing) -> FilingParts:
        now = self._now()
        return self._parts(filing, [self._row(each, now) for each in filing.outgoing], now, ())

    def _parts(self, filing: Filing, rows: Sequence[MessageRow], now: float, offers: Sequence[Offer]) -> FilingParts:
        deliveries = self._prepared(filing.deliveries) if filing.deliveries else None
        entries = [
            self._entry(each, row, now, [offer.destination for offer in offers if offer.at == at])
            for at, (each, row) in enumerate(zip(filing.outgoing, rows, strict=True))
        ]
        return FilingParts(deliveries, entries)

    def _row(self, outgoing: Outgoing, now: float) -> MessageRow:
        content = outgoing.content
        return MessageRow(
            outgoing.reverse_path,
            content.digest,
            content.size,
            outgoing.prefix,
            outgoing.submitter,
            outgoing.transaction,
            outgoing.priority,
            outgoing.created or now,
            outgoing.expires,
            len(outgoing.recipients),
            len(outgoing.recipients),
            content.outline.has_8bit or not outgoing.prefix.isascii(),
            not outgoing.prefix.isascii() or has_8bit_header(content),
        )

    def _entry(self, outgoing: Outgoing, row: MessageRow, now: float, wanted: Sequence[str]) -> Entry:
        due = milliseconds(outgoing.not_before or now)
        recipients = [
            (one.destination, due, pack_recipient(RecipientRow(one.recipient, one.destination, QUEUED, due)))
            for one in outgoing.recipients
        ]
        octets = row.size + len(outgoing.prefix)
        return Entry(pack_message(row), row.digest, octets, class_of(outgoing.priority), recipients, wanted)


def has_8bit_header(content: Content) -> bool:
    """Whether the header has octets above 127: it needs a peer with SMTPUTF8.  RFC 6531 §3.6."""
    outline = content.outline
    if not outline.has_8bit:
        return False
    if outline.header_size > _HEADER_OCTETS:
        return True
    return not content.read(0, outline.header_size).isascii()


def contents_of(filings: Sequence[Filing]) -> list[Content]:
    """Return the contents of filings, each once."""
    contents: dict[int, Content] = {}
    for filing in filings:
        contents |= {id(each.content): each.content for each in filing.deliveries}
        contents |= {id(each.content): each.content for each in filing.outgoing}
    return list(contents.values())


def _claimed(rows: ClaimedRows) -> Claimed:
    recipients = [to_recipient(number, unpack_recipient(row), is_claimed=True) for number, row in rows.recipients]
    message = to_message(rows.id, unpack_message(rows.message), recipients)
    return Claimed(message, rows.destination, rows.failures, rows.down, rows.is_decided)
