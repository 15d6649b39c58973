"""A whole SMTP service in memory: real connection, session, router, delivery and memory store; a transport made of bytes."""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from zope.interface import implementer

from livemail.delivery.local import LocalDelivery
from livemail.delivery.settings import DeliverySettings
from livemail.filters.author import Server
from livemail.filters.chain import FilterChain
from livemail.interfaces.directory import Elsewhere, IDirectory, LocalAccount, Unknown
from livemail.interfaces.identity import AuthenticationFailed, IAuthenticator, ISASLExchange, Login
from livemail.interfaces.storage import AccountRecord, FetchWant
from livemail.mail.errors import WireError
from livemail.mail.ids import UIDSet
from livemail.smtp.protocol import SMTPConnection
from livemail.smtp.settings import SMTPSettings
from livemail.smtp.site import Site
from livemail.storage.memory.store import MemoryStore

NOW = 1_700_000_000.0
DIALOGS = Path(__file__).parent.parent / "dialogs"


def finish(coroutine: Any) -> Any:
    """Run a coroutine that does not suspend."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("suspended")


@implementer(IDirectory)
class TableDirectory:
    """local domain ``localhost``; accounts of the store; aliases from a dict of text to places."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.aliases: dict[str, tuple[Any, ...]] = {}

    def is_local_domain(self, domain):
        return domain.lower() in {"localhost", "local.example"}

    async def resolve(self, address):
        if address.domain and not self.is_local_domain(address.domain):
            return Elsewhere()
        local, _, detail = address.local_part.lower().partition("+")
        if local == "postmaster":
            local = "you"
        if local in self.aliases:
            return self.aliases[local]
        record = await self.store.account_named(f"{local}@localhost")
        return (LocalAccount(record.id, record.name, detail),) if record else Unknown()

    def canonical_login(self, login):
        return login

    async def account_for_login(self, login):
        return await self.store.account_named(login)

    async def addresses_of(self, account):
        return ()


@implementer(ISASLExchange)
class FakeExchange:
    def __init__(self, authenticator, mechanism):
        self.authenticator, self.mechanism, self.lines = authenticator, mechanism, []

    async def step(self, response):
        if self.authenticator.wait is not None:
            await self.authenticator.wait
        if response is None:
            return b"Username:" if self.mechanism == "LOGIN" else b""
        self.lines.append(response)
        if self.mechanism == "LOGIN":
            if len(self.lines) == 1:
                return b"Password:"
            name, password = self.lines
        else:
            if response.count(b"\0") != 2:
                raise WireError("Malformed PLAIN response", code=501, enhanced="5.5.2")
            _, name, password = response.split(b"\0")
        if password != b"secret":
            raise AuthenticationFailed
        record = await self.authenticator.store.account_named(name.decode())
        if record is None:
            raise AuthenticationFailed
        return Login(record, await self.authenticator.store.account(record.id), self.authenticator.logged_out)


@implementer(IAuthenticator)
class FakeAuthenticator:
    def __init__(self, store):
        self.store, self.logouts, self.wait = store, 0, None

    def mechanisms(self):
        return ("PLAIN", "LOGIN")

    def start(self, mechanism, connection):
        if mechanism.upper() not in self.mechanisms():
            raise WireError("Mechanism not known", code=504, enhanced="5.5.4")
        return FakeExchange(self, mechanism.upper())

    def logged_out(self):
        self.logouts += 1


class Transport(StringTransport):
    """Loses the connection when asked to, and counts."""

    connection: SMTPConnection
    is_lost = False
    started_tls = 0

    def write(self, data):
        if not self.is_lost:
            super().write(data)

    def loseConnection(self):
        self.lose()

    def abortConnection(self):
        self.lose()

    def startTLS(self, options):
        self.started_tls += 1

    def lose(self):
        from twisted.internet.protocol import connectionDone

        if not self.is_lost:
            self.is_lost = True
            self.connection.connectionLost(connectionDone)


class Owner:
    def __init__(self, clock, has_tls):
        self.clock, self.has_tls, self.refusal, self.live = clock, has_tls, "", 0

    def opened(self, connection):
        self.live += 1
        return self.refusal

    def closed(self, connection):
        self.live -= 1

    def after_turn(self, call):
        call()

    def tls_options(self):
        return object() if self.has_tls else None


class Rig:
    def __init__(
        self, *, filters=(), has_tls=False, delivery=None, dsn=False, accounts=("you", "me", "third"), **settings
    ):
        self.clock = Clock()
        self.clock.advance(1000)
        self.store = MemoryStore(now=lambda: NOW)
        self.records: list[AccountRecord] = finish(
            self.store.add_accounts([(f"{name}@localhost", "") for name in accounts])
        )
        self.directory = TableDirectory(self.store)
        self.authenticator = FakeAuthenticator(self.store)
        self.owner = Owner(self.clock, has_tls)
        self.settings = SMTPSettings(**settings)
        self.target = LocalDelivery(self.store, self.directory, delivery or DeliverySettings())
        self.chain = FilterChain(
            filters, self.store, self.clock, server=Server(hostname="mx.localhost", reactor=self.clock)
        )
        self.dsn = dsn

    def site(self, service="smtp"):
        return Site(
            service=service,
            hostname="mx.localhost",
            settings=self.settings,
            store=self.store,
            target=self.target,
            chain=self.chain,
            authenticator=self.authenticator,
            now=lambda: NOW,
            dsn=self.dsn,
        )

    def connect(self, service="smtp", helo=True, tls=""):
        return Client(self, service, helo=helo, tls=tls)

    def submit(self):
        client = self.connect("submission", tls="TLSv1.3 X")
        assert client.say("AUTH PLAIN AHlvdUBsb2NhbGhvc3QAc2VjcmV0").startswith("235")
        return client

    def mail(self, mailbox="INBOX", account=0):
        """Whole messages, prefix included, of one mailbox."""
        return finish(self._mail(mailbox, account))

    async def _mail(self, mailbox, account):
        handle = await self.store.account(self.records[account].id)
        info = await handle.mailbox(mailbox)
        want = FetchWant(contents=True, contents_up_to=1 << 30)
        found = []
        async for batch in handle.fetch(info.id, UIDSet.all(), want):
            found.extend(batch.contents)
        return found


class Client:
    """The other end.  ``say`` sends a line and returns what the server said to it."""

    def __init__(self, rig, service, *, helo, tls=""):
        self.transport = Transport()
        self.connection = self.transport.connection = SMTPConnection(rig.owner, rig.site(service))
        self.connection.tls = tls
        self.connection.makeConnection(self.transport)
        self.greeting = self.read()
        if helo:
            self.say("LHLO client.example" if service == "lmtp" else "EHLO client.example")

    @property
    def is_closed(self):
        return self.transport.is_lost

    def read(self):
        octets = self.transport.value()
        self.transport.clear()
        return octets.decode()

    def feed(self, octets, piece=0):
        """Feed whole, or in pieces of so many octets; return what the server said."""
        for at in range(0, len(octets), piece or len(octets) or 1):
            self.connection.dataReceived(octets[at : at + (piece or len(octets))])
        return self.read()

    def say(self, line):
        return self.feed(line.encode("utf-8", "surrogateescape") + b"\r\n")

    def begin(self, *recipients, sender="stranger@else.example", params=""):
        assert self.say(f"MAIL FROM:<{sender}>{params}").startswith("250")
        for recipient in recipients or ("you@localhost",):
            assert self.say(f"RCPT TO:<{recipient}>").startswith("250")

    def send(self, content, *recipients, sender="stranger@else.example", params="", piece=0):
        """One message; content without its final dot, already stuffed.  Returns the last reply."""
        self.begin(*recipients, sender=sender, params=params)
        assert self.say("DATA").startswith("354")
        return self.feed(content + b".\r\n", piece)


class Wait:
    """Something a test lets happen later."""

    def __init__(self):
        self.deferred: Deferred[Any] = Deferred()


def run_dialog(name, mode):
    """Play a transcript: C: a line, S: what must come (* for anything).  mode: whole, bytes or tail.

    A block of C: lines is fed whole, an octet at a time, or with the first octet of the block behind it.
    """
    lines = (DIALOGS / name).read_text().splitlines()
    assert lines[0].startswith("# RFC"), f"{name} names no RFC section in its first line"
    options = dict(word.split("=") for line in lines if line.startswith("## ") for word in line[3:].split())
    service = options.pop("service", "smtp")
    rig = Rig(**{key: int(value) for key, value in options.items()})
    client = Client(rig, service, helo=False)
    said = client.greeting.splitlines()
    blocks, expected = _blocks(lines)
    carried = 0
    for at, (block, replies) in enumerate(zip(blocks, expected, strict=True)):
        octets = block[carried:]
        carried = 0
        follows = blocks[at + 1][:1] if at + 1 < len(blocks) else b""
        if mode == "tail" and not block.upper().endswith((b"DATA\r\n", b"STARTTLS\r\n", b"QUIT\r\n")):
            octets, carried = octets + follows, len(follows)
        said += client.feed(octets, piece=1 if mode == "bytes" else 0).splitlines()
        assert len(said) == len(replies), f"{name}: after {block!r}: {said} instead of {replies}"
        for got, wanted in zip(said, replies, strict=True):
            assert fnmatch.fnmatchcase(got, wanted), f"{name}: after {block!r}: {got!r} instead of {wanted!r}"
        said = []
    return rig, client


def _blocks(lines):
    blocks, expected = [b""], [[]]
    before = "S"
    for line in lines:
        kind, text = line[:2], line[3:]
        if kind == "C:":
            if before == "S":
                blocks.append(b"")
                expected.append([])
            blocks[-1] += text.encode() + b"\r\n"
            before = "C"
        elif kind == "S:":
            expected[-1].append(text.replace("[", "[[]"))
            before = "S"
    return blocks, expected
