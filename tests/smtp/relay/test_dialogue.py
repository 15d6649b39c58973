"""What is said when, and what comes of every answer: whole, octet by octet, with and without PIPELINING and CHUNKING."""

from __future__ import annotations

import base64

import pytest

from livemail.mail.errors import StorageFailed
from livemail.smtp.relay.dialogue import HostRefused
from livemail.smtp.relay.needs import Broken
from livemail.smtp.relay.offers import NOTHING
from tests.smtp.relay.peer import ALL, DROP, PIPELINED, STALL, Peer
from tests.smtp.relay.rig import MESSAGE, Reader, Rig, hop, job, recipient, sent

WAYS = {"plain": (), "pipelined": PIPELINED, "chunking": ALL, "chunking alone": (b"CHUNKING", b"8BITMIME")}
TWO = ("a@peer.example", "b@peer.example")
THREE = (*TWO, "c@peer.example")


@pytest.fixture(
    params=[(name, piece) for name in WAYS for piece in (0, 1, 5)], ids=lambda param: f"{param[0]}-{param[1]}"
)
def way(request):
    name, piece = request.param
    return WAYS[name], piece


def deliver(way, what=None, **actions):
    offers, piece = way
    return sent(Peer(offers, **actions), what, piece=piece)


def codes(rig):
    return [outcome.reply.code for _, outcome in sorted(rig.outcomes.items())]


# ------------------------------------------------------------------------------------------------------ the good cases


def test_a_message_arrives_octet_for_octet(way):
    rig = deliver(way)
    assert rig.verdicts() == ["delivered 250"]
    assert rig.outcomes[0].reply.text == "taken"
    assert [message.content for message in rig.peer.messages] == [MESSAGE]
    assert rig.connection.is_reusable


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 300_000, 1_000_000])
def test_content_of_any_size_arrives_and_is_read_in_windows(way, size):
    content = (b".dots\r\n..\r\n" * (size // 11 + 1))[:size]
    what = job(content)
    rig = deliver(way, what)
    assert rig.verdicts() == ["delivered 250"]
    expected = content if content.endswith(b"\r\n") or not content else content.removesuffix(b"\r") + b"\r\n"
    assert rig.peer.messages[0].content == expected
    assert what.content.largest <= 65_536
    assert max(map(len, rig.transport.writes)) < 400_000


def test_packets_are_few(way):
    offers, _ = way
    rig = deliver(way, job(to=THREE))
    verbs = [write.split(b" ")[0].strip() for write in rig.transport.writes[1:]]
    if offers == ALL:
        # BDAT has to have worked once before content goes with its envelope.
        assert verbs == [b"MAIL", b"BDAT"]
        rig.send(job(to=THREE))
        assert [write.split(b" ")[0] for write in rig.transport.writes[3:]] == [b"MAIL"]
    elif offers == PIPELINED:
        assert [verbs[0], len(verbs)] == [b"MAIL", 2]
    else:
        assert verbs[:4] == [b"MAIL", b"RCPT", b"RCPT", b"RCPT"]
    assert rig.verdicts() == ["delivered 250"] * 3


def test_a_second_message_needs_neither_introduction_nor_reset(way):
    rig = deliver(way)
    before = len(rig.peer.lines)
    rig.send(job())
    assert rig.verdicts() == ["delivered 250"]
    assert rig.peer.lines[before].startswith(b"MAIL")
    assert len(rig.peer.messages) == 2


def test_a_connection_that_rested_is_asked_before_content_goes():
    rig = Rig(Peer(ALL))
    rig.introduce()
    rig.send(job(), hesitates=True)
    assert rig.verdicts() == ["delivered 250"]
    assert [write[:4] for write in rig.transport.writes] == [b"EHLO", b"MAIL", b"BDAT"]


def test_dsn_goes_over_and_the_outcome_says_whose_duty_the_report_is(way):
    to = recipient("a@peer.example", ("NEVER",), "rfc822;a@peer.example")
    rig = deliver(way, job(to=(to,), ret="FULL", envid="e1"))
    message = rig.peer.messages[0]
    assert rig.outcomes[0].dsn is (way[0] == ALL)
    assert (b" RET=FULL ENVID=e1" in message.mail) is (way[0] == ALL)
    assert message.rcpts[0].endswith(b" NOTIFY=NEVER ORCPT=rfc822;a@peer.example") is (way[0] == ALL)


# ------------------------------------------------------------------------------------------------------ refusals

REFUSALS = {"4yz": (b"450 4.2.1 later\r\n", "again 450"), "5yz": (b"550 5.1.1 never\r\n", "failed 550")}


@pytest.mark.parametrize("kind", REFUSALS)
def test_mail_refused_is_everybodys_answer_and_reset_comes_before_the_next(way, kind):
    reply, verdict = REFUSALS[kind]
    rig = deliver(way, job(to=TWO), mail=[reply, None])
    assert rig.verdicts() == [verdict] * 2
    assert rig.outcomes[0].reply.stage == "mail"
    assert not rig.peer.messages
    rig.send(job())
    assert rig.verdicts() == ["delivered 250"]
    assert b"RSET" in rig.peer.lines
    assert len(rig.peer.messages) == 1


@pytest.mark.parametrize("kind", REFUSALS)
@pytest.mark.parametrize("refused", [(0,), (1,), (0, 2), (0, 1, 2)])
def test_every_mix_of_recipients_refused(way, kind, refused):
    reply, verdict = REFUSALS[kind]
    rig = deliver(way, job(to=THREE), rcpt=[reply if at in refused else None for at in range(3)] + [None])
    assert rig.verdicts() == [verdict if at in refused else "delivered 250" for at in range(3)]
    assert len(rig.peer.messages) == (len(refused) < 3)
    assert rig.connection.is_reusable
    rig.send(job())
    assert rig.verdicts() == ["delivered 250"]


@pytest.mark.parametrize("kind", REFUSALS)
def test_data_refused_and_content_refused(way, kind):
    reply, verdict = REFUSALS[kind]
    if b"CHUNKING" not in way[0]:
        rig = deliver(way, job(to=TWO), data=[reply, None])
        assert rig.verdicts() == [verdict] * 2
        assert rig.outcomes[0].reply.stage == "data"
        rig.send(job())
        assert rig.verdicts() == ["delivered 250"]
    rig = deliver(way, job(to=TWO), content=[reply, None])
    assert rig.verdicts() == [verdict] * 2
    assert rig.outcomes[0].reply.stage == "content"
    rig.send(job())
    assert rig.verdicts() == ["delivered 250"]
    assert rig.peer.messages[-1].content == MESSAGE


def test_a_peer_that_wants_content_for_nobody_gets_a_dot_alone():
    rig = sent(Peer(PIPELINED, rcpt=b"550 5.1.1 no\r\n", data=b"354 go anyway\r\n"), job(to=TWO))
    assert rig.verdicts() == ["failed 550"] * 2
    assert rig.transport.writes[-1] == b".\r\n"
    assert not rig.peer.messages
    assert rig.connection.is_reusable


def test_a_peer_that_takes_nobodys_content_has_delivered_nothing():
    for offers in (PIPELINED, ALL):
        rig = sent(Peer(offers, rcpt=b"550 5.1.1 no\r\n", data=b"354 go\r\n", content=b"250 2.0.0 thanks\r\n"))
        assert rig.verdicts() == ["failed 550"]


def test_the_recipients_over_the_peers_limit_go_with_the_next_transaction(way):
    to = tuple(f"u{at}@peer.example" for at in range(5))
    full = b"452 4.5.3 too many\r\n"
    rig = deliver(way, job(to=to), rcpt=[None, None, full, full, full, None, None, None])
    assert rig.verdicts() == ["delivered 250"] * 5
    assert [len(message.rcpts) for message in rig.peer.messages] == [2, 2, 1]
    assert {message.content for message in rig.peer.messages} == {MESSAGE}


def test_a_recipient_refused_first_for_the_number_is_deferred_and_452_for_storage_is_no_limit():
    rig = sent(Peer(PIPELINED, rcpt=b"452 4.5.3 too many\r\n"), job(to=TWO))
    assert rig.verdicts() == ["again 452"] * 2
    rig = sent(Peer(PIPELINED, rcpt=[None, b"452 4.3.1 disk full\r\n"]), job(to=TWO))
    assert rig.verdicts() == ["delivered 250", "again 452"]


def test_transactions_are_no_larger_than_the_settings_and_the_peers_limits_say():
    to = tuple(f"u{at}@peer.example" for at in range(7))
    rig = sent(Peer(PIPELINED), job(to=to), batch=3)
    assert [len(message.rcpts) for message in rig.peer.messages] == [3, 3, 1]
    rig = sent(Peer((*ALL, b"LIMITS RCPTMAX=4")), job(to=to))
    assert [len(message.rcpts) for message in rig.peer.messages] == [4, 3]
    rig = sent(Peer((*ALL, b"LIMITS RCPTMAX=2 MAILMAX=2")), job(to=to))
    assert [len(message.rcpts) for message in rig.peer.messages] == [2, 2]
    assert len(rig.outcomes) == 4
    assert rig.session.is_spent


def test_a_refusal_in_the_middle_of_bdat_ends_the_transaction():
    content = b"y" * 998 + b"\r\n"
    rig = sent(Peer(ALL, bdat=[None, b"552 5.3.4 too big\r\n", b"503 5.5.1 what\r\n"]), job(content * 1500))
    assert rig.verdicts() == ["failed 552"]
    assert not rig.peer.messages
    rig.send(job())
    assert rig.verdicts() == ["delivered 250"]
    assert b"RSET" in rig.peer.lines


def test_a_chunk_refused_before_the_last_ends_the_transaction():
    content = b"y" * 998 + b"\r\n"
    rig = sent(Peer(ALL, bdat=[b"452 4.3.1 disk\r\n"]), job(content * 300))
    assert rig.verdicts() == ["again 452"]
    assert not rig.peer.messages
    rig.send(job())
    assert rig.verdicts() == ["delivered 250"]


def test_recipients_that_need_smtputf8_fail_alone(way):
    rig = deliver(way, job(to=("ä@peer.example", "b@peer.example", "c@bücher.example")))
    if way[0] == ALL:
        assert rig.verdicts() == ["delivered 250"] * 3
        assert b"SMTPUTF8" in rig.peer.messages[0].mail
        return
    assert rig.verdicts() == ["failed 553", "delivered 250", "delivered 250"]
    assert rig.outcomes[0].reply.enhanced == "5.6.7"
    assert rig.peer.messages[0].rcpts == [b"RCPT TO:<b@peer.example>", b"RCPT TO:<c@xn--bcher-kva.example>"]


def test_a_message_that_needs_smtputf8_fails_and_the_connection_stays(way):
    rig = deliver(way, job("Subject: ä\r\n\r\nx\r\n".encode(), to=TWO, has_utf8_header=True, has_8bit=True))
    if way[0] == ALL:
        assert rig.verdicts() == ["delivered 250"] * 2
        assert b"BODY=8BITMIME SMTPUTF8" in rig.peer.messages[0].mail
        return
    assert rig.verdicts() == ["failed 550"] * 2
    assert rig.peer.lines == [b"EHLO client.example"]
    assert rig.connection.is_reusable


# ------------------------------------------------------------------------------------------------------ LMTP


@pytest.mark.parametrize("offers", [(), PIPELINED, ALL])
@pytest.mark.parametrize("piece", [0, 1])
def test_lmtp_answers_for_each_recipient_accepted(offers, piece):
    peer = Peer(
        offers,
        lmtp=True,
        rcpt=[None, b"550 5.1.1 no\r\n", None, None],
        content=[None, b"452 4.2.2 full\r\n", b"550 5.7.1 no\r\n"],
    )
    rig = sent(peer, job(to=(*THREE, "d@peer.example")), piece=piece)
    assert rig.verdicts() == ["delivered 250", "failed 550", "again 452", "failed 550"]
    assert peer.lines[0] == b"LHLO client.example"
    assert len(peer.messages) == 1


def test_lmtp_that_breaks_between_its_answers_leaves_the_rest_deferred_and_the_first_delivered():
    rig = sent(Peer(PIPELINED, lmtp=True, content=[b"250 2.1.5 one\r\n", DROP]), job(to=THREE))
    assert rig.verdicts() == ["delivered 250", "deferred 451", "deferred 451"]
    rig = sent(Peer(PIPELINED, lmtp=True, content=[b"250 2.1.5 one\r\n", b"421 4.3.2 bye\r\n"]), job(to=THREE))
    assert rig.verdicts() == ["delivered 250", "again 421", "deferred 421"]


def test_lmtp_never_says_helo():
    rig = Rig(Peer(lmtp=True, ehlo=b"500 5.5.1 what\r\n"))
    assert isinstance(rig.introduce(), HostRefused)
    assert rig.peer.lines == [b"LHLO client.example"]


# ------------------------------------------------------------------------------------------------------ introduction


def test_helo_where_ehlo_is_not_known():
    rig = sent(Peer(ALL, ehlo=b"502 5.5.1 what\r\n"))
    assert rig.session.offers == NOTHING
    assert rig.peer.lines[:2] == [b"EHLO client.example", b"HELO client.example"]
    assert rig.verdicts() == ["delivered 250"]


@pytest.mark.parametrize(
    "actions",
    [{"greeting": b"554 5.7.1 no\r\n"}, {"greeting": b"421 4.3.2 busy\r\n"}, {"ehlo": b"450 4.7.1 greylisted\r\n"}, {"ehlo": b"500 what\r\n", "helo": b"550 no\r\n"}],
    ids=["greeting 554", "greeting 421", "ehlo 450", "helo 550"],
)  # fmt: skip
def test_a_host_that_refuses_us_has_said_nothing_of_any_message(actions):
    error = Rig(Peer(**actions)).introduce()
    assert isinstance(error, HostRefused | Broken)
    assert error.reply.code >= 400


def test_auth_plain_login_and_none():
    login = {"login": "user", "password": "pässword"}
    rig = Rig(Peer((b"AUTH PLAIN LOGIN",)), hop(**login))
    assert rig.introduce() is None
    assert rig.peer.lines[-1] == b"AUTH PLAIN " + base64.b64encode("\0user\0pässword".encode())
    rig = Rig(Peer((b"AUTH LOGIN",)), hop(**login))
    assert rig.introduce() is None
    assert rig.peer.lines[-3:] == [b"AUTH LOGIN", base64.b64encode(b"user"), base64.b64encode("pässword".encode())]
    for offers, auth in (((b"AUTH GSSAPI",), None), ((), None), ((b"AUTH PLAIN",), b"535 5.7.8 no\r\n")):
        error = Rig(Peer(offers, auth=auth), hop(**login)).introduce()
        assert isinstance(error, HostRefused)
        assert error.reply.stage == "auth"
        assert "pässword" not in str(error)


def test_a_password_is_never_said_in_the_clear():
    rig = Rig(Peer((b"AUTH PLAIN LOGIN",)), hop(login="u", password="p"), may_say_password=False)
    error = rig.introduce()
    assert isinstance(error, HostRefused)
    assert not any(line.startswith(b"AUTH") for line in rig.peer.lines)


def test_auth_that_ends_before_the_password_was_asked_says_no_password():
    rig = Rig(Peer((b"AUTH LOGIN",), auth=b"535 5.7.8 no\r\n"), hop(login="u", password="p"))
    assert isinstance(rig.introduce(), HostRefused)
    assert rig.peer.lines[-1] == b"AUTH LOGIN"


def test_tls_that_is_required_and_not_offered_or_refused_ends_it():
    for policy in ("encrypt", "verify"):
        error = Rig(Peer(PIPELINED), hop(tls=policy)).introduce()
        assert isinstance(error, HostRefused)
        assert error.reply.enhanced == "4.7.4"
        error = Rig(Peer((b"STARTTLS",), starttls=b"454 4.7.0 not now\r\n"), hop(tls=policy)).introduce()
        assert isinstance(error, HostRefused)
        assert error.reply.code == 454
        # A host that knows HELO alone has no TLS.
        rig = Rig(Peer(ehlo=b"500 what\r\n"), hop(tls=policy))
        assert isinstance(rig.introduce(), HostRefused)
        assert rig.peer.lines == [b"EHLO client.example"]


def test_opportunistic_tls_that_is_refused_goes_on_in_the_clear():
    rig = sent(Peer((*PIPELINED, b"STARTTLS"), starttls=b"454 4.7.0 not now\r\n"), to=hop(tls="may"))
    assert rig.verdicts() == ["delivered 250"]


# ------------------------------------------------------------------------------------------------------ what breaks

STAGES = ("mail", "rcpt", "data", "content")


@pytest.mark.parametrize(
    "action", [DROP, STALL, b"421 4.3.2 bye\r\n", b"whatever\r\n", b"250-a\r\n251 b\r\n", b"100 x\r\n"], ids=str
)
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("is_second", [False, True])
def test_the_window_is_exactly_the_content(way, stage, action, is_second):
    """A break before all content is out leaves the message for another host; after it, deferred; never delivered."""
    offers, piece = way
    if stage == "data" and b"CHUNKING" in offers:
        return
    rig = Rig(Peer(offers, **{stage: [*([None] * is_second), action]}), piece=piece)
    rig.introduce()
    if is_second:
        assert rig.send(job()) is None
    error = rig.send(job(to=TWO))
    if error is None:
        assert action == STALL
        rig.clock.advance(10_000)
        error = rig.found[0].value
    assert isinstance(error, Broken)
    assert rig.transport.is_lost
    is_out = stage == "content" or (is_second and offers == ALL)
    if is_out and not (stage == "content" and action == b"421 4.3.2 bye\r\n"):
        assert [outcome.verdict for outcome in rig.outcomes.values()] == ["deferred"] * 2
    else:
        assert all(outcome.verdict == "again" for outcome in rig.outcomes.values())
    assert len(rig.peer.messages) <= 1 + is_second


def test_what_was_said_before_the_break_stays_said():
    rig = sent(Peer(PIPELINED, rcpt=[b"550 5.1.1 no\r\n", DROP]), job(to=TWO))
    assert rig.verdicts() == ["failed 550"]
    assert isinstance(rig.result, Broken)


@pytest.mark.parametrize(
    ("offers", "actions"),
    [
        (PIPELINED, {"data": b"354 go\r\n250 2.0.0 taken already\r\n"}),
        (PIPELINED, {"rcpt": b"250 ok\r\n354 go\r\n250 taken\r\n"}),
        (PIPELINED, {"data": b"354 go\r\n25"}),
        ((), {"mail": b"250 ok\r\n250 ok\r\n354 go\r\n250 taken\r\n"}),
        ((), {"data": b"354 go\r\n250 taken\r\n"}),
    ],
    ids=["after DATA", "for the whole group", "half a reply", "all at MAIL", "one by one"],
)
def test_a_reply_before_it_is_due_is_believed_by_nobody(offers, actions):
    rig = sent(Peer(offers, **actions))
    assert isinstance(rig.result, Broken), rig.verdicts()
    assert not any(outcome.verdict == "delivered" for outcome in rig.outcomes.values())
    assert not rig.peer.messages
    assert rig.transport.is_lost


def test_one_reply_too_many_makes_all_doubtful_where_content_went_with_its_envelope():
    twice = b"250 ok\r\n250 ok\r\n"
    for stage, actions in (("mail", [None, twice]), ("rcpt", [None, twice, None]), ("content", [None, twice])):
        rig = sent(Peer(ALL, **{stage: actions}))
        rig.send(job(to=TWO))
        rig.result = rig.found[0].value
        assert rig.verdicts() == ["deferred 451"] * 2
        assert rig.result.kind == "doubtful"
    # Where the envelope is answered first it is known which reply is which.
    for stage, verdicts in (("mail", []), ("rcpt", []), ("content", ["delivered 250"] * 2)):
        rig = Rig(Peer(ALL, **{stage: [twice, None]}))
        rig.introduce()
        rig.send(job(to=TWO), hesitates=True)
        assert [verdict for verdict in rig.verdicts() if verdict.startswith("delivered")] == verdicts
        assert len(rig.peer.messages) == len(verdicts) // 2


def test_a_reply_too_many_ends_the_connection():
    # Octet by octet it comes when the content is out, and is the answer; the true answer is then one too many.
    rig = sent(Peer(PIPELINED, data=b"354 go\r\n250 2.0.0 taken\r\n"), piece=1)
    assert rig.peer.messages[0].content == MESSAGE
    assert not rig.connection.is_reusable


def test_a_refusal_before_it_is_due_fails_nobody():
    for stage, offers in (("mail", ()), ("rcpt", ()), ("data", PIPELINED), ("mail", PIPELINED)):
        rig = sent(Peer(offers, **{stage: [b"250 ok\r\n550 5.1.1 no\r\n"]}), job(to=TWO))
        if (stage, offers) == ("mail", PIPELINED):
            assert rig.verdicts()[0].startswith("failed")  # It passes for the reply to RCPT: nobody can tell.
        else:
            assert isinstance(rig.result, Broken), stage
            assert not any(outcome.verdict == "failed" for outcome in rig.outcomes.values()), stage


def test_a_greeting_that_goes_on_is_no_answer_to_ehlo():
    assert isinstance(Rig(Peer(greeting=b"220 hi\r\n250-evil\r\n250 PIPELINING\r\n")).introduce(), Broken)


def test_a_refusal_in_the_middle_of_content_is_of_this_message():
    content = (b"y" * 998 + b"\r\n") * 2500
    for early, verdict in ((b"552 5.3.4 too big\r\n", "failed 552"), (b"451 4.3.0 disk\r\n", "again 451")):
        rig = sent(Peer(PIPELINED, early=early), job(content))
        assert rig.verdicts() == [verdict]
        assert not rig.peer.messages
    rig = sent(Peer(PIPELINED, early=b"250 2.0.0 taken\r\n"), job(content))
    assert isinstance(rig.result, Broken)
    assert not rig.outcomes
    assert not rig.peer.messages


def test_content_that_cannot_be_read_never_gets_an_end(way):
    content = (b"y" * 998 + b"\r\n") * 400
    for fails_at in (0, 100_000, 399_999):
        for error, enhanced in ((OSError("disk"), "4.3.0"), (StorageFailed(), "4.3.0")):
            rig = deliver(way, job(Reader(content, fails_at, error)))
            assert isinstance(rig.result, Broken)
            assert rig.result.kind == "content"
            assert (rig.result.reply.code, rig.result.reply.enhanced) == (451, enhanced)
            assert "disk" not in rig.result.reply.text
            assert not rig.peer.messages
            assert rig.transport.is_lost


def test_farewell():
    rig = sent(Peer())
    assert rig.run(rig.session.farewell()) is None or rig.transport.is_lost
    assert rig.peer.lines[-1] == b"QUIT"
