"""mbsync (isync): a two-way sync with flag changes and deletions on both sides."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.system.mail import deliver, fetch_all, imap, smtp
from tests.system.rig import Server, program, run

CONFIGURATION = """
IMAPAccount local
Host 127.0.0.1
Port {port}
User {user}
Pass {password}
{tls}
AuthMechs LOGIN

IMAPStore far
Account local

MaildirStore near
Path {path}/
Inbox {path}/INBOX
SubFolders Verbatim

Channel all
Far :far:
Near :near:
Patterns * !"Outbox (captured)"
Create Both
Remove Both
Expunge Both
SyncState *
"""


@pytest.fixture
def box(server: Server, tmp_path: Path) -> tuple[Path, Path]:
    maildir = tmp_path / "maildir"
    maildir.mkdir()
    version = run([program("mbsync"), "--version"]).stdout
    tls = "TLSType None" if "1.5" in version else "SSLType None"
    file = tmp_path / "mbsyncrc"
    file.write_text(
        CONFIGURATION.format(
            port=server.port("imap"),
            user=server.facts["account"],
            password=server.facts["password"],
            path=maildir,
            tls=tls,
        )
    )
    return file, maildir


def _sync(configuration: Path) -> None:
    done = run([program("mbsync"), "-c", configuration, "-a"])
    assert done.returncode == 0, done.stdout + done.stderr


def _files(maildir: Path) -> dict[str, Path]:
    """Subject → file of every message in the local INBOX."""
    found = {}
    for file in [*maildir.glob("INBOX/cur/*"), *maildir.glob("INBOX/new/*")]:
        for line in file.read_bytes().splitlines():
            if line.startswith(b"Subject: "):
                found[line[9:].decode()] = file
                break
    return found


def test_two_way_sync_agrees_after_changes_on_both_sides(server: Server, box: tuple[Path, Path]) -> None:
    configuration, maildir = box
    with smtp(server) as client:
        client.ehlo()
        for number in range(20):
            code, text = deliver(client, "you@localhost", b"Subject: sync %d\r\n\r\nbody %d\r\n" % (number, number))
            assert code == 250, text
    _sync(configuration)
    local = _files(maildir)
    assert {f"sync {number}" for number in range(20)} <= set(local)

    # Near: flag one, delete one, add one.  Far: flag one, delete one, add one.
    for subject, flags in (("sync 1", "FS"), ("sync 2", "ST")):
        file = local[subject]
        file.rename(maildir / "INBOX/cur" / (file.name.split(":2,")[0] + ":2," + flags))
    (maildir / "INBOX/cur/1700000000.made.here:2,S").write_bytes(b"Subject: near made\n\nnear\n")
    session = imap(server)
    session.select("INBOX")
    (answer,) = session.search(None, "SUBJECT", '"sync 3"')[1]
    session.store(answer.split()[0], "+FLAGS", "(\\Flagged \\Answered)")
    (answer,) = session.search(None, "SUBJECT", '"sync 4"')[1]
    session.store(answer.split()[0], "+FLAGS", "(\\Deleted)")
    session.expunge()
    session.append("INBOX", None, None, b"Subject: far made\r\n\r\nfar\r\n")
    session.logout()

    _sync(configuration)
    _sync(configuration)  # nothing is left to do: idempotent

    local = _files(maildir)
    session = imap(server)
    session.select("INBOX")
    subjects = {}
    for item in session.fetch("1:*", "(FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])")[1]:
        if isinstance(item, tuple):
            subjects[item[1].decode().strip().removeprefix("Subject: ")] = item[0].decode()
    session.logout()
    assert {name for name in subjects if "sync" in name or "made" in name} == {
        name for name in local if "sync" in name or "made" in name
    }
    assert "sync 2" not in subjects
    assert "sync 4" not in subjects
    assert {"near made", "far made"} <= set(subjects)
    assert "\\Flagged" in subjects["sync 1"]
    assert "\\Seen" in subjects["sync 1"]
    assert set("FR") <= set(local["sync 3"].name.split(":2,")[1])


def test_a_mailbox_made_on_either_side_appears_on_the_other(server: Server, box: tuple[Path, Path]) -> None:
    configuration, maildir = box
    session = imap(server)
    session.create("Projects/Far")
    session.append('"Projects/Far"', None, None, b"Subject: in far\r\n\r\nx\r\n")
    session.logout()
    for part in ("cur", "new", "tmp"):
        (maildir / "Near" / part).mkdir(parents=True)
    (maildir / "Near/cur/1.m.h:2,").write_bytes(b"Subject: in near\n\ny\n")
    _sync(configuration)
    assert list(maildir.glob("Projects/Far/*/*"))
    session = imap(server)
    found = fetch_all(session, "Near")
    session.logout()
    assert [b"Subject: in near" in octets for octets in found.values()] == [True]
