"""A rig: the real IMAP connection over the memory store, on a transport that is a string.  Nothing waits, no sockets."""

from __future__ import annotations

import binascii
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from zope.interface import implementer

from livemail.imap.protocol import IMAPConnection
from livemail.imap.settings import IMAPSettings
from livemail.imap.site import Site
from livemail.interfaces.filter import ConnectionInfo
from livemail.interfaces.identity import AuthenticationFailed, IAuthenticator, ISASLExchange, Login
from livemail.interfaces.storage import Appended, AppendItem, IAccount, IMailStore
from livemail.mail.content import Content
from livemail.mail.errors import WireError
from livemail.storage.memory import MemoryStore

T = TypeVar("T")

ALICE = "alice@example.org"
BOB = "bob@example.org"
PASSWORD = "secret"


def finish(coroutine: Coroutine[Any, Any, T] | Awaitable[T]) -> T:
    """Run a coroutine that does not suspend."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("the coroutine suspended")


class Transport(StringTransport):
    """As a real one: nothing is written after abortConnection; TLS can be started."""

    def __init__(self, peer: str = "127.0.0.1") -> None:
        super().__init__(peerAddress=IPv4Address("TCP", peer, 40000), lenient=True)
        self.tls_options: Any = None

    def write(self, data: bytes) -> None:
        if not self.disconnected:
            super().write(data)

    def startTLS(self, options: Any) -> None:
        self.tls_options = options

    def setTcpNoDelay(self, enabled: bool) -> None:
        pass


class FakeOwner:
    """The factory's side of a connection, on a clock that a test moves."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.refusal = ""
        self.tls: Any = "tls options"
        self.connections: list[Any] = []

    def opened(self, connection: Any) -> str:
        self.connections.append(connection)
        return self.refusal

    def closed(self, connection: Any) -> None:
        self.connections.remove(connection)

    def after_turn(self, call):
        call()

    def tls_options(self) -> Any:
        return self.tls


@implementer(IAuthenticator)
class FakeAuthenticator:
    """Knows accounts by name and one password for all; a gate makes it wait."""

    def __init__(self, store: IMailStore) -> None:
        self._store = store
        self.words = ["PLAIN", "LOGIN"]
        self.gate: Deferred[None] | None = None
        self.logins: list[str] = []
        self.logouts = 0

    def mechanisms(self) -> list[str]:
        return self.words

    def start(self, mechanism: str, connection: ConnectionInfo) -> ISASLExchange:
        if mechanism == "PLAIN":
            return Plain(self, connection)
        if mechanism == "LOGIN":
            return LoginExchange(self, connection)
        if mechanism == "LONG":
            return Long()
        raise WireError("unknown mechanism", code=504, enhanced="5.5.4")

    async def login(self, authcid: str, password: str, connection: ConnectionInfo) -> Login:
        if self.gate is not None:
            await self.gate
        record = await self._store.account_named(authcid)
        if record is None or password != PASSWORD:
            raise AuthenticationFailed
        self.logins.append(authcid)
        return Login(record, await self._store.account(record.id), self._logout)

    def _logout(self) -> None:
        self.logouts += 1


def text(octets: bytes) -> str:
    try:
        return octets.decode()
    except UnicodeDecodeError:
        raise WireError("not UTF-8", code=501) from None


@implementer(ISASLExchange)
class Plain:
    """RFC 4616."""

    def __init__(self, authenticator: FakeAuthenticator, connection: ConnectionInfo) -> None:
        self._authenticator = authenticator
        self._connection = connection

    async def step(self, response: bytes | None) -> bytes | Login:
        if response is None:
            return b""
        parts = response.split(b"\0")
        if len(parts) != 3:
            raise WireError("malformed PLAIN", code=501)
        return await self._authenticator.login(text(parts[1]), text(parts[2]), self._connection)


@implementer(ISASLExchange)
class LoginExchange:
    """The LOGIN mechanism: two prompts."""

    def __init__(self, authenticator: FakeAuthenticator, connection: ConnectionInfo) -> None:
        self._authenticator = authenticator
        self._connection = connection
        self._name: bytes | None = None

    async def step(self, response: bytes | None) -> bytes | Login:
        if response is None:
            return b"Username:"
        if self._name is None:
            self._name = response
            return b"Password:"
        return await self._authenticator.login(text(self._name), text(response), self._connection)


@implementer(ISASLExchange)
class Long:
    """Challenges longer than a base64 line of MIME."""

    async def step(self, response: bytes | None) -> bytes | Login:
        if response is not None:
            raise AuthenticationFailed
        return b"x" * 200


class Client:
    """One client: sends octets, reads what came back."""

    def __init__(self, rig: Rig, transport: Transport, connection: IMAPConnection) -> None:
        self.rig = rig
        self.transport = transport
        self.connection = connection
        self._tags = 0

    @property
    def is_closed(self) -> bool:
        return self.transport.disconnecting

    def take(self) -> bytes:
        """Everything the server wrote since the last take."""
        octets = self.transport.value()
        self.transport.clear()
        return octets

    def lines(self) -> list[bytes]:
        """As `take`, as lines without CRLF (literals are cut too)."""
        return self.take().split(b"\r\n")[:-1]

    def send(self, octets: bytes) -> bytes:
        """Send octets as one segment; return what the server answered at once."""
        self.connection.dataReceived(octets)
        return self.take()

    def drip(self, octets: bytes) -> bytes:
        """Send octets one by one."""
        for octet in octets:
            self.connection.dataReceived(bytes([octet]))
        return self.take()

    def command(self, text: bytes) -> list[bytes]:
        """Send a command with the next tag; return the response's lines, the last one without the tag."""
        self._tags += 1
        tag = b"t%d" % self._tags
        lines = self.send(tag + b" " + text + b"\r\n").split(b"\r\n")[:-1]
        assert lines, f"no answer to {text[:60]!r}"
        if lines[-1].startswith(tag + b" "):
            lines[-1] = lines[-1][len(tag) + 1 :]
        return lines

    def ok(self, text: bytes) -> list[bytes]:
        """As `command`; the answer must be OK.  Returns the untagged lines."""
        lines = self.command(text)
        assert lines[-1].startswith(b"OK "), lines[-1]
        return lines[:-1]

    def login(self, name: str = ALICE) -> Client:
        self.ok(b"LOGIN %s %s" % (name.encode(), PASSWORD.encode()))
        return self

    def lose(self) -> None:
        """The client is gone."""
        from twisted.internet.error import ConnectionLost
        from twisted.python.failure import Failure

        self.connection.connectionLost(Failure(ConnectionLost()))


class Rig:
    """A store with two accounts and a site; cleartext logins allowed from loopback unless told otherwise."""

    def __init__(self, *, store: IMailStore | None = None, **settings: Any) -> None:
        self.clock = Clock()
        self.store: IMailStore = store or MemoryStore()
        finish(self.store.add_accounts([(ALICE, ""), (BOB, "")]))
        self.owner = FakeOwner(self.clock)
        self.authenticator = FakeAuthenticator(self.store)
        self.settings = IMAPSettings(**{"cleartext_login": True, **settings})
        self.site = Site(self.settings, "mail.example.org", self.store, self.authenticator, self.clock.seconds)

    def connect(self, peer: str = "127.0.0.1") -> Client:
        """A new client; its greeting waits to be taken."""
        connection = IMAPConnection(self.owner, self.site)
        transport = Transport(peer)
        connection.makeConnection(transport)
        return Client(self, transport, connection)

    def client(self, name: str = ALICE) -> Client:
        """A new client that has logged in; nothing waits to be taken."""
        client = self.connect()
        client.take()
        return client.login(name)

    def account(self, name: str = ALICE) -> IAccount:
        """A handle of its own, as another session has it."""
        record = finish(self.store.account_named(name))
        return finish(self.store.account(record.id))

    def content(self, octets: bytes) -> Content:
        sink = self.store.new_content(len(octets))
        sink.write(octets)
        return finish(sink.finish())

    def append(self, mailbox: str, *messages: bytes, name: str = ALICE, flags: int = 0) -> Appended:
        """File messages as somebody else would."""
        items = [AppendItem(self.content(message), flags) for message in messages]
        return finish(self.account(name).append(mailbox, items))


def base64(octets: bytes) -> bytes:
    return binascii.b2a_base64(octets, newline=False)


def each_way(converse: Callable[[Client, Callable[[bytes], bytes]], T], make: Callable[[], Client]) -> list[T]:
    """Run a dialogue twice: segments whole, and octet by octet."""
    whole, dripped = make(), make()
    return [converse(whole, whole.send), converse(dripped, dripped.drip)]
