"""Delivery status notifications as clients and Postfix see them.  RFC 3461, RFC 3464."""

from __future__ import annotations

import email
import email.policy
import os
import shutil
import smtplib
import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.delivery.strict_report import Strict, parse
from tests.system.mail import fetch_all, imap
from tests.system.postfix import Postfix
from tests.system.rig import Server, free_offset, program


def reports(server: Server) -> list[tuple[bytes, Strict]]:
    """The reports in the account's INBOX, parsed strictly: from their first own field on."""
    client = imap(server)
    found = list(fetch_all(client).values())
    client.logout()
    mails = [octets for octets in found if b"report-type=delivery-status" in octets]
    return [(octets, parse(octets[octets.index(b"\r\nDate: ") + 2 :])) for octets in mails]


def test_a_client_that_asks_for_success_gets_a_report_by_imap(server: Server) -> None:
    you = server.facts["account"]
    context = ssl.create_default_context(cafile=server.facts["ca"])
    with smtplib.SMTP("localhost", server.port("submission"), timeout=30) as client:
        client.starttls(context=context)
        client.login(you, server.facts["password"])
        assert client.has_extn("dsn")
        client.sendmail(
            you, [you], b"From: you@localhost\r\nSubject: Figures\r\nMessage-ID: <by-smtplib@localhost>\r\n\r\nx\r\n",
            mail_options=["RET=HDRS", "ENVID=id+2B1"], rcpt_options=["NOTIFY=SUCCESS,FAILURE", f"ORCPT=rfc822;{you}"],
        )  # fmt: skip
    (octets, strict) = next(each for each in reports(server) if b"id+1" in each[0])
    assert octets.startswith(b"Return-Path: <>\r\n")
    assert strict.message["Original-Envelope-Id"] == "id+1"
    assert strict.recipients[0]["Original-Recipient"] == f"rfc822; {you}"
    assert strict.recipients[0]["Action"] == "delivered"
    assert strict.header["In-Reply-To"] == "<by-smtplib@localhost>"
    message = email.message_from_bytes(octets, policy=email.policy.default)
    assert message.get_content_type() == "multipart/report"
    assert not any(part.defects for part in message.walk())


@pytest.fixture(scope="module")
def postfix(server: Server) -> Iterator[Postfix]:
    """A Postfix that sends everything to the server."""
    program("postfix")
    if os.geteuid() != 0:
        pytest.skip("Postfix starts as root only")
    # Its sockets need a short path that its own user may enter, which a test's folder is not.
    folder = Path(tempfile.mkdtemp(prefix="lm-postfix-", dir="/tmp"))
    folder.chmod(0o755)
    made = Postfix(folder / "p", 2525 + free_offset(), f"[127.0.0.1]:{server.port('smtp')}")
    try:
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


def test_postfix_hands_its_users_wishes_on_and_we_report(server: Server, postfix: Postfix) -> None:
    postfix.sendmail(
        b"From: you@localhost\nTo: you+list@localhost\nSubject: by Postfix\n\nx\n",
        "-f", "you@localhost", "-N", "success", "-R", "hdrs", "-V", "from-postfix", "you+list@localhost",
    )  # fmt: skip
    line = postfix.wait_for("status=sent")
    assert "250 2.0.0" in line
    (octets, strict) = next(each for each in reports(server) if b"from-postfix" in each[0])
    assert strict.recipients[0]["Original-Recipient"] == "rfc822; you+list@localhost"
    assert strict.recipients[0]["Final-Recipient"] == "rfc822; you+list@localhost"
    assert strict.recipients[0]["Action"] == "delivered"
    assert strict.media_types[2] == "text/rfc822-headers"
    assert b"Subject: Delivered: by Postfix" in octets
    # We offer DSN, so reporting is ours: Postfix sends no report of its own that it relayed.
    assert "sender delivery status notification" not in postfix.log


def test_what_we_refuse_within_the_session_is_reported_by_postfix_alone(server: Server, postfix: Postfix) -> None:
    postfix.sendmail(b"From: you@localhost\nSubject: to nobody\n\nx\n", "-f", "you@localhost", "nobody-here@localhost")
    postfix.wait_for("status=bounced")
    postfix.wait_for(r"from=<>.*nrcpt=1")
    postfix.wait_for(r"to=<you@localhost>.*status=sent")
    client = imap(server)
    found = [octets for octets in fetch_all(client).values() if b"to nobody" in octets]
    client.logout()
    assert [b"Reporting-MTA: dns; postfix.example" in octets for octets in found] == [True]
