"""Keys and records of the index: what octets stand in which table.

Keys are big-endian, so that their order is the numbers' order: A account u32, M mailbox u32, U uid u32, S modseq u64.
Values are little-endian, because CPython's struct swaps byte by byte when the order is not the machine's.

    table    key               value
    meta     text              "tail": `TAIL`; "next_account", "uid_validity": u64; `livemail.storage.lmdb.unindexed`
    user     login, utf-8      A
    acct     A                 AccountRecord
    acnt     A                 `ACCOUNT_COUNTERS`
    mbox     A M               MailboxRecord
    mcnt     A M               `MAILBOX_COUNTERS`
    mname    A name            M                      (`name_key`: a long name is hashed)
    sub      A name            the name
    msg      A M U             `MESSAGE`, 104 octets, what changes
    cache    A M U             envelope structure parts fields prefix, one behind the other, what never changes
    msgid    A hash64          thread id u64
    change   A S               one row per command: (M, number of ranges, ranges) …
    expunge  A M S             ranges
    blob     digest            `BLOB`
    seg      segment u32       `SEGMENT`
    imported A source12 id     U: what another store has brought (`livemail.storage.lmdb.operations.imports`)
    mroot file fbase mdir      of accounts in a Maildir: `livemail.storage.lmdb.files.records`
    opened unseen              what opening a mailbox needs, noted: `livemail.storage.lmdb.opening`
    gone gcnt                  of expunged messages that are kept: `livemail.storage.lmdb.deleted.records`
    dom      domain            DomainRecord
    alias    domain NUL local  AliasRecord
    story    transaction id    `livemail.storage.stories`: the oldest go when they are too many or too old
    q…       the queue         `livemail.storage.queue.records`

msg and cache have the same keys, so that a FETCH walks two cursors side by side and compares nothing.
"""

from __future__ import annotations

import hashlib
import sys
from array import array
from collections.abc import Iterable, Iterator
from struct import Struct
from typing import Final, NamedTuple

import msgspec

from livemail.interfaces.addresses import AliasRecord, DomainRecord
from livemail.interfaces.storage import AccountRecord

FORMAT: Final = 1

U32: Final = Struct(">I")
U64: Final = Struct(">Q")
MAILBOX_KEY: Final = Struct(">II")
MESSAGE_KEY: Final = Struct(">III")
CHANGE_KEY: Final = Struct(">IQ")
EXPUNGE_KEY: Final = Struct(">IIQ")

# ------------------------------------------------------------------------------------------------------- messages

MESSAGE: Final = Struct("<BIBQQqhQIqQQ16s5I")
"""bits, the eleven columns of `livemail.interfaces.storage.Row`, digest of the content, then where in the cache row each
piece ends: envelope, structure, parts, fields, prefix."""

ROWS: Final = Struct("<xIBQQqhQIqQQ36x")
"""The same octets, of which only a Row comes out: pad bytes cost nothing in `iter_unpack`."""

BITS_AND_ENDS: Final = Struct("<B83x5I")
ENVELOPE_END: Final = Struct("<84xI16x")
CACHE_SIZE: Final = Struct("<100xI")
DIGEST: Final = Struct("<68x16s20x")
STATE: Final = Struct("<xIBQQ82x")
"""uid, flags, keywords, modseq."""

MUTABLE: Final = Struct("<BQQ")
MUTABLE_FROM: Final = 5
MUTABLE_TO: Final = MUTABLE_FROM + MUTABLE.size
"""flags, keywords, modseq: the part of the record that STORE replaces."""

FLAGS_AT: Final = 5
RECORD_VERSION: Final = 1
FIELDS_TOO_LARGE: Final = 0x80


class Message(NamedTuple):
    """One row of ``msg``, unpacked."""

    bits: int
    uid: int
    flags: int
    keywords: int
    modseq: int
    date: int
    zone: int
    size: int
    header_size: int
    saved: int
    email_id: int
    thread_id: int
    digest: bytes
    envelope_end: int
    structure_end: int
    parts_end: int
    fields_end: int
    prefix_end: int

    @classmethod
    def unpack(cls, record: bytes) -> Message:
        """Return the record of a row of ``msg``."""
        return cls._make(MESSAGE.unpack(record))

    def pack(self) -> bytes:
        """Return the row."""
        return MESSAGE.pack(*self)

    @property
    def prefix_size(self) -> int:
        """Octets of the delivery prefix."""
        return self.prefix_end - self.fields_end


# ----------------------------------------------------------------------------------------------- accounts, mailboxes

ACCOUNT_COUNTERS: Final = Struct("<QQQIQQ")
"""modseq, octets, messages, next mailbox, next email id, floor of the change log."""

MAILBOX_COUNTERS: Final = Struct("<IQIIIQQII")
"""uid_next, highest modseq, exists, unseen, deleted, octets, floor of the expunge log, its rows, recent_from."""

BLOB: Final = Struct("<IIQQI")
"""references, segment, offset of the first content octet, octets, crc32."""

SEGMENT: Final = Struct("<QQB")
"""octets in the file, octets of them dead, 1 when a spool file was adopted as this segment."""

TAIL: Final = Struct("<IQI")
"""The segment that grows, how many of its octets count, the next segment's number."""


class MailboxRecord(msgspec.Struct, frozen=True, array_like=True):
    """What seldom changes about a mailbox.  created: modseq.  keywords: names, bit 0 first."""

    name: str
    special_use: str
    uid_validity: int
    created: int
    keywords: tuple[str, ...] = ()


_ENCODER: Final = msgspec.msgpack.Encoder()
_MAILBOX_DECODER: Final = msgspec.msgpack.Decoder(MailboxRecord)
_ACCOUNT_DECODER: Final = msgspec.msgpack.Decoder(AccountRecord)
_ALIAS_DECODER: Final = msgspec.msgpack.Decoder(AliasRecord)
_DOMAIN_DECODER: Final = msgspec.msgpack.Decoder(DomainRecord)


def pack_account(account: AccountRecord) -> bytes:
    """Return the row of ``acct``."""
    return _ENCODER.encode(account)


def unpack_account(row: bytes) -> AccountRecord:
    """Return the record of a row of ``acct``."""
    return _ACCOUNT_DECODER.decode(row)


def alias_key(local_part: str, domain: str) -> bytes:
    """Return the key of ``alias``; with an empty local part what all keys of the domain begin with."""
    return f"{domain}\0{local_part}".encode()


def pack_alias(alias: AliasRecord) -> bytes:
    """Return the row of ``alias``."""
    return _ENCODER.encode(alias)


def unpack_alias(row: bytes) -> AliasRecord:
    """Return the record of a row of ``alias``."""
    return _ALIAS_DECODER.decode(row)


def pack_domain(domain: DomainRecord) -> bytes:
    """Return the row of ``dom``."""
    return _ENCODER.encode(domain)


def unpack_domain(row: bytes) -> DomainRecord:
    """Return the record of a row of ``dom``."""
    return _DOMAIN_DECODER.decode(row)


def pack_mailbox(mailbox: MailboxRecord) -> bytes:
    """Return the row of ``mbox``."""
    return _ENCODER.encode(mailbox)


_decoded: dict[bytes, MailboxRecord] = {}
_DECODED_MAX: Final = 4096


def unpack_mailbox(row: bytes) -> MailboxRecord:
    """Return the record of a row of ``mbox``; the same rows are read again and again, so decoded ones are kept."""
    mailbox = _decoded.get(row)
    if mailbox is None:
        if len(_decoded) >= _DECODED_MAX:
            _decoded.clear()
        mailbox = _decoded[row] = _MAILBOX_DECODER.decode(row)
    return mailbox


MAX_LOGIN_OCTETS: Final = 400
_LONGEST_NAME_IN_KEY: Final = 400  # LMDB's keys have at most 511 octets.


def name_key(account: int, name: str) -> bytes:
    """Return the key of a mailbox name.  Names longer than a key are hashed; 0xFF never occurs in UTF-8."""
    octets = name.encode()
    if len(octets) > _LONGEST_NAME_IN_KEY:
        octets = b"\xff" + hashlib.blake2b(octets, digest_size=32).digest()
    return U32.pack(account) + octets


def message_id_key(message_id: bytes) -> bytes:
    """Return the part of a key of ``msgid`` that stands for a Message-ID."""
    return hashlib.blake2b(message_id, digest_size=8).digest()


# ------------------------------------------------------------------------------------------------------ UID ranges

Ranges = Iterable[tuple[int, int]]


def pack_ranges(ranges: Ranges) -> bytes:
    """Pack (first, last) pairs of UIDs."""
    flat = array("I", [uid for pair in ranges for uid in pair])
    if sys.byteorder == "big":
        flat.byteswap()
    return flat.tobytes()


def unpack_ranges(packed: bytes) -> list[tuple[int, int]]:
    """Unpack what `pack_ranges` packed."""
    flat = array("I")
    flat.frombytes(packed)
    if sys.byteorder == "big":
        flat.byteswap()
    return list(zip(flat[::2], flat[1::2], strict=True))


_CHANGE_HEAD: Final = Struct("<II")


def pack_change(changed: Iterable[tuple[int, Ranges]]) -> bytes:
    """Pack (mailbox, ranges) pairs into a row of ``change``."""
    pieces: list[bytes] = []
    for mailbox, ranges in changed:
        packed = pack_ranges(ranges)
        pieces += (_CHANGE_HEAD.pack(mailbox, len(packed)), packed)
    return b"".join(pieces)


def unpack_change(row: bytes) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """Yield the (mailbox, ranges) pairs of a row of ``change``."""
    at = 0
    while at < len(row):
        mailbox, size = _CHANGE_HEAD.unpack_from(row, at)
        at += _CHANGE_HEAD.size
        yield mailbox, unpack_ranges(row[at : at + size])
        at += size
