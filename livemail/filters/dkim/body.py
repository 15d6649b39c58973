"""The body's hash while the body streams past: canonicalisation in pieces.  RFC 6376 §3.4.3, §3.4.4.

Empty lines at the end do not count, so they are counted and only hashed when something follows them: a body of 200 MB of
empty lines takes as little memory as any other.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Final, Literal

Canonicalization = Literal["simple", "relaxed"]

_LINES_AT_ONCE: Final = 8192


class BodyHash:
    """One body under one canonicalisation, hashed with SHA-256.  octets: of the canonical body, once it is finished."""

    def __init__(self, canonicalization: Canonicalization) -> None:
        self.octets = 0
        self._is_relaxed = canonicalization == "relaxed"
        self._hash = sha256()
        self._tail = b""  # what might be in front of a line end still to come
        self._newlines = 0  # CRLFs behind the last octet that was hashed

    def feed(self, chunk: bytes) -> None:
        """Take the next octets of the body, CRLF line endings."""
        data = self._tail + chunk
        carriage_return = b""
        if data.endswith(b"\r"):
            data, carriage_return = data[:-1], b"\r"
        if not self._is_relaxed:
            self._tail = carriage_return
        else:
            bare = data.rstrip(b" \t")
            # A run of blanks is one space or nothing, however long it is.
            self._tail = (b" " if len(bare) < len(data) else b"") + carriage_return
            data = bare.replace(b"\t", b" ")
            while b"  " in data:  # halves every run: five times as fast as a pattern, and no run takes long
                data = data.replace(b"  ", b" ")
            data = data.replace(b" \r\n", b"\r\n")
        self._lines(data)

    def finish(self) -> bytes:
        """No more octets follow; return the hash."""
        tail = self._tail if not self._is_relaxed else self._tail.lstrip(b" ")
        if tail:
            self._put_newlines()
            self._put(tail)
        # A last line without its end gets one; a simple body of nothing is one line end, a relaxed one is nothing.
        if self.octets or not self._is_relaxed:
            self._put(b"\r\n")
        return self._hash.digest()

    def _lines(self, data: bytes) -> None:
        """Hash what is before the line ends at the end; count those."""
        if not data:
            return
        bare = data.rstrip(b"\r\n")
        ends = data[len(bare) :]
        # Of CR and LF in any mixture only the CRLFs at the very end are line ends.
        cut = len(ends) if ends.endswith(b"\r") else max(ends.rfind(b"\r\r"), ends.rfind(b"\n\n")) + 1
        if ends[cut : cut + 1] == b"\n":
            cut += 1
        content, newlines = bare + ends[:cut], (len(ends) - cut) // 2
        if content:
            self._put_newlines()
            self._put(content)
        self._newlines += newlines

    def _put_newlines(self) -> None:
        while self._newlines:
            count = min(self._newlines, _LINES_AT_ONCE)
            self._put(b"\r\n" * count)
            self._newlines -= count

    def _put(self, octets: bytes) -> None:
        self._hash.update(octets)
        self.octets += len(octets)
