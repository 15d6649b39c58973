"""The relay against other people's servers, and against ours over TLS: content arrives once and as it was sent."""

from __future__ import annotations

import email
import os
import re
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from twisted.internet import reactor
from twisted.internet.protocol import ServerFactory
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from livemail.interfaces.relay import Hops, NextHop
from livemail.net.tls import CertificateStore, local_ca
from livemail.net.tls_client import ClientTLS
from livemail.smtp.relay.relay import Relay
from livemail.smtp.relay.settings import RelaySettings
from tests.smtp.relay.rig import MESSAGE, job
from tests.smtp.relay.test_wire import ENDS
from tests.smtp.rig import Rig
from tests.smtp.test_sockets import Factory
from tests.system.postfix import Postfix
from tests.system.rig import program

EIGHT_BIT = (
    b"From: a@sender.example\r\nSubject: 8\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n"
    b"Content-Transfer-Encoding: 8bit\r\n\r\n" + "schön, aber nicht nur\r\n.\r\n..\r\n".encode()
)
LARGE = b"Subject: large\r\n\r\n" + (b"." + b"y" * 76 + b"\r\n") * 20_000
SETTINGS = RelaySettings(
    greeting_timeout=20, command_timeout=20, mail_timeout=20, rcpt_timeout=20, data_timeout=20, block_timeout=20, end_timeout=20, connect_stagger=0.05,
)  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def listening(port: int) -> None:
    for _ in range(500):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        await deferLater(reactor, 0.02, lambda: None)
    raise AssertionError(f"nobody listens on port {port}")


class Sink:
    """Postfix's smtp-sink; what it took is in its folder, a file for each message."""

    def __init__(self, folder: str, *options: str) -> None:
        self.folder, self.port = Path(folder), free_port()
        self.folder.mkdir(mode=0o777, parents=True)
        self.folder.chmod(0o777)
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        self.process = subprocess.Popen(
            [program("smtp-sink"), *user, *options, "-R", folder, "-d", "mail.", f"127.0.0.1:{self.port}", "100"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    @property
    def messages(self) -> list[bytes]:
        """Contents with CRLF, the sink's own header in front of each left out."""
        found = []
        for file in sorted(self.folder.glob("mail.*"), key=lambda path: path.stat().st_mtime_ns):
            octets = file.read_bytes().replace(b"\n", b"\r\n")
            octets = re.sub(rb"\A(?:X-(?:Client|Helo|Mail|Rcpt)[^\n]*\n)*", b"", octets)
            found.append(re.sub(rb"\AReceived: (?:[^\n]*\n)(?:[ \t][^\n]*\n)*", b"", octets).removesuffix(b"\r\n"))
        return found

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(10)


class PeerTests(TestCase):
    timeout = 60

    def setUp(self):
        # Postfix's folders are short and open to its user.
        self.folder = tempfile.mkdtemp(prefix="lm")
        Path(self.folder).chmod(0o755)
        self.stops = []
        self.relay = Relay(reactor, SETTINGS, "client.example", time.time, ClientTLS())

    async def tearDown(self):
        await self.relay.close()
        for stop in self.stops:
            await deferToThread(stop)
        shutil.rmtree(self.folder)

    async def sink(self, *options):
        sink = Sink(f"{self.folder}/sink{len(self.stops)}", *options)
        self.stops.append(sink.stop)
        await listening(sink.port)
        return sink

    async def attempt(self, port, content=MESSAGE, hop=None, **options):
        next_hop = NextHop("127.0.0.1", port, ("127.0.0.1",), **{"tls": "none", **(hop or {})})
        return await self.relay.attempt(Hops("d", (next_hop,)), job(content, **options))

    def fates(self, attempted):
        return [f"{result.fate} {result.reply.code}" for result in attempted.results]


@pytest.mark.system
class SinkTests(PeerTests):
    async def test_with_and_without_pipelining(self):
        for options in ((), ("-p",), ("-e",)):
            sink = await self.sink(*options)
            for content in (MESSAGE, LARGE, b"", b"Subject: no end"):
                assert (
                    self.fates(await self.attempt(sink.port, content, to=("a@x.example", "b@x.example")))
                    == ["delivered 250"] * 2
                )
            assert sorted(sink.messages) == sorted([MESSAGE, LARGE, b"", b"Subject: no end\r\n"])

    async def test_8_bit_is_converted_for_a_sink_without_8bitmime(self):
        for options, converts in (((), False), (("-8",), True)):
            sink = await self.sink(*options)
            assert self.fates(await self.attempt(sink.port, EIGHT_BIT, has_8bit=True)) == ["delivered 250"]
            (message,) = sink.messages
            assert message.isascii() is converts
            parsed = email.message_from_bytes(message)
            assert parsed.get_payload(decode=True) == EIGHT_BIT.partition(b"\r\n\r\n")[2]

    async def test_lmtp(self):
        sink = await self.sink("-L")
        attempted = await self.attempt(sink.port, hop={"protocol": "lmtp"}, to=("a@x.example", "b@x.example"))
        assert self.fates(attempted) == ["delivered 250"] * 2
        assert sink.messages == [MESSAGE]

    async def test_refusals_and_disconnections(self):
        for options, expected, down in (
            (("-f", "mail"), "failed 500", False),
            (("-r", "rcpt"), "deferred 450", False),
            (("-f", "data"), "failed 500", False),
            (("-r", "."), "deferred 450", False),
            (("-q", "rcpt"), "deferred 451", True),
            (("-q", "."), "deferred 451", False),
        ):
            sink = await self.sink(*options)
            attempted = await self.attempt(sink.port)
            assert self.fates(attempted) == [expected], (options, attempted)
            assert attempted.is_down is down, (options, attempted)

    async def test_rows_1_and_2_one_message_stays_one(self):
        for options in ((), ("-p",), ("-L",)):
            sink = await self.sink(*options)
            hop = {"protocol": "lmtp"} if "-L" in options else {}
            for variant in ENDS:
                content = (
                    b"Subject: smuggler\r\n\r\na"
                    + variant
                    + b"MAIL FROM:<evil@x>\r\nRCPT TO:<evil@x>\r\nDATA\r\nSubject: smuggled\r\n"
                )
                assert self.fates(await self.attempt(sink.port, content, hop=hop)) == ["delivered 250"]
            messages = sink.messages
            assert len(messages) == len(ENDS)
            assert all(message.startswith(b"Subject: smuggler") for message in messages)


@pytest.mark.system
class PostfixTests(PeerTests):
    @pytest.mark.skipif(os.geteuid() != 0, reason="Postfix is started by root")
    async def test_through_postfix_every_message_arrives_once_and_as_it_was(self):
        sink = await self.sink()
        port = free_port()
        postfix = await deferToThread(Postfix, Path(self.folder, "p"), port, f"[127.0.0.1]:{sink.port}")
        self.stops.insert(0, postfix.stop)
        await listening(port)
        sent = [MESSAGE, EIGHT_BIT, LARGE]
        sent += [
            b"Subject: smuggler\r\n\r\na"
            + variant
            + b"MAIL FROM:<evil@x>\r\nRCPT TO:<evil@x>\r\nDATA\r\nSubject: smuggled\r\n"
            for variant in ENDS
        ]
        for content in sent:
            attempted = await self.attempt(port, content, has_8bit=content is EIGHT_BIT, ret="HDRS", envid="e+1")
            assert self.fates(attempted) == ["delivered 250"], (content, attempted)
            assert attempted.results[0].dsn
        assert [attempted.attempts[0].is_reused, attempted.results[0].reply.enhanced] == [True, "2.0.0"]
        while postfix.log.count("status=sent") < len(sent):  # the test's own time bounds it
            await deferLater(reactor, 0.05, lambda: None)
        bodies = sorted(message.partition(b"\r\n\r\n")[2] for message in sink.messages)
        assert len(bodies) == len(sent)
        assert {body for body in bodies if not body.startswith(b"a")} >= {
            content.partition(b"\r\n\r\n")[2] for content in sent[:3]
        }
        assert all(b"Subject: smuggled" in body for body in bodies if body.startswith(b"a"))


class OwnServerTests(PeerTests):
    """Our relay and our server, which offers all there is: BDAT in one write, DSN, SMTPUTF8, TLS."""

    factory = None

    async def tearDown(self):
        await super().tearDown()
        for connection in self.factory.connections:
            if not connection.is_lost:
                connection.abort()
        await deferLater(reactor, 0, lambda: None)

    def serve(self, service="smtp"):
        self.rig = Rig(dsn=True)
        folder = Path(self.folder, "tls")
        store = CertificateStore([local_ca(folder)], time.monotonic)
        self.factory = Factory(self.rig, service)
        self.factory.tls_options = lambda: store
        assert isinstance(self.factory, ServerFactory)
        port = reactor.listenTCP(0, self.factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        self.relay = Relay(reactor, SETTINGS, "client.example", time.time, ClientTLS(str(folder / "ca.pem")))
        return port.getHost().port

    async def test_over_verified_tls_in_one_write(self):
        port = self.serve()
        hop = {"tls": "verify", "reference": "localhost"}
        for number in range(3):
            attempted = await self.attempt(
                port, to=("you@localhost", "me@localhost", "nobody@localhost"), hop=hop, ret="FULL", envid="e"
            )
            assert self.fates(attempted) == ["delivered 250", "delivered 250", "failed 550"]
            assert attempted.results[0].dsn
            assert attempted.attempts[0].tls.startswith("TLSv1.3")
            assert attempted.attempts[0].is_reused is (number > 0)
        assert len(self.factory.connections) == 1
        assert len(self.rig.mail()) == 3
        assert self.rig.mail()[0].endswith(b"\r\n" + MESSAGE)
        assert b"with ESMTPS id" in self.rig.mail()[0]

    async def test_the_wrong_name_gets_nothing(self):
        attempted = await self.attempt(
            self.serve(), to=("you@localhost",), hop={"tls": "verify", "reference": "other.example"}
        )
        assert self.fates(attempted) == ["deferred 451"]
        assert "not for other.example" in attempted.results[0].reply.text
        assert not self.rig.mail()

    async def test_addresses_and_headers_in_utf8(self):
        content = "Subject: Grüße\r\n\r\nx\r\n".encode()
        attempted = await self.attempt(
            self.serve(),
            content,
            sender="jürgen@bücher.example",
            to=("you@localhost",),
            has_utf8_header=True,
            has_8bit=True,
        )
        assert self.fates(attempted) == ["delivered 250"]
        assert self.rig.mail()[0].endswith(content)
        assert "jürgen@bücher.example".encode() in self.rig.mail()[0]

    async def test_lmtp_tells_of_each_recipient(self):
        port = self.serve("lmtp")
        attempted = await self.attempt(
            port, LARGE, hop={"protocol": "lmtp"}, to=("you@localhost", "nobody@localhost", "me@localhost")
        )
        assert self.fates(attempted) == ["delivered 250", "failed 550", "delivered 250"]
        assert self.rig.mail()[0].endswith(LARGE)

    async def test_rows_1_and_2_bare_line_ends_reach_us_as_lines(self):
        for service in ("smtp", "lmtp"):
            port = self.serve(service)
            hop = {"protocol": "lmtp"} if service == "lmtp" else {}
            for variant in ENDS:
                content = b"Subject: smuggler\r\n\r\na" + variant + b"MAIL FROM:<evil@x>\r\n"
                assert self.fates(await self.attempt(port, content, hop=hop, to=("you@localhost",))) == [
                    "delivered 250"
                ]
            mail = self.rig.mail()
            assert len(mail) == len(ENDS)
            assert not any(re.search(rb"\r(?!\n)|(?<!\r)\n", message) for message in mail)
            await self.relay.close()
