from __future__ import annotations

import pytest

from livemail.filters import CONTINUE, Accept, Defer, Discard, Filter, Quarantine, Reject
from livemail.mail.address import Address, Path
from livemail.mail.envelope import Recipient
from livemail.mail.errors import StorageFull
from livemail.milter import codes, grammar
from livemail.milter.grammar import (
    BodyChunk,
    HeaderChange,
    Options,
    Quarantined,
    RecipientAdded,
    RecipientRemoved,
    ReversePathChanged,
)
from livemail.milter.wire import packet, strings
from livemail.storage.memory.store import MemoryStore
from tests.milter.rig import ALL, MTA

MAIL = b"Subject: one\r\nX-A: 1\r\nX-A: 2\r\n folded\r\n\r\nbody\r\n.dot\r\n"
RECEIVED = (
    b"Received: from client.example ([IPv6:2001:db8::1])\r\n\tby mx.example with ESMTP id ABC1;"
    b"\r\n\tThu, 01 Jan 1970 00:00:00 +0000\r\n"
)
CAT = Path(Address("cat", "example.org"))


def at_message(action):
    class Made(Filter):
        async def message(self, tx, message):
            return action(tx, message) or CONTINUE

    return Made


def test_negotiation_takes_what_is_offered_and_needed():
    mta = MTA()
    assert mta.options.version == 6
    assert mta.options.actions == 0x1FF
    wanted = codes.NR_HDR | codes.NR_EOH | codes.NR_BODY | codes.NO_UNKNOWN | codes.HDR_LEADSPC
    assert mta.options.steps == wanted
    assert mta.options.macros[codes.MAIL] == (b"i", b"{auth_authen}", b"{auth_type}")
    old = MTA(options=Options(2, 0x1F, 0x7F))
    assert (old.options.version, old.options.actions, old.options.steps, old.options.macros) == (
        2,
        0x1F,
        codes.NO_EOH & 0,
        {},
    )
    newer = MTA(options=Options(7, 0xFFFF, 0x1FFFFF))
    assert newer.options.version == 6


@pytest.mark.parametrize("options", [Options(1, 0x3F, 0x7F)])
def test_a_version_too_old_closes(options):
    mta = MTA(options=None)
    assert mta.say((codes.OPTNEG, grammar.render_options(options))) == []
    assert mta.is_closed


def test_the_chain_learns_all_the_mta_tells():
    seen = {}

    class Witness(Filter):
        async def rcpt(self, tx, recipient):
            seen["recipient"] = recipient
            return CONTINUE

        async def message(self, tx, message):
            seen.update(
                connection=tx.connection, helo=tx.helo, reverse=tx.reverse_path, octets=b"".join(message.chunks())
            )
            return CONTINUE

    mta = MTA(Witness)
    mta.say((codes.CONNECT, grammar.render_connect(grammar.Peer("c", "2001:db8::1", 99))))
    mta.say((codes.MACRO, b"H" + strings(b"{tls_version}", b"TLSv1.3", b"{cipher}", b"AES")))
    mta.say((codes.HELO, strings(b"client.example")))
    mta.say((codes.MACRO, b"M" + strings(b"i", b"ABC", b"{auth_authen}", b"ann", b"{auth_type}", b"plain")))
    mta.say((codes.MAIL, strings(b"<ann@example.org>", b"SIZE=10", b"BODY=8BITMIME")))
    mta.say((codes.RCPT, strings(b"<ben@example.net>", b"NOTIFY=NEVER")), (codes.DATA,))
    assert mta.content(MAIL) == ([], (codes.CONTINUE, b""))
    assert seen["octets"] == RECEIVED.replace(b"ABC1", b"ABC") + MAIL
    connection = seen["connection"]
    assert (connection.peer, connection.port, connection.service) == ("2001:db8::1", 99, "smtp")
    assert (connection.tls, connection.authcid, connection.mechanism) == ("TLSv1.3 AES", "ann", "PLAIN")
    assert seen["helo"] == "client.example"
    assert (seen["reverse"].size, seen["reverse"].body) == (10, "8BITMIME")
    assert seen["recipient"] == Recipient(Path(Address("ben", "example.net")), frozenset({"NEVER"}))


@pytest.mark.parametrize("stage", ["connect", "helo", "mail", "rcpt", "data", "headers", "message"])
@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        (Reject("5.7.9", "no, 100% no"), (codes.REPLYCODE, b"550 5.7.9 no, 100%% no\0")),
        (Defer("4.7.9", "not now"), (codes.REPLYCODE, b"451 4.7.9 not now\0")),
    ],
)
def test_a_refusal_is_said_at_its_stage(stage, verdict, said):
    class Refuse(Filter):
        pass

    async def refuse(self, *_):
        return verdict

    setattr(Refuse, stage, refuse)
    mta = MTA(Refuse)
    found = mta.connect()
    if stage not in {"connect", "helo"}:
        found += mta.envelope()
        if stage in {"headers", "message"}:
            found.append(mta.content(MAIL)[1])
    assert [each for each in found if each[0] != codes.CONTINUE] == [said]


@pytest.mark.parametrize("stage", ["mail", "rcpt", "data", "headers", "message"])
def test_discard_is_said_at_its_stage_and_quarantine_at_the_end(stage):
    for verdict in (Discard(), Quarantine("smells")):

        class Judge(Filter):
            pass

        async def judge(self, *_, verdict=verdict):
            return verdict

        setattr(Judge, stage, judge)
        mta = MTA(Judge)
        found = mta.connect() + mta.envelope()
        if isinstance(verdict, Discard):
            if stage in {"headers", "message"}:
                found.append(mta.content(MAIL)[1])
            assert [each for each in found if each[0] != codes.CONTINUE] == [(codes.DISCARD, b"")]
        else:
            assert all(each[0] == codes.CONTINUE for each in found)
            assert mta.content(MAIL) == ([Quarantined("smells")], (codes.CONTINUE, b""))


def test_accept_is_the_messages_at_mail_and_the_recipients_at_rcpt():
    class AtMail(Filter):
        async def mail(self, tx, reverse_path):
            return Accept()

    class AtRecipient(Filter):
        async def rcpt(self, tx, recipient):
            return Accept()

    mta = MTA(AtMail)
    mta.connect()
    assert mta.say((codes.MAIL, strings(b"<>"))) == [(codes.ACCEPT, b"")]
    assert mta.say((codes.ABORT,)) == []
    assert mta.say((codes.MAIL, strings(b"<>"))) == [(codes.ACCEPT, b"")]
    mta = MTA(AtRecipient)
    mta.connect()
    assert [command for command, _ in mta.envelope()] == [codes.CONTINUE] * 3


def test_every_edit_is_sent_header_first_and_the_body_in_one_piece_last():
    class Editor(Filter):
        async def message(self, tx, message):
            message.insert_header("X-First", "1")
            message.change_header("X-A", "two", 1)
            message.remove_header("Subject")
            message.add_header("X-Last", "1")
            message.replace_body(b"b" * 100_000 + b"\r\n")
            tx.add_recipient(Address("cat", "example.org"))
            tx.remove_recipient(Path(Address("ben", "example.net")))
            tx.change_reverse_path(Path.null)
            return Quarantine("odd")

    mta = MTA(Editor)
    edits, last = mta.message(MAIL, b"<ben@example.net>", b"<dan@example.net>")
    assert last == (codes.CONTINUE, b"")
    body = [edit for edit in edits if isinstance(edit, BodyChunk)]
    assert b"".join(edit.octets for edit in body) == b"b" * 100_000 + b"\r\n"
    assert edits == [
        ReversePathChanged(Path.null),
        RecipientRemoved(Path(Address("ben", "example.net"))),
        RecipientAdded(Recipient(CAT)),
        HeaderChange("change", b"X-A", b" two", 2),
        HeaderChange("change", b"Subject", b"", 1),
        HeaderChange("insert", b"X-First", b" 1", 0),
        HeaderChange("add", b"X-Last", b" 1"),
        *body,
        Quarantined("odd"),
    ]


def test_the_field_that_stands_for_the_mtas_own_counts_and_cannot_be_changed():
    mta = MTA(at_message(lambda tx, message: message.insert_header("X-Second", "2", 1)))
    assert mta.message(MAIL) == ([HeaderChange("insert", b"X-Second", b" 2", 1)], (codes.CONTINUE, b""))
    for action in (
        lambda tx, message: message.remove_header("Received"),
        lambda tx, message: message.change_header("Received", "other"),
    ):
        _, last = MTA(at_message(action)).message(MAIL)
        assert last == (codes.REPLYCODE, b"451 4.3.5 The message could not be changed as policy asks\0")


def test_what_a_client_says_of_itself_makes_no_field_of_its_own():
    seen = []
    mta = MTA(at_message(lambda tx, message: seen.append([name for name, _ in message.fields])))
    mta.connect(helo=b"x\r\nInjected: yes\r\n\ty")
    mta.envelope()
    mta.content(MAIL)
    assert seen == [[b"Received", b"Subject", b"X-A", b"X-A"]]


def test_an_emptied_body_is_one_empty_packet():
    mta = MTA(at_message(lambda tx, message: message.replace_body(b"")))
    assert mta.message(MAIL) == ([BodyChunk(b"")], (codes.CONTINUE, b""))


def test_the_edits_of_one_filter_are_seen_by_the_next_and_what_cancels_out_is_not_sent():
    class Undo(Filter):
        async def message(self, tx, message):
            message.remove_header("X-New")
            return CONTINUE

    mta = MTA(at_message(lambda tx, message: message.add_header("X-New", "1")), Undo)
    assert mta.message(MAIL) == ([], (codes.CONTINUE, b""))


def test_without_recipients_the_message_is_discarded():
    mta = MTA(at_message(lambda tx, message: tx.remove_recipient(Path(Address("ben", "example.net")))))
    assert mta.message(MAIL) == ([], (codes.DISCARD, b""))


@pytest.mark.parametrize(
    "action",
    [
        lambda tx, message: message.replace_body(b"new\r\n"),
        lambda tx, message: message.add_header("X", "1"),
        lambda tx, message: message.remove_header("Subject"),
        lambda tx, message: tx.change_reverse_path(CAT),
        lambda tx, message: tx.add_recipient(Address("cat", "example.org")),
        lambda tx, message: Quarantine("odd"),
    ],
)
def test_an_edit_the_mta_does_not_offer_defers(action):
    mta = MTA(at_message(action), options=Options(6, 0, 0))
    mta.connect()
    mta.envelope()
    *_, last = mta.content(MAIL, leading_space=False)
    assert last == (codes.REPLYCODE, b"451 4.3.5 The message could not be changed as policy asks\0")


def test_without_leading_space_every_packet_is_answered_and_values_have_their_space():
    seen = []
    mta = MTA(at_message(lambda tx, message: seen.append(b"".join(message.chunks()))), options=Options(6, 0x1FF, 0))
    mta.connect()
    mta.envelope()
    said = mta.say((codes.HEADER, strings(b"Subject", b"one")), (codes.HEADER, strings(b"X", b"")), (codes.EOH,),
                   (codes.BODY, b"body\r\n"), (codes.BODYEOB, b"last\r\n"))  # fmt: skip
    assert said == [(codes.CONTINUE, b"")] * 5
    assert [octets.partition(b"+0000\r\n")[2] for octets in seen] == [b"Subject: one\r\nX: \r\n\r\nbody\r\nlast\r\n"]


def test_version_2_knows_no_data_and_the_chain_is_still_asked():
    class AtData(Filter):
        async def data(self, tx):
            return Reject("5.7.9", "no")

    mta = MTA(AtData, options=Options(2, 0x3F, 0))
    mta.connect()
    mta.say((codes.MAIL, strings(b"<>")), (codes.RCPT, strings(b"<a@b>")))
    assert mta.content(MAIL, leading_space=False)[1] == (codes.REPLYCODE, b"550 5.7.9 no\0")


def test_too_big_too_full_and_too_many_recipients_are_said_and_nothing_is_kept():
    mta = MTA(at_message(lambda *_: None), max_message=50)
    assert mta.message(b"Subject: x\r\n\r\n" + b"y" * 5000)[1][1].startswith(b"552 5.3.4 Message over 50")

    class Full(MemoryStore):
        def new_content(self, size_hint=0):
            raise StorageFull

    mta = MTA(at_message(lambda *_: None), store=Full())
    assert mta.message(MAIL)[1][1].startswith(b"452 4.3.1 ")
    mta = MTA(max_recipients=1)
    mta.connect()
    said = mta.envelope(b"<a@b>", b"<c@d>")
    assert said[2] == (codes.REPLYCODE, b"452 4.5.3 Too many recipients\0")


def test_a_header_without_end_is_too_big():
    mta = MTA(at_message(lambda *_: None), max_message=1 << 24)
    mta.connect()
    mta.envelope()
    for _ in range(20):
        mta.say((codes.HEADER, strings(b"X", b"y" * 60_000)))
    said = mta.say((codes.EOH,), (codes.BODYEOB,))
    assert said[0][1].startswith(b"552 5.3.4 Header over")


def test_messages_follow_each_other_and_nothing_of_one_reaches_the_next():
    seen = []
    mta = MTA(at_message(lambda tx, message: seen.append((len(tx.recipients), message.text("subject")))))
    mta.connect()
    mta.envelope(b"<a@b>", b"<c@d>")
    mta.content(b"Subject: first\r\n\r\n.\r\n")
    mta.envelope(b"<a@b>")
    mta.say((codes.HEADER, strings(b"Subject", b" aborted")), (codes.ABORT,))
    mta.envelope(b"<a@b>")
    mta.content(b"Subject: second\r\n\r\n.\r\n")
    assert mta.say((codes.QUIT_NC,)) == []
    mta.connect()
    mta.envelope(b"<a@b>")
    mta.content(b"Subject: third\r\n\r\n.\r\n")
    assert seen == [(2, "first"), (1, "second"), (1, "third")]
    mta.say((codes.QUIT,))
    assert mta.is_closed


def test_filters_are_closed_when_the_mta_leaves_in_the_middle():
    closed = []

    class Witness(Filter):
        async def mail(self, tx, reverse_path):
            return CONTINUE

        def closed(self):
            closed.append(1)

    mta = MTA(Witness)
    mta.connect()
    mta.envelope()
    mta.say((codes.HEADER, strings(b"Subject", b" x")))
    mta.transport.lose()
    assert closed == [1]


@pytest.mark.parametrize(
    "packets",
    [
        [(codes.CONNECT, b"x\0L\0\0y\0")],
        [(codes.OPTNEG, grammar.render_options(ALL)), (codes.MAIL, strings(b"<>"))],
        [(codes.OPTNEG, grammar.render_options(ALL)), (codes.OPTNEG, grammar.render_options(ALL))],
        [(codes.OPTNEG, b"\0")],
        [(codes.MACRO, b"Ca\0b\0")],
        [(b"?", b"")],
        [(codes.OPTNEG, grammar.render_options(ALL)), (codes.CONNECT, b"x")],
    ],
)
def test_what_the_protocol_does_not_allow_closes(packets):
    mta = MTA(options=None)
    said = mta.say(*packets)
    assert all(command == codes.OPTNEG for command, _ in said)
    assert mta.is_closed


def test_a_dialogue_works_whole_octet_by_octet_and_with_a_tail():
    stream = b"".join(
        packet(*each)
        for each in [
            (codes.OPTNEG, grammar.render_options(ALL)),
            (codes.CONNECT, grammar.render_connect(grammar.Peer("[192.0.2.1]", "192.0.2.1", 5))),
            (codes.HELO, strings(b"x")),
            (codes.MAIL, strings(b"<ann@example.org>")),
            (codes.RCPT, strings(b"<ben@example.net>")),
            (codes.DATA,),
            (codes.HEADER, strings(b"Subject", b" one")),
            (codes.EOH,),
            (codes.BODY, b"body\r\n"),
            (codes.BODYEOB,),
        ]
    )
    found = []
    for pieces in ([stream], [stream[at : at + 1] for at in range(len(stream))], [stream + b"\0\0"]):
        mta = MTA(at_message(lambda tx, message: message.add_header("X-Seen", "yes")), options=None)
        found.append([answer for piece in pieces for answer in mta.feed(piece)])
    assert found[0] == found[1] == found[2]
    assert [command for command, _ in found[0]] == [
        codes.OPTNEG, *[codes.CONTINUE] * 5, codes.ADDHEADER, codes.CONTINUE
    ]  # fmt: skip
