"""Many messages to peers that misbehave at random: everybody ends once, and as the peer believes."""

from __future__ import annotations

import os
import random
import re
import time
from collections import Counter

from twisted.internet import reactor
from twisted.internet.defer import ensureDeferred
from twisted.trial.unittest import TestCase

from livemail.interfaces.relay import Hops, NextHop
from livemail.smtp.relay.relay import Relay
from livemail.smtp.relay.settings import RelaySettings
from tests.smtp.relay.hostile_peer import HostileFactory, Hurry
from tests.smtp.relay.peer import ALL, DROP, PIPELINED, RESET, STALL, Peer
from tests.smtp.relay.rig import TLS, job

STAGES = ("greeting", "ehlo", "mail", "rcpt", "data", "bdat", "content", "rset", "quit")
TWICE = b"250 ok\r\n250 ok\r\n"
TROUBLE = (
    b"450 4.2.1 later\r\n", b"550 5.1.1 no\r\n", b"421 4.3.2 bye\r\n", b"452 4.5.3 too many\r\n", b"354 go\r\n", b"garbage\r\n", b"250-a\r\n550 b\r\n",
    TWICE, DROP, RESET, STALL, [b"250 2.", DROP], [b"250 ok\r\n", DROP], [b"550 5.7.1 no\r\n", DROP],
)  # fmt: skip
MESSAGES = 40
SEEDS = int(os.environ.get("SOAK_SEEDS", "10"))
"""150 were run when this was written."""


class SoakTests(TestCase):
    timeout = 60

    async def play(self, seed: int, *, lmtp: bool) -> None:
        source = random.Random(seed)

        def peer(_: int) -> Peer:
            actions = {
                stage: [source.choice(TROUBLE) if source.random() < 0.06 else None for _ in range(60)]
                for stage in STAGES
            }
            if lmtp:
                # A reply too many at the end of content passes for the next recipient's, and nobody can tell.
                actions["content"] = [None if each == TWICE else each for each in actions["content"]]
            return Peer(source.choice([(), PIPELINED, ALL, (*ALL, b"LIMITS RCPTMAX=2")]), lmtp=lmtp, **actions)

        factories = [HostileFactory(peer) for _ in range(3)]
        ports = [reactor.listenTCP(0, factory, interface="127.0.0.1") for factory in factories]
        hurry = Hurry()
        relay = Relay(hurry, RelaySettings(connections_per_host=3, max_connections=7), "client.example", time.time, TLS)
        hops = tuple(
            NextHop(f"mx{at}.example", port.getHost().port, ("127.0.0.1",), protocol="lmtp" if lmtp else "smtp", tls="none") for at, port in enumerate(ports)
        )  # fmt: skip
        jobs = []
        for number in range(MESSAGES):
            body = b".\r\n" * source.choice([0, 5, 30_000, 100_000])
            to = tuple(f"r{number}-{at}@x.example" for at in range(source.randint(1, 4)))
            jobs.append(job(b"Subject: %d\r\n\r\n" % number + body, to=to))
        attempts = [ensureDeferred(relay.attempt(Hops("x.example", hops), each)) for each in jobs]
        await hurry.until(lambda: all(each.called for each in attempts), factories)
        attempted = [await each for each in attempts]
        await hurry.finish(relay.close(), factories)
        for factory in factories:
            for left in list(factory.open):
                left.transport.abortConnection()
        await hurry.until(lambda: not any(factory.open for factory in factories), factories)
        for port in ports:
            await port.stopListening()
        assert not relay.pool._hosts
        assert not hurry.clock.getDelayedCalls()
        self.compare(jobs, attempted, [message for factory in factories for message in factory.messages], lmtp=lmtp)

    def compare(self, jobs, attempted, messages, *, lmtp):
        taken: Counter[str] = Counter()
        for message in messages:
            number = int(re.match(rb"Subject: (\d+)\r\n", message.content)[1])
            assert message.content == jobs[number].content.octets, "content was changed on the way"
            for at, line in enumerate(message.rcpts):
                name = line.decode().split("<")[1].split(">")[0]
                assert name.startswith(f"r{number}-"), "a message came with another's recipients"
                taken[name] += message.answers[at if lmtp else 0].startswith(b"2")
        fates: Counter[str] = Counter()
        for each, what in zip(attempted, jobs, strict=True):
            assert [result.recipient for result in each.results] == list(what.recipients)
            for result in each.results:
                name = str(result.recipient.path.address)
                fates[result.fate] += 1
                if result.fate == "delivered":
                    assert taken[name] == 1, (name, result)
                elif result.fate == "failed":
                    assert taken[name] == 0, (name, result)
                else:
                    # Once at most: what broke in the window may have been taken.
                    assert taken[name] <= 1, (name, result)
        assert fates["delivered"] > MESSAGES // 2


def _test(seed, lmtp):
    return lambda self: ensureDeferred(self.play(seed, lmtp=lmtp))


for _seed in range(SEEDS):
    for _lmtp in (False, True):
        setattr(SoakTests, f"test_{'lmtp' if _lmtp else 'smtp'}_{_seed}", _test(_seed, _lmtp))
