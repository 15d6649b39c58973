"""What one pass over a message's octets leaves behind.

A Summary is all that storage keeps beside the content itself.  The pre-rendered pieces are IMAP wire octets, because
ENVELOPE and BODYSTRUCTURE are asked for hundreds of thousands of times and rendered once: from a structured record a
FETCH renders 81 k messages a second, from these pieces 443 k.
"""

from __future__ import annotations

import msgspec


class Part(msgspec.Struct, frozen=True, array_like=True):
    """One body part as ranges of the message's octets.  RFC 9051 §6.4.5.1.

    start: offset of the part's first header octet; body: offset of its body (behind the blank line);
    end: offset behind its last octet, the CRLF that belongs to the following boundary not included.
    lines: lines of the body.  media_type: lower-case ``type/subtype``.  encoding: lower-case
    Content-Transfer-Encoding.  charset: lower-case, "" when absent.
    children: the parts of a multipart; for message/rfc822 exactly one: the embedded message, whose own
    multipart children, if any, are below it.  Empty for everything else.
    """

    start: int
    body: int
    end: int
    lines: int = 0
    media_type: str = "text/plain"
    encoding: str = "7bit"
    charset: str = ""
    children: tuple[Part, ...] = ()


class Summary(msgspec.Struct, frozen=True):
    """Everything known about a message's content without reading it again.

    size: octets.  header_size: octets up to and including the blank line (== size when there is no body).
    envelope: the parenthesised value of ENVELOPE.  structure: the parenthesised value of BODYSTRUCTURE (with
    extension data).  parts: `encode_parts` of the root part.  fields: the header fields of `CACHED_FIELDS` in message
    order, each octet for octet with its CRLF and folding, no blank line; None when they exceed `MAX_CACHED_OCTETS`.
    message_id: the Message-ID with its angle brackets, b"" when absent.
    references: Message-IDs this message points to (References then In-Reply-To), nearest last, at most 20.
    sent: the Date field as seconds since the epoch, None when absent or unreadable.
    has_bare_newline / has_nul / has_8bit: what occurs anywhere in the content; longest_line in octets without CRLF.
    received_count: header fields named Received (RFC 5321 §6.3).
    """

    size: int
    header_size: int
    envelope: bytes
    structure: bytes
    parts: bytes
    fields: bytes | None
    message_id: bytes = b""
    references: tuple[bytes, ...] = ()
    sent: int | None = None
    has_bare_newline: bool = False
    has_nul: bool = False
    has_8bit: bool = False
    longest_line: int = 0
    received_count: int = 0


CACHED_FIELDS = frozenset(
    b"from to cc bcc subject date message-id in-reply-to references reply-to sender priority x-priority importance"
    b" content-type newsgroups list-id list-post list-unsubscribe"
    b" delivered-to x-mailer user-agent mime-version content-transfer-encoding auto-submitted".split()
)
"""Lower-case names of the header fields that clients ask for in their message lists."""

MAX_CACHED_OCTETS = 1200
"""Above this the fields are read from the content: a cache row over half a page costs LMDB whole overflow pages."""

_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Part)


def encode_parts(root: Part) -> bytes:
    """Pack a part tree for storage."""
    return _ENCODER.encode(root)


def decode_parts(packed: bytes) -> Part:
    """Unpack what `encode_parts` packed."""
    return _DECODER.decode(packed)
