"""The relay client without a network: real connection and dialogues, a transport made of bytes, `Peer` at its other end."""

from __future__ import annotations

from typing import Any

from twisted.internet.protocol import connectionDone
from twisted.internet.task import Clock

from livemail.interfaces.relay import Hops, Job, NextHop
from livemail.mail.address import Address, Path
from livemail.mail.envelope import Recipient, ReversePath
from livemail.net.tls_client import ClientTLS
from livemail.smtp.relay.dialogue import Outcome, Session
from livemail.smtp.relay.protocol import RelayConnection
from livemail.smtp.relay.settings import RelaySettings
from tests.smtp.relay.peer import DROP, RESET, STALL, Peer

MESSAGE = b"From: a@sender.example\r\nSubject: x\r\n\r\nbody\r\n.dot\r\n"
TLS = ClientTLS()


class Reader:
    """Content in memory; ``fails_at``: an offset that cannot be read."""

    prefix_size = 0

    def __init__(self, octets: bytes, fails_at: int | None = None, error: Exception | None = None) -> None:
        self.octets, self.fails_at, self.error = octets, fails_at, error or OSError("bad disk")
        self.size = len(octets)
        self.is_closed = False
        self.largest = 0

    async def read(self, offset: int, length: int) -> bytes:
        if self.fails_at is not None and offset + length > self.fails_at:
            raise self.error
        self.largest = max(self.largest, length)
        return self.octets[offset : offset + length]

    def close(self) -> None:
        self.is_closed = True


def address(text: str) -> Address:
    local, _, domain = text.rpartition("@")
    return Address(local, domain)


def recipient(text: str, notify: tuple[str, ...] = (), original: str = "") -> Recipient:
    return Recipient(Path(address(text)), frozenset(notify), original)


def job(
    content: Any = MESSAGE,
    to: tuple[Any, ...] = ("you@peer.example",),
    sender: str = "a@sender.example",
    **options: Any,
) -> Job:
    """A job; what is no field of Job is one of ReversePath."""
    mine = {name: options.pop(name) for name in ("content_offset", "has_8bit", "has_utf8_header") if name in options}
    path = Path(address(sender)) if sender else Path.null
    return Job(
        "m1",
        ReversePath(path, **options),
        tuple(recipient(each) if isinstance(each, str) else each for each in to),
        Reader(content) if isinstance(content, bytes) else content,
        **mine,
    )


def hop(port: int = 25, **options: Any) -> NextHop:
    options.setdefault("tls", "none")
    options.setdefault("addresses", ("127.0.0.1",))
    return NextHop("peer.example", port, **options)


def hops(*each: NextHop) -> Hops:
    return Hops("peer.example", each)


class Transport:
    """Carries octets to a `Peer` and its replies back, in pieces, never inside a call of the connection's."""

    def __init__(self, connection: RelayConnection, peer: Peer, piece: int = 0) -> None:
        self.connection, self.peer, self.piece = connection, peer, piece
        self.writes: list[bytes] = []
        self.to_client: list[bytes] = []
        self.is_lost = self.is_stalled = self.is_closing = False
        self.producer: Any = None

    def write(self, octets: bytes) -> None:
        if not self.is_lost:
            self.writes.append(octets)
            self._do(self.peer.feed(octets))

    def _do(self, actions: list[Any]) -> None:
        for action in actions:
            if isinstance(action, list):
                self._do(action)
            elif action == STALL:
                self.is_stalled = True
            elif action in (DROP, RESET):
                self.is_closing = True
            elif isinstance(action, bytes) and not (self.is_stalled or self.is_closing):
                self.to_client.append(action)

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None

    def loseConnection(self) -> None:
        self.lose()

    def abortConnection(self) -> None:
        self.lose()

    def lose(self) -> None:
        if not self.is_lost:
            self.is_lost = True
            self.connection.connectionLost(connectionDone)

    def run(self) -> None:
        """Deliver what the peer said until nobody says anything more."""
        while self.to_client or self.is_closing:
            if not self.to_client:
                self.lose()
                return
            octets = b"".join(self.to_client)
            self.to_client = []
            for at in range(0, len(octets), self.piece or len(octets) or 1):
                if self.is_lost:
                    return
                self.connection.dataReceived(octets[at : at + (self.piece or len(octets))])


class Rig:
    """One connection to one `Peer`."""

    def __init__(
        self,
        peer: Peer,
        to: NextHop | None = None,
        *,
        piece: int = 0,
        settings: RelaySettings | None = None,
        batch: int = 100,
        may_say_password: bool = True,
    ) -> None:
        self.clock = Clock()
        self.settings = settings or RelaySettings()
        self.peer = peer
        self.session = Session(
            to or hop(protocol="lmtp" if peer.lmtp else "smtp"),
            "client.example",
            batch,
            may_say_password=may_say_password,
            without_tls=False,
        )
        self.connection = RelayConnection("127.0.0.1", self.session, self.settings, self.clock, TLS)
        self.transport = Transport(self.connection, peer, piece)
        self.connection.makeConnection(self.transport)
        self.transport._do(peer.greet())
        self.outcomes: dict[int, Outcome] = {}

    def run(self, dialogue: Any, content: Any = None) -> Any:
        """Drive a dialogue as far as it goes; its result, the exception it raised, or None when it waits."""
        self.done = self.connection.run(dialogue, content)
        found: list[Any] = []
        self.done.addBoth(found.append)
        for _ in range(10_000):
            self.transport.run()
            if not self.clock.getDelayedCalls() or self.clock.getDelayedCalls()[0].getTime() > self.clock.seconds():
                break
            self.clock.advance(0)
        self.found = found
        if not found:
            return None
        return getattr(found[0], "value", found[0])

    def introduce(self) -> Any:
        return self.run(self.session.introduce())

    def send(self, what: Job, *, hesitates: bool = False) -> Any:
        self.outcomes = {}
        return self.run(
            self.session.send(what, list(what.recipients), self.outcomes, hesitates=hesitates), what.content
        )

    def verdicts(self) -> list[str]:
        return [f"{self.outcomes[at].verdict} {self.outcomes[at].reply.code}" for at in sorted(self.outcomes)]


def sent(peer: Peer, what: Job | None = None, *, piece: int = 0, **options: Any) -> Rig:
    """Introduce and send one message."""
    rig = Rig(peer, piece=piece, **options)
    assert rig.introduce() is None
    rig.result = rig.send(what or job())
    return rig
