"""One Maildir, three programs: livemail, Dovecot and mutt, while procmail-like deliveries come in; at the end all agree."""

from __future__ import annotations

import imaplib
import itertools
import os
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.dovecot import Dovecot
from tests.system.rig import Server, program
from tests.system.test_mutt import Terminal

SECONDS = float(os.environ.get("LIVEMAIL_TEST_SECONDS", "8"))
NAME = "ann@localhost"
FLAGS = ("\\Seen", "\\Flagged", "\\Answered", "$Work")
FIELD = re.compile(rb"Subject: (\S+)")
FLAG_LIST = re.compile(rb"FLAGS \(([^)]*)\)")


@pytest.fixture
def shared(fresh: Server) -> Server:
    fresh.start()
    fresh.stop()
    fresh.configure(storage={"default": "maildir"})
    fresh.start()
    added = fresh.livemail("account", "add", NAME, "--password-stdin", stdin="x\n")
    assert added.returncode == 0, added.stderr
    return fresh


@pytest.fixture
def maildir(shared: Server) -> Path:
    return shared.data / "maildir" / "localhost" / "ann"


@pytest.fixture
def dovecot(tmp_path: Path, maildir: Path) -> Iterator[Dovecot]:
    running = Dovecot(tmp_path / "dovecot", maildir)
    yield running
    running.stop()


def ours(server: Server) -> imaplib.IMAP4:
    client = imaplib.IMAP4(*server.address("imap"), timeout=30)
    client.login(NAME, "x")
    return client


def message(subject: str) -> bytes:
    return f"From: a@example.org\r\nSubject: {subject}\r\nMessage-ID: <{subject}@x>\r\n\r\n{subject}\r\n".encode()


def drop(maildir: Path, subject: str) -> None:
    """As procmail or maildrop deliver."""
    name = f"{int(time.time())}.{subject}.host"
    (maildir / "tmp" / name).write_bytes(message(subject).replace(b"\r\n", b"\n"))
    (maildir / "tmp" / name).rename(maildir / "new" / name)


def listed(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def seen_by(client: imaplib.IMAP4) -> Counter[tuple[str, str, frozenset[str]]]:
    """Mailbox, subject and flags of every message."""
    found: Counter[tuple[str, str, frozenset[str]]] = Counter()
    for mailbox in ("INBOX", "Archive"):
        assert client.select(mailbox, readonly=True)[0] == "OK"
        _, parts = client.fetch("1:*", "(FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])")
        for part in parts:
            if isinstance(part, tuple):
                subject = FIELD.search(part[1])
                flags = FLAG_LIST.search(part[0])
                assert subject is not None
                assert flags is not None
                kept = {flag for flag in flags[1].decode().split() if flag != "\\Recent"}
                found[mailbox, subject[1].decode(), frozenset(kept)] += 1
    return found


class Person:
    """Works on the mailbox through one client until told to stop; moves and expunges only what is hers."""

    def __init__(self, client: imaplib.IMAP4, name: str, seed: int) -> None:
        self.client = client
        self.name = name
        self.added: list[str] = []
        self.removed: set[str] = set()
        self.error: BaseException | None = None
        self._random = random.Random(seed)
        self._numbers = itertools.count(1)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        self._is_over.set()
        self._thread.join(60)
        if self.error is not None:
            raise self.error

    def _run(self) -> None:
        try:
            while not self._is_over.is_set():
                self._step()
        except BaseException as error:
            self.error = error

    def _step(self) -> None:
        client, choose = self.client, self._random
        assert client.select("INBOX")[0] == "OK"
        what = choose.random()
        if what < 0.4 or len(self.added) < 5:
            subject = f"{self.name}{next(self._numbers)}"
            assert client.append("INBOX", None, None, message(subject))[0] == "OK"
            self.added.append(subject)
            return
        if what < 0.75:
            _, (found,) = client.uid("SEARCH", "ALL")
            uids = found.split()
            if uids:
                sign = choose.choice("+-")
                uid = choose.choice(uids).decode()
                # NO is right for a message that the other has just removed.
                client.uid("STORE", uid, f"{sign}FLAGS.SILENT", f"({choose.choice(FLAGS)})")
            return
        subject = choose.choice(self.added)
        _, (found,) = client.uid("SEARCH", "HEADER", "Message-ID", f"<{subject}@x>")
        if not found:
            return
        uid = found.split()[0].decode()
        if what < 0.87:
            assert client.uid("MOVE", uid, "Archive")[0] == "OK"
        else:
            self.removed.add(subject)
            client.uid("STORE", uid, "+FLAGS.SILENT", "(\\Deleted)")
            assert client.uid("EXPUNGE", uid)[0] == "OK"


def agreed(server: Server, dovecot: Dovecot, seconds: float = 40) -> Counter[tuple[str, str, frozenset[str]]]:
    """Wait until both see the same."""
    deadline = time.monotonic() + seconds
    mine, theirs = ours(server), dovecot.imap()
    try:
        while True:
            one, other = seen_by(mine), seen_by(theirs)
            if one == other:
                return one
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"only livemail: {one - other}\nonly Dovecot: {other - one}\n{dovecot.log()[-2000:]}"
                )
            time.sleep(0.5)
    finally:
        mine.logout()
        theirs.logout()


def test_livemail_dovecot_and_mutt_agree_after_working_on_one_maildir(
    shared: Server, dovecot: Dovecot, maildir: Path, tmp_path: Path
) -> None:
    people = [Person(ours(shared), "l", 1), Person(dovecot.imap(), "d", 2)]
    dropped = []
    ends = time.monotonic() + SECONDS
    while time.monotonic() < ends:
        dropped.append(f"p{len(dropped)}")
        drop(maildir, dropped[-1])
        time.sleep(0.15)
    for person in people:
        person.stop()
        person.client.logout()
    drop(maildir, "formutt")
    drop(maildir, "foraway")
    agreed(shared, dovecot)

    (tmp_path / "muttrc").write_text(
        f"set folder={maildir}\nset spoolfile={maildir}\nset delete=yes\nset quit=yes\nset mbox_type=Maildir\nset confirmappend=no\nset move=no\n"
    )
    mutt = Terminal(
        tmp_path / "tmux",
        f"HOME={tmp_path} TERM=screen {program('mutt')} -n -F {tmp_path / 'muttrc'} -f {maildir}",
    )
    try:
        mutt.wait("formutt")
        mutt.keys("/", "formutt", "Enter", "F")
        mutt.keys("/", "foraway", "Enter", "d", "$")
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and any("foraway" in name for name in listed(maildir / "cur")):
            time.sleep(0.1)
        mutt.keys("q")
        final = agreed(shared, dovecot)
    finally:
        mutt.close()

    subjects = Counter(subject for _, subject, _ in final.elements())
    expected = {subject for person in people for subject in set(person.added) - person.removed} | set(dropped)
    assert subjects == Counter(expected | {"formutt"})
    [flags] = [flags for _, subject, flags in final if subject == "formutt"]
    assert "\\Flagged" in flags
    files = [name for box in (maildir, maildir / ".Archive") for part in ("cur", "new") for name in listed(box / part)]
    assert len(files) == final.total()
    assert min(len(person.added) for person in people) > 10
    checked = shared.livemail("store", "check", "--json")
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_mail_for_an_account_in_a_maildir_survives_kill_9_and_a_restart(shared: Server, maildir: Path) -> None:
    client = ours(shared)
    for number in range(20):
        assert client.append("INBOX", "(\\Seen)", None, message(f"k{number}"))[0] == "OK"
    shared.kill()
    shared.start()
    client = ours(shared)
    _, (count,) = client.select("INBOX")
    assert count == b"20"
    assert len(listed(maildir / "cur")) == 20
    checked = shared.livemail("store", "check")
    assert checked.returncode == 0, checked.stdout


def test_another_programs_delivery_reaches_a_client_in_idle(shared: Server, maildir: Path) -> None:
    client = ours(shared)
    client.select("INBOX")
    client.send(b"a1 IDLE\r\n")
    assert client.readline().startswith(b"+")
    drop(maildir, "pushed")
    client.sock.settimeout(20)
    assert client.readline() == b"* 1 EXISTS\r\n"
