"""`IRelay.attempt` over real sockets: several hosts, several addresses, reuse, limits, closing down."""

from __future__ import annotations

import os
import tempfile
import time

from twisted.internet import reactor
from twisted.internet.defer import CancelledError, DeferredList, ensureDeferred
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from zope.interface.verify import verifyObject

from livemail.interfaces.relay import Hops, IRelay, NextHop
from livemail.mail.errors import StorageFailed
from livemail.smtp.relay.relay import Relay
from livemail.smtp.relay.settings import RelaySettings
from tests.smtp.relay.hostile_peer import Authority, HostileFactory, Hurry
from tests.smtp.relay.peer import ALL, PIPELINED, STALL, Peer
from tests.smtp.relay.rig import MESSAGE, TLS, Reader, job

NOBODY = 9  # discard: nobody listens in the tests' network


class RelayTests(TestCase):
    timeout = 20

    def setUp(self):
        self.ports, self.factories = [], []
        self.make()

    def make(self, **settings):
        self.hurry = Hurry()
        self.relay = Relay(self.hurry, RelaySettings(**settings), "client.example", time.time, TLS)

    async def tearDown(self):
        await self.hurry.finish(self.relay.close(), self.factories)
        for port in self.ports:
            await port.stopListening()
        for factory in self.factories:
            for protocol in list(factory.open):
                protocol.listen_again()
                protocol.transport.abortConnection()
        await deferLater(reactor, 0, lambda: None)

    def listen(self, make=None, options=None, interface="127.0.0.1", **actions):
        offers = actions.pop("offers", PIPELINED)
        factory = HostileFactory(make or (lambda _: Peer(offers, **actions)), options)
        self.factories.append(factory)
        port = reactor.listenTCP(0, factory, interface=interface)
        self.ports.append(port)
        factory.port = port.getHost().port
        return factory

    def hop(self, factory, *addresses, **options):
        port = factory if isinstance(factory, int) else factory.port
        return NextHop(
            f"mx{port}.example", port, addresses or ("127.0.0.1",), tls=options.pop("tls", "none"), **options
        )

    def begin(self, *hops, **options):
        return ensureDeferred(self.relay.attempt(Hops("peer.example", hops), job(**options)))

    async def attempt(self, *hops, **options):
        return await self.hurry.finish(self.relay.attempt(Hops("peer.example", hops), job(**options)), self.factories)

    async def test_it_is_what_it_provides(self):
        assert verifyObject(IRelay, self.relay)

    async def test_the_first_host_that_takes_it_gets_it(self):
        first, second = self.listen(), self.listen()
        attempted = await self.attempt(self.hop(first), self.hop(second))
        assert [result.fate for result in attempted.results] == ["delivered"]
        assert attempted.results[0].host == f"mx{first.port}.example"
        assert len(first.messages) == 1
        assert not second.peers
        (tried,) = attempted.attempts
        assert (tried.host, tried.address, tried.outcome.code, tried.is_reused) == (
            f"mx{first.port}.example",
            "127.0.0.1",
            250,
            False,
        )
        assert abs(tried.started - time.time()) < 100

    async def test_hosts_that_cannot_be_talked_to_are_passed_over(self):
        bad = [self.listen(greeting=b"554 5.7.1 no\r\n"), self.listen(ehlo=b"garbage\r\n")]
        good = self.listen()
        attempted = await self.attempt(self.hop(NOBODY), *map(self.hop, bad), self.hop(good))
        assert attempted.results[0].fate == "delivered"
        assert [each.outcome.stage for each in attempted.attempts] == ["connect", "greeting", "ehlo", "content"]
        assert not attempted.is_down

    async def test_recipients_refused_for_now_are_asked_at_the_next_host_alone(self):
        first = self.listen(rcpt=[None, b"450 4.2.1 later\r\n", b"550 5.1.1 no\r\n"])
        second = self.listen()
        attempted = await self.attempt(
            self.hop(first), self.hop(second), to=("a@x.example", "b@x.example", "c@x.example")
        )
        assert [result.fate for result in attempted.results] == ["delivered", "delivered", "failed"]
        assert [result.host for result in attempted.results] == [
            f"mx{port}.example" for port in (first.port, second.port, first.port)
        ]
        assert [message.rcpts for message in second.messages] == [[b"RCPT TO:<b@x.example>"]]

    async def test_after_enough_sessions_the_last_answer_stands(self):
        busy = [self.listen(mail=b"450 4.%d.1 later\r\n" % at) for at in range(3)]
        attempted = await self.attempt(*map(self.hop, busy))
        assert attempted.results[0].reply.enhanced == "4.1.1"
        assert not busy[2].peers
        assert not attempted.is_down

    async def test_what_may_have_been_taken_is_not_offered_to_the_next_host(self):
        first, second = self.listen(content=STALL), self.listen()
        attempted = await self.attempt(self.hop(first), self.hop(second))
        assert attempted.results[0].fate == "deferred"
        assert not second.peers
        assert not attempted.is_down

    async def test_a_host_that_is_down_or_says_421_is_down(self):
        for hop in (
            self.hop(NOBODY),
            self.hop(self.listen(mail=b"421 4.3.2 bye\r\n")),
            self.hop(self.listen(), tls="verify"),
        ):
            attempted = await self.attempt(hop)
            assert attempted.is_down
            assert attempted.results[0].fate == "deferred"
        attempted = await self.attempt(NextHop("nowhere.example"))
        assert attempted.is_down
        assert attempted.results[0].reply.enhanced == "4.4.4"
        assert not attempted.results[0].reply.is_remote

    async def test_521_from_every_host_is_for_good_and_from_one_is_not(self):
        gone = self.listen(greeting=b"521 5.3.2 no mail here\r\n")
        attempted = await self.attempt(self.hop(gone), self.hop(gone))
        assert attempted.results[0].fate == "failed"
        assert not attempted.is_down
        attempted = await self.attempt(self.hop(gone), self.hop(self.listen(ehlo=b"450 4.7.1 later\r\n")))
        assert attempted.results[0].fate == "deferred"

    async def test_connections_are_used_again_up_to_their_number_of_messages(self):
        self.make(messages_per_connection=3)
        factory = self.listen(offers=ALL)
        reused = []
        for _ in range(7):
            attempted = await self.attempt(self.hop(factory))
            assert attempted.results[0].fate == "delivered"
            reused.append(attempted.attempts[0].is_reused)
        assert reused == [False, True, True, False, True, True, False]
        assert len(factory.peers) == 3
        assert len(factory.messages) == 7

    async def test_a_connection_of_another_destination_is_not_used(self):
        factory = self.listen()
        for destination in ("one.example", "two.example"):
            await self.hurry.finish(self.relay.attempt(Hops(destination, (self.hop(factory),)), job()), self.factories)
        assert len(factory.peers) == 2

    async def test_more_at_once_than_connections_wait_their_turn(self):
        self.make(connections_per_host=2)
        factory = self.listen()
        results = await DeferredList(
            [ensureDeferred(self.attempt(self.hop(factory))) for _ in range(20)], fireOnOneErrback=True
        )
        assert [attempted.results[0].fate for _, attempted in results] == ["delivered"] * 20
        assert len(factory.peers) == 2
        assert len(factory.messages) == 20

    async def test_ipv6_and_ipv4_addresses_of_one_host(self):
        factory = self.listen(interface="::1")
        attempted = await self.attempt(self.hop(factory, "127.0.0.1", "::1"))
        assert attempted.results[0].fate == "delivered"
        assert [(each.address, each.outcome.code) for each in attempted.attempts] == [("127.0.0.1", 451), ("::1", 250)]

    async def test_the_other_address_of_a_host_is_tried_when_the_first_refuses(self):
        factory = self.listen(
            make=lambda number: Peer(PIPELINED, mail=b"450 4.7.1 later\r\n") if number == 0 else Peer(PIPELINED),
            interface="0.0.0.0",
        )
        attempted = await self.attempt(self.hop(factory, "127.0.0.1", "127.0.0.2"))
        assert attempted.results[0].fate == "delivered"
        assert [each.address for each in attempted.attempts] == ["127.0.0.1", "127.0.0.2"]

    async def test_the_source_address_is_the_routes(self):
        seen = []
        factory = self.listen(interface="0.0.0.0")
        build = factory.buildProtocol
        factory.buildProtocol = lambda addr: (seen.append(addr.host), build(addr))[1]
        await self.attempt(self.hop(factory, source=("127.0.0.7",)))
        assert seen == ["127.0.0.7"]

    async def test_lmtp_over_a_unix_socket(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "lmtp")  # noqa: PTH118
            factory = HostileFactory(lambda _: Peer(ALL, lmtp=True, content=[None, b"452 4.2.2 full\r\n"]))
            self.factories.append(factory)
            port = reactor.listenUNIX(path, factory)
            hop = NextHop("", path=path, protocol="lmtp", tls="none")
            attempted = await self.attempt(hop, to=("a@x.example", "b@x.example"))
            assert [result.fate for result in attempted.results] == ["delivered", "deferred"]
            assert attempted.results[0].host == path
            assert factory.messages[0].content == MESSAGE
            await port.stopListening()

    async def test_tls_that_fails_is_not_tried_again_for_every_message(self):
        # No certificate: the peer offers STARTTLS and does not begin it.
        factory = self.listen(offers=(*PIPELINED, b"STARTTLS"))
        hop = self.hop(factory, tls="may")
        attempted = await self.attempt(hop)
        assert attempted.results[0].fate == "delivered"
        assert [each.outcome.stage for each in attempted.attempts] == ["tls", "content"]
        await self.hurry.finish(self.relay.pool.close(), self.factories)
        self.relay.pool._is_closed = False
        attempted = await self.attempt(hop)
        assert [each.outcome.stage for each in attempted.attempts] == ["content"]
        assert b"STARTTLS" not in factory.peers[-1].lines

    async def test_a_host_that_cannot_count_is_sent_content_after_its_envelope_was_answered(self):
        factory = self.listen(offers=ALL, content=[None, b"250 2.0.0 ok\r\n250 2.0.0 ok\r\n"])
        fates = [(await self.attempt(self.hop(factory))).results[0].fate for _ in range(6)]
        assert fates == ["delivered", "deferred", "delivered", "delivered", "delivered", "delivered"]
        assert len(factory.messages) == 6

    async def test_the_name_of_the_host_is_asked_for_and_how_it_is_secured_is_told(self):
        shown = Authority().show("peer.example")
        factory = self.listen(options=shown, offers=(*PIPELINED, b"STARTTLS"))
        attempted = await self.attempt(self.hop(factory, tls="encrypt"))
        assert attempted.attempts[0].tls.startswith("TLSv1.3 TLS_")
        assert shown.asked == [f"mx{factory.port}.example".encode()]

    async def test_content_that_cannot_be_read_is_deferred_and_no_other_host_is_asked(self):
        first, second = self.listen(), self.listen()
        attempted = await self.attempt(self.hop(first), self.hop(second), content=Reader(MESSAGE, 0, StorageFailed()))
        assert attempted.results[0].fate == "deferred"
        assert not attempted.results[0].reply.is_remote
        assert not attempted.is_down
        assert not second.peers
        assert not first.messages

    async def test_closing_lets_who_waits_for_the_answer_have_it_and_breaks_the_others_off(self):
        waiting, idle = self.listen(rcpt=STALL), self.listen()
        late = self.listen(content=STALL)
        await self.attempt(self.hop(idle))
        attempts = [self.begin(self.hop(factory)) for factory in (waiting, late)]
        await self.hurry.until(
            lambda: late.peers and late.peers[0].messages and waiting.peers and len(waiting.peers[0].lines) > 2, self.factories
        )  # fmt: skip
        closing = ensureDeferred(self.relay.close())
        broken = await attempts[0]
        assert broken.results[0].reply.text == "The server is stopping"
        assert not broken.is_down
        next(iter(late.open)).transport.write(b"250 2.0.0 taken\r\n")
        await self.hurry.until(lambda: closing.called, self.factories)
        assert (await attempts[1]).results[0].fate == "delivered"
        assert idle.peers[0].lines[-1] == b"QUIT"
        with self.assertRaises(CancelledError):
            await self.attempt(self.hop(idle))

    async def test_closing_waits_for_an_answer_no_longer_than_for_a_goodbye(self):
        late, second = self.listen(content=STALL), self.listen()
        attempt = self.begin(self.hop(late), self.hop(second))
        await self.hurry.until(lambda: late.peers and late.peers[0].messages, self.factories)
        closing = ensureDeferred(self.relay.close())
        await self.hurry.until(lambda: closing.called, self.factories)
        attempted = await attempt
        assert (attempted.results[0].fate, attempted.results[0].reply.enhanced) == ("deferred", "4.3.2")
        assert not second.peers
        assert self.hurry.clock.seconds() < 10

    async def test_a_host_that_takes_few_messages_a_connection_gets_the_rest_over_the_next(self):
        factory = self.listen(offers=(*PIPELINED, b"LIMITS RCPTMAX=1 MAILMAX=2"))
        attempted = await self.attempt(self.hop(factory), to=tuple(f"u{at}@x.example" for at in range(5)))
        assert [result.fate for result in attempted.results] == ["delivered"] * 5
        assert [len(peer.messages) for peer in factory.peers] == [2, 2, 1]
        assert len(attempted.attempts) == 3

    async def test_cancelling_an_attempt_gives_its_room_back(self):
        self.make(connections_per_host=1)
        factory = self.listen(make=lambda number: Peer(PIPELINED, rcpt=STALL) if number == 0 else Peer(PIPELINED))
        first, second = self.begin(self.hop(factory)), self.begin(self.hop(factory))
        await self.hurry.until(lambda: factory.peers and len(factory.peers[0].lines) > 2, self.factories)
        first.cancel()
        with self.assertRaises(CancelledError):
            await first
        await self.hurry.until(lambda: second.called, self.factories)
        assert (await second).results[0].fate == "delivered"

    async def test_a_bug_of_ours_is_a_deferral(self):
        class Odd:
            size = None

        attempted = await self.attempt(self.hop(self.listen()), content=Odd())
        assert attempted.results[0].fate == "deferred"
        assert attempted.results[0].reply.enhanced == "4.3.0"
        assert len(self.flushLoggedErrors(TypeError)) == 1
