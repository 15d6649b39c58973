"""What the sender hears of mail that leaves, and how forwarded mail leaves: a whole server, and a next hop that says what a test wants."""

from __future__ import annotations

import re
import smtplib
import socketserver
import ssl
import threading
import time
from collections.abc import Iterator

import pytest

from tests.delivery.strict_report import Strict, parse
from tests.system.mail import fetch_all, imap
from tests.system.rig import Server


class NextHop(socketserver.ThreadingTCPServer):
    """Takes everything but what is for ``full@``; remembers the lines it heard.  dsn: whether it offers DSN."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Dialogue)
        self.heard: list[str] = []
        self.dsn = False
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def wait_for(self, pattern: str) -> str:
        """Wait until a line is heard; return it."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            found = [line for line in self.heard if re.search(pattern, line)]
            if found:
                return found[-1]
            time.sleep(0.02)
        raise AssertionError(f"never heard {pattern!r}: {self.heard}")


class Dialogue(socketserver.StreamRequestHandler):
    """One connection."""

    server: NextHop

    def handle(self) -> None:
        self.wfile.write(b"220 next.example ESMTP\r\n")
        for octets in self.rfile:
            line = octets.decode().strip()
            self.server.heard.append(line)
            verb = line[:4].upper()
            if verb == "EHLO":
                self.wfile.write(b"250-next.example\r\n250 %b\r\n" % (b"DSN" if self.server.dsn else b"HELP"))
            elif verb == "RCPT" and "full@" in line:
                self.wfile.write(b"552 5.2.2 Mailbox full\r\n")
            elif verb == "DATA":
                self.wfile.write(b"354 go on\r\n")
                for content in iter(self.rfile.readline, b".\r\n"):
                    self.server.heard.append(content.decode().strip())
                self.wfile.write(b"250 2.0.0 taken\r\n")
            elif verb == "QUIT":
                self.wfile.write(b"221 2.0.0 bye\r\n")
                return
            else:
                self.wfile.write(b"250 2.0.0 fine\r\n")


@pytest.fixture
def next_hop() -> Iterator[NextHop]:
    made = NextHop()
    yield made
    made.shutdown()
    made.server_close()


@pytest.fixture
def sending(fresh: Server, next_hop: NextHop) -> Server:
    """A server that sends everything to the next hop; ``out@localhost`` is forwarded."""
    fresh.start()
    fresh.stop()
    fresh.configure(
        delivery={"capture_outbound": False},
        relay={"smarthost": f"127.0.0.1:{next_hop.server_address[1]}"},
        directory={"aliases": [{"address": "out@localhost", "targets": ["x@other.example"]}]},
    )
    fresh.start()
    return fresh


def submit(server: Server, *recipients: str) -> None:
    with smtplib.SMTP("localhost", server.port("submission"), timeout=30) as client:
        client.starttls(context=ssl.create_default_context(cafile=server.facts["ca"]))
        client.login(server.facts["account"], server.facts["password"])
        client.sendmail(
            "you@localhost", recipients, b"From: you@localhost\r\nSubject: Figures\r\n\r\nx\r\n",
            mail_options=["ENVID=e1", "RET=HDRS"], rcpt_options=["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;first@far.example"],
        )  # fmt: skip


def reports(server: Server, count: int) -> dict[str, Strict]:
    """Wait for so many reports; return them by the action of their first recipient."""
    deadline = time.monotonic() + 30
    while True:
        client = imap(server)
        mails = [octets for octets in fetch_all(client).values() if b"report-type=delivery-status" in octets]
        client.logout()
        if len(mails) >= count or time.monotonic() > deadline:
            break
        time.sleep(0.1)
    found = [parse(octets[octets.index(b"\r\nDate: ") + 2 :]) for octets in mails]
    assert len(found) == count, mails
    return {strict.recipients[0]["Action"]: strict for strict in found}


def test_a_sender_hears_what_failed_and_what_went_to_a_host_without_dsn(sending: Server, next_hop: NextHop) -> None:
    submit(sending, "full@far.example", "fine@far.example")
    found = reports(sending, 2)
    (failed,) = found["failed"].recipients
    assert failed["Final-Recipient"] == "rfc822; full@far.example"
    assert failed["Original-Recipient"] == "rfc822; first@far.example"
    assert (failed["Status"], failed["Diagnostic-Code"]) == ("5.2.2", "smtp; 552 5.2.2 Mailbox full")
    assert found["failed"].message["Original-Envelope-Id"] == "e1"
    assert b"The mailbox of the recipient is full." in found["failed"].text
    assert found["failed"].media_types[2] == "text/rfc822-headers"
    assert found["relayed"].recipients[0]["Final-Recipient"] == "rfc822; fine@far.example"
    assert "NOTIFY" not in next_hop.wait_for(r"^RCPT TO:<fine@")


def test_a_host_with_dsn_gets_the_wishes_and_the_duty_to_report(sending: Server, next_hop: NextHop) -> None:
    next_hop.dsn = True
    submit(sending, "full@far.example", "fine@far.example")
    assert set(reports(sending, 1)) == {"failed"}
    assert {"RET=HDRS", "ENVID=e1"} <= set(next_hop.wait_for(r"^MAIL FROM:<you@").split())
    words = set(next_hop.wait_for(r"^RCPT TO:<fine@").split())
    assert "ORCPT=rfc822;first@far.example" in words
    assert words & {"NOTIFY=SUCCESS,FAILURE", "NOTIFY=FAILURE,SUCCESS"}


def test_forwarded_mail_leaves_under_our_reverse_path_and_its_bounce_comes_back(
    sending: Server, next_hop: NextHop
) -> None:
    port = sending.port("smtp")
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
        client.sendmail("alice@a.example", ["out@localhost"], b"Subject: on\r\n\r\nx\r\n")
    there = re.fullmatch(
        r"MAIL FROM:<(SRS0=[^>]*=a\.example=alice@localhost)>.*", next_hop.wait_for("^MAIL FROM:<SRS0")
    )
    assert there is not None
    next_hop.wait_for(r"^RCPT TO:<x@other\.example>")
    next_hop.wait_for(r"^Delivered-To: out@localhost$")
    with smtplib.SMTP("127.0.0.1", port, timeout=30) as client:
        client.sendmail("", [there[1]], b"Subject: back\r\n\r\nx\r\n")
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            client.sendmail("mallory@a.example", [there[1]], b"Subject: spam\r\n\r\nx\r\n")
    next_hop.wait_for(r"^RCPT TO:<alice@a\.example>")
