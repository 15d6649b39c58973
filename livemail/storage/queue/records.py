"""Keys and records of the queue: what octets stand in which table.

Q queue id u64, N recipient u32, D destination u32, T milliseconds since the epoch u64; keys are big-endian.

    table   key                  value
    qmsg    Q                    MessageRow
    qrcp    Q N                  RecipientRow
    qdue    D class T Q N        nothing: what waits, by destination, priority (class 0 is the highest) and time
    qrdy    kind T D             the key in qdst: which destination is to be looked at next
    qlea    Q N                  `LEASE` and the key in qdst: what is claimed
    qdst    destination's name   DestinationRow
    meta    "queue"              `COUNTERS`

A recipient is in exactly one of these: qdue (it waits, or only has to be reported), qlea (claimed), neither (held, or over).  Its
row keeps the state it had before it was claimed, so that claiming writes no row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from struct import Struct
from typing import Final

import msgspec

from livemail.interfaces.queue import (
    MAX_PRIORITY,
    DestinationInfo,
    QueuedMessage,
    QueuedRecipient,
    QueueId,
    State,
)
from livemail.interfaces.relay import Attempt, Reply
from livemail.mail.envelope import Recipient, ReversePath
from livemail.mail.ids import AccountId

QUEUED, DEFERRED, HELD, FAILING, DELIVERED, FAILED = range(6)
"""States of a row.  The first two wait for an attempt, the last two are over."""

CLAIMED: Final = 6
"""Not a state of a row: there is a lease."""

STATES: Final[tuple[State, ...]] = ("queued", "deferred", "held", "failing", "delivered", "failed", "claimed")
"""Words of the states, by number."""

DECIDED: Final = ""
"""The destination of what is failing: no connection is needed for it."""

MESSAGE_KEY: Final = Struct(">Q")
RECIPIENT_KEY: Final = Struct(">QI")
DUE_KEY: Final = Struct(">IBQQI")
READY_KEY: Final = Struct(">BQI")
CLASS_PREFIX: Final = Struct(">IB")

LEASE: Final = Struct("<QQ")
"""until (T), instance of the store that gave it."""

COUNTERS: Final = Struct("<10Q")
"""last queue id, last destination id, messages, octets, destinations, recipients queued, deferred, held, failing, claimed."""

COUNTERS_KEY: Final = b"queue"

KIND_DECIDED, KIND_WELL, KIND_DOWN = range(3)
"""Kinds of destinations in qrdy: the one of what is failing, those that work as far as is known, those found down."""

_LONGEST_NAME: Final = 400  # LMDB's keys have at most 511 octets.

MAX_TIME: Final = 2**62
"""Milliseconds; later is never."""


class MessageRow(msgspec.Struct, frozen=True, array_like=True):
    """A row of qmsg.  size: octets of the content, without prefix.  created, expires: seconds.  total, open: recipients."""

    reverse_path: ReversePath
    digest: bytes
    size: int
    prefix: bytes
    submitter: int
    transaction: str
    priority: int
    created: float
    expires: float
    total: int
    open: int
    has_8bit: bool
    has_utf8_header: bool


class RecipientRow(msgspec.Struct, frozen=True, array_like=True):
    """A row of qrcp.  due, since, extended: milliseconds; since: held from then on, extended: how long it was held before.

    pending: what is to become of it when the attempt that runs does not settle it: "hold", "drop", "fail" or nothing.
    """

    recipient: Recipient
    destination: str
    state: int
    due: int
    attempts: int = 0
    last: Reply | None = None
    host: str = ""
    is_delay_reported: bool = False
    history: tuple[Attempt, ...] = ()
    note: str = ""
    since: int = 0
    extended: int = 0
    verdict: Reply | None = None
    pending: str = ""


class DestinationRow(msgspec.Struct, frozen=True, array_like=True):
    """A row of qdst.  Times in milliseconds.  kind, turn: where it stands in qrdy; turn 0: it does not."""

    id: int
    name: str
    waiting: int = 0
    claimed: int = 0
    held: int = 0
    failures: int = 0
    not_before: int = 0
    served: int = 0
    kind: int = 0
    turn: int = 0
    reply: Reply | None = None


_encode: Final = msgspec.msgpack.Encoder().encode
pack_message = pack_recipient = pack_destination = _encode
unpack_message: Final = msgspec.msgpack.Decoder(MessageRow).decode
unpack_recipient: Final = msgspec.msgpack.Decoder(RecipientRow).decode
unpack_destination: Final = msgspec.msgpack.Decoder(DestinationRow).decode


def destination_key(name: str) -> bytes:
    """Return the key of a destination.  Names longer than a key are hashed; 0xFF never occurs in UTF-8."""
    octets = name.encode("utf-8", "surrogatepass")
    if len(octets) > _LONGEST_NAME:
        octets = b"\xff" + hashlib.blake2b(octets, digest_size=32).digest()
    return b"=" + octets


def class_of(priority: int) -> int:
    """Return the class of a priority: 0 for the highest."""
    return MAX_PRIORITY - priority


def milliseconds(seconds: float) -> int:
    """Return a time as the tables have it."""
    whole = round(seconds * 1000)
    return whole if 0 <= whole <= MAX_TIME else min(MAX_TIME, max(0, whole))


# ------------------------------------------------------------------------------------------------ rows as others see them


def to_recipient(number: int, row: RecipientRow, *, is_claimed: bool) -> QueuedRecipient:
    """Return a recipient as the interface has it."""
    return QueuedRecipient(
        number,
        row.recipient,
        row.destination,
        "claimed" if is_claimed else STATES[row.state],
        row.due / 1000,
        row.attempts,
        row.last,
        row.host,
        row.is_delay_reported,
        row.history,
        row.note,
        row.extended / 1000,
        row.verdict,
    )


def to_message(id_: int, row: MessageRow, recipients: Sequence[QueuedRecipient]) -> QueuedMessage:
    """Return a message as the interface has it."""
    return QueuedMessage(
        QueueId(id_),
        row.reverse_path,
        tuple(recipients),
        row.size + len(row.prefix),
        AccountId(row.submitter),
        row.transaction,
        row.priority,
        row.created,
        row.expires,
        row.open,
        row.has_8bit,
        row.has_utf8_header,
    )


def to_destination(row: DestinationRow) -> DestinationInfo:
    """Return a destination as the interface has it."""
    return DestinationInfo(
        row.name, row.waiting, row.claimed, row.held, row.failures, row.not_before / 1000, row.reply, row.turn / 1000
    )
