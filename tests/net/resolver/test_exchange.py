"""One question to one server over real sockets, against a server of ours that misbehaves."""

import random
import struct
from collections.abc import Callable
from typing import Any

import dns.flags
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol, Factory, Protocol
from twisted.internet.task import Clock, deferLater
from twisted.trial.unittest import TestCase

from livemail.net.resolver.exchange import MAX_STRANGERS, NoAnswer, ask
from livemail.net.resolver.message import MX, Question, Reply, make_query
from livemail.net.resolver.settings import Server
from tests.net.resolver.wire import answer

LINE = "mail.example.test. 300 IN MX 10 x.test."
TRUNCATED = dns.flags.QR | dns.flags.RA | dns.flags.TC


class Timed:
    """The real reactor with a clock that only the test moves."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def callLater(self, *arguments: Any, **more: Any) -> Any:
        return self._clock.callLater(*arguments, **more)

    def __getattr__(self, name: str) -> Any:
        return getattr(reactor, name)


class Datagrams(DatagramProtocol):
    """Answers by a function: octets of the query → datagrams."""

    noisy = False

    def __init__(self, answers: Callable[[bytes], list[bytes]]) -> None:
        self.answers = answers
        self.asked: list[tuple[bytes, Any]] = []
        self.heard: Deferred[None] = Deferred()

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.asked.append((datagram, addr))
        for each in self.answers(datagram):
            self.transport.write(each, addr)
        if len(self.asked) == 1:
            self.heard.callback(None)


class Stream(Protocol):
    """Answers what comes by TCP, in pieces; None closes, "" says nothing."""

    def dataReceived(self, data: bytes) -> None:
        factory: Any = self.factory
        factory.asked.append(data)
        reply = factory.answers(data[2:])
        if reply is None:
            self.transport.loseConnection()
            return
        framed = struct.pack("!H", len(reply)) + reply if reply else b""
        for at in range(0, len(framed), 7):
            self.transport.write(framed[at : at + 7])


class Exchanges(TestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.random = random.Random(1)

    def udp(self, answers: Callable[[bytes], list[bytes]]) -> tuple[Server, Datagrams]:
        protocol = Datagrams(answers)
        port = reactor.listenUDP(0, protocol, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return Server("127.0.0.1", port.getHost().port), protocol

    def both(self, answers: Callable[[bytes], list[bytes]], by_tcp: Callable[[bytes], Any]) -> tuple[Server, Any]:
        server, _ = self.udp(answers)
        factory: Any = Factory.forProtocol(Stream)
        factory.noisy = False
        factory.asked, factory.answers = [], by_tcp
        port = reactor.listenTCP(server.port, factory, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        return server, factory

    def query(self, name: str = "mail.example.test") -> Any:
        return make_query(Question(name, MX), self.random.getrandbits(16), self.random.getrandbits)

    async def ask(self, server: Server, **more: Any) -> Reply:
        try:
            return await ask(Timed(self.clock), server, more.get("query") or self.query(), 3.0)
        finally:
            await deferLater(reactor, 0)  # closed sockets leave the reactor in its next turn

    async def failure(self, server: Server) -> str:
        try:
            await self.ask(server)
        except NoAnswer as error:
            assert not self.clock.getDelayedCalls()
            return str(error)
        raise AssertionError("it answered")

    async def test_an_answer_comes_back_and_nothing_is_left_behind(self) -> None:
        server, _ = self.udp(lambda wire: [answer(wire, LINE)])
        reply = await self.ask(server)
        self.assertEqual(reply.records, (("mail.example.test", MX, 300, (10, "x.test")),))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    async def test_every_query_comes_from_a_port_of_its_own(self) -> None:
        server, protocol = self.udp(lambda wire: [answer(wire, LINE)])
        for _ in range(20):
            await self.ask(server)
        self.assertGreater(len({addr[1] for _, addr in protocol.asked}), 15)

    async def test_strangers_answers_are_passed_over_until_ours_comes(self) -> None:
        other = self.query("other.example.test")

        def answers(wire: bytes) -> list[bytes]:
            wrong_id = struct.pack("!H", struct.unpack("!H", wire[:2])[0] ^ 1) + wire[2:]
            wrong_question = answer(wire[:2] + other.wire[2:], "other.example.test. 300 IN MX 1 evil.test.")
            return [
                b"",
                b"x",
                wire,
                answer(wrong_id, LINE.replace("x.test", "evil.test")),
                wrong_question,
                answer(wire, LINE),
            ]

        server, _ = self.udp(answers)
        self.assertEqual((await self.ask(server)).records[0][3], (10, "x.test"))

    async def test_an_answer_from_another_port_is_not_heard(self) -> None:
        liar = Datagrams(lambda _: [])
        port = reactor.listenUDP(0, liar, interface="127.0.0.1")
        self.addCleanup(port.stopListening)
        server, protocol = self.udp(lambda _: [])
        asked = Deferred.fromCoroutine(self.failure(server))
        await protocol.heard
        wire, addr = protocol.asked[0]
        liar.transport.write(answer(wire, LINE), addr)
        await deferLater(reactor, 0.05)
        self.assertNoResult(asked)
        self.clock.advance(3)
        self.assertEqual(await asked, "no answer in 3 s")

    async def test_silence_ends_after_its_time(self) -> None:
        server, protocol = self.udp(lambda _: [])
        asked = Deferred.fromCoroutine(self.failure(server))
        await protocol.heard
        self.clock.advance(2.9)
        self.assertNoResult(asked)
        self.clock.advance(0.1)
        self.assertEqual(await asked, "no answer in 3 s")

    async def test_an_answer_that_comes_too_late_disturbs_nobody(self) -> None:
        server, protocol = self.udp(lambda _: [])
        asked = Deferred.fromCoroutine(self.failure(server))
        await protocol.heard
        self.clock.advance(3)
        await asked
        wire, addr = protocol.asked[0]
        protocol.transport.write(answer(wire, LINE), addr)
        await deferLater(reactor, 0.01)

    async def test_garbage_behind_our_question_ends_the_exchange(self) -> None:
        server, _ = self.udp(lambda wire: [answer(wire, LINE)[:-20]])
        self.assertIn("not DNS", await self.failure(server))

    async def test_where_nothing_listens_it_is_known_at_once(self) -> None:
        port = reactor.listenUDP(0, DatagramProtocol(), interface="127.0.0.1")
        server = Server("127.0.0.1", port.getHost().port)
        await port.stopListening()
        self.assertEqual(await self.failure(server), "nothing listens there")

    async def test_an_address_without_a_way_to_it_is_known_at_once(self) -> None:
        self.assertIn("no UDP socket", await self.failure(Server("255.255.255.255")))

    async def test_a_truncated_answer_is_fetched_by_tcp(self) -> None:
        lines = [f"mail.example.test. 300 IN MX {n} host-{n}.example.test." for n in range(200)]
        server, factory = self.both(lambda wire: [answer(wire, flags=TRUNCATED)], lambda wire: answer(wire, *lines))
        self.assertEqual(len((await self.ask(server)).records), 200)
        self.assertEqual(len(factory.asked), 1)

    async def test_an_answer_in_other_case_is_fetched_by_tcp(self) -> None:
        def folded(wire: bytes) -> bytes:
            return answer(wire[:12] + wire[12:].lower(), LINE)

        server, factory = self.both(lambda wire: [folded(wire)], folded)
        self.assertEqual((await self.ask(server)).records[0][3], (10, "x.test"))
        self.assertEqual(len(factory.asked), 1)

    async def test_when_somebody_is_guessing_tcp_decides(self) -> None:
        def guesses(wire: bytes) -> list[bytes]:
            wrong = [
                struct.pack("!H", struct.unpack("!H", wire[:2])[0] ^ n) + wire[2:] for n in range(1, MAX_STRANGERS + 1)
            ]
            return [answer(each, "mail.example.test. 300 IN MX 10 evil.test.") for each in wrong]

        server, factory = self.both(guesses, lambda wire: answer(wire, LINE))
        self.assertEqual((await self.ask(server)).records[0][3], (10, "x.test"))
        self.assertEqual(len(factory.asked), 1)

    async def test_each_way_tcp_can_fail_is_told(self) -> None:
        def truncated(wire: bytes) -> list[bytes]:
            return [answer(wire, flags=TRUNCATED)]

        for by_tcp, told in [
            (lambda _: None, "closed before the answer"),
            (lambda wire: answer(wire, LINE)[:-20], "by TCP that is not DNS"),
            (lambda wire: answer(wire, flags=TRUNCATED), "truncated by TCP too"),
            (lambda wire: answer(b"\0\0" + wire[2:], LINE), "to something else"),
        ]:
            server, _ = self.both(truncated, by_tcp)
            self.assertIn(told, await self.failure(server))
        server, _ = self.udp(truncated)
        self.assertIn("no TCP connection", await self.failure(server))

    async def test_silence_by_tcp_ends_after_its_time(self) -> None:
        connected: Deferred[None] = Deferred()

        def silent(_: bytes) -> bytes:
            connected.callback(None)
            return b""

        server, _ = self.both(lambda wire: [answer(wire, flags=TRUNCATED)], silent)
        asked = Deferred.fromCoroutine(self.failure(server))
        await connected
        self.clock.advance(3)
        self.assertEqual(await asked, "no answer in 3 s")

    async def test_a_cancelled_question_leaves_nothing_behind(self) -> None:
        server, protocol = self.udp(lambda _: [])
        asked = Deferred.fromCoroutine(self.ask(server))
        asked.addErrback(lambda _: None)
        await protocol.heard
        asked.cancel()
        await deferLater(reactor, 0)
        self.assertEqual(self.clock.getDelayedCalls(), [])
