from __future__ import annotations

import pytest

from livemail.milter import codes, grammar
from livemail.milter.client import OFFERED_ACTIONS, OFFERED_STEPS, Client, MilterError, Times
from livemail.milter.grammar import BodyChunk, HeaderChange, Options, Peer, Quarantined, ReplyCode
from livemail.milter.wire import strings
from tests.milter.milters import CONTINUES, Script, rendered
from tests.smtp.rig import finish

PEER = Peer("[192.0.2.1]", "192.0.2.1", 25)


def client(script, *, max_body=1000):
    made = Client(script, Times(), max_body)
    finish(made.negotiate())
    return made


def at_end(script, **more):
    """A message with no header and body; the answer to its end."""
    made = client(script, **more)
    finish(made.mail(b"<>", [], {}))
    return finish(made.end_of_message({}))


def test_everything_is_offered_and_every_stage_is_told_in_order():
    script = Script()
    made = client(script)
    assert grammar.parse_options(script.told(codes.OPTNEG)[0]) == Options(6, OFFERED_ACTIONS, OFFERED_STEPS)
    finish(made.connect(PEER, {}))
    finish(made.helo("x.example", {}))
    finish(made.mail(b"<a@b>", [b"SIZE=1"], {b"i": b"id"}))
    finish(made.rcpt(b"<c@d>", [b"NOTIFY=NEVER"], {}))
    finish(made.data({}))
    finish(made.headers([(b"Subject", b" a\r\n b"), (b"X", b"")], {}))
    finish(made.body(b"z" * 70_000))
    assert finish(made.end_of_message({})).command == codes.CONTINUE
    made.abort()  # nothing is open any more
    made.next()
    finish(made.connect(PEER, {}))
    finish(made.mail(b"<>", [], {}))
    made.abort()
    made.quit()
    assert script.commands() == "OCHMRTLLNBBEKCMAQ"
    assert script.told(codes.MAIL)[0] == b"<a@b>\0SIZE=1\0"
    assert script.told(codes.RCPT)[0] == b"<c@d>\0NOTIFY=NEVER\0"
    assert script.told(codes.HEADER) == [b"Subject\0a\n b\0", b"X\0\0"]
    assert [len(chunk) for chunk in script.told(codes.BODY)] == [65535, 70_000 - 65535]
    assert script.told(codes.MACRO) == [b"Mi\0id\0"]


@pytest.mark.parametrize(
    "options",
    [Options(1, 0, 0), Options(7, 0, 0), Options(6, 0x200, 0), Options(2, 0x40, 0), Options(6, 0, 0x80000000)],
)
def test_options_that_were_not_offered_are_an_error(options):
    with pytest.raises(MilterError):
        client(Script(options))


def test_an_answer_other_than_options_to_the_negotiation_is_an_error():
    for answer in ([(codes.CONTINUE, b"")], [(codes.OPTNEG, b"\0")]):
        with pytest.raises(MilterError):
            client(Script(OPTNEG=answer))


def test_what_is_not_wanted_is_not_sent_and_what_is_not_answered_is_not_waited_for():
    steps = (
        codes.NO_CONNECT | codes.NO_HELO | codes.NO_RCPT | codes.NO_DATA | codes.NO_HDRS | codes.NO_EOH | codes.NO_BODY
    )
    script = Script(Options(6, 0, steps | codes.NR_MAIL))
    made = client(script)
    assert not made.wants_body
    finish(made.connect(PEER, {}))
    finish(made.helo("x", {}))
    finish(made.mail(b"<>", [], {}))
    finish(made.rcpt(b"<c@d>", [], {}))
    finish(made.data({}))
    finish(made.headers([(b"A", b"b")], {}))
    finish(made.body(b"x"))
    finish(made.end_of_message({}))
    assert script.commands() == "OME"


def test_headers_come_with_their_space_where_that_was_negotiated():
    script = Script(Options(6, 0, codes.HDR_LEADSPC | codes.NR_HDR | codes.NR_EOH))
    finish(client(script).headers([(b"A", b" b"), (b"C", b"d")], {}))
    assert script.told(codes.HEADER) == [b"A\0 b\0", b"C\0d\0"]


def test_old_versions_are_not_told_of_data_and_cannot_go_on():
    script = Script(Options(3, 0x3F, 0))
    made = client(script)
    finish(made.data({}))
    assert script.commands() == "O"
    assert not made.can_go_on
    assert client(Script()).can_go_on


@pytest.mark.parametrize(("steps", "octets"), [(codes.MDS_1M, 1024 * 1024 - 1), (codes.MDS_256K, 256 * 1024 - 1)])
def test_larger_packets_are_used_where_the_milter_wants_them(steps, octets):
    script = Script(Options(6, 0, steps | codes.CAN_SKIP))
    finish(client(script).body(b"x" * (octets + 1)))
    assert [len(chunk) for chunk in script.told(codes.BODY)] == [octets, 1]


def test_skip_ends_the_chunks_of_one_message():
    script = Script(BODY=[(codes.SKIP, b"")], HEADER=[(codes.SKIP, b"")])
    made = client(script)
    for _ in range(2):
        finish(made.mail(b"<>", [], {}))
        finish(made.headers([(b"A", b"b"), (b"C", b"d")], {}))
        assert made.wants_body
        finish(made.body(b"x" * 200_000))
        assert not made.wants_body
        finish(made.body(b"y"))
        finish(made.end_of_message({}))
    assert script.commands() == "OMLNBEMLNBE"


def test_macros_are_those_the_milter_chose_with_or_without_braces():
    script = Script(Options(6, 0x100, 0, {codes.CONNECT: (b"{j}", b"client_addr"), codes.HELO: ()}))
    made = client(script)
    finish(made.connect(PEER, {b"j": b"mx", b"{client_addr}": b"192.0.2.1", b"v": b"x"}))
    finish(made.helo("x", {b"{tls_version}": b"1"}))
    finish(made.mail(b"<>", [], {b"i": b"id"}))
    assert script.told(codes.MACRO) == [b"Cj\0mx\0{client_addr}\x00192.0.2.1\0", b"Mi\0id\0"]


def test_still_busy_is_waited_out_and_edits_are_collected():
    body = [(codes.REPLBODY, b"one"), (codes.PROGRESS, b""), (codes.REPLBODY, b"two")]
    edits = rendered(HeaderChange("add", b"A", b" b"), Quarantined("why"))
    answer = at_end(Script(BODYEOB=[(codes.PROGRESS, b""), *edits, *body, (codes.ACCEPT, b"")]))
    assert answer.command == codes.ACCEPT
    assert answer.edits == (HeaderChange("add", b"A", b" b"), Quarantined("why"), BodyChunk(b"onetwo"))


def test_a_reply_of_many_lines_is_read():
    answer = at_end(Script(BODYEOB=[(codes.REPLYCODE, b"550-5.7.1 one\r\n550 5.7.1 two\0")]))
    assert answer.reply == ReplyCode(550, "5.7.1", "one two")


ADD = rendered(HeaderChange("add", b"A", b" b"))


@pytest.mark.parametrize(
    ("answers", "must_defer"),
    [
        ([], False),  # does not answer
        ([MilterError("closed")], False),
        ([(codes.CONN_FAIL, b"")], False),
        ([*ADD, MilterError("closed")], True),
        ([(codes.REPLBODY, b"half"), MilterError("closed")], True),
        ([*ADD, (codes.CONN_FAIL, b"")], True),
        ([(codes.REPLYCODE, b"550-one\r\n551 two\0")], True),
        ([(codes.REPLYCODE, b"550 no end")], True),
        ([(codes.ADDHEADER, b"A\0b\nInjected: c\0")], True),
        ([(codes.REPLBODY, b"x" * 1001)], True),
        ([(codes.CONTINUE, b"x")], True),
        ([(b"?", b"")], True),
        ([(codes.SKIP, b"")], True),
        ([*(ADD * 10_001), (codes.CONTINUE, b"")], True),
    ],
)
def test_a_milter_that_fails_at_the_end_of_the_message_is_lost(answers, must_defer):
    script = Script(BODYEOB=answers)
    with pytest.raises(MilterError) as caught:
        at_end(script)
    assert caught.value.must_defer is must_defer
    assert not script.is_open


@pytest.mark.parametrize(
    ("edit", "action"),
    [
        (HeaderChange("add", b"A", b" b"), codes.ACT_ADDHDRS),
        (HeaderChange("change", b"A", b" b", 1), codes.ACT_CHGHDRS),
        (BodyChunk(b"x"), codes.ACT_CHGBODY),
        (Quarantined("x"), codes.ACT_QUARANTINE),
    ],
)
def test_an_edit_that_was_not_negotiated_is_an_error(edit, action):
    at_end(Script(Options(6, action, 0), BODYEOB=[*rendered(edit), *CONTINUES]))
    with pytest.raises(MilterError) as caught:
        at_end(Script(Options(6, 0x1FF & ~action, 0), BODYEOB=[*rendered(edit), *CONTINUES]))
    assert caught.value.must_defer


def test_edits_and_discard_out_of_place_are_errors():
    for command, answer in [("MAIL", ADD[0]), ("CONNECT", (codes.DISCARD, b"")), ("MAIL", (codes.SKIP, b""))]:
        script = Script(**{command: [answer]})
        made = client(script)
        with pytest.raises(MilterError):
            finish(made.connect(PEER, {}) if command == "CONNECT" else made.mail(b"<>", [], {}))


def test_a_malformed_reply_defers_at_any_stage():
    made = client(Script(RCPT=[(codes.REPLYCODE, b"550-a\r\n550-b\0")]))
    with pytest.raises(MilterError) as caught:
        finish(made.rcpt(b"<a@b>", [], {}))
    assert caught.value.must_defer


def test_nothing_is_asked_of_a_milter_that_is_gone():
    script = Script()
    made = client(script)
    script.drop()
    with pytest.raises(MilterError, match="closed the connection"):
        finish(made.helo("x", {}))


def test_nul_in_a_value_cannot_become_another_string():
    script = Script()
    finish(client(script).headers([(b"A", b" b\0c")], {}))
    assert script.told(codes.HEADER) == [strings(b"A", b"b c")]
