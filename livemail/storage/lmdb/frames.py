"""Frames between the server and its writer process: a length, u64 big-endian, and so many octets.

The server's end never blocks (`FrameStream`), the writer's does nothing else (`send`, `receive`).
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from struct import Struct
from typing import Final

from livemail.interfaces.runtime import IWatcher

_LENGTH: Final = Struct(">Q")
_READ_OCTETS: Final = 256 * 1024


class FrameStream:
    """The end that a reactor serves (`livemail.interfaces.runtime.Descriptor`)."""

    def __init__(
        self, connection: socket.socket, watcher: IWatcher, arrived: Callable[[bytes], None], ended: Callable[[], None]
    ) -> None:
        """connection: this object's own.  arrived: called with each whole frame; ended: once, when the other end is gone."""
        connection.setblocking(False)
        self._connection = connection
        self._watcher = watcher
        self._arrived = arrived
        self._ended = ended
        # Their front is taken off in place: frames may be of many megabytes.
        self._unsent = bytearray()
        self._received = bytearray()
        self._is_finished = False
        self.is_open = True
        watcher.watch(self)

    def fileno(self) -> int:
        """The socket's descriptor."""
        return self._connection.fileno()

    def send(self, frame: bytes) -> None:
        """Send a frame behind those before it.  When the other end is gone nothing is sent: ``ended`` tells."""
        if not self.is_open:
            return
        head = _LENGTH.pack(len(frame))
        if self._unsent:
            self._unsent += head + frame
            return
        try:
            # The writer waits for a frame and reads at once, so that most leave whole, in one call.
            sent = self._connection.sendmsg((head, frame))
        except OSError:
            sent = 0  # Full; or broken, which the next read finds out.
        if sent < len(head) + len(frame):
            self._unsent += (head + frame)[sent:]
            self._watcher.watch(self, writing=True)

    def writable(self) -> None:
        """Send more of what is left."""
        with contextlib.suppress(OSError):
            del self._unsent[: self._connection.send(self._unsent)]
        if not self._unsent:
            self._watcher.watch(self)
            if self._is_finished:
                self._shut()

    def readable(self) -> None:
        """Take what came."""
        try:
            octets = self._connection.recv(_READ_OCTETS)
        except BlockingIOError:
            return
        except OSError:
            octets = b""
        if not octets:
            self.close()
            self._ended()
            return
        received = self._received
        received += octets
        while len(received) >= _LENGTH.size and self.is_open:
            end = _LENGTH.size + _LENGTH.unpack_from(received)[0]
            if len(received) < end:
                break
            frame = bytes(received[_LENGTH.size : end])
            del received[:end]
            self._arrived(frame)

    def finish(self) -> None:
        """Nothing more will be sent: the other end reads its end of file behind the last frame."""
        self._is_finished = True
        if not self._unsent:
            self._shut()

    def _shut(self) -> None:
        with contextlib.suppress(OSError):  # The other end may be gone.
            self._connection.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Neither send nor take any more; ``ended`` is not called."""
        if self.is_open:
            self.is_open = False
            self._watcher.forget(self)
            self._connection.close()


def send(connection: socket.socket, frame: bytes) -> None:
    """Send a frame and wait until it is sent.  Raises OSError."""
    sent = connection.sendmsg((_LENGTH.pack(len(frame)), frame))
    if sent < _LENGTH.size + len(frame):
        connection.sendall((_LENGTH.pack(len(frame)) + frame)[sent:])


def receive(connection: socket.socket) -> bytes:
    """Wait for the next frame.  Raises EOFError at the end, OSError."""
    (length,) = _LENGTH.unpack(_exactly(connection, _LENGTH.size))
    return _exactly(connection, length)


def _exactly(connection: socket.socket, count: int) -> bytes:
    got = connection.recv(count, socket.MSG_WAITALL)
    while len(got) < count:
        more = connection.recv(count - len(got), socket.MSG_WAITALL)
        if not more:
            raise EOFError("the other process has ended")
        got += more
    return got
