"""What is read of the queue, over the tables of one snapshot."""

from __future__ import annotations

from itertools import islice

from livemail.interfaces.queue import Choice, DestinationInfo, Page, QueuedMessage, QueueId, QueueStats
from livemail.storage.queue.choosing import Matcher, claimed_numbers, wanted_messages
from livemail.storage.queue.records import (
    DECIDED,
    DEFERRED,
    FAILING,
    HELD,
    KIND_DECIDED,
    KIND_DOWN,
    KIND_WELL,
    QUEUED,
    READY_KEY,
    destination_key,
    to_destination,
    to_message,
    to_recipient,
    unpack_destination,
    unpack_message,
)
from livemail.storage.queue.transaction import (
    CLAIMED_COUNT,
    DESTINATIONS,
    MESSAGES,
    OCTETS,
    STATE_0,
    QueueTransaction,
)


def find(queue: QueueTransaction, choice: Choice, after: QueueId, limit: int) -> Page:
    """See `IQueue.find`."""
    matcher = Matcher(choice)
    messages, following = wanted_messages(queue, matcher, after, limit)
    found = []
    for id_, row in messages:
        claimed = claimed_numbers(queue, id_)
        chosen = [
            to_recipient(number, recipient, is_claimed=number in claimed)
            for number, recipient in queue.recipients(id_)
            if matcher.wants(recipient, is_claimed=number in claimed)
        ]
        if chosen:
            found.append(to_message(id_, row, chosen))
    return Page(tuple(found), QueueId(following) if following is not None else None)


def message(queue: QueueTransaction, id_: QueueId) -> QueuedMessage | None:
    """See `IQueue.message`."""
    row = queue.message(id_)
    if row is None:
        return None
    claimed = claimed_numbers(queue, id_)
    recipients = [
        to_recipient(number, recipient, is_claimed=number in claimed) for number, recipient in queue.recipients(id_)
    ]
    return to_message(id_, row, recipients)


def destinations(queue: QueueTransaction, after: str, limit: int) -> list[DestinationInfo]:
    """See `IQueue.destinations`."""
    start = destination_key(after) + b"\0" if after else destination_key(DECIDED) + b"\0"
    return [to_destination(unpack_destination(row)) for _, row in islice(queue.tables.qdst.scan(start), limit)]


def stats(queue: QueueTransaction) -> QueueStats:
    """See `IQueue.stats`."""
    counters = queue.counters
    oldest = next(queue.tables.qmsg.scan(b""), None)
    turns = []
    for kind in (KIND_DECIDED, KIND_WELL, KIND_DOWN):
        first = next(queue.tables.qrdy.scan(READY_KEY.pack(kind, 0, 0)), None)
        if first is not None and first[0][0] == kind:
            turns.append(READY_KEY.unpack(first[0])[1] / 1000)
    return QueueStats(
        counters[MESSAGES],
        counters[OCTETS],
        {
            "queued": counters[STATE_0 + QUEUED],
            "deferred": counters[STATE_0 + DEFERRED],
            "claimed": counters[CLAIMED_COUNT],
            "held": counters[STATE_0 + HELD],
            "failing": counters[STATE_0 + FAILING],
        },
        # What is failing has a row as well, which is nobody's destination.
        counters[DESTINATIONS] - (queue.destination_at(destination_key(DECIDED)) is not None),
        unpack_message(oldest[1]).created if oldest is not None else 0.0,
        min(turns, default=0.0),
    )
