"""The real POP3 connection over the memory store, on a transport that is a string."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from livemail.interfaces.storage import AppendItem
from livemail.pop3.locks import MaildropLocks
from livemail.pop3.protocol import POP3Connection
from livemail.pop3.settings import POP3Settings
from livemail.pop3.site import Site
from tests.auth.rig import ALICE, CHEAP, PASSWORD, World, finish
from tests.contracts.stores import content

MESSAGES = (
    b"Subject: one\r\n\r\nfirst line\r\nsecond line\r\n",
    b"Subject: dots\r\n\r\n.\r\n..\r\n.leading\r\nlast line has no end",
    b"Subject: header only\r\n\r\n",
)


class Transport(StringTransport):
    def __init__(self, peer: str) -> None:
        super().__init__(peerAddress=IPv4Address("TCP", peer, 40000), lenient=True)
        self.tls_options: Any = None
        self.is_reluctant = False

    def write(self, data: bytes) -> None:
        super().write(data)
        if self.is_reluctant:
            self.producer.pauseProducing()

    def startTLS(self, options: Any) -> None:
        self.tls_options = options


class Owner:
    def __init__(self, clock: Clock, tls: Any) -> None:
        self.clock = clock
        self.tls = tls
        self.open: list[Any] = []

    def opened(self, connection: Any) -> str:
        self.open.append(connection)
        return ""

    def closed(self, connection: Any) -> None:
        self.open.remove(connection)

    def after_turn(self, call):
        call()

    def tls_options(self) -> Any:
        return self.tls


class Client:
    """One connection: `send` octets, get what the server has written since."""

    def __init__(self, server: Server, peer: str = "127.0.0.1") -> None:
        self.transport = Transport(peer)
        self.connection = POP3Connection(server.owner, server.site)
        self.connection.makeConnection(self.transport)
        self.greeting = self.read()

    def read(self) -> bytes:
        octets = self.transport.value()
        self.transport.clear()
        return octets

    def send(self, octets: bytes, piece: int = 0) -> bytes:
        for at in range(0, len(octets), piece or len(octets)):
            if not self.is_closed:
                self.connection.dataReceived(octets[at : at + (piece or len(octets))])
        return self.read()

    def login(self, password: str = PASSWORD) -> bytes:
        return self.send(f"USER {ALICE}\r\nPASS {password}\r\n".encode())

    @property
    def is_closed(self) -> bool:
        return self.transport.disconnecting

    def drop(self) -> None:
        self.connection.connectionLost(Failure(ConnectionDone()))


class Server(World):
    def __init__(self, messages: tuple[bytes, ...] = MESSAGES, *, tls: Any = "tls", **settings: Any) -> None:
        super().__init__(CHEAP)
        self.record = self.add(ALICE)
        self.account = finish(self.store.account(self.record.id))
        self.deliver(*messages)
        self.locks = MaildropLocks()
        self.site = Site(
            POP3Settings(**{"cleartext_login": True, **settings}), "mail.example.org", self.authenticator, self.locks
        )
        self.owner = Owner(self.clock, tls)

    def deliver(self, *messages: bytes) -> None:
        for octets in messages:
            finish(self.account.append("INBOX", [AppendItem(finish(content(self.store, octets)))]))

    def connect(self, peer: str = "127.0.0.1") -> Client:
        return Client(self, peer)

    def logged_in(self) -> Client:
        client = self.connect()
        assert client.login().endswith(b"octets)\r\n")
        return client

    @property
    def inbox(self) -> Any:
        return finish(self.account.mailbox("INBOX"))
