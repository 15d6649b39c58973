"""Debian's OpenDKIM and rspamd asked inside the chain of the running server, as any filter is."""

from __future__ import annotations

import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import dkim
import pytest
import tomli_w

from tests.system.mail import deliver, fetch_all, imap, smtp
from tests.system.milter_rig import PORTS, Daemon, opendkim, rspamd
from tests.system.rig import Server, program, run

MARK = b"JS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X\r\n"


class Running(NamedTuple):
    server: Server
    record: bytes
    dkim: Daemon


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("milters")
    done = run([program("opendkim-genkey"), "-D", folder, "-d", "example.org", "-s", "s1", "-b", "2048"])
    assert done.returncode == 0, done.stderr
    record = b"".join((folder / "s1.txt").read_bytes().split(b'"')[1::2])
    signer = opendkim(folder, {
        "Mode": "s", "Domain": "example.org", "Selector": "s1", "KeyFile": str(folder / "s1.private"),
        "Canonicalization": "simple/simple", "OversignHeaders": "From",
    })  # fmt: skip
    scanner = rspamd(folder)
    server = Server(folder / "data")
    table = tomllib.loads(server.livemail("config", "show").stdout)
    table["filter"] = [
        {"use": "milter", "name": "rspamd", "socket": f"inet:{PORTS['rspamd']}@127.0.0.1", "reuse": True},
        {"use": "milter", "name": "opendkim", "socket": f"inet:{PORTS['opendkim']}@127.0.0.1", "on_failure": "skip"},
    ]
    (folder / "livemail.toml").write_text(tomli_w.dumps(table))
    try:
        server.start()  # once with the local profile, which makes the account
        server.stop()
        server.arguments = ["--config", str(folder / "livemail.toml")]
        server.start()
        yield Running(server, record, signer)
    finally:
        server.kill()
        scanner.stop()
        signer.stop()


def message(subject: str, body: bytes) -> bytes:
    return (
        f"From: Ann <ann@example.org>\r\nTo: you@localhost\r\nSubject: {subject}\r\n\tfolded  twice\r\nDate: Wed, 25 Nov 2026"
        f" 10:00:00 +0000\r\nMessage-ID: <{subject.replace(' ', '')}@example.org>\r\n\r\n"
    ).encode() + body


def stored(server: Server, subject: str) -> bytes:
    client = imap(server)
    found = [
        octets
        for octets in fetch_all(client).values()
        if f"Subject: {subject}".encode() in octets or f" {subject}".encode() in octets
    ]
    client.logout()
    assert len(found) == 1, found
    return found[0]


def test_opendkim_signs_and_what_is_stored_verifies_to_the_octet(running: Running) -> None:
    octets = message("signed one", b"two  spaces \r\n\r\n.dot\r\nlast\r\n\r\n\r\n")
    with smtp(running.server) as client:
        client.ehlo()
        assert deliver(client, "you@localhost", octets)[0] == 250
    kept = stored(running.server, "signed one")
    assert b"DKIM-Signature: v=1; a=rsa-sha256; c=simple/simple; d=example.org; s=s1;" in kept
    assert dkim.verify(kept, dnsfunc=lambda *_, **__: running.record)
    assert not dkim.verify(kept.replace(b"last", b"lost"), dnsfunc=lambda *_, **__: running.record)
    assert kept.endswith(octets)


def test_rspamd_rejects_in_its_words(running: Running) -> None:
    with smtp(running.server) as client:
        client.ehlo()
        assert deliver(client, "you@localhost", message("rejected", b"X" + MARK)) == (554, b"5.7.1 Gtube pattern")
        assert deliver(client, "you@localhost", message("after it", b"fine\r\n"))[0] == 250


def test_rspamd_changes_a_header_and_opendkim_behind_it_signs_the_change(running: Running) -> None:
    with smtp(running.server) as client:
        client.ehlo()
        assert deliver(client, "you@localhost", message("rewritten", b"Z" + MARK))[0] == 250
        assert deliver(client, "you@localhost", message("tagged", b"Y" + MARK))[0] == 250
    kept = stored(running.server, "rewritten")
    assert b"Subject: *** SPAM ***" in kept
    assert dkim.verify(kept, dnsfunc=lambda *_, **__: running.record)
    assert b"X-Spam: Yes\r\n" in stored(running.server, "tagged")


def test_rspamd_serves_many_clients_on_few_connections_and_does_not_mix_them_up(running: Running) -> None:
    for number in range(6):
        with smtp(running.server) as client:
            client.ehlo()
            mark = b"X" + MARK if number % 2 else b"fine\r\n"
            code = 554 if number % 2 else 250
            assert deliver(client, "you@localhost", message(f"reused {number}", mark))[0] == code
    log = (running.server.data.parent / "rspamd" / "log").read_text(errors="replace")
    assert 0 < log.count("accepted milter connection") < 6


def test_a_milter_that_dies_is_skipped_where_that_is_allowed_and_mail_goes_on(running: Running) -> None:
    running.dkim.stop()
    with smtp(running.server) as client:
        client.ehlo()
        assert deliver(client, "you@localhost", message("unsigned", b"body\r\n"))[0] == 250
    assert b"DKIM-Signature" not in stored(running.server, "unsigned")
    assert "opendkim" in running.server.output()


def test_miltertest_speaks_to_our_milter(tmp_path: Path) -> None:
    """Debian's miltertest plays the MTA by its own rules."""
    from tests.system.milter_rig import LivemailMilter

    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "tagging.py").write_text(
        "from livemail.filters import CONTINUE, Filter\n"
        "class Tag(Filter):\n"
        "    async def message(self, tx, message):\n"
        "        message.change_header('Subject', 'tagged')\n"
        "        message.add_header('X-Tag', 'yes')\n"
        "        message.replace_body(b'new\\r\\n')\n"
        "        return CONTINUE\n"
    )
    script = tmp_path / "dialogue.lua"
    script.write_text(
        f"""
conn = mt.connect("inet:{PORTS["milter"]}@127.0.0.1")
assert(conn ~= nil, "no connection")
assert(mt.conninfo(conn, "client.example", "192.0.2.7") == nil)
assert(mt.getreply(conn) == SMFIR_CONTINUE)
assert(mt.helo(conn, "client.example") == nil)
assert(mt.macro(conn, SMFIC_MAIL, "i", "t-1") == nil)
assert(mt.mailfrom(conn, "ann@example.org") == nil)
assert(mt.getreply(conn) == SMFIR_CONTINUE)
assert(mt.rcptto(conn, "ben@example.org") == nil)
assert(mt.data(conn) == nil)
assert(mt.header(conn, "Subject", "plain") == nil)
assert(mt.header(conn, "From", "ann@example.org") == nil)
assert(mt.eoh(conn) == nil)
assert(mt.bodystring(conn, "old\\r\\n") == nil)
assert(mt.eom(conn) == nil)
assert(mt.getreply(conn) == SMFIR_CONTINUE)
assert(mt.eom_check(conn, MT_HDRCHANGE, "Subject", "tagged") or mt.eom_check(conn, MT_HDRCHANGE, "Subject", " tagged"))
assert(mt.eom_check(conn, MT_HDRADD, "X-Tag", "yes") or mt.eom_check(conn, MT_HDRADD, "X-Tag", " yes"))
assert(mt.eom_check(conn, MT_BODYCHANGE, "new\\r\\n"))
mt.disconnect(conn)
"""
    )
    milter = LivemailMilter(tmp_path, ["--filter", "tagging:Tag"], tmp_path / "modules")
    try:
        done = run([program("miltertest"), "-s", script], seconds=60)
        assert done.returncode == 0, done.stdout + done.stderr + milter.output()
    finally:
        assert milter.stop() == 0, milter.output()
    assert isinstance(done, subprocess.CompletedProcess)
