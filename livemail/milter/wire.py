"""The milter protocol's octets: packets of a length, a command octet and its data, the same in both directions.

Sans-I/O: `feed` takes octets as they arrive, `packet` takes packets out.  There is no RFC; the reference is Sendmail's
libmilter (``mfdef.h``), protocol version 6 and what is compatible with it down to version 2.

    4 octets, big-endian   length of command and data together, at least 1
    1 octet                command
    the rest               data

The length is checked as soon as it is known, so that a peer makes us keep no more than one packet of the negotiated size.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from livemail.mail.errors import WireError

_LENGTH: Final = Struct(">I")
_UINTS: Final = Struct(">III")

CHUNK_OCTETS: Final = 65535
"""Data of one packet, when nothing larger was negotiated."""

SPARE_OCTETS: Final = 1024
"""What a packet may hold beyond the data size both agreed on: libmilter counts its own overhead differently."""


class Wire:
    """One direction of one connection.  limit: octets of data a packet may have; may be raised after negotiation."""

    def __init__(self, limit: int = CHUNK_OCTETS) -> None:
        self.limit = limit
        self._buffer = bytearray()
        self._at = 0
        self._is_dead = False

    @property
    def pending(self) -> int:
        """Octets fed and not yet taken."""
        return len(self._buffer) - self._at

    def feed(self, octets: bytes) -> None:
        """Take octets as they arrive."""
        if not self._is_dead:
            self._buffer += octets

    def packet(self) -> tuple[bytes, bytes] | None:
        """Take the next packet: its command (one octet) and its data; None when it is not complete.

        Raises a fatal WireError for a length of 0 or over the limit: nothing is given out after it.
        """
        buffer, at = self._buffer, self._at
        if len(buffer) - at < 5:
            if self._is_dead or len(buffer) - at < 4:
                return None
            self._check(_LENGTH.unpack_from(buffer, at)[0])
            return None
        (length,) = _LENGTH.unpack_from(buffer, at)
        self._check(length)
        end = at + 4 + length
        if len(buffer) < end:
            return None
        command, data = bytes(buffer[at + 4 : at + 5]), bytes(buffer[at + 5 : end])
        if end == len(buffer):
            buffer.clear()
            self._at = 0
        elif end > CHUNK_OCTETS:
            del buffer[:end]
            self._at = 0
        else:
            self._at = end
        return command, data

    def _check(self, length: int) -> None:
        if 1 <= length <= self.limit + SPARE_OCTETS:
            return
        self._is_dead = True
        self._buffer.clear()
        self._at = 0
        raise WireError(f"a milter packet of {length} octets", fatal=True)


def packet(command: bytes, data: bytes = b"") -> bytes:
    """Render a packet."""
    return _LENGTH.pack(len(data) + 1) + command + data


def strings(*texts: bytes) -> bytes:
    """Render NUL-terminated strings.  Raises ValueError for a NUL inside: it would become another string."""
    if any(b"\0" in text for text in texts):
        raise ValueError("NUL in a milter string")
    return b"".join(text + b"\0" for text in texts)


def split_strings(data: bytes) -> list[bytes]:
    """Parse NUL-terminated strings.  Raises WireError when the last is not terminated."""
    if not data:
        return []
    if not data.endswith(b"\0"):
        raise WireError("a milter string without its NUL", fatal=True)
    return data[:-1].split(b"\0")


def uint(number: int) -> bytes:
    """Render a number."""
    return _LENGTH.pack(number)


def split_uint(data: bytes) -> tuple[int, bytes]:
    """Parse a number in front; return it and the rest.  Raises WireError."""
    if len(data) < 4:
        raise WireError("a milter packet is too short for its number", fatal=True)
    return _LENGTH.unpack_from(data)[0], data[4:]


def uints(first: int, second: int, third: int) -> bytes:
    """Render the three numbers of a negotiation."""
    return _UINTS.pack(first, second, third)


def split_uints(data: bytes) -> tuple[int, int, int, bytes]:
    """Parse the three numbers of a negotiation; return them and the rest.  Raises WireError."""
    if len(data) < _UINTS.size:
        raise WireError("a milter negotiation is too short", fatal=True)
    first, second, third = _UINTS.unpack_from(data)
    return first, second, third, data[_UINTS.size :]
