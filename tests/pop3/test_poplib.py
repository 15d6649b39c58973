"""Python's poplib against the real connection on a real socket."""

from __future__ import annotations

import poplib
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import ServerFactory
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from livemail.pop3.protocol import POP3Connection
from tests.auth.rig import ALICE, PASSWORD
from tests.pop3.rig import MESSAGES, Server


class Owner:
    """The factory's side, on the reactor's clock."""

    def __init__(self) -> None:
        self.clock = reactor
        self.count = 0
        self.waiting: Deferred[None] | None = None

    def opened(self, connection: Any) -> str:
        self.count += 1
        return ""

    def closed(self, connection: Any) -> None:
        self.count -= 1
        if not self.count and self.waiting is not None:
            self.waiting.callback(None)

    def after_turn(self, call):
        call()

    def tls_options(self) -> Any:
        return None


class PoplibTests(TestCase):
    timeout = 30

    def setUp(self) -> None:
        self.lenient = b"Subject: bare LF\r\n\r\n\n.\n..\n.\r\nend\n"
        self.big = b"Subject: big\r\n\r\n" + b".\r\n..\r\n" * 200_000
        self.server = Server((*MESSAGES, self.lenient, self.big))
        self.owner = Owner()
        factory = ServerFactory()
        factory.noisy = False
        factory.buildProtocol = lambda address: POP3Connection(self.owner, self.server.site)
        self.port = reactor.listenTCP(0, factory, interface="127.0.0.1")

    async def tearDown(self) -> None:
        await self.port.stopListening()
        if self.owner.count:
            self.owner.waiting = Deferred()
            await self.owner.waiting

    async def test_a_session(self) -> None:
        messages = (*MESSAGES, self.lenient, self.big)
        found = await deferToThread(self.session, self.port.getHost().port)
        assert found["capa"]["UIDL"] == []
        assert found["stat"] == (5, sum(map(len, messages)))
        assert len(set(found["uidl"])) == 5
        # poplib splits at LF and drops CR before it, so lines are compared as it sees them.
        for got, octets in zip(found["retr"], messages, strict=True):
            expected = octets if octets.endswith(b"\r\n") else octets + b"\r\n"
            assert got == [line.removesuffix(b"\r") for line in expected.split(b"\n")[:-1]]
        assert found["top"] == [b"Subject: one", b"", b"first line"]
        assert self.server.inbox.exists == 4

    @staticmethod
    def session(port: int) -> dict[str, Any]:
        client = poplib.POP3("127.0.0.1", port, timeout=20)
        found: dict[str, Any] = {"capa": client.capa()}
        client.utf8()
        client.user(ALICE)
        client.pass_(PASSWORD)
        found["stat"] = client.stat()
        found["uidl"] = client.uidl()[1]
        found["retr"] = [client.retr(number)[1] for number in range(1, found["stat"][0] + 1)]
        found["top"] = client.top(1, 1)[1]
        client.dele(2)
        client.quit()
        return found
