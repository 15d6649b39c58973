"""A foreign `twisted.mail` IMAP account served by our IMAP server."""

from __future__ import annotations

import pytest
from twisted.internet.defer import Deferred
from twisted.mail import imap4
from twisted.mail.interfaces import IMailboxIMAP, IMailboxIMAPListener
from zope.interface.verify import verifyObject

from livemail.auth.foreign.imap_account import ForeignIMAPAccount
from livemail.auth.foreign.imap_mailbox import ForeignMailbox
from livemail.auth.foreign.imap_message import refusal
from livemail.auth.foreign.reduced import foreign_record
from livemail.interfaces.storage import FetchWant, IAccount
from livemail.mail.errors import MailboxExists, NoSuchMailbox, NotPermitted, StorageFailed
from livemail.mail.ids import UIDSet
from tests.auth.imap_foreign import CopierMailbox, FileMessage, ForeignRig, Mailbox, Message, Part
from tests.auth.rig import finish

PLAIN = b"Subject: one\nFrom: a@example.org\nMessage-ID: <1@x>\n\nbody\n"
CRLF_PLAIN = PLAIN.replace(b"\n", b"\r\n")


@pytest.fixture
def rig() -> ForeignRig:
    rig = ForeignRig()
    rig.inbox.put(FileMessage, ["\\Seen", "work"], PLAIN)
    rig.inbox.put(
        Message,
        [],
        {"subject": "two", "content-type": 'multipart/mixed; boundary="b"'},
        b"",
        (Part({"content-type": "text/plain"}, b"first\n"), Part({"content-type": "text/html"}, b"<p>")),
    )
    return rig


def test_they_are_what_they_say():
    account = ForeignIMAPAccount(foreign_record("alice"), None)
    verifyObject(IAccount, account)
    verifyObject(IMailboxIMAP, Mailbox())
    verifyObject(IMailboxIMAPListener, ForeignMailbox(1, "INBOX", None, lambda: 1, lambda *_: None))


def test_select_says_what_is_there(rig):
    lines = rig.client().ok(b"SELECT INBOX")
    assert b"* 2 EXISTS" in lines
    assert b"* OK [UNSEEN 2] First unseen" in lines
    assert b"* OK [UIDVALIDITY 42] UIDs valid" in lines
    assert b"* OK [UIDNEXT 17] Next UID" in lines
    assert any(line.startswith(b"* FLAGS (") and b" work" in line for line in lines)


def test_messages_are_rendered_by_us(rig):
    client = rig.client()
    client.ok(b"SELECT INBOX")
    answer = b"\r\n".join(client.ok(b"FETCH 1 (FLAGS UID RFC822.SIZE INTERNALDATE ENVELOPE BODY.PEEK[])"))
    assert b"UID 11 FLAGS (\\Seen work)" in answer
    assert b"RFC822.SIZE %d " % len(CRLF_PLAIN) in answer
    assert b'INTERNALDATE "17-Jul-1996 02:44:25 -0700"' in answer
    assert b'ENVELOPE (NIL "one" ((NIL NIL "a" "example.org"))' in answer
    assert answer.endswith(b"BODY[] {%d}\r\n%b)" % (len(CRLF_PLAIN), CRLF_PLAIN))
    (structure,) = client.ok(b"FETCH 2 BODY")
    assert structure == (
        b'* 2 FETCH (BODY (("text" "plain" NIL NIL NIL "7bit" 7 1)("text" "html" NIL NIL NIL "7bit" 3 1) "mixed"))'
    )
    assert b"\r\n".join(client.ok(b"FETCH 2 BODY.PEEK[1]")) == b"* 2 FETCH (BODY[1] {7}\r\nfirst\r\n)"
    whole = b"\r\n".join(client.ok(b"FETCH 2 BODY.PEEK[]"))
    size = int(client.ok(b"FETCH 2 RFC822.SIZE")[0].split()[-1][:-1])
    assert b"{%d}\r\n" % size in whole


def test_large_contents_are_streamed(rig):
    octets = b"Subject: big\r\n\r\n" + b"x" * 70 + b"\r\n" * 100_000
    rig.inbox.put(FileMessage, [], octets)
    client = rig.client()
    client.ok(b"SELECT INBOX")
    assert octets in client.send(b"a FETCH 3 BODY[]\r\n")
    assert "\\Seen" in rig.inbox.messages[2].flags


def test_search_runs_over_them(rig):
    client = rig.client()
    client.ok(b"SELECT INBOX")
    assert client.ok(b"SEARCH KEYWORD work") == [b"* SEARCH 1"]
    assert client.ok(b"UID SEARCH BODY first") == [b"* SEARCH 14"]
    assert client.ok(b"SEARCH SUBJECT one") == [b"* SEARCH 1"]


def test_flags_are_stored_there_and_told_once(rig):
    client = rig.client()
    client.ok(b"SELECT INBOX")
    assert client.ok(b"STORE 2 +FLAGS (\\Flagged later)")[2:] == [b"* 2 FETCH (UID 14 FLAGS (\\Flagged later))"]
    assert rig.inbox.messages[1].flags == ["\\Flagged", "later"]
    assert client.ok(b"STORE 1:2 -FLAGS.SILENT (\\Flagged work)") == []
    assert client.ok(b"UID STORE 14 FLAGS (\\Seen)") == [b"* 2 FETCH (UID 14 FLAGS (\\Seen))"]
    assert rig.inbox.messages[1].flags == ["\\Seen"]


def test_append_is_stored_there(rig):
    client = rig.client()
    client.ok(b"SELECT INBOX")
    answer = client.send(
        b'a APPEND INBOX (\\Seen todo) "01-Jan-2020 10:00:00 +0100" {%d+}\r\n%b\r\n' % (len(CRLF_PLAIN), CRLF_PLAIN)
    )
    assert b"* 3 EXISTS\r\n" in answer
    assert b"a OK [APPENDUID 42 17] " in answer
    assert rig.inbox.messages[2].body == CRLF_PLAIN
    assert rig.inbox.messages[2].flags == ["\\Seen", "todo"]
    assert rig.inbox.dates == [b"Wed, 01 Jan 2020 10:00:00 +0100"]
    assert b"[TRYCREATE]" in client.send(b"b APPEND Nowhere {5+}\r\nabcde\r\n")


def test_expunge_is_told_by_sequence_number(rig):
    client = rig.client()
    client.ok(b"SELECT INBOX")
    client.ok(b"STORE 1 +FLAGS.SILENT (\\Deleted)")
    assert client.ok(b"EXPUNGE") == [b"* 1 EXPUNGE"]
    assert [message.uid for message in rig.inbox.messages] == [14]


def test_uid_expunge_that_would_take_others_is_refused(rig):
    client = rig.client()
    client.ok(b"SELECT INBOX")
    client.ok(b"STORE 1:2 +FLAGS.SILENT (\\Deleted)")
    assert client.command(b"UID EXPUNGE 14") == [
        b"NO [CANNOT] This mailbox can only expunge all deleted messages at once"
    ]
    assert client.command(b"UID MOVE 14 ARCHIVE")[-1].startswith(b"NO [CANNOT] ")
    assert len(rig.inbox.messages) == 2
    assert client.ok(b"UID EXPUNGE 11,14") == [b"* 2 EXPUNGE", b"* 1 EXPUNGE"]


def test_copy_and_move(rig):
    client = rig.client()
    client.ok(b"CREATE ARCHIVE")
    client.ok(b"SELECT INBOX")
    assert client.command(b"COPY 1:2 ARCHIVE") == [b"OK [COPYUID 100 11,14 11,14] COPY completed"]
    there = rig.realm.account.mailboxes["ARCHIVE"]
    assert there.messages[0].body == CRLF_PLAIN
    assert there.messages[0].flags == ["\\Seen", "work"]
    assert there.dates == [b"Wed, 17 Jul 1996 02:44:25 -0700"] * 2
    assert client.command(b"MOVE 2 ARCHIVE") == [
        b"* OK [COPYUID 100 14 17] Moved", b"* 2 EXPUNGE", b"OK MOVE completed",
    ]  # fmt: skip
    assert client.command(b"COPY 1 Nowhere")[-1].startswith(b"NO [TRYCREATE]")
    there.is_broken = True
    assert client.command(b"COPY 1 ARCHIVE")[-1].startswith(b"NO [UNAVAILABLE]")


def test_a_mailbox_that_copies_by_itself_does(rig):
    rig.realm.account.addMailbox("FAST", CopierMailbox())
    client = rig.client()
    client.ok(b"SELECT INBOX")
    assert client.command(b"COPY 1 FAST") == [b"OK [COPYUID 42 11 11] COPY completed"]
    assert rig.realm.account.mailboxes["FAST"].messages[0].flags == ["\\Seen", "work", "copied"]


def test_mailboxes_are_created_listed_renamed_deleted_and_subscribed(rig):
    client = rig.client()
    client.ok(b"CREATE LISTS/TWISTED")
    assert client.ok(b'LIST "" *') == [
        b'* LIST (\\HasNoChildren) "/" INBOX',
        b'* LIST (\\HasChildren) "/" LISTS',
        b'* LIST (\\HasNoChildren) "/" LISTS/TWISTED',
    ]
    client.ok(b"SUBSCRIBE LISTS/TWISTED")
    client.ok(b"SUBSCRIBE LISTS/TWISTED")
    assert client.ok(b'LSUB "" *') == [b'* LSUB () "/" LISTS/TWISTED']
    client.ok(b"UNSUBSCRIBE LISTS/TWISTED")
    client.ok(b"UNSUBSCRIBE LISTS/TWISTED")
    client.ok(b"RENAME LISTS/TWISTED KLEIN")
    assert client.command(b"RENAME LISTS INBOX")[-1].startswith(b"NO [ALREADYEXISTS]")
    client.ok(b"DELETE KLEIN")
    assert client.command(b"DELETE KLEIN")[-1].startswith(b"NO [NONEXISTENT]")
    assert client.command(b"SELECT KLEIN")[-1].startswith(b"NO [NONEXISTENT]")
    assert client.ok(b"STATUS INBOX (MESSAGES UIDNEXT UNSEEN)") == [b"* STATUS INBOX (MESSAGES 2 UIDNEXT 17 UNSEEN 1)"]


def test_names_with_another_separator_are_translated(rig):
    class Dotted(Mailbox):
        def getHierarchicalDelimiter(self):
            return "."

    account = rig.realm.account
    account.mailboxes = {"INBOX": Dotted(), "A.B": Dotted(), "C/D": Dotted()}
    client = rig.client()
    assert client.ok(b'LIST "" A*') == [
        b'* LIST (\\NonExistent \\Noselect \\HasChildren) "/" A', b'* LIST (\\HasNoChildren) "/" A/B',
    ]  # fmt: skip
    assert client.ok(b'LIST "" C*') == []
    client.ok(b"SELECT A/B")
    assert client.command(b"SELECT A.B")[-1].startswith(b"NO ")


def test_what_others_do_is_told(rig):
    client = rig.client()
    client.ok(b"SELECT INBOX")
    client.send(b"i IDLE\r\n")
    rig.inbox.arrive(FileMessage, ["\\Seen"], PLAIN)
    assert client.take() == b"* 3 EXISTS\r\n"
    rig.inbox.messages[0].flags = ["\\Answered"]
    for listener in rig.inbox.listeners:
        listener.flagsChanged({1: ["\\Answered"]})
    assert client.take() == b"* 1 FETCH (UID 11 FLAGS (\\Answered))\r\n"
    client.send(b"DONE\r\n")
    del rig.inbox.messages[1]
    assert client.ok(b"UID FETCH 1:* FLAGS")[-1] == b"* 2 EXPUNGE"


def test_two_sessions_hear_of_each_other(rig):
    one, other = rig.client(), rig.client()
    one.ok(b"SELECT INBOX")
    other.ok(b"SELECT INBOX")
    one.ok(b"STORE 2 +FLAGS.SILENT (\\Seen)")
    assert other.ok(b"NOOP") == [b"* 2 FETCH (UID 14 FLAGS (\\Seen))"]
    assert one.ok(b"NOOP") == []


def test_a_session_gives_its_listeners_back(rig):
    client = rig.client()
    client.ok(b"SELECT INBOX")
    assert len(rig.inbox.listeners) == 1
    client.lose()
    assert rig.inbox.listeners == []
    assert rig.realm.logouts == 1


def test_a_modseq_only_rises_from_session_to_session(rig):
    def highest() -> int:
        client = rig.client()
        lines = client.ok(b"SELECT INBOX (CONDSTORE)")
        found = next(int(line.split()[3][:-1]) for line in lines if b"HIGHESTMODSEQ" in line)
        stored = client.ok(b"STORE 1 (UNCHANGEDSINCE %d) FLAGS (\\Answered)" % found)[-1]
        after = int(stored.rpartition(b"MODSEQ (")[2].rstrip(b")"))
        assert after > found
        assert b"[MODIFIED 1]" in client.command(b"STORE 1 (UNCHANGEDSINCE %d) +FLAGS (\\Seen)" % found)[-1]
        client.ok(b"STORE 1 FLAGS ()")
        client.lose()
        return after

    assert highest() < highest()


def test_a_mailbox_that_answers_late_keeps_commands_in_order(rig):
    client = rig.client()
    client.ok(b"SELECT INBOX")
    waiting = rig.inbox.waiting = Deferred()
    assert client.send(b"a FETCH 1 FLAGS\r\nb NOOP\r\n") == b""
    waiting.callback(None)
    assert client.take().splitlines()[0] == b"* 1 FETCH (FLAGS (\\Seen work))"


def test_what_they_refuse_is_refused_in_their_words_and_what_breaks_is_not_quoted(rig):
    client = rig.client()
    client.ok(b"SELECT INBOX")
    rig.inbox.is_writeable = False
    assert client.command(b"STORE 1 FLAGS (\\Seen)") == [b"NO [CANNOT] The mailbox is read-only"]
    assert client.command(b"DELETE INBOX")[-1].startswith(b"NO [CANNOT]")
    rig.inbox.is_broken = True
    (answer,) = client.command(b"FETCH 1 FLAGS")
    assert answer.startswith(b"NO [UNAVAILABLE]")
    assert b"their disk" not in answer


@pytest.mark.parametrize(
    ("raised", "refused"),
    [
        (imap4.ReadOnlyMailbox(), NotPermitted),
        (imap4.NoSuchMailbox(), NoSuchMailbox),
        (imap4.MailboxCollision(), MailboxExists),
        (imap4.MailboxException("Closed on Sundays"), NotPermitted),
        (OSError("secret"), StorageFailed),
    ],
)
def test_what_they_raise_has_a_name_here(raised, refused):
    assert type(refusal(raised)) is refused
    assert "secret" not in refusal(raised).text


def test_what_is_larger_than_asked_for_does_not_come_with_the_batch(rig):
    account = ForeignIMAPAccount(foreign_record("alice"), rig.realm.account)

    async def contents(up_to: int):
        mailbox = (await account.select("INBOX", claim_recent=True)).info.id
        want = FetchWant(contents=True, contents_up_to=up_to)
        return [c async for batch in account.fetch(mailbox, UIDSet.of([11]), want) for c in batch.contents]

    assert finish(contents(10)) == [None]
    assert finish(contents(1000)) == [CRLF_PLAIN]


def test_news_that_come_while_a_command_reads_are_not_lost(rig):
    client = rig.client()
    client.ok(b"SELECT INBOX")
    waiting = rig.inbox.waiting = Deferred()
    client.send(b"a FETCH 1 FLAGS\r\n")
    rig.inbox.arrive(FileMessage, [], PLAIN)
    waiting.callback(None)
    client.take()
    client.send(b"i IDLE\r\n")
    assert client.send(b"DONE\r\n")
    assert client.ok(b"UID SEARCH ALL") == [b"* SEARCH 11 14 17"]


def test_an_account_whose_mailboxes_cannot_be_created_says_so(rig):
    def create(pathspec):
        raise NotImplementedError

    rig.realm.account.create = create
    assert rig.client().command(b"CREATE X") == [b"NO [CANNOT] Not available for this account"]
