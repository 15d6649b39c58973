"""One transaction on the queue: counters and destinations read once, changed in memory, written back once.

How a million recipients are scheduled with a bounded look
    qdue has what waits, for each destination by priority and time.  qrdy has the destinations, each once, by its *turn*: when its
    earliest recipient is due, or when it was last served, whichever is later.  So a claim reads the front of qrdy and then the
    front of a few destinations; what is not due costs nothing, however much there is.

    Being served moves a destination behind every other that is due: the one with a million recipients gets as many jobs a
    round as the one with a single recipient, and none is starved.

    A destination found down stands in a list of its own.  Until ``not_before`` its recipients, as they become due, are handed
    out to be deferred with what was the matter: each keeps its own schedule, its delay report and its expiry, without a
    connection.  New mail for it waits until then as well.  Then one job probes.  Probes have a share of the connections of their own, so that neither ten thousand dead
    destinations in front nor their timeouts keep the living ones waiting.

Everything here changes rows through `write`; nothing is refused after the first change (`Group` says why).
"""

from __future__ import annotations

import msgspec

from livemail.interfaces.queue import MAX_HISTORY
from livemail.interfaces.relay import Attempt
from livemail.storage.queue.records import (
    CLAIMED,
    CLASS_PREFIX,
    COUNTERS,
    COUNTERS_KEY,
    DECIDED,
    DEFERRED,
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
    QUEUED,
    READY_KEY,
    RECIPIENT_KEY,
    DestinationRow,
    MessageRow,
    RecipientRow,
    class_of,
    destination_key,
    pack_destination,
    pack_message,
    pack_recipient,
    unpack_destination,
    unpack_message,
    unpack_recipient,
)
from livemail.storage.queue.tables import Contents, Tables

LAST_ID, LAST_DESTINATION, MESSAGES, OCTETS, DESTINATIONS, STATE_0 = range(6)
"""Places in the counters; STATE_0 + state for QUEUED, DEFERRED, HELD, FAILING."""

CLAIMED_COUNT = STATE_0 + 4

STATE_BYTES = [bytes([state]) for state in range(7)]
"""Values of qdue: the state of the row, so that claiming need not read it."""


def count_of(state: int) -> int:
    """Return the place of a state's counter."""
    return CLAIMED_COUNT if state == CLAIMED else STATE_0 + state


class Destination:
    """A destination's row, being changed."""

    __slots__ = (
        "claimed", "failures", "has_more", "held", "id", "is_new", "key", "kind", "name", "not_before", "reply", "served", "turn", "waiting",
    )  # fmt: skip

    def __init__(self, key: bytes, row: DestinationRow, *, is_new: bool) -> None:
        self.key = key
        self.is_new = is_new
        self.has_more = False  # waiting, than when its turn was worked out
        self.id = row.id
        self.name = row.name
        self.waiting = row.waiting
        self.claimed = row.claimed
        self.held = row.held
        self.failures = row.failures
        self.not_before = row.not_before
        self.served = row.served
        self.kind = row.kind
        self.turn = row.turn
        self.reply = row.reply

    def pack(self) -> bytes:
        """Return the row."""
        row = DestinationRow(
            self.id, self.name, self.waiting, self.claimed, self.held, self.failures, self.not_before, self.served, self.kind,
            self.turn, self.reply,
        )  # fmt: skip
        return pack_destination(row)


class QueueTransaction:
    """The queue's part of one transaction."""

    def __init__(self, tables: Tables, contents: Contents) -> None:
        self.tables = tables
        self.contents = contents
        self._destinations: dict[bytes, Destination] = {}
        self._dirty: dict[bytes, Destination] = {}
        row = tables.meta.get(COUNTERS_KEY)
        self.counters = list(COUNTERS.unpack(row)) if row else [0] * 10

    # ------------------------------------------------------------------------------------------------------- messages

    def new_id(self) -> int:
        """Return the next queue id."""
        self.counters[LAST_ID] += 1
        return self.counters[LAST_ID]

    def message(self, id_: int) -> MessageRow | None:
        """Return a message."""
        row = self.tables.qmsg.get(MESSAGE_KEY.pack(id_))
        return unpack_message(row) if row is not None else None

    def put_message(self, id_: int, row: MessageRow) -> None:
        """Write a message."""
        self.tables.qmsg.put(MESSAGE_KEY.pack(id_), pack_message(row))

    def recipient(self, id_: int, number: int) -> RecipientRow:
        """Return a recipient that is there."""
        row = self.tables.qrcp.get(RECIPIENT_KEY.pack(id_, number))
        assert row is not None
        return unpack_recipient(row)

    def recipients(self, id_: int) -> list[tuple[int, RecipientRow]]:
        """Return all recipients of a message, with their numbers."""
        prefix = MESSAGE_KEY.pack(id_)
        found = []
        for key, row in self.tables.qrcp.scan(prefix):
            if not key.startswith(prefix):
                break
            found.append((RECIPIENT_KEY.unpack(key)[1], unpack_recipient(row)))
        return found

    def put_recipient(self, id_: int, number: int, row: RecipientRow) -> None:
        """Write a recipient."""
        self.tables.qrcp.put(RECIPIENT_KEY.pack(id_, number), pack_recipient(row))

    def remove_message(self, id_: int, row: MessageRow) -> None:
        """The last recipient is over: nothing of the message stays."""
        prefix = MESSAGE_KEY.pack(id_)
        if row.total == 1:
            self.tables.qrcp.delete(RECIPIENT_KEY.pack(id_, 0))
        else:
            keys = []
            for key, _ in self.tables.qrcp.scan(prefix):
                if not key.startswith(prefix):
                    break
                keys.append(key)
            for key in keys:
                self.tables.qrcp.delete(key)
        self.tables.qmsg.delete(prefix)
        self.contents.dereference(row.digest, 1)
        self.counters[MESSAGES] -= 1
        self.counters[OCTETS] -= row.size + len(row.prefix)

    def end(self, id_: int, number: int, message: MessageRow) -> MessageRow:
        """A recipient is over without a word: its row goes, and the message if it was the last.  Returns the message's new row."""
        self.tables.qrcp.delete(RECIPIENT_KEY.pack(id_, number))
        message = msgspec.structs.replace(message, open=message.open - 1)
        if message.open:
            self.put_message(id_, message)
        else:
            # Rows of recipients that were over before may be there still.
            self.remove_message(id_, msgspec.structs.replace(message, total=0))
        return message

    # --------------------------------------------------------------------------------------------------- destinations

    def destination(self, name: str) -> Destination:
        """Return a destination for changing it, made when the queue has none of the name."""
        key = destination_key(name)
        found = self.destination_at(key)
        if found is None:
            self.counters[LAST_DESTINATION] += 1
            self.counters[DESTINATIONS] += 1
            row = DestinationRow(self.counters[LAST_DESTINATION], name)
            found = self._destinations[key] = Destination(key, row, is_new=True)
        self._dirty[key] = found
        return found

    def destination_at(self, key: bytes) -> Destination | None:
        """Return a destination by its key; it is written back only if `destination` or `touch` was called as well."""
        found = self._destinations.get(key)
        if found is None:
            row = self.tables.qdst.get(key)
            if row is not None:
                found = self._destinations[key] = Destination(key, unpack_destination(row), is_new=False)
        return found

    def touch(self, destination: Destination) -> None:
        """A destination was changed."""
        self._dirty[destination.key] = destination

    # --------------------------------------------------------------------------------------------- moving a recipient

    def wait(self, id_: int, number: int, state: int, name: str, class_: int, due: int) -> None:
        """Enter a recipient among what waits.  state: QUEUED, DEFERRED or FAILING; the row is the caller's to write."""
        destination = self.destination(DECIDED if state == FAILING else name)
        destination.waiting += 1
        destination.has_more = True
        self.counters[STATE_0 + state] += 1
        self.tables.qdue.put(DUE_KEY.pack(destination.id, class_, due, id_, number), STATE_BYTES[state])

    def unwait(self, id_: int, number: int, row: RecipientRow, class_: int) -> None:
        """Take a recipient from among what waits."""
        destination = self.destination(DECIDED if row.state == FAILING else row.destination)
        destination.waiting -= 1
        self.counters[STATE_0 + row.state] -= 1
        self.tables.qdue.delete(DUE_KEY.pack(destination.id, class_, row.due, id_, number))

    def hold(self, row: RecipientRow, by: int) -> None:
        """Count a recipient as held, or not any more.  by: 1 or -1."""
        self.destination(row.destination).held += by
        self.counters[STATE_0 + HELD] += by

    def is_clear(self, destination: Destination, now: int) -> bool:
        """Whether a destination works, as far as is known, and nothing of it waits that is due."""
        if destination.failures:
            return False
        return not destination.waiting or not (destination.has_more or destination.turn <= now)

    def lease(self, id_: int, number: int, destination: Destination, lease: bytes) -> None:
        """Claim a recipient that did not wait.  lease: as `LEASE` packs it."""
        self.tables.qlea.put(RECIPIENT_KEY.pack(id_, number), lease + destination.key)
        destination.claimed += 1
        self.counters[CLAIMED_COUNT] += 1

    def lease_of(self, id_: int, number: int) -> tuple[int, int, bytes] | None:
        """Return until when, by which instance and for the destination of which key a recipient is claimed."""
        value = self.tables.qlea.get(RECIPIENT_KEY.pack(id_, number))
        return (*LEASE.unpack_from(value), value[LEASE.size :]) if value is not None else None

    def end_lease(self, id_: int, number: int, key: bytes) -> None:
        """Take a lease away.  key: of the destination."""
        self.tables.qlea.delete(RECIPIENT_KEY.pack(id_, number))
        destination = self.destination_at(key)
        assert destination is not None, "a destination with leases has a row"
        destination.claimed -= 1
        self.touch(destination)
        self.counters[CLAIMED_COUNT] -= 1

    def come_back(self, id_: int, number: int, message: MessageRow, row: RecipientRow) -> bool:
        """Let a recipient whose lease has ended wait, or do what became pending meanwhile.

        row: as it is to be written, with its state and due time.  Returns whether the recipient is over, its row gone.
        """
        if row.pending == "drop":
            self.tables.qrcp.delete(RECIPIENT_KEY.pack(id_, number))
            return True
        if row.pending == "fail":
            row = msgspec.structs.replace(row, state=FAILING)
        elif row.pending == "hold" and row.state != FAILING:
            row = msgspec.structs.replace(row, state=HELD, since=row.due, pending="")
            self.hold(row, 1)
            self.put_recipient(id_, number, row)
            return False
        row = msgspec.structs.replace(row, pending="") if row.pending else row
        self.put_recipient(id_, number, row)
        self.wait(id_, number, row.state, row.destination, class_of(message.priority), row.due)
        return False

    # ------------------------------------------------------------------------------------------------------ finishing

    def write(self) -> None:
        """Write back what was gathered."""
        self.write_destinations()
        self.tables.meta.put(COUNTERS_KEY, COUNTERS.pack(*self.counters))

    def write_destinations(self) -> None:
        """Write destinations, and each one's turn."""
        qdst, qrdy = self.tables.qdst, self.tables.qrdy
        for key, one in self._dirty.items():
            before = READY_KEY.pack(one.kind, one.turn, one.id) if one.turn else b""
            if not (one.waiting or one.claimed or one.held):
                if before:
                    qrdy.delete(before)
                if not one.is_new:
                    qdst.delete(key)
                del self._destinations[key]
                self.counters[DESTINATIONS] -= 1
                continue
            one.kind = KIND_DECIDED if one.name == DECIDED else KIND_DOWN if one.failures else KIND_WELL
            # Nothing is due at the epoch, which would look as if it had no turn.
            one.turn = max(1, self._earliest(one.id), one.served) if one.waiting else 0
            after = READY_KEY.pack(one.kind, one.turn, one.id) if one.turn else b""
            if before != after:
                if before:
                    qrdy.delete(before)
                if after:
                    qrdy.put(after, key)
            qdst.put(key, one.pack())
            one.is_new = one.has_more = False
        self._dirty.clear()

    def _earliest(self, id_: int) -> int:
        """Return when the first of a destination's recipients is due; there is one."""
        earliest = 0
        class_ = 0
        while (first := next(self.tables.qdue.scan(CLASS_PREFIX.pack(id_, class_)), None)) is not None:
            other, found, due, _, _ = DUE_KEY.unpack(first[0])
            if other != id_:
                break
            earliest = min(earliest, due) if earliest else due
            class_ = found + 1
        return earliest


def with_attempts(row: RecipientRow, attempts: tuple[Attempt, ...]) -> tuple[Attempt, ...]:
    """Return a recipient's history with more attempts, cut to the latest."""
    return (*row.history, *attempts)[-MAX_HISTORY:]


def waits(row: RecipientRow) -> bool:
    """Whether a recipient that is not claimed stands in qdue."""
    return row.state in {QUEUED, DEFERRED, FAILING}


def is_over(row: RecipientRow) -> bool:
    """Whether a recipient's story has ended."""
    return row.state in {DELIVERED, FAILED}
