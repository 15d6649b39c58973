"""The queue's share of `livemail store check`: its tables compared with each other, in one snapshot.

It also says how often the queue refers to each content, for the store to compare with its own counting.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator
from typing import Final

from livemail.interfaces.queue import QueueId, queue_id_text
from livemail.storage.queue.records import (
    DECIDED,
    DELIVERED,
    DUE_KEY,
    FAILED,
    FAILING,
    HELD,
    KIND_DECIDED,
    KIND_DOWN,
    KIND_WELL,
    LEASE,
    MESSAGE_KEY,
    READY_KEY,
    RECIPIENT_KEY,
    DestinationRow,
    MessageRow,
    RecipientRow,
    class_of,
    destination_key,
    unpack_destination,
    unpack_message,
)
from livemail.storage.queue.transaction import (
    CLAIMED_COUNT,
    DESTINATIONS,
    LAST_ID,
    MESSAGES,
    OCTETS,
    STATE_0,
    QueueTransaction,
)

SLICE: Final = 5000
STALE: Final = 600_000
"""Milliseconds after its end at which a lease that is still there means that nobody looks after the queue."""

Found = Callable[[str, str, str], None]


class QueueCheck:
    """One look at a queue."""

    def __init__(self, queue: QueueTransaction, now: int, instance: int, found: Found) -> None:
        """found: told of each problem: kind, where, detail."""
        self.references: Counter[bytes] = Counter()
        self._queue = queue
        self._now = now
        self._instance = instance
        self._found = found
        self._destinations: dict[str, DestinationRow] = {}
        self._waiting: Counter[str] = Counter()
        self._claimed: Counter[str] = Counter()
        self._held: Counter[str] = Counter()
        self._states: Counter[int] = Counter()
        self._earliest: dict[str, int] = {}
        self._recipients = 0

    def run(self) -> Generator[int, None, None]:
        """Work in slices; yields how many messages were looked at."""
        tables = self._queue.tables
        for key, row in tables.qdst.scan(b""):
            destination = unpack_destination(row)
            if destination_key(destination.name) != key:
                self._found("queue-destination", f"destination {destination.name}", "stands under another's key")
            self._destinations[destination.name] = destination
        messages = octets = slice_ = 0
        for key, row in tables.qmsg.scan(b""):
            (id_,) = MESSAGE_KEY.unpack(key)
            message = unpack_message(row)
            messages += 1
            octets += message.size + len(message.prefix)
            self.references[message.digest] += 1
            slice_ += self._message(id_, message)
            if slice_ >= SLICE:
                slice_ = 0
                yield messages
        self._compare_rows()
        self._compare_destinations()
        counters = self._queue.counters
        seen = {
            "messages": (counters[MESSAGES], messages),
            "octets": (counters[OCTETS], octets),
            "destinations": (counters[DESTINATIONS], len(self._destinations)),
            "claimed": (counters[CLAIMED_COUNT], sum(self._claimed.values())),
            **{f"state {state}": (counters[STATE_0 + state], self._states[state]) for state in range(4)},
        }
        for what, (said, counted) in seen.items():
            if said != counted:
                self._found("queue-counters", "queue", f"{what}: {counted}, the counter says {said}")
        yield messages

    def _message(self, id_: int, message: MessageRow) -> int:
        where = f"queue {queue_id_text(QueueId(id_))}"
        if id_ > self._queue.counters[LAST_ID]:
            self._found("queue-id", where, f"the last id given is {self._queue.counters[LAST_ID]}")
        recipients = self._queue.recipients(id_)
        still = 0
        for number, row in recipients:
            still += row.state not in {DELIVERED, FAILED}
            self._recipient(id_, number, message, row, f"{where}, recipient {number}")
        if still != message.open or not still:
            self._found("queue-open", where, f"{still} recipients are not over, the message says {message.open}")
        self._recipients += len(recipients)
        return len(recipients)

    def _recipient(self, id_: int, number: int, message: MessageRow, row: RecipientRow, where: str) -> None:
        lease = self._queue.lease_of(id_, number)
        name = DECIDED if row.state == FAILING else row.destination
        destination = self._destinations.get(name)
        if destination is None:
            if row.state not in {DELIVERED, FAILED}:
                self._found("queue-destination", where, f"the destination {name or 'of what failed'} has no row")
            return
        key = DUE_KEY.pack(destination.id, class_of(message.priority), row.due, id_, number)
        is_due = self._queue.tables.qdue.get(key) is not None
        if lease is not None:
            self._lease(lease, where)
            self._claimed[name] += 1
            if destination_key(name) != lease[2]:
                self._found("queue-lease", where, "the lease names another destination")
        elif row.state == HELD:
            self._held[name] += 1
            self._states[HELD] += 1
        elif row.state not in {DELIVERED, FAILED}:
            if is_due:
                self._waiting[name] += 1
                self._states[row.state] += 1
                self._earliest[name] = min(row.due, self._earliest.get(name, row.due))
            else:
                self._found("queue-lost", where, "is neither due, claimed, held nor over: it would never be sent")
        if is_due and (lease is not None or row.state in {HELD, DELIVERED, FAILED}):
            self._found("queue-twice", where, "is due although it is claimed, held or over")

    def _lease(self, lease: tuple[int, int, bytes], where: str) -> None:
        until, instance, _ = lease
        if not self._instance:
            return  # A copy of a store, in which claims are as they were.
        if instance != self._instance:
            self._found("queue-lease", where, "is claimed by a server that is gone; restart livemail")
        elif until + STALE < self._now:
            seconds = (self._now - until) // 1000
            self._found(
                "queue-lease", where, f"its claim ended {seconds} s ago and nobody took it back; restart livemail"
            )

    def _compare_rows(self) -> None:
        """Look for rows of recipients, dues and leases that belong to nothing."""
        tables = self._queue.tables
        rows = sum(1 for _ in tables.qrcp.scan(b""))
        if rows != self._recipients:
            self._found("queue-recipient", "queue", f"{rows - self._recipients} recipients have no message")
        due = sum(1 for _ in tables.qdue.scan(b""))
        if due != sum(self._waiting.values()):
            self._found("queue-due", "queue", f"{due} recipients are due, {sum(self._waiting.values())} wait")
        leases = 0
        for key, value in tables.qlea.scan(b""):
            leases += 1
            if tables.qrcp.get(key) is None:
                id_, number = RECIPIENT_KEY.unpack(key)
                LEASE.unpack_from(value)
                self._found(
                    "queue-lease", f"queue {queue_id_text(QueueId(id_))}, recipient {number}", "a lease of nobody"
                )
        if leases != sum(self._claimed.values()):
            self._found("queue-lease", "queue", f"{leases} leases, {sum(self._claimed.values())} claimed recipients")

    def _compare_destinations(self) -> None:
        turns = {}
        for key, place in self._queue.tables.qrdy.scan(b""):
            kind, turn, id_ = READY_KEY.unpack(key)
            turns[id_] = (kind, turn, place)
        for name, row in self._destinations.items():
            where = f"destination {name or 'of what failed'}"
            seen = (self._waiting[name], self._claimed[name], self._held[name])
            if seen != (row.waiting, row.claimed, row.held):
                self._found(
                    "queue-destination",
                    where,
                    f"{seen} wait, are claimed, are held; the row says {(row.waiting, row.claimed, row.held)}",
                )
            found = turns.pop(row.id, None)
            if not seen[0]:
                if found is not None:
                    self._found("queue-turn", where, "has a turn, and nothing waits")
                continue
            kind = KIND_DECIDED if name == DECIDED else KIND_DOWN if row.failures else KIND_WELL
            expected = (kind, max(1, self._earliest[name], row.served), destination_key(name))
            if found != expected:
                self._found("queue-turn", where, f"stands at {found}, should at {expected}")
        if turns:
            self._found("queue-turn", "queue", f"{len(turns)} turns of destinations that have no row")
