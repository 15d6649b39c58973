from __future__ import annotations

import base64

import pytest
from twisted.internet.defer import Deferred

from livemail.mail.errors import StorageFull
from livemail.smtp.transaction import MailTransaction, common_result
from tests.smtp.rig import Rig


def test_a_message_is_stored_octet_for_octet_behind_the_trace_fields():
    rig = Rig()
    content = (
        b"Subject: x\r\n\r\n"
        + bytes(range(1, 10))
        + b"\x0b\x0c"
        + bytes(range(14, 256))
        + b"\r\n"
        + b"y" * 10_000
        + b"\r\n"
    )
    assert rig.connect().send(content).startswith("250 2.0.0")
    (message,) = rig.mail()
    assert message == (
        b"Return-Path: <stranger@else.example>\r\nDelivered-To: you@localhost\r\n"
        b"Received: from client.example ([192.168.1.1])\r\n\tby mx.localhost with ESMTP id "
        + message.split(b" id ")[1].split(b"\r\n")[0]
        + b"\r\n\tfor <you@localhost>;\r\n\tTue, 14 Nov 2023 22:13:20 +0000\r\n"
        + content
    )


@pytest.mark.parametrize("content", [b"", b"\r\n", b"no header\r\n", b"\r\nbody only\r\n", b"Subject: only header\r\n"])
def test_odd_shapes_come_back_as_they_were(content):
    rig = Rig()
    assert rig.connect().send(content).startswith("250")
    (message,) = rig.mail()
    assert message.endswith(b"+0000\r\n" + content)


def test_the_id_in_the_reply_is_the_one_in_received():
    rig = Rig()
    reply = rig.connect().send(b"x\r\n")
    assert reply.split()[-1].encode() + b"\r\n\tfor" in rig.mail()[0]


def test_several_recipients_are_not_told_of_each_other():
    rig = Rig()
    client = rig.connect()
    assert client.send(b"x\r\n", "you@localhost", "me@localhost").startswith("250")
    assert b"me@localhost" not in rig.mail()[0]
    assert b"you@localhost" not in rig.mail(account=1)[0]


@pytest.mark.parametrize(
    ("service", "hello", "tls", "auth", "params", "word"),
    [
        ("smtp", "HELO", "", False, "", "SMTP"),
        ("smtp", "EHLO", "", False, "", "ESMTP"),
        ("smtp", "EHLO", "TLSv1.3 X", False, "", "ESMTPS"),
        ("smtp", "EHLO", "", False, " SMTPUTF8", "UTF8SMTP"),
        ("submission", "EHLO", "TLSv1.3 X", True, "", "ESMTPSA"),
        ("submission", "EHLO", "TLSv1.3 X", True, " SMTPUTF8", "UTF8SMTPSA"),
        ("lmtp", "LHLO", "", False, "", "LMTP"),
        ("lmtp", "LHLO", "TLSv1.3 X", False, " SMTPUTF8", "UTF8LMTPS"),
    ],
)
def test_the_with_word_says_how_it_came(service, hello, tls, auth, params, word):
    rig = Rig()
    client = rig.connect(service, helo=False, tls=tls)
    client.say(f"{hello} client.example")
    if auth:
        assert client.say("AUTH PLAIN AHlvdUBsb2NhbGhvc3QAc2VjcmV0").startswith("235")
    client.send(b"x\r\n", sender="you@localhost", params=params)
    assert b" with " + word.encode() + b" id " in rig.mail()[0]


def test_extensions_are_offered_only_when_they_would_work():
    rig = Rig(has_tls=True, dsn=True)
    plain = rig.connect("submission", helo=False).say("EHLO c")
    assert "STARTTLS" in plain
    assert "AUTH" not in plain
    assert "DSN" in plain
    encrypted = rig.connect("submission", helo=False, tls="TLSv1.3 X").say("EHLO c")
    assert "STARTTLS" not in encrypted
    assert "250-AUTH PLAIN LOGIN\r\n" in encrypted
    assert "AUTH" not in rig.connect("smtp", helo=False, tls="TLSv1.3 X").say("EHLO c")
    assert "STARTTLS" not in rig.connect("submissions", helo=False).say("EHLO c")
    assert "AUTH" in Rig(allow_cleartext_auth=True).connect("submission", helo=False).say("EHLO c")
    assert "DSN" not in Rig().connect(helo=False).say("EHLO c")


def test_an_envelope_from_rset_helo_or_a_refused_end_leaves_no_trace():
    for leave in ("RSET", "EHLO again.example", "HELO again.example"):
        rig = Rig()
        client = rig.connect()
        client.begin("you@localhost")
        assert "250" in client.say(leave)
        assert client.say("DATA").startswith("503")
        assert client.say("RCPT TO:<you@localhost>").startswith("503")
        client.send(b"x\r\n", "me@localhost")
        assert (len(rig.mail()), len(rig.mail(account=1))) == (0, 1)
    # Postfix 2026-08-03: end of content refused, then RCPT without MAIL.
    client = rig.connect()
    assert client.send(b"a\nb\r\n").startswith("550 5.6.0")
    assert client.say("RCPT TO:<you@localhost>").startswith("503")
    assert client.say("DATA").startswith("503")


def test_submission_wants_a_login_and_an_own_address():
    rig = Rig()
    client = rig.connect("submission", tls="TLSv1.3 X")
    assert client.say("MAIL FROM:<you@localhost>").startswith("530 5.7.0 Authentication")
    assert rig.connect("submission").say("MAIL FROM:<you@localhost>").startswith("530 5.7.0 Issue STARTTLS")
    client = rig.submit()
    assert client.say("MAIL FROM:<me@localhost>").startswith("550 5.7.1")
    assert client.say("MAIL FROM:<x@other.example>").startswith("550 5.7.1")
    assert client.say("MAIL FROM:<you+tag@localhost>").startswith("250")
    client.say("RSET")
    assert client.say("MAIL FROM:<>").startswith("250")


def test_login_in_two_steps():
    client = Rig().connect("submission", tls="TLSv1.3 X")
    assert client.say("AUTH LOGIN") == "334 VXNlcm5hbWU6\r\n"
    assert client.say(base64.b64encode(b"you@localhost").decode()) == "334 UGFzc3dvcmQ6\r\n"
    assert client.say(base64.b64encode(b"secret").decode()).startswith("235 2.7.0")


def test_plain_without_initial_response_and_the_empty_one():
    client = Rig().connect("submission", tls="TLSv1.3 X")
    assert client.say("AUTH PLAIN") == "334 \r\n"
    assert client.say("*").startswith("501 5.7.0")
    assert client.say("AUTH LOGIN =") == "334 UGFzc3dvcmQ6\r\n"
    assert client.say("*").startswith("501")
    assert client.say("AUTH SCRAM-SHA-1").startswith("504")
    assert client.say("AUTH").startswith("501")
    assert client.say("NOOP").startswith("250")


def test_row_7_auth_twice_or_within_a_transaction_is_503():
    rig = Rig()
    client = rig.submit()
    assert client.say("AUTH PLAIN AHlvdUBsb2NhbGhvc3QAc2VjcmV0").startswith("503")
    client.say("MAIL FROM:<you@localhost>")
    assert client.say("AUTH PLAIN AHlvdUBsb2NhbGhvc3QAc2VjcmV0").startswith("503")


def test_row_8_auth_on_clear_text_is_refused():
    client = Rig().connect("submission")
    assert client.say("AUTH PLAIN AHlvdUBsb2NhbGhvc3QAc2VjcmV0").startswith("538 5.7.11")
    assert client.say("AUTH LOGIN").startswith("538 5.7.11")
    assert (
        Rig(allow_cleartext_auth=True)
        .connect("submission")
        .say("AUTH PLAIN AHlvdUBsb2NhbGhvc3QAc2VjcmV0")
        .startswith("235")
    )


@pytest.mark.parametrize("response", ["a", "a\tb=", "YW Jj", "=", "YWJj=", "Y\0Jj", "*x"])
def test_row_9_what_is_not_base64_ends_the_exchange(response):
    client = Rig().connect("submission", tls="TLSv1.3 X")
    assert client.say("AUTH LOGIN").startswith("334")
    assert client.say(response).startswith("50")
    assert client.say("NOOP").startswith("250")


def test_row_9_a_response_of_100_kb_is_500_and_close():
    for first in ("AUTH PLAIN ", "AUTH LOGIN\r\n"):
        client = Rig().connect("submission", tls="TLSv1.3 X")
        said = client.feed(first.encode() + b"A" * 100_000 + b"\r\nNOOP\r\n", piece=4096)
        assert said.count("500 5.5.2") == 1
        assert client.is_closed
        assert not said.endswith("250 2.0.0 Ok\r\n")


def test_failed_logins_close_the_connection_and_logouts_are_told():
    rig = Rig()
    client = rig.connect("submission", tls="TLSv1.3 X")
    wrong = "AUTH PLAIN " + base64.b64encode(b"\0you@localhost\0wrong").decode()
    assert [client.say(wrong)[:3] for _ in range(2)] == ["535", "535"]
    assert "421 4.7.0" in client.say(wrong)
    assert client.is_closed
    client = rig.submit()
    client.say("QUIT")
    assert rig.authenticator.logouts == 1


def test_replies_keep_order_whatever_is_awaited():
    rig = Rig()
    rig.authenticator.wait = Deferred()
    client = rig.connect("submission", tls="TLSv1.3 X")
    assert client.feed(b"AUTH PLAIN AHlvdUBsb2NhbGhvc3QAc2VjcmV0\r\nNOOP\r\nMAIL FROM:<you@localhost>\r\n") == ""
    rig.authenticator.wait.callback(None)
    assert [line[:3] for line in client.read().splitlines()] == ["235", "250", "250"]


def test_a_client_that_leaves_while_a_login_waits_leaves_nothing_behind():
    rig = Rig()
    rig.authenticator.wait = Deferred()
    client = rig.connect("submission", tls="TLSv1.3 X")
    client.say("AUTH PLAIN AHlvdUBsb2NhbGhvc3QAc2VjcmV0")
    client.transport.lose()
    assert rig.owner.live == 0
    assert client.connection.session.login is None


def test_starttls_resets_all_state():
    rig = Rig(has_tls=True, allow_cleartext_auth=True)
    client = rig.connect("submission")
    assert client.say("AUTH PLAIN AHlvdUBsb2NhbGhvc3QAc2VjcmV0").startswith("235")
    assert client.say("STARTTLS x").startswith("501")
    assert client.say("STARTTLS").startswith("220 2.0.0")
    assert client.transport.started_tls == 1
    client.connection.tls = "TLSv1.3 X"
    client.connection.secured()
    assert rig.authenticator.logouts == 1
    # Security row 6.
    assert client.say("RCPT TO:<you@localhost>").startswith("503")
    assert client.say("MAIL FROM:<you@localhost>").startswith("503 5.5.1 Introduce")
    # Security row 7.
    assert client.say("STARTTLS").startswith("503")
    assert "AUTH" in client.say("EHLO c")
    assert client.say("MAIL FROM:<you@localhost>").startswith("530")


@pytest.mark.parametrize("service", ["smtp", "submission", "lmtp"])
def test_rows_4_and_5_octets_behind_starttls_drop_the_connection(service):
    client = Rig(has_tls=True).connect(service)
    assert client.feed(b"STARTTLS\r\nEHLO x\r\n") == ""
    assert client.is_closed
    assert client.transport.started_tls == 0


def test_a_step_that_fails_by_a_bug_answers_451_and_the_session_goes_on(monkeypatch):
    rig = Rig()
    client = rig.connect()

    async def broken(*_):
        raise ZeroDivisionError("very private")

    monkeypatch.setattr(rig.target, "begin", broken)
    said = client.say("MAIL FROM:<a@b.example>")
    assert said.startswith("451 4.3.0")
    assert "private" not in said
    monkeypatch.undo()
    assert client.send(b"x\r\n").startswith("250")


@pytest.mark.parametrize("where", ["write", "finish", "deliver"])
def test_a_store_that_fails_gives_451_and_nothing_is_left(monkeypatch, where):
    rig = Rig()
    client = rig.connect("lmtp")
    client.begin("you@localhost", "me@localhost")
    client.say("DATA")

    def broken(*_):
        raise OSError("very private")

    transaction = client.connection.session.transaction
    target = rig.store if where == "deliver" else transaction._sink
    monkeypatch.setattr(type(target), where, broken)
    said = client.feed(b"x\r\n.\r\n")
    assert said == "451 4.3.0 Internal error, try again later\r\n" * 2
    monkeypatch.undo()
    assert client.send(b"x\r\n", "you@localhost").startswith("250")
    assert len(rig.mail()) == 1


def test_a_full_disk_answers_452(monkeypatch):
    rig = Rig()

    def full(*_):
        raise StorageFull

    monkeypatch.setattr(rig.store, "new_content", full)
    client = rig.connect()
    client.begin()
    assert client.say("DATA").startswith("452 4.3.1")
    assert client.say("RCPT TO:<you@localhost>").startswith("503")


def test_one_reply_speaks_for_all_and_temporary_goes_first():
    from livemail.mail.errors import OverQuota, StorageFailed

    full, failed = OverQuota(), StorageFailed()
    assert common_result([None, None]) is None
    assert common_result([None, full]) is full
    assert common_result([full, failed, None]) is failed
    assert common_result([failed, full]) is failed


def test_lmtp_says_each_recipients_result(monkeypatch):
    rig = Rig()
    client = rig.connect("lmtp")
    client.begin("you@localhost", "me@localhost", "third@localhost")
    client.say("DATA")
    from tests.smtp.rig import finish

    finish(rig.store.remove_account("me@localhost"))
    said = client.feed(b"x\r\n.\r\n").splitlines()
    assert [line[:9] for line in said] == ["250 2.0.0", "550 5.1.1", "250 2.0.0"]
    assert len(rig.mail(account=2)) == 1


def test_drain_waits_for_the_end_of_a_transaction():
    rig = Rig()
    idle, busy = rig.connect(), rig.connect()
    busy.begin()
    busy.say("DATA")
    idle.connection.drain()
    busy.connection.drain()
    assert idle.read().startswith("421 4.3.2")
    assert idle.is_closed
    assert not busy.is_closed
    said = busy.feed(b"x\r\n.\r\n").splitlines()
    assert [line[:3] for line in said] == ["250", "421"]
    assert busy.is_closed


def test_idle_and_slow_clients_time_out():
    rig = Rig()
    idle, slow = rig.connect(), rig.connect()
    for _ in range(40):
        rig.clock.advance(10)
        slow.connection.dataReceived(b"N")
    assert idle.read().startswith("421 4.4.2")
    assert slow.read().startswith("421 4.4.2")
    assert slow.is_closed


def test_content_that_makes_progress_is_waited_for():
    rig = Rig()
    client = rig.connect()
    client.begin()
    client.say("DATA")
    for _ in range(20):
        rig.clock.advance(100)
        client.feed(b"x" * 70 + b"\r\n" + b"y" * 100_000 + b"\r\n")
    assert not client.is_closed
    assert client.feed(b".\r\n").startswith("250")


def test_the_owner_may_refuse_a_connection():
    rig = Rig()
    rig.owner.refusal = "Too many connections"
    client = rig.connect(helo=False)
    assert client.greeting.startswith("421 4.7.0 mx.localhost Too many")
    assert client.is_closed


def test_everything_is_given_back_when_a_client_leaves(monkeypatch):
    aborted = []
    monkeypatch.setattr(MailTransaction, "close", lambda self: aborted.append(self.id))
    rig = Rig()
    for last in (b"", b"RCPT TO:<you@localhost>\r\n", b"RCPT TO:<you@localhost>\r\nDATA\r\n"):
        client = rig.connect()
        client.feed(b"MAIL FROM:<a@b.example>\r\n" + last)
        client.transport.lose()
    assert len(aborted) == 3


def test_smtputf8_goes_through_to_reply_and_trace():
    rig = Rig()
    client = rig.connect()
    client.say("MAIL FROM:<jörg@münchen.example> SMTPUTF8")
    assert client.say("RCPT TO:<unbekännt@localhost>").startswith("550 5.1.1")
    client.say("RCPT TO:<you@localhost>")
    client.say("DATA")
    client.feed(b"x\r\n.\r\n")
    assert rig.mail()[0].startswith("Return-Path: <jörg@münchen.example>\r\n".encode())
