"""ENVELOPE from a message's header fields.  RFC 9051 §7.5.2."""

from __future__ import annotations

from typing import Final

from livemail.mail.message.addresses import render_addresses
from livemail.mail.message.fields import unfold
from livemail.mail.message.quoting import NIL, string

ENVELOPE_FIELDS: Final = frozenset(b"date subject from sender reply-to to cc bcc in-reply-to message-id".split())
"""Lower-case names of the fields an ENVELOPE shows."""


def render_envelope(fields: dict[bytes, bytes], addresses: int) -> bytes:
    """Render the parenthesised value of ENVELOPE.

    fields: raw value of the first field of each name in `ENVELOPE_FIELDS`.  addresses: shown per field at most.
    Texts go out as they stand in the field, unfolded, encoded words included.  An absent Sender or Reply-To, or one
    that holds no address, is the From.
    """
    get = fields.get
    originator = _addresses(get(b"from"), addresses)
    sender = _addresses(get(b"sender"), addresses)
    reply_to = _addresses(get(b"reply-to"), addresses)
    return b"(%b %b %b %b %b %b %b %b %b %b)" % (
        _text(get(b"date")),
        _text(get(b"subject")),
        originator,
        originator if sender == NIL else sender,
        originator if reply_to == NIL else reply_to,
        _addresses(get(b"to"), addresses),
        _addresses(get(b"cc"), addresses),
        _addresses(get(b"bcc"), addresses),
        _text(get(b"in-reply-to")),
        _text(get(b"message-id")),
    )


def _text(value: bytes | None) -> bytes:
    return NIL if value is None else string(unfold(value))


def _addresses(value: bytes | None, limit: int) -> bytes:
    return NIL if value is None else render_addresses(unfold(value), limit)
