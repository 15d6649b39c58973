"""Hostile rows where a real socket matters: what the client can still read when we close, and what the process keeps."""

from __future__ import annotations

import contextlib
import resource
import smtplib
import socket

from twisted.internet import reactor
from twisted.internet.protocol import ServerFactory
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from livemail.smtp.protocol import SMTPConnection
from tests.smtp.rig import Owner, Rig


class Factory(ServerFactory, Owner):
    def __init__(self, rig, service):
        Owner.__init__(self, reactor, has_tls=False)
        self.rig, self.service, self.connections = rig, service, []

    def buildProtocol(self, addr):
        made = SMTPConnection(self, self.rig.site(self.service))
        self.connections.append(made)
        return made


class Talker:
    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self.file = self.socket.makefile("rb")

    def send(self, octets):
        self.socket.sendall(octets)

    def line(self):
        return self.file.readline().decode()

    def rest(self):
        """Everything up to the end of the connection."""
        return self.file.read().decode()

    def close(self):
        self.file.close()
        self.socket.close()


class SocketTests(TestCase):
    service = "smtp"

    def setUp(self):
        self.rig = Rig()
        self.factory = Factory(self.rig, self.service)
        self.port = reactor.listenTCP(0, self.factory, interface="127.0.0.1")
        self.number = self.port.getHost().port

    async def tearDown(self):
        await self.port.stopListening()
        for connection in self.factory.connections:
            if not connection.is_lost:
                connection.abort()

    async def play(self, function):
        def run():
            talker = Talker(self.number)
            try:
                return function(talker)
            finally:
                talker.close()

        return await deferToThread(run)

    async def test_smtplib_delivers(self):
        def deliver():
            with smtplib.SMTP("127.0.0.1", self.number) as client:
                client.sendmail("a@b.example", ["you@localhost", "me@localhost"], "Subject: x\r\n\r\n.dot\r\n")

        await deferToThread(deliver)
        assert self.rig.mail()[0].endswith(b"\r\nSubject: x\r\n\r\n.dot\r\n")
        assert len(self.rig.mail(account=1)) == 1

    async def test_row_3_a_client_that_speaks_at_once_is_found_out(self):
        # The client's octets are in the socket before the server accepts: nothing else runs in between.
        early = socket.create_connection(("127.0.0.1", self.number), timeout=10)
        early.sendall(b"EHLO x\r\n")
        said = await deferToThread(lambda: early.makefile("rb").read().decode())
        early.close()
        assert said.startswith("554 5.5.0"), said

    async def test_row_17_a_megabyte_without_an_end_is_answered_once(self):
        def talk(talker):
            talker.line()
            with contextlib.suppress(OSError):
                talker.send(b"x" * 1_000_000)
            return talker.rest()

        assert await self.play(talk) == "500 5.5.2 Line too long\r\n"

    async def test_row_18_http_is_answered_once(self):
        def talk(talker):
            talker.line()
            talker.send(
                b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 400000\r\n\r\n" + b"MAIL FROM:<a@b>\r\n" * 20_000
            )
            return talker.rest()

        assert await self.play(talk) == "554 5.5.1 This is a mail server\r\n"

    async def test_row_15_a_large_message_over_the_limit_costs_no_memory(self):
        self.rig.settings = type(self.rig.settings)(max_message_octets=100_000)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

        def talk(talker):
            talker.line()
            talker.send(b"EHLO x\r\nMAIL FROM:<a@b.example>\r\nRCPT TO:<you@localhost>\r\nDATA\r\n")
            while not talker.line().startswith("354"):
                pass
            block = (b"y" * 70 + b"\r\n") * 1000
            for _ in range(1000):
                talker.send(block)
            talker.send(b".\r\nQUIT\r\n")
            return talker.rest()

        said = await self.play(talk)
        assert said.startswith("552 5.3.4"), said
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 * 1024
        assert not self.rig.mail()
