"""Which recipients a `Choice` means, and what an administrator's change does to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from livemail.interfaces.queue import Change, Changed, Choice, Drop, Edit, Fail, Hold, QueueId, Release, Retry
from livemail.storage.queue.records import (
    CLAIMED,
    DEFERRED,
    FAILING,
    HELD,
    MESSAGE_KEY,
    QUEUED,
    RECIPIENT_KEY,
    STATES,
    MessageRow,
    RecipientRow,
    class_of,
    unpack_message,
)
from livemail.storage.queue.transaction import QueueTransaction, is_over, waits

LOOK = 20
"""Messages looked at in one call, as a multiple of those asked for."""


def glob(pattern: str) -> Callable[[str], bool]:
    """Return a test for a pattern in which ``*`` stands for anything, without case.  Linear in the text's length."""
    pieces = pattern.casefold().split("*")
    if len(pieces) == 1:
        return lambda text: text.casefold() == pieces[0]
    first, *middle, last = pieces

    def matches(text: str) -> bool:
        text = text.casefold()
        if len(text) < len(first) + len(last) or not (text.startswith(first) and text.endswith(last)):
            return False
        at, end = len(first), len(text) - len(last)
        # The earliest place for each piece leaves the most room for the next: no way back is ever needed.
        for piece in middle:
            found = text.find(piece, at, end)
            if found < 0:
                return False
            at = found + len(piece)
        return True

    return matches


class Matcher:
    """A `Choice` made ready to be asked of many."""

    def __init__(self, choice: Choice) -> None:
        self.choice = choice
        self._sender = glob(choice.sender) if choice.sender else None
        self._recipient = glob(choice.recipient) if choice.recipient else None
        self._domain = glob(choice.domain) if choice.domain else None
        self._states = frozenset(STATES.index(state) for state in choice.states)
        self.ids = sorted(choice.ids)

    def wants_message(self, row: MessageRow) -> bool:
        """Whether recipients of a message may be meant."""
        choice = self.choice
        if choice.created_before and not row.created < choice.created_before:
            return False
        if choice.created_after and not row.created > choice.created_after:
            return False
        if choice.transaction and row.transaction != choice.transaction:
            return False
        if self._sender is None:
            return True
        path = row.reverse_path.path
        return self._sender(str(path) if path.is_null else str(path.address))

    def wants(self, row: RecipientRow, *, is_claimed: bool) -> bool:
        """Whether a recipient of a wanted message is meant."""
        if self._states:
            if (CLAIMED if is_claimed else row.state) not in self._states:
                return False
        elif is_over(row):
            return False
        if self.choice.destination and row.destination != self.choice.destination:
            return False
        address = row.recipient.path.address
        if self._recipient is not None and not (address and self._recipient(str(address))):
            return False
        return self._domain is None or bool(address and self._domain(address.domain))


def wanted_messages(
    queue: QueueTransaction, matcher: Matcher, after: int, limit: int
) -> tuple[list[tuple[int, MessageRow]], int | None]:
    """Return wanted messages above ``after``, at most ``limit``, and where to go on, None at the end.

    At most LOOK times as many are looked at, so that a rare choice does not read a million rows in one piece.
    """
    found: list[tuple[int, MessageRow]] = []
    if matcher.ids:
        for id_ in matcher.ids:
            if id_ <= after:
                continue
            row = queue.message(id_)
            if row is not None and matcher.wants_message(row):
                found.append((id_, row))
                if len(found) >= limit:
                    return found, id_
        return found, None
    for looked, (key, octets) in enumerate(queue.tables.qmsg.scan(MESSAGE_KEY.pack(after + 1)), 1):
        (id_,) = MESSAGE_KEY.unpack(key)
        row = unpack_message(octets)
        if matcher.wants_message(row):
            found.append((id_, row))
        if len(found) >= limit or looked >= limit * LOOK:
            return found, id_
    return found, None


def claimed_numbers(queue: QueueTransaction, id_: int) -> frozenset[int]:
    """Return which recipients of a message are claimed."""
    prefix = MESSAGE_KEY.pack(id_)
    numbers = []
    for key, _ in queue.tables.qlea.scan(prefix):
        if not key.startswith(prefix):
            break
        numbers.append(RECIPIENT_KEY.unpack(key)[1])
    return frozenset(numbers)


# --------------------------------------------------------------------------------------------------------------- changing


class _Busy(Exception):
    """The recipient is being attempted, and the change cannot wait for the end of that."""


class ApplyChange(NamedTuple):
    """Change the chosen recipients of some messages."""

    choice: Choice
    change: Change
    after: int
    limit: int
    now: int

    def run(self, queue: QueueTransaction) -> Changed:
        """Return how far it came."""
        matcher = Matcher(self.choice)
        messages, after = wanted_messages(queue, matcher, self.after, self.limit)
        seen = changed = busy = 0
        for id_, message in messages:
            claimed = claimed_numbers(queue, id_)
            chosen = [
                (number, row)
                for number, row in queue.recipients(id_)
                if matcher.wants(row, is_claimed=number in claimed)
            ]
            seen += len(chosen)
            if chosen and isinstance(self.change, Edit):
                message = self._edit_message(queue, id_, message, claimed)  # noqa: PLW2901 - its newest row
            for number, row in chosen:
                try:
                    is_changed, message = self._change(queue, id_, number, message, row, number in claimed)  # noqa: PLW2901
                    changed += is_changed
                except _Busy:
                    busy += 1
        return Changed(seen, changed, busy, QueueId(after) if after is not None else None)

    def _change(
        self, queue: QueueTransaction, id_: int, number: int, message: MessageRow, row: RecipientRow, is_claimed: bool
    ) -> tuple[bool, MessageRow]:
        """Change one recipient; return whether it did, and the message's row as it is then."""
        change = self.change
        if is_over(row):
            return False, message
        if is_claimed:
            return self._change_claimed(queue, id_, number, row), message
        if isinstance(change, Drop):
            self._take_out(queue, id_, number, message, row)
            return True, queue.end(id_, number, message)
        if isinstance(change, Fail):
            if row.state == FAILING:
                return False, message
            self._take_out(queue, id_, number, message, row)
            row = msgspec.structs.replace(row, state=FAILING, due=self.now, verdict=change.reply, note="")
            self._put_in(queue, id_, number, message, row)
            return True, message
        return self._reschedule(queue, id_, number, message, row), message

    def _change_claimed(self, queue: QueueTransaction, id_: int, number: int, row: RecipientRow) -> bool:
        """Note what is to become of a recipient when its attempt does not settle it.  Raises _Busy."""
        change = self.change
        if isinstance(change, Hold) and row.state != FAILING:
            row = msgspec.structs.replace(row, pending="hold", note=change.note)
        elif isinstance(change, Drop):
            row = msgspec.structs.replace(row, pending="drop")
        elif isinstance(change, Fail) and row.state != FAILING:
            row = msgspec.structs.replace(row, pending="fail", verdict=change.reply)
        elif isinstance(change, Release) and row.pending == "hold":
            row = msgspec.structs.replace(row, pending="", note="")
        elif isinstance(change, Edit) and change.recipient is None:
            return True  # What changed is the message's.
        else:
            raise _Busy
        queue.put_recipient(id_, number, row)
        return True

    def _reschedule(
        self, queue: QueueTransaction, id_: int, number: int, message: MessageRow, row: RecipientRow
    ) -> bool:
        change = self.change
        if isinstance(change, Hold):
            if row.state not in {QUEUED, DEFERRED}:
                return False
            new = msgspec.structs.replace(row, state=HELD, since=self.now, note=change.note)
        elif isinstance(change, Release):
            if row.state != HELD:
                return False
            state = DEFERRED if row.attempts else QUEUED
            extended = row.extended + max(0, self.now - row.since)
            new = msgspec.structs.replace(row, state=state, due=self.now, since=0, extended=extended, note="")
        elif isinstance(change, Retry):
            if row.state not in {QUEUED, DEFERRED}:
                return False
            new = msgspec.structs.replace(row, due=min(row.due, self.now))
            destination = queue.destination(row.destination)
            destination.not_before = 0
            destination.served = min(destination.served, self.now)
        else:
            assert isinstance(change, Edit)
            if change.recipient is None:
                return True
            new = msgspec.structs.replace(row, recipient=change.recipient, destination=change.destination)
        self._take_out(queue, id_, number, message, row)
        self._put_in(queue, id_, number, message, new)
        return True

    @staticmethod
    def _take_out(queue: QueueTransaction, id_: int, number: int, message: MessageRow, row: RecipientRow) -> None:
        if waits(row):
            queue.unwait(id_, number, row, class_of(message.priority))
        else:
            queue.hold(row, -1)

    @staticmethod
    def _put_in(queue: QueueTransaction, id_: int, number: int, message: MessageRow, row: RecipientRow) -> None:
        queue.put_recipient(id_, number, row)
        if waits(row):
            queue.wait(id_, number, row.state, row.destination, class_of(message.priority), row.due)
        else:
            queue.hold(row, 1)

    def _edit_message(
        self, queue: QueueTransaction, id_: int, message: MessageRow, claimed: frozenset[int]
    ) -> MessageRow:
        """Change what is the message's."""
        change = self.change
        assert isinstance(change, Edit)
        new = msgspec.structs.replace(
            message,
            reverse_path=change.reverse_path or message.reverse_path,
            priority=message.priority if change.priority is None else change.priority,
            expires=change.expires or message.expires,
        )
        if new.priority != message.priority:
            for number, row in queue.recipients(id_):
                if number not in claimed and waits(row):
                    queue.unwait(id_, number, row, class_of(message.priority))
                    queue.wait(id_, number, row.state, row.destination, class_of(new.priority), row.due)
        if new != message:
            queue.put_message(id_, new)
        return new
