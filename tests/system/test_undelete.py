"""A message is lost by IMAP and comes back by the command, beside the server and without it, in both kinds of storage."""

from __future__ import annotations

import imaplib
import json

import pytest

from tests.system.rig import Server


def imap(server: Server, name: str) -> imaplib.IMAP4:
    client = imaplib.IMAP4(*server.address("imap"), timeout=30)
    client.login(f"{name}@localhost", "x")
    return client


def said(server: Server, *words: str, status: int = 0) -> dict:
    done = server.livemail("message", *words, "--json")
    assert done.returncode == status, done.stdout + done.stderr
    return json.loads(done.stdout if not status else done.stderr or done.stdout)


@pytest.fixture
def running(fresh: Server) -> Server:
    """A server with an account in segments and one in a Maildir."""
    fresh.start()
    fresh.add_account("ann", "x")
    fresh.stop()
    fresh.configure(storage={"default": "maildir"})
    fresh.start()
    fresh.add_account("mia", "x")
    return fresh


@pytest.mark.parametrize("name", ["ann", "mia"])
def test_expunged_and_deleted_mail_comes_back(running: Server, name: str) -> None:
    client = imap(running, name)
    client.create("Work")
    octets = [
        b"From: Bo <bo@example.org>\r\nSubject: m%d\r\nMessage-ID: <m%d@x>\r\n\r\nbody\r\n" % (at, at)
        for at in range(4)
    ]
    for at, each in enumerate(octets):
        client.append("INBOX" if at < 2 else "Work", "(\\Seen $Later)", None, each)
    client.select("INBOX")
    client.store("1:*", "+FLAGS.SILENT", "(\\Deleted)")
    client.expunge()
    client.delete("Work")

    listed = said(running, "deleted", "--account", name)
    assert {each["subject"] for each in listed["messages"]} == {"m0", "m1", "m2", "m3"}
    shown = running.livemail("message", "deleted", "--account", name).stdout
    assert "Bo <bo@example.org>  m0" in shown
    assert "4 deleted messages of" in shown
    assert "4 deleted messages can come back" in running.livemail("account", "show", name).stdout

    # One by its Message-ID, while the client looks on; then, without a server, the rest.
    assert said(running, "undelete", "<m1@x>", "--account", name)["mailboxes"] == {"INBOX": 1}
    client.noop()
    _, (found,) = client.uid("SEARCH", "SUBJECT", "m1")
    _, parts = client.uid("FETCH", found.decode(), "(FLAGS BODY.PEEK[])")
    assert isinstance(parts[0], tuple)
    assert parts[0][1] == octets[1]
    assert b"\\Seen" in parts[0][0] + parts[-1]
    assert b"\\Deleted" not in parts[0][0] + parts[-1]
    running.stop()
    nothing = running.livemail("message", "undelete", "--account", name)
    assert nothing.returncode == 64
    assert "--all" in nothing.stderr
    everything = running.livemail("message", "undelete", "--all", "--account", name)
    assert everything.stdout == "1 message back in INBOX\n2 messages back in Work\n", everything.stderr
    checked = running.livemail("store", "check")
    assert (checked.returncode, "no problems" in checked.stdout) == (0, True), checked.stdout
    running.start()
    client = imap(running, name)
    client.select("Work")
    _, (found,) = client.search(None, "KEYWORD", "$Later")
    assert len(found.split()) == 2


def test_purging_asks_and_a_kill_loses_nothing_that_is_kept(running: Server) -> None:
    client = imap(running, "ann")
    for at in range(3):
        client.append("INBOX", "", None, b"Subject: m%d\r\n\r\n" % at)
    client.select("INBOX")
    client.store("1:*", "+FLAGS.SILENT", "(\\Deleted)")
    client.expunge()
    running.kill()
    running.start()
    assert said(running, "deleted", "--account", "ann")["count"] == 3
    unsure = running.livemail("message", "purge", "--text", "m0", "--account", "ann")
    assert unsure.returncode == 64
    assert "--yes" in unsure.stderr
    assert said(running, "purge", "--text", "m0", "--account", "ann", "--yes")["purged"] == 1
    assert said(running, "deleted", "--account", "ann")["count"] == 2
