from __future__ import annotations

import pytest

from livemail.mail.address import Address, Path
from livemail.mail.envelope import Recipient
from livemail.smtp.grammar import decode_xtext, parse_mail, parse_rcpt
from livemail.smtp.relay.envelope import Fit, Unfit, encode_xtext, fit, mail_line, rcpt_line
from livemail.smtp.relay.offers import NOTHING, Offers
from tests.smtp.relay.rig import job, recipient

EVERYTHING = Offers(pipelining=True, has_size=True, eight_bit=True, smtputf8=True, chunking=True, binary=True, dsn=True)
CONTENT = b"Subject: x\r\n\r\ny\r\n"


def mail(what, offers):
    return mail_line(what, offers, fit(what, offers)).decode()


def test_a_peer_without_extensions_gets_no_parameters():
    what = job(CONTENT, ret="HDRS", envid="x", smtputf8=True, body="8BITMIME")
    assert mail(what, NOTHING) == "MAIL FROM:<a@sender.example>\r\n"
    to = recipient("b@c.example", ("FAILURE",), "rfc822;b@c.example")
    assert rcpt_line(to, NOTHING, Fit(1)) == b"RCPT TO:<b@c.example>\r\n"


def test_every_parameter_is_said_where_it_is_offered_and_our_own_grammar_reads_it_back():
    what = job(CONTENT, has_8bit=True, ret="HDRS", envid="a+b=c d")
    line = mail(what, EVERYTHING)
    assert line == "MAIL FROM:<a@sender.example> SIZE=17 BODY=8BITMIME RET=HDRS ENVID=a+2Bb+3Dc+20d\r\n"
    read = parse_mail(line.encode()[5:-2], dsn=True)
    assert (read.envid, read.ret, read.size, read.body) == ("a+b=c d", "HDRS", 17, "8BITMIME")
    to = recipient("b@c.example", ("FAILURE", "SUCCESS"), "rfc822;b+2Bx@c.example")
    line = rcpt_line(to, EVERYTHING, Fit(1)).decode()
    assert line == "RCPT TO:<b@c.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;b+2Bx@c.example\r\n"
    assert parse_rcpt(line.encode()[5:-2], dsn=True) == to


def test_smtputf8_is_said_only_where_something_needs_it():
    assert "SMTPUTF8" not in mail(job(CONTENT, smtputf8=True), EVERYTHING)
    for what in (
        job(CONTENT, has_utf8_header=True),
        job(CONTENT, sender="ä@b.example"),
        job(CONTENT, to=("ü@b.example",)),
    ):
        assert mail(what, EVERYTHING).rstrip().endswith("SMTPUTF8")
    assert mail(job(CONTENT, sender="ä@bücher.example"), EVERYTHING).startswith("MAIL FROM:<ä@bücher.example> ")
    assert "BODY=8BITMIME SMTPUTF8" in mail(job(CONTENT, has_utf8_header=True), EVERYTHING)


@pytest.mark.parametrize("what", [job(CONTENT, has_utf8_header=True), job(CONTENT, sender="ä@b.example")])
def test_a_message_that_needs_smtputf8_does_not_go_to_a_peer_without_it(what):
    with pytest.raises(Unfit) as caught:
        fit(what, Offers(eight_bit=True))
    reply = caught.value.reply
    assert (reply.code // 100, reply.enhanced, reply.stage, reply.is_remote) == (5, "5.6.7", "mail", False)


def test_a_recipient_that_needs_smtputf8_does_not_go_and_a_domain_is_said_in_a_labels():
    with pytest.raises(Unfit) as caught:
        rcpt_line(recipient("ü@b.example"), NOTHING, Fit(1))
    assert (caught.value.reply.code, caught.value.reply.enhanced) == (553, "5.6.7")
    assert rcpt_line(recipient("b@bücher.example"), NOTHING, Fit(1)) == b"RCPT TO:<b@xn--bcher-kva.example>\r\n"
    with pytest.raises(Unfit):
        rcpt_line(recipient("b@\u2764\ufe0f\u200d.example"), NOTHING, Fit(1))
    assert mail(job(CONTENT, sender="b@bücher.example"), NOTHING) == "MAIL FROM:<b@xn--bcher-kva.example>\r\n"


def test_local_parts_are_quoted_and_nothing_in_them_is_a_second_command():
    assert rcpt_line(recipient('a b"\\@c.example'), NOTHING, Fit(1)) == b'RCPT TO:<"a b\\"\\\\"@c.example>\r\n'
    for evil in ("a\r\nRCPT TO:<x@y>", "a\nb", "a\0b"):
        with pytest.raises(Unfit) as caught:
            rcpt_line(Recipient(Path(Address(evil, "c.example"))), NOTHING, Fit(1))
        assert caught.value.reply.enhanced == "5.1.3"
    assert mail(job(CONTENT, sender=""), NOTHING) == "MAIL FROM:<>\r\n"
    assert rcpt_line(Recipient(Path(Address("Postmaster", ""))), NOTHING, Fit(1)) == b"RCPT TO:<Postmaster>\r\n"


def test_a_message_over_the_peers_size_is_refused_before_anything_is_sent():
    with pytest.raises(Unfit) as caught:
        fit(job(CONTENT), Offers(has_size=True, size=16))
    assert (caught.value.reply.code, caught.value.reply.enhanced) == (552, "5.3.4")
    assert fit(job(CONTENT), Offers(has_size=True, size=17)).size == 17
    assert fit(job(CONTENT, content_offset=5), Offers(has_size=True, size=12)).size == 12


def test_what_happens_to_8bit_and_binary_content():
    def how(what, offers):
        found = fit(what, offers)
        return found.body, found.converts

    assert how(job(CONTENT), NOTHING) == ("7BIT", False)
    assert how(job(CONTENT, has_8bit=True), NOTHING) == ("7BIT", True)
    assert how(job(CONTENT, has_8bit=True), Offers(eight_bit=True)) == ("8BITMIME", False)
    binary = job(CONTENT, has_8bit=True, body="BINARYMIME")
    assert how(binary, Offers(chunking=True, binary=True, eight_bit=True)) == ("BINARYMIME", False)
    assert how(binary, Offers(chunking=True, eight_bit=True)) == ("7BIT", True)
    assert how(job(CONTENT, has_utf8_header=True, body="BINARYMIME"), Offers(smtputf8=True, eight_bit=True)) == (
        "8BITMIME",
        True,
    )


def test_xtext_comes_back():
    for text in ("", "a", "+", "=", " ", "ä€\x07", "".join(map(chr, range(32, 127)))):
        encoded = encode_xtext(text)
        assert encoded.isascii()
        assert not text or decode_xtext(encoded.encode()) == text
