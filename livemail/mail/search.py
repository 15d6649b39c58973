"""A search program as a tree of values.  RFC 9051 §6.4.4, RFC 7162 §3.1.5.

Protocols parse into it; whoever evaluates it (`livemail.mail.search_match` over rows and content, later an index)
needs no protocol.  Sequence numbers are turned into UIDs before a program is made.
"""

from __future__ import annotations

import datetime
from typing import Literal

import msgspec

from livemail.mail.ids import UIDSet


class Everything(msgspec.Struct, frozen=True):
    """ALL."""


class UIDs(msgspec.Struct, frozen=True):
    """A sequence set or UID set."""

    uids: UIDSet


class HasFlag(msgspec.Struct, frozen=True):
    """ANSWERED, DELETED, … by bit."""

    flag: int


class HasKeyword(msgspec.Struct, frozen=True):
    """KEYWORD; compared without case."""

    keyword: str


class IsRecent(msgspec.Struct, frozen=True):
    """RECENT: the session was the first to be told of the message.  RFC 3501 §2.3.2."""


class SizeIs(msgspec.Struct, frozen=True):
    """LARGER, SMALLER: strictly."""

    relation: Literal["larger", "smaller"]
    size: int


class DateIs(msgspec.Struct, frozen=True):
    """BEFORE, ON, SINCE over the internal date, SENTBEFORE, SENTON, SENTSINCE over the Date field.

    Only the date as written counts, without regard to time and zone.
    """

    field: Literal["internal", "sent"]
    relation: Literal["before", "on", "since"]
    date: datetime.date


class HeaderContains(msgspec.Struct, frozen=True):
    """HEADER, and FROM, TO, CC, BCC, SUBJECT: decoded field contains text, without case; "" asks for presence only.

    name: lower-case field name.
    """

    name: str
    text: str


class TextContains(msgspec.Struct, frozen=True):
    """BODY (where="body") or TEXT (header or body): decoded text parts contain text, without case."""

    where: Literal["body", "text"]
    text: str


class ModSeqAtLeast(msgspec.Struct, frozen=True):
    """MODSEQ.  RFC 7162 §3.1.5."""

    modseq: int


class Not(msgspec.Struct, frozen=True):
    """NOT."""

    key: SearchKey


class AllOf(msgspec.Struct, frozen=True):
    """Keys side by side: all must match."""

    keys: tuple[SearchKey, ...]


class AnyOf(msgspec.Struct, frozen=True):
    """OR."""

    keys: tuple[SearchKey, ...]


SearchKey = (
    Everything
    | UIDs
    | HasFlag
    | HasKeyword
    | IsRecent
    | SizeIs
    | DateIs
    | HeaderContains
    | TextContains
    | ModSeqAtLeast
    | Not
    | AllOf
    | AnyOf
)
