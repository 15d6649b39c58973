"""TLS over octets: against OpenSSL's server side, in memory."""

from __future__ import annotations

import os

import pytest
from OpenSSL import SSL

from livemail.interfaces.relay import NextHop
from livemail.net.tls_client import ClientTLS
from livemail.net.tls_stream import TLSBroken, TLSStream
from tests.smtp.relay.hostile_peer import Authority

VERSIONS = [SSL.TLS1_2_VERSION, SSL.TLS1_3_VERSION]
AUTHORITY = Authority()


class Server:
    """The other side."""

    def __init__(self, at_most: int = SSL.TLS1_3_VERSION) -> None:
        shown = AUTHORITY.show("mx.example")
        shown.context.set_max_proto_version(at_most)
        self.connection = shown.serverConnectionForTLS(None)
        self.connection.set_accept_state()

    def output(self) -> bytes:
        octets = b""
        try:
            while True:
                octets += self.connection.bio_read(65536)
        except SSL.WantReadError:
            return octets

    def take(self, octets: bytes) -> bytes:
        """Take octets of the client; return what they hold."""
        if octets:
            self.connection.bio_write(octets)
        plain = b""
        try:
            while True:
                plain += self.connection.recv(65536)
        except (SSL.WantReadError, SSL.ZeroReturnError):
            return plain


def new_stream() -> TLSStream:
    return TLSStream(ClientTLS().handshake(NextHop("mx.example", tls="encrypt")).connection())


def established(at_most: int = SSL.TLS1_3_VERSION) -> tuple[TLSStream, Server]:
    stream, server = new_stream(), Server(at_most)
    server.take(stream.begin())
    while not stream.is_established:
        assert stream.receive(server.output()) == b""
        server.take(stream.take_output())
    stream.receive(server.output())
    return stream, server


@pytest.mark.parametrize("at_most", VERSIONS)
def test_octets_pass_both_ways_whatever_their_number(at_most):
    stream, server = established(at_most)
    assert stream.how.split()[0] == {SSL.TLS1_2_VERSION: "TLSv1.2", SSL.TLS1_3_VERSION: "TLSv1.3"}[at_most]
    for size in (0, 1, 16383, 16384, 16385, 1_000_000):
        octets = os.urandom(size)
        assert server.take(stream.protect(octets)) == octets
        if size:
            server.connection.sendall(octets)
            assert stream.receive(server.output()) == octets


@pytest.mark.parametrize("at_most", VERSIONS)
def test_it_makes_no_difference_how_the_octets_arrive(at_most):
    stream, server = new_stream(), Server(at_most)
    server.take(stream.begin())
    plain = b""
    while not plain:
        for octet in server.output():
            plain += stream.receive(bytes([octet]))
        server.take(stream.take_output())
        if stream.is_established:
            server.connection.send(b"220 hello\r\n")
    assert plain == b"220 hello\r\n"


def test_what_the_peer_says_right_behind_the_handshake_is_not_lost():
    stream, server = new_stream(), Server(SSL.TLS1_2_VERSION)
    server.take(stream.begin())
    stream.receive(server.output())
    server.take(stream.take_output())
    server.connection.send(b"220 hello\r\n")
    assert not stream.is_established
    assert stream.receive(server.output()) == b"220 hello\r\n"
    assert stream.is_established


def test_the_end_is_told_both_ways():
    stream, server = established()
    server.connection.send(b"221 bye\r\n")
    server.connection.shutdown()
    assert (stream.receive(server.output()), stream.is_ended) == (b"221 bye\r\n", True)
    server.take(stream.close())
    assert server.connection.get_shutdown() & SSL.RECEIVED_SHUTDOWN
    assert new_stream().close() == b""


def test_what_is_no_tls_breaks_it():
    stream = new_stream()
    stream.begin()
    with pytest.raises(TLSBroken, match=r"wrong version number|packet length|record"):
        stream.receive(b"220 what is this?\r\n" * 20)


def test_a_record_that_was_tampered_with_breaks_it_with_an_alert():
    stream, server = established()
    server.connection.send(b"250 ok\r\n")
    octets = bytearray(server.output())
    octets[-1] ^= 1
    with pytest.raises(TLSBroken, match=r"bad record mac|decryption failed"):
        stream.receive(bytes(octets))
    assert stream.take_output()
