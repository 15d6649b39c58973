"""Frames between the server and its writer process, however the socket cuts them."""

from __future__ import annotations

import socket
import threading

import pytest

from livemail.storage.lmdb.frames import FrameStream, receive, send
from tests.contracts.drive import Pump


class Heard:
    def __init__(self):
        self.frames = []
        self.has_ended = False

    def ended(self):
        self.has_ended = True


@pytest.fixture
def ends():
    pump, heard = Pump(), Heard()
    mine, other = socket.socketpair()
    stream = FrameStream(mine, pump, heard.frames.append, heard.ended)
    yield pump, stream, other, heard
    stream.close()
    other.close()


def test_a_frame_larger_than_the_socket_takes_arrives_whole_and_in_order(ends):
    pump, stream, other, _ = ends
    frames = [b"a" * 3_000_000, b"", b"b" * 10, b"c" * 1_000_000]
    got = []
    reader = threading.Thread(target=lambda: got.extend(receive(other) for _ in frames))
    for frame in frames:
        stream.send(frame)
    stream.finish()
    reader.start()
    while stream._unsent:
        pump.turn()
    reader.join(30)
    assert got == frames
    with pytest.raises(EOFError):
        receive(other)


def test_nobody_waits_while_the_other_end_does_not_read(ends):
    _, stream, _, _ = ends
    for _ in range(50):
        stream.send(b"x" * 100_000)
    assert len(stream._unsent) > 4_000_000


def test_frames_are_taken_out_of_any_pieces(ends):
    pump, _, other, heard = ends
    mine, theirs = socket.socketpair()
    with mine, theirs:
        for frame in (b"one", b"", b"three" * 1000):
            send(mine, frame)
        octets = theirs.recv(1 << 20)
    for at in range(40):
        other.send(octets[at : at + 1])
        pump.turn()
    assert heard.frames == [b"one", b""]
    other.sendall(octets[40:])
    pump.turn()
    assert heard.frames == [b"one", b"", b"three" * 1000]


def test_a_large_frame_is_taken_in_many_reads(ends):
    pump, _, other, heard = ends
    frame = b"z" * 5_000_000
    sender = threading.Thread(target=send, args=(other, frame))
    sender.start()
    while not heard.frames:
        pump.turn()
    sender.join(30)
    assert heard.frames == [frame]


def test_the_end_is_told_once_and_what_is_sent_after_it_is_dropped(ends):
    pump, stream, other, heard = ends
    other.close()
    stream.send(b"lost")
    pump.turn()
    assert heard.has_ended
    assert not stream.is_open
    stream.send(b"lost too")
    stream.close()
