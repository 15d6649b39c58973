"""Debian's Postfix asks livemail's chain as its milter; what comes of it is looked at where Postfix relays to."""

from __future__ import annotations

import contextlib
import smtplib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.far_end import Arrived, FarEnd, Postfix
from tests.system.milter_rig import PORTS, LivemailMilter

FILTERS = '''
from livemail.filters import CONTINUE, Accept, Defer, Discard, Filter, Quarantine, Reject
from livemail.mail.address import Address, Path


class Marker(Filter):
    """Edits every message, so that the next filter has edits of another in front of it."""

    async def message(self, tx, message):
        message.insert_header("X-Mark", f"{tx.connection.peer} {tx.helo} {len(tx.recipients)}")
        return CONTINUE


class Obedient(Filter):
    """Does what the field X-Action says."""

    async def rcpt(self, tx, recipient):
        local = recipient.path.address.local_part
        if local == "refused":
            return Reject("5.7.13", "not him, 100%")
        return Defer("4.7.13", "not now") if local == "deferred" else CONTINUE

    async def message(self, tx, message):
        assert message.values("X-Mark"), "the edits of the filter before are seen"
        action = message.text("X-Action")
        if action == "header":
            message.insert_header("X-Top", "top")
            message.insert_header("X-Between", "between", 3)
            message.change_header("Subject", "changed subject")
            message.remove_header("X-Gone", 1)
            message.add_header("X-Bottom", b"folded\\r\\n\\tvalue")
        elif action == "body":
            message.replace_body(b"".join(b"new line %d\\r\\n" % number for number in range(20000)) + b".dot\\r\\n")
        elif action == "empty":
            message.replace_body(b"")
        elif action == "recipients":
            tx.add_recipient(Address("added", "example.net"))
            tx.remove_recipient(Path(Address("removed", "example.net")))
        elif action == "reverse-path":
            tx.change_reverse_path(Path(Address("bounces", "example.org")))
        elif action == "everything":
            message.change_header("Subject", "everything")
            message.replace_body(b"everything\\r\\n")
            tx.add_recipient(Address("added", "example.net"))
            tx.change_reverse_path(Path.null)
        elif action == "fail":
            raise RuntimeError("as asked")
        verdicts = {
            "quarantine": Quarantine("as asked"), "reject": Reject("5.7.12", "as asked: 50%"), "discard": Discard(),
            "defer": Defer("4.7.12", "as asked"), "accept": Accept(),
        }
        return verdicts.get(action, CONTINUE)
'''

CONFIGURATION = """
data = "data"
hostname = "front.example"
[storage]
reserve_octets = 0
reserve_percent = 0
[[filter]]
use = "acting:Marker"
[[filter]]
use = "acting:Obedient"
"""


class Front:
    def __init__(self, postfix: Postfix, far_end: FarEnd, milter: LivemailMilter) -> None:
        self.postfix, self.far_end, self.milter = postfix, far_end, milter
        self._number = 0

    def send(self, action: str, *recipients: str, body: bytes = b"old body\r\n") -> str:
        """Send a message; its name, by which the far end knows it.  Raises SMTPResponseException."""
        self._number += 1
        name = f"message {self._number}"
        octets = (
            f"X-First: first\r\nSubject: {name}\r\nX-Action: {action}\r\nX-Gone: stays\r\nX-Gone: goes\r\n"
            f"X-Name: {name}\r\nTo: someone@example.net\r\n\r\n"
        ).encode() + body
        with self.postfix.client() as client:
            client.sendmail("ann@example.org", list(recipients) or ["ben@example.net"], octets)
        return name

    def arrived(self, action: str, *recipients: str, body: bytes = b"old body\r\n") -> Arrived:
        name = self.send(action, *recipients, body=body)
        try:
            return self.far_end.wait_for(lambda each: f"X-Name: {name}".encode() in each.header)
        except AssertionError:
            raise AssertionError(self.postfix.output() + self.milter.output()) from None

    def refused(self, action: str) -> tuple[int, bytes]:
        before = len(self.far_end.arrived)
        with pytest.raises(smtplib.SMTPDataError) as caught:
            self.send(action)
        assert len(self.far_end.arrived) == before
        return caught.value.smtp_code, caught.value.smtp_error


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    folder = tmp_path_factory.mktemp("front")
    modules = folder / "modules"
    modules.mkdir()
    (modules / "acting.py").write_text(FILTERS)
    (folder / "milter.toml").write_text(CONFIGURATION)
    (folder / "data").mkdir(mode=0o700)
    with contextlib.ExitStack() as running:
        far_end = FarEnd(PORTS["far"])
        running.callback(far_end.close)
        milter = LivemailMilter(folder, ["--config", str(folder / "milter.toml")], modules)
        running.callback(milter.stop)
        postfix = Postfix(folder, PORTS["postfix"], PORTS["far"], f"inet:127.0.0.1:{PORTS['milter']}")
        running.callback(postfix.stop)
        yield Front(postfix, far_end, milter)


def test_header_edits_stand_where_they_would_stand_in_process(front: Front) -> None:
    header = front.arrived("header").header
    names = [field.partition(b":")[0] for field in header]
    assert names[:5] == [b"X-Top", b"X-Mark", b"Received", b"X-Between", b"X-First"]
    rest = header[3:]
    assert b"Subject: changed subject" in rest
    assert b"X-Gone: stays" in rest
    assert b"X-Gone: goes" not in rest
    assert b"X-Bottom: folded value" in rest
    assert b"X-Mark: 127.0.0.1 client.example 1" in header


def test_a_body_is_replaced_whole(front: Front) -> None:
    body = b"".join(b"new line %d\r\n" % number for number in range(20000)) + b".dot\r\n"
    assert front.arrived("body", body=b"old line\r\n" * 30_000).body == body
    assert front.arrived("empty").body == b""


def test_recipients_are_added_and_removed(front: Front) -> None:
    arrived = front.arrived("recipients", "removed@example.net", "kept@example.net")
    assert sorted(arrived.recipients) == ["added@example.net", "kept@example.net"]


def test_the_reverse_path_is_changed(front: Front) -> None:
    assert front.arrived("reverse-path").reverse_path == "bounces@example.org"


def test_all_kinds_of_edits_of_one_message_are_made(front: Front) -> None:
    arrived = front.arrived("everything", "kept@example.net")
    assert (arrived.reverse_path, arrived.body) == ("", b"everything\r\n")
    assert sorted(arrived.recipients) == ["added@example.net", "kept@example.net"]
    assert b"Subject: everything" in arrived.header


def test_a_message_that_is_not_edited_is_left_as_it_is(front: Front) -> None:
    body = b"caf\xc3\xa9 \xff\r\n.\r\n..\r\n" + b"x" * 900 + b"\r\n"
    arrived = front.arrived("accept", body=body.replace(b"\r\n.", b"\r\n."))
    assert arrived.body == body


def test_quarantine_is_on_hold(front: Front) -> None:
    before = len(front.far_end.arrived)
    name = front.send("quarantine")
    held = front.postfix.held()
    assert any(f"X-Name: {name}".encode() in each for each in held), held
    assert len(front.far_end.arrived) == before


def test_reject_and_tempfail_are_said_in_our_words(front: Front) -> None:
    assert front.refused("reject") == (550, b"5.7.12 as asked: 50%")
    assert front.refused("defer") == (451, b"4.7.12 as asked")


def test_discard_is_accepted_and_arrives_nowhere(front: Front) -> None:
    before = len(front.far_end.arrived)
    name = front.send("discard")
    front.arrived("")  # a later one has come through
    assert len(front.far_end.arrived) == before + 1
    assert not any(name.encode() in each.octets for each in front.far_end.arrived)


def test_one_recipient_is_refused_and_the_others_are_not(front: Front) -> None:
    with front.postfix.client() as client:
        client.docmd("EHLO client.example")
        client.docmd("MAIL FROM:<ann@example.org>")
        assert client.docmd("RCPT TO:<refused@example.net>") == (550, b"5.7.13 not him, 100%")
        assert client.docmd("RCPT TO:<deferred@example.net>") == (451, b"4.7.13 not now")
        assert client.docmd("RCPT TO:<kept@example.net>")[0] == 250
        client.docmd("DATA")
        client.send(b"X-Name: only kept\r\n\r\nbody\r\n.\r\n")
        assert client.getreply()[0] == 250
    assert front.far_end.wait_for(lambda each: b"X-Name: only kept" in each.header).recipients == ["kept@example.net"]


def test_a_filter_that_fails_defers_and_the_log_names_it_and_its_line(front: Front) -> None:
    code, text = front.refused("fail")
    assert (code, text) == (451, b"4.3.0 The message could not be checked, try again later")
    log = front.milter.output()
    assert "acting:Obedient" in log
    assert "acting.py:" in log
    assert "as asked" in log


def test_several_messages_of_one_connection_do_not_meet(front: Front) -> None:
    with front.postfix.client() as client:
        for number in range(3):
            client.sendmail(
                "ann@example.org", ["ben@example.net"], f"X-Name: row {number}\r\n\r\n{number}\r\n".encode()
            )
            client.docmd("MAIL FROM:<ann@example.org>")
            client.docmd("RSET")
    for number in range(3):
        arrived = front.far_end.wait_for(lambda each, number=number: f"X-Name: row {number}".encode() in each.header)
        assert arrived.body == f"{number}\r\n".encode()
        assert sum(field.startswith(b"X-Mark:") for field in arrived.header) == 1


def test_a_large_message_passes_in_little_memory(front: Front, tmp_path: Path) -> None:
    body = (b"z" * 98 + b"\r\n") * 300_000
    status = Path(f"/proc/{front.milter.process.pid}/status")
    Path(f"/proc/{front.milter.process.pid}/clear_refs").write_text("5")
    assert len(front.arrived("", body=body).body) == len(body)
    peak = int(next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM")))
    resident = int(next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmRSS")))
    assert peak - resident < 8 * 1024, (peak, resident)
    spool = list((tmp_path.parent / "front0").rglob("milter/*/*"))
    assert not spool
