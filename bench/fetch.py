"""IMAP FETCH of a whole mailbox over one connection, beside Dovecot with a warm cache."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Empty, SimpleQueue

from bench.corpus import message
from bench.ground import PASSWORD, BenchError, say
from bench.imap import IMAP
from bench.ours import Livemail
from bench.peers import Dovecot
from bench.table import Figures, render

USER = "u0"
_CONNECTIONS = 20
_SLICE = 200

ITEMS: dict[str, tuple[str, float | None]] = {
    "FLAGS": ("UID FLAGS", 0.7),
    "ENVELOPE": ("UID ENVELOPE", 2.0),
    "BODYSTRUCTURE": ("UID BODYSTRUCTURE", 1.0),
    "HEADER.FIELDS": ("UID BODY.PEEK[HEADER.FIELDS (FROM TO SUBJECT DATE MESSAGE-ID)]", 2.0),
    "BODY[]": ("UID BODY.PEEK[]", 1.0),
}
"""Name of the measure: items fetched, the least ratio to Dovecot."""


def fill_dovecot(dovecot: Dovecot, count: int) -> None:
    """Write the corpus into the Maildir as Dovecot would name it; it indexes on the first SELECT."""
    home = dovecot.mail / USER
    for folder in ("", "cur", "new", "tmp"):
        (home / folder).mkdir()
        os.chown(home / folder, dovecot.uid, dovecot.gid)
    for number in range(count):
        octets = message(number)
        # Maildir keeps LF; Dovecot counts and serves CRLF.  W= is the size with CRLF, as Dovecot itself would note it.
        plain = octets.replace(b"\r\n", b"\n")
        name = home / "cur" / f"{1_700_000_000 + number}.M{number}.bench,S={len(plain)},W={len(octets)}:2,S"
        name.write_bytes(plain)
        os.chown(name, dovecot.uid, dovecot.gid)


def fill_livemail(address: tuple[str, int], count: int) -> None:
    """APPEND the corpus, then set \\Seen as it is on the peer.

    Over twenty connections, because each APPEND waits for its commit, and those of all connections share one.
    """
    slices = [range(first, min(first + _SLICE, count)) for first in range(0, count, _SLICE)]
    todo: SimpleQueue[range] = SimpleQueue()
    for one in slices:
        todo.put(one)

    def append() -> None:
        with IMAP(address, USER, PASSWORD) as session, contextlib.suppress(Empty):
            while True:
                numbers = todo.get_nowait()
                session.append("INBOX", [message(number) for number in numbers])
                if numbers.stop % 10_000 == 0:
                    say(f"bench: {count:,} messages: {numbers.stop:,} appended")

    with ThreadPoolExecutor(_CONNECTIONS) as threads:
        for done in [threads.submit(append) for _ in range(_CONNECTIONS)]:
            done.result()
    with IMAP(address, USER, PASSWORD) as session:
        session.command("SELECT INBOX")
        session.command("STORE 1:* +FLAGS.SILENT (\\Seen)")


def one_run(session: IMAP, items: str, count: int) -> tuple[float, float, bytes]:
    """FETCH everything; (seconds, client's CPU seconds, answer)."""
    cpu, began = time.process_time(), time.monotonic()
    answer = session.command(f"FETCH 1:* ({items})")
    elapsed, used = time.monotonic() - began, time.process_time() - cpu
    seen = len(re.findall(rb"^\* \d+ FETCH \(", answer, re.MULTILINE))
    if seen != count:
        raise BenchError(f"FETCH ({items}) answered {seen} messages of {count}")
    return elapsed, used, answer


def same_messages(ours: bytes, peer: bytes) -> None:
    """Both answers to BODY.PEEK[] hold the same messages, octet for octet; in what order they were filed does not matter."""
    digests = []
    for answer in (ours, peer):
        found, at = Counter[bytes](), 0
        pattern = re.compile(rb"BODY\[\] \{(\d+)\}\r\n")
        while literal := pattern.search(answer, at):
            at = literal.end() + int(literal[1])
            found[hashlib.sha256(answer[literal.end() : at]).digest()] += 1
        digests.append(found)
    if digests[0] != digests[1]:
        raise BenchError("the servers answered different octets to BODY.PEEK[]")


def measure(folder: Path, *, runs: int, count: int, only: str | None) -> list[str]:
    """Both servers, item by item, in turn; the tables."""
    say(f"bench: filling a mailbox of {count:,} messages on each server")
    dovecot = Dovecot(folder)
    lines: list[str] = []
    try:
        livemail = Livemail(folder)
        try:
            fill_dovecot(dovecot, count)
            fill_livemail(livemail.imap, count)
            with IMAP(livemail.imap, USER, PASSWORD) as ours, IMAP(dovecot.imap, USER, PASSWORD) as peer:
                ours.command("SELECT INBOX")
                peer.command("SELECT INBOX")
                peer.command("STORE 1:* +FLAGS.SILENT (\\Seen)")
                for name, (items, bound) in ITEMS.items():
                    if only and only != name:
                        continue
                    figures = Figures("livemail"), Figures("Dovecot")
                    for number in range(runs + 1):
                        answers = []
                        for session, figure in zip((ours, peer), figures, strict=True):
                            seconds, cpu, answer = one_run(session, items, count)
                            answers.append(answer)
                            if number:  # the first run warms caches up
                                figure.rates.append(count / seconds)
                                figure.client.append(cpu / seconds)
                        if name == "BODY[]" and not number:
                            same_messages(*answers)
                        del answers
                    lines += render(f"FETCH 1:* ({items})", "messages/s", *figures, bound)
                    say("\n".join(lines[-4:]))
        finally:
            livemail.stop()
    finally:
        dovecot.stop()
    return lines
