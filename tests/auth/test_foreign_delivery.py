"""Message delivery of twisted.mail, in both directions."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

import pytest
from twisted.internet.defer import fail, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.mail.interfaces import IMessageDelivery, IMessageSMTP
from zope.interface import implementer
from zope.interface.verify import verifyObject

from livemail.auth.foreign.delivery import ForeignDelivery, OfferedDelivery
from livemail.interfaces.delivery import IDeliveryTarget, IDeliveryTransaction, Submitter
from livemail.mail.address import Address, Path
from livemail.mail.envelope import Envelope, Recipient, ReversePath
from livemail.mail.errors import MailError, NoSuchAccount, OverQuota, StorageFailed
from livemail.storage.memory import MemoryStore
from tests.auth.rig import finish
from tests.contracts.stores import content

SENDER = ReversePath(Path(Address("ann", "example.com")))
CONTENT = b"Subject: hello\r\n\r\n.one\r\n\r\ntwo\r\n"


def to(name: str) -> Recipient:
    return Recipient(Path(Address(name, "example.org")))


# ------------------------------------------------------------------------------------------------ foreign → ours


@implementer(IMessageSMTP)
class TheirReceiver:
    def __init__(self, name: bytes, log: dict[bytes, list[bytes]]) -> None:
        self.name, self.log = name, log
        self.lines: list[bytes] = []

    def lineReceived(self, line: bytes) -> None:
        self.lines.append(line)

    def eomReceived(self):
        if self.name == b"full":
            return fail(RuntimeError("their secret"))
        self.log[self.name] = self.lines
        return succeed("done")

    def connectionLost(self) -> None:
        self.lines.clear()


@implementer(IMessageDelivery)
class TheirDelivery:
    def __init__(self) -> None:
        self.received: dict[bytes, list[bytes]] = {}

    def receivedHeader(self, helo, origin, recipients):
        return b"Received: by theirs"

    def validateFrom(self, helo, origin):
        from twisted.mail.smtp import SMTPBadSender

        if origin.domain == b"spam.example":
            raise SMTPBadSender(origin, 553, "No spam")
        return succeed(origin)

    def validateTo(self, user):
        from twisted.mail.smtp import SMTPBadRcpt

        if user.dest.local == b"nobody":
            raise SMTPBadRcpt(user, 550, b"Not here")
        return succeed(lambda: TheirReceiver(user.dest.local, self.received))


def test_our_protocols_deliver_through_a_foreign_delivery():
    theirs = TheirDelivery()
    target = ForeignDelivery(theirs)
    verifyObject(IDeliveryTarget, target)
    transaction = finish(target.begin(SENDER, Submitter("smtp")))
    verifyObject(IDeliveryTransaction, transaction)
    recipients = [to("bob"), to("full"), to("carol")]
    for recipient in recipients:
        finish(transaction.add_recipient(recipient))
    octets = finish(content(MemoryStore(), CONTENT))
    results = finish(transaction.commit(octets, Envelope(SENDER, recipients)))
    lines = [b"Received: by theirs", b"Subject: hello", b"", b".one", b"", b"two"]
    assert theirs.received == {b"bob": lines, b"carol": lines}
    assert [type(result) for result in results] == [type(None), StorageFailed, type(None)]
    assert "their secret" not in str(results[1])
    transaction.abort()


def test_a_foreign_refusal_keeps_its_code():
    target = ForeignDelivery(TheirDelivery())
    with pytest.raises(MailError) as caught:
        finish(target.begin(ReversePath(Path(Address("x", "spam.example"))), Submitter("smtp")))
    assert (caught.value.code, caught.value.text) == (553, "No spam")
    transaction = finish(target.begin(ReversePath(Path.null), Submitter("smtp")))
    with pytest.raises(MailError) as caught:
        finish(transaction.add_recipient(to("nobody")))
    assert (caught.value.code, caught.value.text) == (550, "Not here")


# ------------------------------------------------------------------------------------------------ ours → foreign


@implementer(IDeliveryTransaction)
class OurTransaction:
    def __init__(self, target: OurTarget) -> None:
        self.target = target

    async def add_recipient(self, recipient: Recipient) -> None:
        if recipient.path.address.local_part == "nobody":
            raise NoSuchAccount

    async def commit(self, content, envelope, *, junk=False) -> Sequence[MailError | None]:
        self.target.commits.append((content.read(0, content.size), envelope))
        return [OverQuota() if r.path.address.local_part == "full" else None for r in envelope.recipients]

    def abort(self) -> None:
        self.target.aborts += 1


@implementer(IDeliveryTarget)
class OurTarget:
    def __init__(self) -> None:
        self.commits: list[tuple[bytes, Envelope]] = []
        self.aborts = 0

    async def begin(self, reverse_path, submitter) -> OurTransaction:
        if reverse_path.path.address and reverse_path.path.address.domain == "spam.example":
            raise MailError("Not from there", code=553)
        return OurTransaction(self)


class StockClient:
    """Twisted's own ESMTP server class on a string transport, over our delivery."""

    def __init__(self) -> None:
        from twisted.mail.smtp import ESMTP

        self.target = OurTarget()
        self.delivery = OfferedDelivery(self.target, MemoryStore(), Submitter("smtp"), "mail.example.org", lambda: 0.0)
        self.protocol = ESMTP()
        self.protocol.host = b"mail.example.org"
        self.protocol.delivery = self.delivery
        self.protocol.noisy = False
        self.protocol.callLater = Clock().callLater
        self.transport = StringTransport()
        self.protocol.makeConnection(self.transport)
        self.send("EHLO client.example")

    def send(self, *lines: str) -> list[str]:
        self.transport.clear()
        for line in lines:
            self.protocol.dataReceived(line.encode() + b"\r\n")
        return [line[:3] for line in self.transport.value().decode().splitlines()]


def test_the_stock_esmtp_delivers_through_ours_once_for_all_recipients():
    client = StockClient()
    verifyObject(IMessageDelivery, client.delivery)
    assert client.send("MAIL FROM:<ann@example.com>", "RCPT TO:<bob@example.org>") == ["250", "250"]
    assert client.send("RCPT TO:<nobody@example.org>", "RCPT TO:<full@example.org>") == ["550", "250"]
    assert client.send("DATA", "Subject: hello", "", "..one", "", "two", ".") == ["354", "250"]
    ((octets, envelope),) = client.target.commits
    header, _, rest = octets.partition(b"Subject: ")
    assert b"Subject: " + rest == CONTENT
    assert header.startswith(
        b"Received: from client.example ([192.168.1.1])\r\n\tby mail.example.org with ESMTP; Thu, 01 Jan 1970"
    )
    assert envelope.reverse_path.path == SENDER.path
    assert envelope.recipients == [to("bob"), to("full")]


def test_the_stock_esmtp_is_told_when_nobody_got_the_message():
    client = StockClient()
    client.send("MAIL FROM:<>", "RCPT TO:<full@example.org>")
    assert client.send("DATA", "Subject: x", "", ".") == ["354", "550"]
    assert client.target.commits[0][1].reverse_path.path.is_null


def test_the_stock_esmtp_refuses_whom_we_refuse_and_a_dropped_transaction_is_aborted():
    client = StockClient()
    assert client.send("MAIL FROM:<x@spam.example>") == ["553"]
    assert client.send("MAIL FROM:<ann@example.com>", "RSET", "MAIL FROM:<ann@example.com>") == ["250"] * 3
    assert client.target.aborts == 1
    assert client.target.commits == []


def test_the_adapters_do_not_bring_the_reactor_in():
    script = (
        "import sys, livemail.auth.foreign.delivery, livemail.auth.foreign.pop3, livemail.auth.authenticator\n"
        "assert not {'twisted.internet.reactor', 'twisted.mail.smtp'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
