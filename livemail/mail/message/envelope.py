"""ENVELOPE from a message's header fields.  RFC 9051 §7.5.2."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from livemail.mail.message.addresses import render_addresses
from livemail.mail.message.fields import unfold
from livemail.mail.message.quoting import NIL, string

ENVELOPE_FIELDS: Final = frozenset(b"date subject from sender reply-to to cc bcc in-reply-to message-id".split())
"""Lower-case names of the fields an ENVELOPE shows."""

_MAX_REMEMBERED_OCTETS: Final = 160


def render_envelope(fields: dict[bytes, bytes], addresses: int) -> bytes:
    """Render the parenthesised value of ENVELOPE.

    fields: raw value of the first field of each name in `ENVELOPE_FIELDS`.  addresses: shown per field at most.
    Texts go out as they stand in the field, unfolded, encoded words included.  An absent Sender or Reply-To, or one
    that holds no address, is the From.
    """
    get = fields.get
    originator = _addresses(get(b"from"), addresses)
    return b"(%b %b %b %b %b %b %b %b %b %b)" % (
        _text(get(b"date")),
        _text(get(b"subject")),
        originator,
        _addresses(get(b"sender"), addresses, originator),
        _addresses(get(b"reply-to"), addresses, originator),
        _addresses(get(b"to"), addresses),
        _addresses(get(b"cc"), addresses),
        _addresses(get(b"bcc"), addresses),
        _text(get(b"in-reply-to")),
        _text(get(b"message-id")),
    )


def _text(value: bytes | None) -> bytes:
    return NIL if value is None else string(unfold(value))


def _addresses(value: bytes | None, limit: int, otherwise: bytes = NIL) -> bytes:
    """Render a field's addresses; ``otherwise`` where there is none."""
    if value is None:
        return otherwise
    if len(value) > _MAX_REMEMBERED_OCTETS:
        rendered = render_addresses(unfold(value), limit)
    else:
        rendered = _remembered_addresses(value, limit)
    return otherwise if rendered == NIL else rendered


@lru_cache(maxsize=2048)
def _remembered_addresses(value: bytes, limit: int) -> bytes:
    """Most mail is between people who wrote to each other before, and mailing lists: a look-up costs a tenth."""
    return render_addresses(unfold(value), limit)
