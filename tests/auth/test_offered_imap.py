"""Our account offered as `twisted.mail` IMAP interfaces: the stock IMAP4Server over our stores."""

from __future__ import annotations

import io

import pytest
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred, succeed
from twisted.internet.testing import StringTransport
from twisted.mail import imap4
from twisted.mail.interfaces import (
    IAccountIMAP,
    ICloseableMailboxIMAP,
    IMailboxIMAP,
    IMailboxIMAPInfo,
    IMessageIMAP,
    IMessageIMAPCopier,
    IMessageIMAPFile,
    IMessageIMAPPart,
    INamespacePresenter,
)
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from livemail.auth.foreign.imap_offered import OfferedAccount, offered_imap
from livemail.auth.foreign.imap_offered_message import StoreSuspends, at_once
from livemail.auth.realm import MailRealm
from livemail.interfaces.storage import EMAIL_ID, AppendItem, FetchWant, IChangeListener
from livemail.mail.content import Content
from livemail.mail.flags import FlagChange
from livemail.mail.ids import UIDSet
from tests.auth.rig import ALICE, PASSWORD, World, finish

PLAIN = b"Subject: one\r\nFrom: Alice <a@example.org>\r\nReceived: by a\r\nReceived: by b\r\n\r\nbody\r\n"
MIXED = (
    b"Subject: two\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    b"--b\r\nContent-Type: text/plain\r\n\r\nfirst\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n"
    b"Subject: inner\r\n\r\ninside\r\n--b--\r\n"
)


class Stock:
    """The stock IMAP4Server on a string, over our realm."""

    def __init__(self, world: World) -> None:
        self.server = imap4.IMAP4Server(scheduler=spread)
        self.server.portal = Portal(
            MailRealm(world.directory, world.store, [offered_imap(world.store)]), [world.checker]
        )
        self.server.callLater = world.clock.callLater
        self.transport = StringTransport()
        self.server.makeConnection(self.transport)
        self.transport.clear()

    def send(self, octets: bytes) -> bytes:
        self.server.dataReceived(octets)
        return self.read()

    def read(self) -> bytes:
        while self.transport.producer is not None and not self.transport.streaming:
            self.transport.producer.resumeProducing()
        answer = self.transport.value()
        self.transport.clear()
        return answer

    def command(self, text: bytes) -> bytes:
        return self.send(b"t " + text + b"\r\n")

    def ok(self, text: bytes) -> bytes:
        answer = self.command(text)
        assert b"\r\nt OK" in b"\r\n" + answer, answer
        return answer


def spread(iterator):
    """Stands for iterateInReactor: no turns of a reactor, but a Deferred of the iterator is waited for."""
    done: Deferred[None] = Deferred()

    def go(_=None):
        for step in iterator:
            if isinstance(step, Deferred):
                step.addCallbacks(go, done.errback)
                return
        done.callback(None)

    go()
    return done


class OfferedWorld(World):
    def __init__(self) -> None:
        super().__init__()
        self.record = self.add(ALICE)
        self.account = finish(self.store.account(self.record.id))
        self.append("INBOX", PLAIN, flags=1, keywords=("work",))
        self.append("INBOX", MIXED)

    def content(self, octets: bytes) -> Content:
        sink = self.store.new_content()
        sink.write(octets)
        return finish(sink.finish())

    def append(self, mailbox: str, octets: bytes, flags: int = 0, keywords: tuple[str, ...] = ()) -> None:
        item = AppendItem(self.content(octets), flags, keywords, 837596665, -420)
        finish(self.account.append(mailbox, [item]))

    def stock(self) -> Stock:
        stock = Stock(self)
        stock.ok(f'LOGIN {ALICE} "{PASSWORD}"'.encode())
        return stock

    def octets(self, mailbox: str) -> list[bytes]:
        async def read() -> list[bytes]:
            info = await self.account.mailbox(mailbox)
            want = FetchWant(contents=True)
            return [c async for batch in self.account.fetch(info.id, UIDSet.all(), want) for c in batch.contents]

        return finish(read())

    def email_ids(self, mailbox: str) -> list[int]:
        async def read() -> list[int]:
            info = await self.account.mailbox(mailbox)
            fetched = self.account.fetch(info.id, UIDSet.all(), FetchWant())
            return [row[EMAIL_ID] async for batch in fetched for row in batch.rows]

        return finish(read())

    @property
    def inbox(self):
        return finish(self.account.mailbox("INBOX")).id


@pytest.fixture
def world() -> OfferedWorld:
    return OfferedWorld()


def now(deferred):
    return SynchronousTestCase().successResultOf(deferred)


def test_they_are_what_they_say(world):
    account = OfferedAccount(world.account, world.store)
    verifyObject(IAccountIMAP, account)
    verifyObject(INamespacePresenter, account)
    mailbox = now(account.select("INBOX"))
    for interface in (IMailboxIMAP, ICloseableMailboxIMAP, IMessageIMAPCopier, IChangeListener):
        verifyObject(interface, mailbox)
    ((_, message), *_) = now(mailbox.fetch(imap4.MessageSet(1), uid=False))
    verifyObject(IMessageIMAP, message)
    verifyObject(IMessageIMAPFile, message)
    verifyObject(IMessageIMAPPart, now(mailbox.fetch(imap4.MessageSet(2), uid=False))[0][1].getSubPart(0))
    verifyObject(IMailboxIMAPInfo, now(account.listMailboxes("", "*"))[0][1])


def test_select_and_status(world):
    stock = world.stock()
    answer = stock.ok(b"SELECT inbox")
    assert answer.startswith(b"* 2 EXISTS\r\n* 2 RECENT\r\n")
    assert b" work)" in answer
    assert b"* 0 RECENT" in world.stock().ok(b"SELECT INBOX")
    assert b"(MESSAGES 2 UNSEEN 1 UIDNEXT 3)" in stock.ok(b"STATUS INBOX (MESSAGES UNSEEN UIDNEXT)")
    assert b"t NO" in stock.command(b"SELECT nowhere")
    assert b"[READ-ONLY]" in stock.ok(b"EXAMINE INBOX")


def test_append_and_copy_of_others_do_not_take_recent(world):
    stock = world.stock()
    stock.ok(b"SELECT Drafts")
    stock.send(b"t APPEND INBOX (\\Flagged) {4}\r\n")
    stock.send(b"a: b\r\n")
    assert b"* 3 RECENT" in world.stock().ok(b"SELECT INBOX")


def test_fetch(world):
    stock = world.stock()
    stock.ok(b"SELECT INBOX")
    answer = stock.ok(b"FETCH 1 (FLAGS UID RFC822.SIZE INTERNALDATE)")
    assert b"FLAGS (\\Seen work \\Recent) UID 1 RFC822.SIZE %d" % len(PLAIN) in answer
    assert b'INTERNALDATE "17-Jul-1996 02:44:25 -0700"' in answer
    assert b"RFC822 {%d}\r\n%b)" % (len(MIXED), MIXED) in stock.ok(b"FETCH 2 RFC822")
    assert b"{%d}\r\n%b)" % (len(PLAIN), PLAIN) in stock.ok(b"UID FETCH 1 BODY[]").replace(b" UID 1)", b")")
    assert b"{5}\r\nfirst)" in stock.ok(b"FETCH 2 BODY[1]")
    assert b"{6}\r\nbody\r\n)" in stock.ok(b"FETCH 1 RFC822.TEXT")
    assert b'ENVELOPE (NIL "one" (("Alice" ' in stock.ok(b"FETCH 1 ENVELOPE")
    structure = stock.ok(b"FETCH 2 BODYSTRUCTURE")
    assert b'"text" "plain"' in structure
    assert b'"inner"' in structure


def test_a_large_message_is_read_in_pieces(world):
    octets = b"Subject: big\r\n\r\n" + b"0123456789abcde\r\n" * 50_000
    world.append("INBOX", octets)
    stock = world.stock()
    stock.ok(b"SELECT INBOX")
    assert b"{%d}\r\n%b)" % (len(octets), octets) in stock.ok(b"FETCH 3 RFC822")


def test_store_and_expunge(world):
    stock = world.stock()
    stock.ok(b"SELECT INBOX")
    assert stock.ok(b"STORE 2 +FLAGS (\\Flagged later)").count(b"* 2 FETCH (FLAGS (\\Flagged later))") == 1
    assert stock.ok(b"NOOP").startswith(b"t OK")
    assert b"* 1 FETCH (FLAGS (\\Deleted) UID 1)" in stock.ok(b"UID STORE 1 FLAGS (\\Deleted)")
    assert stock.ok(b"EXPUNGE") == b"* 1 EXPUNGE\r\nt OK EXPUNGE completed\r\n"
    assert world.octets("INBOX") == [MIXED]
    assert stock.ok(b"NOOP").startswith(b"t OK")
    assert stock.ok(b"FETCH 1 UID").startswith(b"* 1 FETCH (UID 2)")
    world.append("INBOX", PLAIN)
    stock.ok(b"NOOP")
    stock.ok(b"STORE 1:2 +FLAGS.SILENT (\\Deleted)")
    assert stock.ok(b"EXPUNGE").startswith(b"* 2 EXPUNGE\r\n* 1 EXPUNGE\r\nt OK")
    stock.ok(b"EXAMINE INBOX")
    assert b"t BAD" in stock.command(b"STORE 1 FLAGS (\\Seen)")


def test_append(world):
    stock = world.stock()
    stock.send(b't APPEND Drafts (\\Seen todo) "17-Jul-1996 02:44:25 -0700" {%d}\r\n' % len(PLAIN))
    assert b"t OK APPEND" in stock.send(PLAIN + b"\r\n")
    assert world.octets("Drafts") == [PLAIN]
    stock.ok(b"SELECT Drafts")
    answer = stock.ok(b"FETCH 1 (FLAGS INTERNALDATE)")
    assert b"FLAGS (\\Seen todo \\Recent)" in answer
    assert b'"17-Jul-1996 02:44:25 -0700"' in answer


def test_copy_keeps_the_message_with_flags_and_date(world):
    stock = world.stock()
    stock.ok(b"SELECT INBOX")
    stock.ok(b"COPY 1:2 Archive")
    assert world.octets("Archive") == [PLAIN, MIXED]
    assert world.email_ids("Archive") == world.email_ids("INBOX")
    stock.ok(b"SELECT Archive")
    assert b"FLAGS (\\Seen work \\Recent)" in stock.ok(b"FETCH 1 FLAGS")


def test_a_message_of_somebody_else_is_copied_by_its_octets(world):
    mailbox = now(OfferedAccount(world.account, world.store).select("Archive"))

    class Theirs:
        def getHeaders(self, negate, *names):
            return {"subject": "theirs"}

        def getBodyFile(self):
            return io.BytesIO(b"x\n")

        def isMultipart(self):
            return False

        def getFlags(self):
            return ["\\Seen", "\\Recent"]

        def getInternalDate(self):
            return b"Wed, 17 Jul 1996 02:44:25 -0700"

    assert now(mailbox.copy(Theirs())) == 1
    assert world.octets("Archive") == [b"Subject: theirs\r\n\r\nx\r\n"]


def test_search(world):
    stock = world.stock()
    stock.ok(b"SELECT INBOX")
    assert stock.ok(b"SEARCH UNSEEN").startswith(b"* SEARCH 2\r\n")
    assert stock.ok(b"UID SEARCH SEEN LARGER 10").startswith(b"* SEARCH 1\r\n")


def test_mailboxes(world):
    stock = world.stock()
    stock.ok(b"CREATE Lists/Twisted")
    assert b"t NO" in stock.command(b"CREATE Lists/Twisted")
    listed = stock.ok(b'LIST "" Lists*')
    assert b'* LIST (\\HasChildren) "/" "Lists"\r\n' in listed
    assert b'* LIST (\\HasNoChildren) "/" "Lists/Twisted"\r\n' in listed
    assert b'(\\HasNoChildren \\Drafts) "/" "Drafts"' in stock.ok(b'LIST "" %')
    assert b"t NO" in stock.command(b"DELETE Lists")
    stock.ok(b"SUBSCRIBE Lists/Twisted")
    assert b"Lists/Twisted" in stock.ok(b'LSUB "" *')
    stock.ok(b"UNSUBSCRIBE Lists/Twisted")
    assert b"Lists/Twisted" not in stock.ok(b'LSUB "" *')
    stock.ok(b"RENAME Lists/Twisted Klein")
    stock.ok(b"DELETE Klein")
    assert b"t NO" in stock.command(b"DELETE Klein")
    assert b'NAMESPACE (("" "/")) NIL NIL' in stock.ok(b"NAMESPACE")


def test_what_others_do_is_told_and_what_they_expunge_keeps_its_number(world):
    stock = world.stock()
    stock.ok(b"SELECT INBOX")
    other = finish(world.store.account(world.record.id))
    finish(other.store(world.inbox, UIDSet.of([2]), FlagChange("add", 2)))
    world.append("INBOX", PLAIN)
    finish(other.expunge(world.inbox, UIDSet.of([1]), only_deleted=False))
    answer = stock.ok(b"NOOP")
    assert b"* 2 FETCH (FLAGS (\\Answered))" in answer
    assert b"* 3 EXISTS" in answer
    assert stock.ok(b"FETCH 1:3 UID").startswith(b"* 2 FETCH (UID 2)\r\n* 3 FETCH (UID 3)\r\n")
    assert stock.ok(b"EXPUNGE").startswith(b"* 1 EXPUNGE\r\n")
    assert stock.ok(b"FETCH 1:* UID").startswith(b"* 1 FETCH (UID 2)\r\n* 2 FETCH (UID 3)\r\n")


def test_a_move_by_somebody_else_into_the_mailbox_it_is_in_is_told_whole(world):
    stock = world.stock()
    stock.ok(b"SELECT INBOX")
    other = finish(world.store.account(world.record.id))
    finish(other.move(world.inbox, UIDSet.of([1]), "INBOX"))
    assert b"* 3 EXISTS" in stock.ok(b"NOOP")
    assert stock.ok(b"EXPUNGE").startswith(b"* 1 EXPUNGE\r\n")
    assert stock.ok(b"FETCH 1:* UID").startswith(b"* 1 FETCH (UID 2)\r\n* 2 FETCH (UID 3)\r\n")


def test_a_feed_that_lost_count_is_caught_up_with(world):
    mailbox = now(OfferedAccount(world.account, world.store).select("INBOX"))
    world.append("INBOX", PLAIN)
    finish(world.account.store(world.inbox, UIDSet.of([2]), FlagChange("add", 2)))
    told = []

    class Listener:
        def newMessages(self, exists, recent):
            told.append((exists, recent))

        def flagsChanged(self, flags):
            told.append(flags)

    mailbox.addListener(Listener())
    assert told == [(3, None), {2: ["\\Answered"]}]
    mailbox.close()
    world.append("INBOX", PLAIN)
    mailbox.changed(99, None, None)
    assert told[2:] == [(4, None)]


def test_a_closed_mailbox_hears_nothing(world):
    stock = world.stock()
    stock.ok(b"SELECT INBOX")
    stock.ok(b"CLOSE")
    assert finish(world.account.mailbox("INBOX")).exists == 2
    world.append("INBOX", PLAIN)
    assert stock.ok(b"NOOP").startswith(b"t OK NOOP ")


def test_headers_are_ascii_text_and_the_first_of_each_name(world):
    world.append("INBOX", b"Received: 1\r\nReceived: 2\r\nSubject: \xe9\r\n x\r\n\r\n")
    mailbox = now(OfferedAccount(world.account, world.store).select("INBOX"))
    ((_, message),) = now(mailbox.fetch(imap4.MessageSet(3), uid=True))
    assert message.getHeaders(True) == {"received": "1", "subject": "? x"}
    assert message.getHeaders(False, b"SUBJECT") == {"subject": "? x"}
    assert message.getHeaders(True, "subject") == {"received": "1"}
    with pytest.raises(TypeError):
        message.getSubPart(0)


def test_a_store_that_suspends_is_refused_in_so_many_words():
    async def wait():
        await Deferred()

    with pytest.raises(StoreSuspends, match="does not answer at once"):
        at_once(wait())

    async def ready():
        return await succeed(3)

    assert at_once(ready()) == 3


class StoreThatTakesTime:
    """An account whose writes end later."""

    def __init__(self) -> None:
        self.waiting: Deferred[None] = Deferred()

    async def create_mailbox(self, name, special_use=""):
        await self.waiting


def test_a_write_that_takes_time_is_a_deferred():
    account = StoreThatTakesTime()
    answer = OfferedAccount(account, None).create("X")
    assert isinstance(answer, Deferred)
    assert not answer.called
    account.waiting.callback(None)
    assert answer.called
