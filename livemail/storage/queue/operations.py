"""What is done to the queue, each in one transaction: accept, claim, renew, settle, reclaim.

An operation's ``run`` gets the transaction; ``now`` is milliseconds since the epoch.  They cross to the writer's process, so
their fields are values, rows packed by whoever asks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from livemail.interfaces.queue import (
    ClaimLimits,
    DestinationNews,
    Filed,
    Outcome,
    QueueId,
    Settled,
    Settlement,
)
from livemail.interfaces.relay import Attempt, Reply
from livemail.mail.errors import LimitReached
from livemail.storage.queue.records import (
    CLASS_PREFIX,
    DECIDED,
    DEFERRED,
    DELIVERED,
    DUE_KEY,
    FAILED,
    FAILING,
    KIND_DECIDED,
    KIND_DOWN,
    KIND_WELL,
    LEASE,
    MAX_TIME,
    MESSAGE_KEY,
    QUEUED,
    READY_KEY,
    RECIPIENT_KEY,
    RecipientRow,
    milliseconds,
    pack_recipient,
    unpack_recipient,
)
from livemail.storage.queue.transaction import (
    CLAIMED_COUNT,
    MESSAGES,
    OCTETS,
    STATE_0,
    Destination,
    QueueTransaction,
    with_attempts,
)

MAX_STEPS = 256
"""Destinations found down that one claim looks at without being able to do anything for them."""

ROTATE = 5_000
"""Milliseconds after which a destination that got no probe is looked at again."""


class Entry(NamedTuple):
    """A message for the queue, packed.

    recipients: (destination, due, row).  octets: of prefix and content.  wanted: destinations whose recipients are to be claimed.
    """

    message: bytes
    digest: bytes
    octets: int
    class_: int
    recipients: Sequence[tuple[str, int, bytes]]
    wanted: Sequence[str] = ()


class FilingParts(NamedTuple):
    """A `Filing`, packed.  deliveries: as the engine prepared them, None when there are none."""

    deliveries: Any
    entries: Sequence[Entry]


def file(queue: QueueTransaction, parts: FilingParts) -> Filed:
    """File copies, queue messages."""
    delivered = queue.contents.deliver(parts.deliveries) if parts.deliveries is not None else ()
    return Filed(tuple(delivered), tuple(_enqueue(queue, entry, (), b"") for entry in parts.entries))


def _enqueue(queue: QueueTransaction, entry: Entry, claimed: Sequence[str], lease: bytes) -> QueueId:
    """claimed: destinations whose recipients get a lease."""
    id_ = queue.new_id()
    tables = queue.tables
    tables.qmsg.put(MESSAGE_KEY.pack(id_), entry.message)
    for number, (name, due, row) in enumerate(entry.recipients):
        destination = queue.destination(name)
        if name in claimed:
            tables.qrcp.put(RECIPIENT_KEY.pack(id_, number), row)
            queue.lease(id_, number, destination, lease)
            continue
        if destination.failures and destination.not_before > due:
            # It would only be handed out to be deferred until then.
            due = destination.not_before  # noqa: PLW2901
            row = pack_recipient(msgspec.structs.replace(unpack_recipient(row), due=due))  # noqa: PLW2901
        tables.qrcp.put(RECIPIENT_KEY.pack(id_, number), row)
        queue.wait(id_, number, QUEUED, name, entry.class_, due)
    queue.contents.reference(entry.digest, 1)
    queue.counters[MESSAGES] += 1
    queue.counters[OCTETS] += entry.octets
    return QueueId(id_)


class Accept(NamedTuple):
    """File copies in mailboxes and queue messages.

    capacity: recipients the queue may hold, 0 for any number.  now, until, instance: of the claims that are wanted.
    """

    parts: FilingParts
    capacity: int
    now: int = 0
    until: int = 0
    instance: int = 0

    def run(self, queue: QueueTransaction) -> tuple[Filed, list[tuple[str, ...]]]:
        """Return what became of it, and for each entry the destinations that were claimed.

        Raises LimitReached before anything is changed.
        """
        if self.capacity:
            there = sum(queue.counters[STATE_0:])
            more = sum(len(entry.recipients) for entry in self.parts.entries)
            if there + more > self.capacity:
                raise LimitReached(
                    "Too much mail waits to be sent on; try again later",
                    code=452,
                    enhanced="4.3.1",
                    reason=f"{there} recipients are queued of {self.capacity}, {more} more asked for",
                )
        deliveries, entries = self.parts
        delivered = queue.contents.deliver(deliveries) if deliveries is not None else ()
        lease = LEASE.pack(self.until, self.instance)
        queued, claimed = [], []
        for entry in entries:
            # What is due goes first: what comes now waits behind it.
            taken = tuple(name for name in entry.wanted if queue.is_clear(queue.destination(name), self.now))
            for name in taken:
                queue.destination(name).served = self.now
            queued.append(_enqueue(queue, entry, taken, lease))
            claimed.append(taken)
        return Filed(tuple(delivered), tuple(queued)), claimed


# --------------------------------------------------------------------------------------------------------------- claiming


class ClaimedRows(NamedTuple):
    """A `Claimed` in rows.  recipients: (number, row)."""

    id: int
    message: bytes
    recipients: Sequence[tuple[int, bytes]]
    destination: str
    failures: int
    down: Reply | None
    is_decided: bool


class Claim(NamedTuple):
    """Claim what is due."""

    limits: ClaimLimits
    now: int
    until: int
    instance: int

    def run(self, queue: QueueTransaction) -> tuple[list[ClaimedRows], int, bool]:
        """Return the claims, when something else will be due, and whether something is and was left."""
        queue.write_destinations()
        claims: list[ClaimedRows] = []
        swept = self._decided(queue, claims)
        left = self._down(queue, claims, swept)
        self._well(queue, claims, left)
        queue.write_destinations()
        return claims, *self._left(queue)

    def _ready(self, queue: QueueTransaction, kind: int) -> Iterable[Destination]:
        """Yield the destinations of a kind whose turn has come.  Their turns are changed later, by `write_destinations`."""
        for key, name in queue.tables.qrdy.scan(READY_KEY.pack(kind, 0, 0)):
            found, turn, _ = READY_KEY.unpack(key)
            if found != kind or turn > self.now:
                return
            destination = queue.destination_at(name)
            assert destination is not None, "what is ready has a row"
            yield destination

    def _decided(self, queue: QueueTransaction, claims: list[ClaimedRows]) -> int:
        """Hand out what is only to be reported; return how many recipients may still be handed out."""
        swept = self.limits.swept
        for destination in self._ready(queue, KIND_DECIDED):
            swept -= self._take(queue, claims, destination, jobs=swept, most=swept)
        return swept

    def _down(self, queue: QueueTransaction, claims: list[ClaimedRows], swept: int) -> int:
        """Probe, sweep or pass over what was found down; return how many attempts are left."""
        limits = self.limits
        left, probes, steps = limits.jobs, limits.probes, MAX_STEPS
        for destination in self._ready(queue, KIND_DOWN):
            if destination.not_before > self.now:
                if swept > 0:
                    swept -= self._take(queue, claims, destination, jobs=swept, most=swept, is_down=True)
                    continue
            elif left > 0 and probes > 0 and limits.rooms.get(destination.name, 1) > 0:
                self._take(queue, claims, destination, jobs=1, most=limits.recipients)
                left -= 1
                probes -= 1
                continue
            # It must not stand in front of the others for as long as nothing can be done for it.
            destination.served = self.now + ROTATE
            queue.touch(destination)
            steps -= 1
            if not steps:
                break
        return left

    def _well(self, queue: QueueTransaction, claims: list[ClaimedRows], left: int) -> None:
        # Those passed over have an attempt running, so they are no more than the runner's connections.
        for destination in self._ready(queue, KIND_WELL):
            if left <= 0:
                return
            room = min(left, self.limits.rooms.get(destination.name, self.limits.room))
            if room > 0:
                before = len(claims)
                self._take(queue, claims, destination, jobs=room, most=room * self.limits.recipients)
                left -= len(claims) - before

    def _take(
        self,
        queue: QueueTransaction,
        claims: list[ClaimedRows],
        destination: Destination,
        *,
        jobs: int,
        most: int,
        is_down: bool = False,
    ) -> int:
        """Claim what is due of a destination: at most ``jobs`` jobs, ``most`` recipients; return how many recipients."""
        taken, keys = self._due(queue, destination, jobs, most)
        lease = LEASE.pack(self.until, self.instance) + destination.key
        for key, state in keys:
            queue.tables.qdue.delete(key)
            queue.tables.qlea.put(key[-RECIPIENT_KEY.size :], lease)
            queue.counters[STATE_0 + state] -= 1
        count = len(keys)
        queue.counters[CLAIMED_COUNT] += count
        destination.waiting -= count
        destination.claimed += count
        destination.served = self.now
        queue.touch(destination)
        is_decided = destination.name == DECIDED
        for id_, numbers in taken:
            message = queue.tables.qmsg.get(MESSAGE_KEY.pack(id_))
            rows = [(number, queue.tables.qrcp.get(RECIPIENT_KEY.pack(id_, number))) for number in numbers]
            assert message is not None, "what waits has a message"
            known = [(number, row) for number, row in rows if row is not None]
            down = destination.reply if is_down else None
            claims.append(
                ClaimedRows(id_, message, known, destination.name, destination.failures, down, is_decided=is_decided)
            )
        return count

    def _due(
        self, queue: QueueTransaction, destination: Destination, jobs: int, most: int
    ) -> tuple[list[tuple[int, list[int]]], list[tuple[bytes, int]]]:
        """Return what is due: (message, recipients' numbers) of each job, and the keys in qdue with their states."""
        taken: list[tuple[int, list[int]]] = []
        keys: list[tuple[bytes, int]] = []
        class_ = 0
        while True:
            following = -1
            for key, value in queue.tables.qdue.scan(CLASS_PREFIX.pack(destination.id, class_)):
                owner, found, due, id_, number = DUE_KEY.unpack(key)
                if owner != destination.id:
                    break
                if due > self.now:
                    following = found + 1  # The rest of this class is later still.
                    break
                class_ = found
                if taken and taken[-1][0] == id_ and len(taken[-1][1]) < self.limits.recipients:
                    taken[-1][1].append(number)
                elif len(taken) < jobs:
                    taken.append((id_, [number]))
                else:
                    return taken, keys
                keys.append((key, value[0]))
                if len(keys) >= most:
                    return taken, keys
            if following < 0:
                return taken, keys
            class_ = following

    def _left(self, queue: QueueTransaction) -> tuple[int, bool]:
        """Return the first turn that is still to come, and whether one that has come was left."""
        first = MAX_TIME
        is_more = False
        for kind in (KIND_DECIDED, KIND_WELL, KIND_DOWN):
            earliest = next(queue.tables.qrdy.scan(READY_KEY.pack(kind, 0, 0)), None)
            if earliest is None:
                break
            found, turn, _ = READY_KEY.unpack(earliest[0])
            if found != kind:
                continue
            if turn > self.now:
                first = min(first, turn)
                continue
            is_more = True
            for key, _ in queue.tables.qrdy.scan(READY_KEY.pack(kind, self.now + 1, 0)):
                found, turn, _ = READY_KEY.unpack(key)
                if found == kind:
                    first = min(first, turn)
                break
        return first, is_more


class Renew(NamedTuple):
    """Prolong leases of this instance."""

    claims: Sequence[tuple[int, Sequence[int]]]
    until: int
    instance: int

    def run(self, queue: QueueTransaction) -> None:
        """Do it; what is void is left out."""
        for id_, numbers in self.claims:
            for number in numbers:
                lease = queue.lease_of(id_, number)
                if lease is not None and lease[1] == self.instance:
                    value = LEASE.pack(self.until, self.instance) + lease[2]
                    queue.tables.qlea.put(RECIPIENT_KEY.pack(id_, number), value)


class Reclaim(NamedTuple):
    """Make due again what has a void lease: its time is over, or another instance gave it."""

    now: int
    instance: int

    def run(self, queue: QueueTransaction) -> int:
        """Return how many recipients."""
        void = []
        for key, value in queue.tables.qlea.scan(b""):
            until, instance = LEASE.unpack_from(value)
            if until <= self.now or instance != self.instance:
                void.append((*RECIPIENT_KEY.unpack(key), value[LEASE.size :]))
        for id_, number, name in void:
            queue.end_lease(id_, number, name)
            message = queue.message(id_)
            assert message is not None, "what is claimed has a message"
            if queue.come_back(id_, number, message, queue.recipient(id_, number)):
                queue.end(id_, number, message)
        return len(void)


# --------------------------------------------------------------------------------------------------------------- settling


class SettlementParts(NamedTuple):
    """A `Settlement` with its report packed."""

    settlement: Settlement
    report: FilingParts | None


class Settle(NamedTuple):
    """Record what became of claims."""

    parts: Sequence[SettlementParts]
    news: Sequence[DestinationNews]
    now: int
    instance: int

    def run(self, queue: QueueTransaction) -> list[Settled]:
        """Return what became of each settlement."""
        # Before the recipients come back, so that their destination's turn is worked out once.
        for each in self.news:
            self._learn(queue, each)
        return [self._settle(queue, each) for each in self.parts]

    def _learn(self, queue: QueueTransaction, news: DestinationNews) -> None:
        destination = queue.destination(news.destination)
        # It may have been passed over for want of a probe.
        destination.served = min(destination.served, self.now)
        destination.failures = news.failures
        destination.not_before = milliseconds(news.not_before)
        destination.reply = news.reply

    def _settle(self, queue: QueueTransaction, parts: SettlementParts) -> Settled:
        settlement = parts.settlement
        id_ = settlement.id
        leases = []
        for outcome in settlement.outcomes:
            lease = queue.lease_of(id_, outcome.number)
            if lease is None or lease[1] != self.instance:
                return Settled(is_done=False)
            leases.append(lease[2])
        message = queue.message(id_)
        assert message is not None, "what is claimed has a message"
        over = 0
        unwritten = []
        for outcome, name in zip(settlement.outcomes, leases, strict=True):
            queue.end_lease(id_, outcome.number, name)
            if outcome.fate in {"delivered", "failed"}:
                over += 1
                unwritten.append(outcome)
            else:
                row = self._returned(queue.recipient(id_, outcome.number), outcome, settlement.attempts)
                over += queue.come_back(id_, outcome.number, message, row)
        is_removed = over == message.open
        if is_removed:
            queue.remove_message(id_, message)
        elif over:
            for outcome in unwritten:
                row = self._over(queue.recipient(id_, outcome.number), outcome, settlement.attempts)
                queue.put_recipient(id_, outcome.number, row)
            queue.put_message(id_, msgspec.structs.replace(message, open=message.open - over))
        filed = file(queue, parts.report) if parts.report is not None else None
        return Settled(is_done=True, is_removed=is_removed, filed=filed)

    def _returned(self, row: RecipientRow, outcome: Outcome, attempts: tuple[Attempt, ...]) -> RecipientRow:
        """Return the row of a recipient that has to wait."""
        if outcome.fate == "moved":
            return msgspec.structs.replace(row, destination=outcome.destination, due=self.now)
        return msgspec.structs.replace(
            row,
            state=FAILING if row.state == FAILING else DEFERRED,
            due=milliseconds(outcome.next_attempt),
            attempts=row.attempts + outcome.was_tried,
            last=outcome.reply or row.last,
            host=outcome.host,
            is_delay_reported=row.is_delay_reported or outcome.is_delay_reported,
            history=with_attempts(row, attempts) if outcome.was_tried else row.history,
        )

    def _over(self, row: RecipientRow, outcome: Outcome, attempts: tuple[Attempt, ...]) -> RecipientRow:
        """Return the row of a recipient that is over, while its message is not."""
        return msgspec.structs.replace(
            row,
            state=DELIVERED if outcome.fate == "delivered" else FAILED,
            due=self.now,
            attempts=row.attempts + outcome.was_tried,
            last=outcome.reply or row.last,
            host=outcome.host,
            history=with_attempts(row, attempts),
            pending="",
        )
