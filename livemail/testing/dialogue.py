"""SMTP transcripts played against a real session with filters: ``C:`` what the client says, ``S:`` what must come (``*`` for anything).

    ## service=smtp tls=1
    C: EHLO client.example
    S: 250-*
    C: MAIL FROM:<a@b.example>
    S: 250 *
    C: RCPT TO:<you@localhost>
    S: 250 *
    C: DATA
    S: 354 *
    C: Subject: hello
    C:
    C: body
    C: .
    S: 550 5.7.1 *

The greeting is expected first when the transcript begins with an ``S:`` line.  ``250-*`` stands for a reply of any number of lines.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from typing import Any, cast

import msgspec
from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.internet.testing import StringTransport
from zope.interface import implementer

from livemail.delivery.local import LocalDelivery
from livemail.delivery.settings import DeliverySettings
from livemail.filters import Server
from livemail.filters.chain import FilterChain
from livemail.filters.plan import Loaded
from livemail.interfaces.directory import IDirectory, LocalAccount, Resolution, Restriction
from livemail.interfaces.storage import AccountRecord
from livemail.mail.address import Address
from livemail.mail.ids import AccountId
from livemail.smtp.protocol import SMTPConnection
from livemail.smtp.settings import SMTPSettings
from livemail.smtp.site import Site
from livemail.storage.memory.store import MemoryStore

PATIENCE = 60.0
"""Seconds a reply may take."""


class Heard(msgspec.Struct, frozen=True):
    """One reply: the transcript's line, what was expected ("" for nothing), the last line that came, whether it fits."""

    line: int
    expected: str
    said: str
    fits: bool


@implementer(IDirectory)
class OneAccount:
    """Every address is the one account's."""

    def __init__(self, record: AccountRecord) -> None:
        self.record = record

    async def resolve(self, address: Address) -> Resolution:
        return (LocalAccount(self.record.id, self.record.name),)

    async def account_for_login(self, login: str) -> AccountRecord | None:
        return self.record

    def canonical_login(self, login: str) -> str:
        return self.record.name

    async def addresses_of(self, account: AccountId) -> Sequence[Address]:
        return ()

    def is_local_domain(self, domain: str) -> bool:
        return True

    def may_write(self, sender: Address, restriction: Restriction) -> bool:
        return True


class _Transport(StringTransport):
    """Says when something was written."""

    connection: SMTPConnection
    is_lost = False

    def __init__(self, peer: str) -> None:
        StringTransport.__init__(self)
        self._peer = peer
        self.waiting: Deferred[None] | None = None

    def getPeer(self) -> Any:
        from twisted.internet.address import IPv4Address

        return IPv4Address("TCP", self._peer, 4242)

    def write(self, data: bytes) -> None:
        if not self.is_lost:
            StringTransport.write(self, data)
            self._wake()

    def loseConnection(self) -> None:
        if not self.is_lost:
            self.is_lost = True
            self.connection.connectionLost(connectionDone)
            self._wake()

    abortConnection = loseConnection

    def _wake(self) -> None:
        waiting, self.waiting = self.waiting, None
        if waiting is not None:
            waiting.callback(None)


class _Owner:
    def __init__(self, clock: Any) -> None:
        self.clock = clock

    def after_turn(self, call: Callable[[], object]) -> None:
        call()

    def opened(self, connection: object) -> str:
        return ""

    def closed(self, connection: object) -> None:
        """Nobody counts."""

    def tls_options(self) -> Any:
        return None


class Player:
    """One transcript against one set of filters."""

    def __init__(self, filters: Sequence[Loaded], server: Server) -> None:
        self._filters = filters
        self._server = server

    async def play(self, text: str) -> list[Heard]:
        """Play it to its end, or to where the connection closes."""
        lines = text.splitlines()
        options = dict(word.split("=", 1) for line in lines if line.startswith("## ") for word in line[3:].split())
        store = MemoryStore()
        [record] = await store.add_accounts([("you@localhost", "")])
        assert isinstance(record, AccountRecord)
        run_blocking = self._server.run_blocking
        chain = FilterChain(self._filters, store, self._server.reactor, run_blocking, server=self._server)
        site = Site(
            service=options.get("service", "smtp"),
            hostname="mx.localhost",
            settings=SMTPSettings(forbid_early_talk=False),
            store=store,
            target=LocalDelivery(store, OneAccount(record), DeliverySettings()),
            chain=chain,
        )
        self._transport = transport = _Transport(options.get("peer", "192.0.2.1"))
        connection = transport.connection = SMTPConnection(_Owner(self._server.reactor), site)
        connection.tls = "TLSv1.3" if options.get("tls") else ""
        cast(Any, connection).makeConnection(transport)
        heard = []
        expected = [(number, line) for number, line in enumerate(lines, 1) if line[:2] in {"C:", "S:"}]
        greeting = await self._reply()
        if expected and expected[0][1].startswith("S:"):
            heard.append(_compared(*expected.pop(0), greeting))
        in_content = False
        for at, (number, line) in enumerate(expected):
            said = line[3:]
            if line.startswith("S:"):
                heard.append(_compared(number, line, await self._reply()))
                continue
            connection.dataReceived(said.encode("utf-8", "surrogateescape") + b"\r\n")
            in_content = said != "." if in_content else said.upper().startswith("DATA")
            follows = at + 1 < len(expected) and expected[at + 1][1].startswith("S:")
            if not follows and (not in_content or said.upper() == "DATA"):
                heard.append(Heard(number, "", await self._reply(), True))
            if heard and heard[-1].said.startswith(("5", "4")) and said.upper() == "DATA":
                in_content = False
        if not transport.is_lost:
            transport.loseConnection()
        return heard

    async def _reply(self) -> str:
        """The last line of the next reply."""
        transport: Any = self._transport
        while True:
            lines, _, rest = transport.value().rpartition(b"\r\n")
            found = lines.split(b"\r\n") if lines else []
            for position, line in enumerate(found):
                if line[3:4] != b"-":
                    left = b"".join(each + b"\r\n" for each in found[position + 1 :]) + rest
                    transport.clear()
                    if left:
                        StringTransport.write(transport, left)
                    return str(line, "utf-8", "replace")
            if transport.is_lost:
                return "(closed)"
            transport.waiting = Deferred()
            transport.waiting.addTimeout(PATIENCE, self._server.reactor)
            await transport.waiting


def _compared(number: int, line: str, said: str) -> Heard:
    wanted = line[3:]
    pattern = wanted.replace("[", "[[]")
    if wanted[3:4] == "-":
        pattern = pattern[:3] + "?" + pattern[4:]
    return Heard(number, wanted, said, fnmatch.fnmatchcase(said, pattern))
