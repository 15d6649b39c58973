"""TLS between octets on the wire and octets inside; whoever owns the transport carries them.

Twisted's own layer costs 200 µs for a message of two round trips: timers that gather small writes, a second protocol and its
transport around the first, and several calls into OpenSSL that say there is nothing more.  Here a group of commands is one
record, one call and one write.

    begin ─▶ octets for the peer        receive(octets) ─▶ plain octets        protect(plain) ─▶ octets for the peer
    After each `receive`: `is_established`, `is_ended`, and `output`, which the handshake and alerts want sent.
"""

from __future__ import annotations

from typing import Final

from OpenSSL import SSL

_RECORD_OCTETS: Final = 16384
"""Plain octets of a record, at most."""

_OVERHEAD_OCTETS: Final = 512
"""More than a record is longer than what is in it."""


class TLSBroken(Exception):
    """The peer does not speak TLS as it should, or does not trust us; the text is OpenSSL's."""


class TLSStream:
    """One connection's TLS.  is_established: the handshake is complete.  is_ended: the peer says no more (close_notify)."""

    __slots__ = ("_connection", "is_ended", "is_established", "output")

    def __init__(self, connection: SSL.Connection) -> None:
        """connection: without a socket; it knows already which side it is."""
        self._connection = connection
        self.is_established = False
        self.is_ended = False
        self.output = b""

    @property
    def connection(self) -> SSL.Connection:
        """OpenSSL's side, for looking at certificates."""
        return self._connection

    @property
    def how(self) -> str:
        """Version and cipher: "TLSv1.3 TLS_AES_256_GCM_SHA384"."""
        return f"{self._connection.get_protocol_version_name()} {self._connection.get_cipher_name()}"

    def begin(self) -> bytes:
        """Return the handshake's first octets.  Raises TLSBroken."""
        self._shake()
        return self.take_output()

    def receive(self, octets: bytes) -> bytes:
        """Take octets of the peer; return what they hold for the protocol inside.  Raises TLSBroken; `output` may have an alert then."""
        connection = self._connection
        plain = []
        at = 0
        while at < len(octets):  # Once: OpenSSL's memory takes all there is.
            at += connection.bio_write(octets[at:] if at else octets)
        if not self.is_established:
            self._shake()
            if not self.is_established:
                return b""
        try:
            while True:
                plain.append(connection.recv(_RECORD_OCTETS))
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            self.is_ended = True
        except SSL.Error as error:
            self._gather()
            raise TLSBroken(_words(error)) from None
        # What OpenSSL may want to answer (a new key) goes out with what is said next.
        return plain[0] if len(plain) == 1 else b"".join(plain)

    def protect(self, plain: bytes) -> bytes:
        """Return the octets that carry ``plain``.  Raises TLSBroken."""
        connection = self._connection
        if not plain:
            return b""
        at = 0
        try:
            while at < len(plain):  # Once for each record.
                at += connection.send(memoryview(plain)[at:] if at else plain)
            # What is asked for is allocated, and to ask again for nothing costs an exception: no more than this is there.
            room = len(plain) + (len(plain) // _RECORD_OCTETS + 2) * _OVERHEAD_OCTETS
            carried = connection.bio_read(room)
        except SSL.Error as error:
            raise TLSBroken(_words(error)) from None
        if len(carried) == room:
            self._gather()
            carried += self.take_output()
        return carried

    def close(self) -> bytes:
        """Return the octets that say that nothing more follows (close_notify), where that can be said."""
        if not self.is_established:
            return b""
        try:
            self._connection.shutdown()
        except SSL.Error:
            return b""
        self._gather()
        return self.take_output()

    def take_output(self) -> bytes:
        """Return `output`, and forget it."""
        output, self.output = self.output, b""
        return output

    def _shake(self) -> None:
        try:
            self._connection.do_handshake()
        except SSL.WantReadError:
            pass
        except SSL.Error as error:
            self._gather()
            raise TLSBroken(_words(error)) from None
        else:
            self.is_established = True
        self._gather()

    def _gather(self) -> None:
        """Put what OpenSSL wants sent into `output`."""
        try:
            while True:
                self.output += self._connection.bio_read(_RECORD_OCTETS)
        except SSL.Error:  # WantReadError: that was all.
            return


def _words(error: SSL.Error) -> str:
    """What OpenSSL says, without its codes."""
    try:
        return str(error.args[0][0][2]) or "handshake failed"
    except (IndexError, TypeError):
        return "handshake failed"
