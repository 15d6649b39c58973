from __future__ import annotations

import pytest

from livemail.mail.errors import WireError
from livemail.milter import wire
from livemail.milter.wire import SPARE_OCTETS, Wire, packet

STREAM = packet(b"O", b"\0" * 12) + packet(b"A") + packet(b"L", b"Subject\0 hi\0") + packet(b"B", b"x" * 300)
PACKETS = [(b"O", b"\0" * 12), (b"A", b""), (b"L", b"Subject\0 hi\0"), (b"B", b"x" * 300)]


def taken(pieces, limit=wire.CHUNK_OCTETS):
    feeding, found = Wire(limit), []
    for piece in pieces:
        feeding.feed(piece)
        while (event := feeding.packet()) is not None:
            found.append(event)
    return found, feeding


@pytest.mark.parametrize("tail", [b"", b"\0", b"\0\0\0\5", b"\0\0\0\5Bxx"])
def test_packets_come_out_whole_wherever_the_transport_cuts(tail):
    stream = STREAM + tail
    cuts = [[stream], [stream[at : at + 1] for at in range(len(stream))]]
    cuts += [[stream[:at], stream[at:]] for at in range(len(stream))]
    for pieces in cuts:
        found, feeding = taken(pieces)
        assert found == PACKETS
        assert feeding.pending == len(tail)


@pytest.mark.parametrize("length", [0, 101 + SPARE_OCTETS, 0xFFFFFFFF])
def test_a_length_out_of_range_is_fatal_as_soon_as_it_is_known_and_nothing_is_kept(length):
    feeding = Wire(100)
    feeding.feed(length.to_bytes(4, "big"))
    with pytest.raises(WireError) as caught:
        feeding.packet()
    assert caught.value.fatal
    feeding.feed(b"x" * 1000)
    assert feeding.packet() is None
    assert feeding.pending == 0


def test_the_longest_packet_passes_and_the_limit_can_be_raised():
    longest = packet(b"B", b"y" * (99 + SPARE_OCTETS))
    assert taken([longest], 100)[0] == [(b"B", b"y" * (99 + SPARE_OCTETS))]
    feeding = Wire(100)
    feeding.limit = 5000
    feeding.feed(packet(b"B", b"y" * 5000))
    assert feeding.packet() == (b"B", b"y" * 5000)


def test_what_was_taken_is_given_back():
    feeding = Wire()
    for _ in range(50):
        feeding.feed(packet(b"B", b"z" * 60_000) + b"\0\0")
        assert feeding.packet() == (b"B", b"z" * 60_000)
        feeding.feed(b"\0\1A")
        assert feeding.packet() == (b"A", b"")
    assert feeding.pending == 0
    assert len(feeding._buffer) == 0


def test_a_string_with_nul_inside_is_not_rendered():
    with pytest.raises(ValueError, match="NUL"):
        wire.strings(b"a\0b")


@pytest.mark.parametrize("data", [b"a", b"a\0b", b"\0\0x"])
def test_a_string_without_its_nul_is_refused(data):
    with pytest.raises(WireError):
        wire.split_strings(data)


@pytest.mark.parametrize(("split", "data"), [(wire.split_uint, b"\0\0\1"), (wire.split_uints, b"\0" * 11)])
def test_numbers_cut_short_are_refused(split, data):
    with pytest.raises(WireError):
        split(data)
