"""In from Dovecot and out to it again, with real files, real servers, real kills."""

from __future__ import annotations

import contextlib
import imaplib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system.dovecot import Dovecot
from tests.system.mail import shapes
from tests.system.rig import BIN, Server, program, run

COUNT = int(os.environ.get("LIVEMAIL_TEST_MESSAGES", "1200"))
MAILBOXES = ("INBOX", "Sent", "Work/Ünder.dot")
FOLDERS = {"INBOX": "", "Sent": ".Sent", "Work/Ünder.dot": None}


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[[Path], Dovecot]]:
    running: list[Dovecot] = []

    def start(maildir: Path) -> Dovecot:
        running.append(Dovecot(tmp_path / f"dovecot{len(running)}", maildir))
        return running[-1]

    yield start
    for each in running:
        each.stop()


@pytest.fixture
def source(tmp_path: Path, serve: Callable[[Path], Dovecot]) -> tuple[Path, Dovecot]:
    """A Maildir that Dovecot has written: several mailboxes, flags, keywords, dates, gaps in the UIDs."""
    maildir = tmp_path / "source"
    dovecot = serve(maildir)
    client = dovecot.imap()
    chance = random.Random(3)
    makers = shapes(5)
    for mailbox in ("INBOX", "Sent", "Work"):
        if mailbox != "INBOX":
            client.create(mailbox)
        for number in range(COUNT // 20):
            flags = " ".join(
                flag for flag in ("\\Seen", "\\Answered", "\\Flagged", "$Work", "later") if chance.random() < 0.3
            )
            date = imaplib.Time2Internaldate(1_400_000_000 + number * 1000)
            octets = next(makers).replace(b"\r\n", b"\n").replace(b"\r", b"").replace(b"\n", b"\r\n") or b"x\r\n"
            assert client.append(mailbox, f"({flags})", date, octets)[0] == "OK"
    # The bulk comes as local deliveries; Dovecot gives it UIDs when the mailbox is opened.
    for number in range(COUNT - 3 * (COUNT // 20)):
        name = f"{1_500_000_000 + number}.bulk{number}.host"
        path = maildir / "cur" / f"{name}:2,{'S' if number % 2 else ''}"
        path.write_bytes(
            b"From: a@example.org\nSubject: bulk %d\nMessage-ID: <b%d@x>\n\n%s\n" % (number, number, b"line\n" * 700)
        )
    client.select("INBOX")
    client.uid("STORE", "1:3", "+FLAGS.SILENT", "(\\Deleted)")
    client.expunge()
    client.logout()
    return maildir, dovecot


@pytest.fixture
def livemail(fresh: Server) -> Server:
    fresh.start()
    added = fresh.livemail("account", "add", "ann", "--password-stdin", stdin="x\n")
    assert added.returncode == 0, added.stderr
    return fresh


def content_of(client: imaplib.IMAP4) -> dict[str, dict[int, tuple[bytes, frozenset[str], str]]]:
    """Octets, flags and internal date by UID, of each mailbox that has messages."""
    found: dict[str, dict[int, tuple[bytes, frozenset[str], str]]] = {}
    for row in client.list()[1]:
        assert isinstance(row, bytes)
        name = row.rpartition(b'"/" ')[2].strip(b'"').decode()
        assert client.select(f'"{name}"', readonly=True)[0] == "OK"
        for part in client.uid("FETCH", "1:*", "(FLAGS INTERNALDATE BODY.PEEK[])")[1]:
            if isinstance(part, tuple):
                head = part[0].decode()
                uid = int(head.partition("UID ")[2].split()[0])
                flags = frozenset(head.partition("FLAGS (")[2].partition(")")[0].split()) - {"\\Recent"}
                date = imaplib.Internaldate2tuple(part[0])
                found.setdefault(name, {})[uid] = (part[1], flags, time.strftime("%s", date) if date else "")
    return found


def ours(server: Server) -> imaplib.IMAP4:
    client = imaplib.IMAP4(*server.address("imap"), timeout=60)
    client.login("ann@localhost", "x")
    return client


@contextlib.contextmanager
def slowed(server: Server) -> Iterator[None]:
    """The server runs for 2 ms of every 20, so that what takes it no time has a middle."""
    over = threading.Event()

    def pace() -> None:
        while not over.wait(0.002):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGSTOP)
                over.wait(0.018)
                os.killpg(server.pid, signal.SIGCONT)

    pacer = threading.Thread(target=pace)
    pacer.start()
    try:
        yield
    finally:
        over.set()
        pacer.join()


def kill_twice(server: Server, arguments: list[str]) -> None:
    """Begin, and kill -9 the command in mid-work; then begin again, and kill -9 the server."""
    for victim in ("command", "server"):
        watch = ours(server)
        before = _imported(watch)
        with (
            slowed(server),
            subprocess.Popen(
                [str(BIN / "livemail"), "--data", str(server.data), *arguments],
                env=server.environment,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            ) as command,
        ):
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and _imported(watch) <= before and command.poll() is None:
                time.sleep(0.005)
            assert command.poll() is None, f"the import had ended before the {victim} was killed"
            if victim == "command":
                os.killpg(command.pid, signal.SIGKILL)
                # What it was at is committed yet; seen in the second round, it would pass for the second command's.
                while time.monotonic() < deadline and "the work was left where it was" not in server.output():
                    time.sleep(0.02)
            else:
                server.kill()
                assert command.wait(30) != 0
        if victim == "server":
            server.start()


def _imported(client: imaplib.IMAP4) -> int:
    """Over an open connection: a command of its own takes longer than the whole import may."""
    row = client.status("INBOX", "(MESSAGES)")[1][0]
    assert isinstance(row, bytes)
    return int(row.rpartition(b"MESSAGES ")[2].rstrip(b")"))


def mbsync(folder: Path, port: int) -> dict[str, int]:
    """Pull everything; return how many files there are in each mailbox after it."""
    folder.mkdir(exist_ok=True)
    (folder / "rc").write_text(
        f"IMAPAccount a\nHost 127.0.0.1\nPort {port}\nUser any\nPass x\nSSLType None\nAuthMechs LOGIN\n\nIMAPStore far\nAccount a\n\n"
        f"MaildirStore near\nPath {folder}/mail/\nInbox {folder}/mail/INBOX\nSubFolders Verbatim\n\n"
        f"Channel c\nFar :far:\nNear :near:\nPatterns *\nCreate Near\nSync Pull\nSyncState *\n"
    )
    (folder / "mail").mkdir(exist_ok=True)
    done = run([program("mbsync"), "-c", folder / "rc", "-V", "-a"], seconds=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return {
        str(path.parent.relative_to(folder)): sum(1 for part in ("cur", "new") for _ in (path.parent / part).iterdir())
        for path in folder.rglob("cur")
    }


def test_dovecots_mail_comes_in_and_goes_out_with_its_uids_and_mbsync_sees_no_change(
    source: tuple[Path, Dovecot], livemail: Server, serve: Callable[[Path], Dovecot], tmp_path: Path
) -> None:
    maildir, dovecot = source
    synced = mbsync(tmp_path / "sync", dovecot.port)
    before = content_of(dovecot.imap())
    arguments = ["import", "maildir", str(maildir), "--account", "ann", "--keep-uids"]
    kill_twice(livemail, arguments)
    began = time.monotonic()
    done = livemail.livemail(*arguments, "--json", seconds=600)
    seconds = time.monotonic() - began
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(done.stdout)
    sys.stderr.write(f"{result['imported']} messages in {seconds:.1f} s, peak {livemail.memory('VmHWM') // 1024} MiB\n")
    after = content_of(ours(livemail))
    assert {name: rows for name, rows in after.items() if rows} == before
    assert sum(map(len, after.values())) == COUNT - 3

    exported = livemail.livemail("export", "maildir", str(tmp_path / "out"), "--account", "ann", "--json", seconds=600)
    assert exported.returncode == 0, exported.stdout + exported.stderr
    dovecot.stop()
    second = serve(tmp_path / "out")
    assert {name: rows for name, rows in content_of(second.imap()).items() if rows} == before
    assert synced.items() <= mbsync(tmp_path / "sync", second.port).items()
    checked = livemail.livemail("store", "check", "--json", seconds=300)
    assert checked.returncode == 0, checked.stdout


def test_an_imap_account_comes_in_over_tls_and_only_what_is_new_comes_again(
    source: tuple[Path, Dovecot], livemail: Server, tmp_path: Path
) -> None:
    _, dovecot = source
    address = f"imap://any@127.0.0.1:{dovecot.port}"
    first = livemail.livemail(
        "import",
        "imap",
        address,
        "--account",
        "ann",
        "--keep-uids",
        "--password-stdin",
        "--json",
        stdin="x\n",
        seconds=300,
    )
    assert first.returncode == 0, first.stdout + first.stderr
    assert content_of(ours(livemail)) == content_of(dovecot.imap())
    dovecot.imap().append("INBOX", None, None, b"Subject: new\r\n\r\nnew\r\n")
    again = livemail.livemail("import", "imap", address, "--account", "ann", "--password-stdin", "--json", stdin="x\n")
    result = json.loads(again.stdout)
    assert (result["imported"], result["known"]) == (1, COUNT - 3)

    # From ourselves, by TLS: an authority that is not named is not trusted.
    assert livemail.livemail("account", "add", "bob", "--password-stdin", stdin="x\n").returncode == 0
    tls = f"imaps://ann%40localhost@localhost:{livemail.port('imaps')}"
    refused = livemail.livemail("import", "imap", tls, "--account", "bob", "--password-stdin", stdin="x\n")
    assert refused.returncode == 65
    assert "--ca FILE" in refused.stderr
    batch = tmp_path / "batch"
    batch.write_text(f"bob\t{tls}\tx\nnobody\t{tls}\tx\n")
    brought = livemail.livemail(
        "import", "imap", "--batch", str(batch), "--ca", livemail.facts["ca"], "--json", seconds=300
    )
    results = json.loads(brought.stdout)
    assert results[0]["imported"] == COUNT - 2
    assert "no account nobody" in results[1]["error"]
    assert brought.returncode == 1


def test_words_for_what_cannot_be_imported(livemail: Server, tmp_path: Path) -> None:
    for arguments, words, status in (
        (["maildir", str(tmp_path / "nowhere"), "--account", "ann"], "cannot be read: No such file", 65),
        (["mbox", str(tmp_path / "nowhere"), "--account", "ann"], "does not exist", 65),
        (["mbox", str(tmp_path), "--account", "ghost"], "no account ghost@localhost", 67),
        (["mbox", str(tmp_path)], "--account NAME", 64),
        (["mbox", "--account", "ann"], "write the SOURCE", 64),
        (["imap", "mail.example.org", "--account", "ann", "--password-stdin"], "write imaps://user@host", 65),
        (
            ["imap", "imaps://a:b@127.0.0.1", "--account", "ann", "--password-stdin"],
            "does not belong in an address",
            65,
        ),
        (["imap", "imap://a@127.0.0.1:1", "--account", "ann", "--password-stdin"], "cannot be reached", 65),
    ):
        done = livemail.livemail("import", *arguments, stdin="x\n")
        assert words in done.stderr, done.stderr
        assert done.returncode == status
    (tmp_path / "file").touch()
    done = livemail.livemail("export", "mbox", str(tmp_path / "file" / "below"), "--account", "ann")
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
