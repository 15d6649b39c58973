"""POP3 mailboxes of twisted.mail, in both directions."""

from __future__ import annotations

import io

import pytest
from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import succeed
from twisted.internet.testing import StringTransport
from twisted.mail.interfaces import IMailboxPOP3
from twisted.mail.pop3 import POP3, Mailbox
from zope.interface import implementer
from zope.interface.verify import verifyObject

from livemail.auth.authenticator import Authenticator
from livemail.auth.foreign.pop3 import offered_pop3, served_pop3
from livemail.auth.foreign.reduced import ReducedAccount, foreign_record
from livemail.auth.realm import MailRealm
from livemail.interfaces.storage import IAccount
from livemail.mail.errors import NotPermitted
from tests.auth.rig import ALICE, PASSWORD, finish
from tests.pop3.rig import MESSAGES, Server


@implementer(IMailboxPOP3)
class TheirMailbox(Mailbox):
    """What a Twisted user has written: LF files, Deferreds here and there."""

    def __init__(self) -> None:
        self.messages = [b"Subject: theirs\n\n.\nbody\n", b"Subject: two\r\n\r\nx\r\n"]
        self.deleted: set[int] = set()
        self.is_broken = False

    def listMessages(self, i=None):
        sizes = [len(m) + m.replace(b"\r\n", b"").count(b"\n") for m in self.messages]
        return sizes[i] if i is not None else succeed(sizes)

    def getMessage(self, i):
        if self.is_broken:
            raise OSError("their disk")
        return io.BytesIO(self.messages[i])

    def getUidl(self, i):
        return b"their-%d" % i

    def deleteMessage(self, i):
        self.deleted.add(i)

    def undeleteMessages(self):
        self.deleted.clear()

    def sync(self):
        if self.is_broken:
            raise OSError("their disk")
        self.messages = [m for i, m in enumerate(self.messages) if i not in self.deleted]


@implementer(IRealm)
class TheirRealm:
    def __init__(self) -> None:
        self.mailbox = TheirMailbox()
        self.logouts = 0

    def logout(self) -> None:
        self.logouts += 1

    def requestAvatar(self, avatarId, mind, *interfaces):
        assert IMailboxPOP3 in interfaces
        return IMailboxPOP3, self.mailbox, self.logout


@pytest.fixture
def theirs() -> tuple[Server, TheirRealm]:
    server, realm = Server(), TheirRealm()
    portal = Portal(realm, [InMemoryUsernamePasswordDatabaseDontUse(**{ALICE: PASSWORD.encode()})])
    server.site.authenticator = Authenticator(portal, server.throttle, server.clock, foreign=[served_pop3])
    return server, realm


def test_a_foreign_mailbox_is_served_by_our_pop3(theirs):
    server, realm = theirs
    client = server.logged_in()
    assert client.send(b"STAT\r\n") == b"+OK 2 47\r\n"
    assert client.send(b"UIDL\r\n").splitlines()[1:-1] == [b"1 their-0", b"2 their-1"]
    assert client.send(b"RETR 1\r\n") == b"+OK 28 octets\r\nSubject: theirs\r\n\r\n..\r\nbody\r\n.\r\n"
    assert client.send(b"TOP 1 1\r\n").endswith(b"\r\n\r\n..\r\n.\r\n")
    client.send(b"DELE 1\r\nQUIT\r\n")
    assert realm.mailbox.messages == [b"Subject: two\r\n\r\nx\r\n"]
    assert realm.logouts == 1


def test_a_foreign_mailbox_keeps_what_was_not_quit_for_and_is_locked(theirs):
    server, realm = theirs
    client = server.logged_in()
    assert b"[IN-USE]" in server.connect().login()
    client.send(b"DELE 1\r\n")
    client.drop()
    assert len(realm.mailbox.messages) == 2
    assert realm.logouts == 2


def test_a_foreign_mailbox_that_fails_is_a_temporary_failure(theirs):
    server, realm = theirs
    client = server.logged_in()
    realm.mailbox.is_broken = True
    assert client.send(b"RETR 1\r\n").startswith(b"-ERR [SYS/TEMP] ")
    assert b"their disk" not in client.send(b"TOP 1 0\r\n")
    assert b"-ERR [SYS/TEMP] No message was removed" in client.send(b"DELE 1\r\nQUIT\r\n")
    assert realm.mailbox.deleted == set()


def test_what_a_reduced_account_cannot_do_it_refuses():
    account = ReducedAccount(foreign_record("alice"))
    verifyObject(IAccount, account)
    with pytest.raises(NotPermitted):
        finish(account.mailboxes())
    assert foreign_record("alice").id != foreign_record("bob").id


class StockClient:
    """Twisted's own POP3 server class on a string transport, over our realm."""

    def __init__(self, server: Server) -> None:
        self.protocol = POP3()
        self.protocol.callLater = server.clock.callLater
        self.protocol.portal = Portal(MailRealm(server.directory, server.store, [offered_pop3]), [server.checker])
        self.protocol.schedule = lambda iterator: [None for _ in iterator] and None
        self.transport = StringTransport()
        self.protocol.makeConnection(self.transport)
        self.transport.clear()

    def send(self, octets: bytes) -> bytes:
        self.protocol.dataReceived(octets)
        while self.transport.producer is not None and not self.transport.streaming:
            self.transport.producer.resumeProducing()
        answer = self.transport.value()
        self.transport.clear()
        return answer


def test_our_account_is_served_by_the_stock_pop3():
    server = Server()
    client = StockClient(server)
    assert client.send(f"USER {ALICE}\r\n".encode()).startswith(b"+OK")
    assert client.send(f"PASS {PASSWORD}\r\n".encode()).startswith(b"+OK")
    verifyObject(IMailboxPOP3, client.protocol.mbox)
    assert client.send(b"STAT\r\n") == b"+OK 3 %d\r\n" % sum(map(len, MESSAGES))
    assert client.send(b"RETR 1\r\n").endswith(b"\r\n" + MESSAGES[0] + b".\r\n")
    assert client.send(b"RETR 9\r\n").startswith(b"-ERR")
    ours = server.logged_in().send(b"UIDL 3\r\n").split()[-1]
    assert client.send(b"UIDL 3\r\n").split()[-1] == ours
    client.send(b"DELE 2\r\n")
    assert client.send(b"STAT\r\n").endswith(b" 65\r\n")
    assert server.inbox.exists == 3
    client.send(b"QUIT\r\n")
    assert server.inbox.exists == 2


def test_a_wrong_password_is_refused_by_the_stock_pop3():
    client = StockClient(Server())
    client.send(f"USER {ALICE}\r\n".encode())
    assert client.send(b"PASS wrong\r\n").startswith(b"-ERR")
