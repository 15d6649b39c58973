"""What a mailbox's size costs whoever opens it, delivers to it and flags in it: 1,000 messages beside a million, in one server.

Every size has an account of its own, filled through the store before the server starts: stretches of it are expunged and the last
messages are unseen, as in mailboxes that are used.  Then the sizes take turns, one command each, so that whatever else the machine
does hits all alike.
"""

from __future__ import annotations

import os
import random
import re
import socket
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from bench.ground import PASSWORD, BenchError, say
from bench.imap import IMAP
from bench.ours import DOMAIN, Livemail
from bench.plot import Series, draw
from livemail.interfaces.storage import AppendItem, IMailStore
from livemail.mail.flags import SEEN
from livemail.mail.ids import UIDSet
from livemail.net.threads import Threads
from livemail.storage.lmdb import LMDBStore
from livemail.storage.settings import StorageSettings

BOUND = 1.5
SIZES = (1_000, 10_000, 100_000, 1_000_000)
UNSEEN = 20
"""The last so many."""

STRETCHES = 100
"""Of a mailbox's messages a tenth is expunged, in so many places."""

BATCH = 1_000
WARM_UP = 10

Times = dict[str, dict[int, list[float]]]
"""Seconds by what was done and the mailbox's size."""


def small_message(size: int, number: int) -> bytes:
    """No two are the same."""
    return (
        f"From: A <a{number % 97}@example.org>\r\nTo: b@example.net\r\nSubject: message {number} of {size}\r\n"
        f"Message-ID: <{size}.{number}@bench.test>\r\nDate: Tue, 24 Nov 2026 08:00:00 +0000\r\n\r\n{number}\r\n"
    ).encode()


async def fill(store: IMailStore, user: str, size: int) -> None:
    """Append, then expunge, until ``size`` messages are left."""
    record = await store.account_named(f"{user}@{DOMAIN}")
    if record is None:
        raise BenchError(f"the server made no account {user}")
    account = await store.account(record.id)
    inbox = await account.mailbox("INBOX")
    more = size // 10
    total = size + more
    for first in range(0, total, BATCH):
        items = []
        for number in range(first, min(first + BATCH, total)):
            sink = store.new_content()
            sink.write(small_message(size, number))
            items.append(AppendItem(await sink.finish(), 0 if number >= total - UNSEEN else SEEN))
        await account.append("INBOX", items)
        for item in items:
            item.content.close()
        if (first + BATCH) % 100_000 == 0:
            say(f"bench: {size:,} messages: {first + BATCH:,} of {total:,} appended")
    stretch = max(1, more // STRETCHES)
    starts = [1 + at * (size // max(1, more // stretch)) for at in range(more // stretch)]
    gone = UIDSet((start, start + stretch - 1) for start in starts)
    removed = await account.expunge(inbox.id, gone, only_deleted=False)
    left = (await account.mailbox("INBOX")).exists
    if left != size + more - len(removed):
        raise BenchError(f"{left} messages are left of {total}, {len(removed)} were expunged")


def fill_all(data: Path, users: dict[int, str]) -> None:
    """Fill every mailbox, with no server running."""
    threads = Threads(os.cpu_count() or 1)
    try:
        opening = LMDBStore.open(
            data,
            StorageSettings(writer="thread", undelete=0.0),
            call_from_thread=threads.call,
            run_blocking=threads.blocking,
        )
        store = threads.wait(opening)
        try:
            for size, user in users.items():
                threads.wait(fill(store, user, size))
        finally:
            threads.wait(store.close())
    finally:
        threads.stop()


class Sender:
    """One kept SMTP connection that delivers one message at a time."""

    def __init__(self, address: tuple[str, int], user: str) -> None:
        self._socket = socket.create_connection(address, 60)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._lines = self._socket.makefile("rb")
        self._user = user
        self._number = 0
        self._reply(b"220")
        self._socket.sendall(b"EHLO bench.test\r\n")
        self._reply(b"250")

    def _reply(self, code: bytes) -> None:
        while True:
            line = self._lines.readline()
            if not line.startswith(code):
                raise BenchError(f"the server answered {line!r}, not {code!r}")
            if line[3:4] != b"-":
                return

    def __call__(self) -> None:
        """Deliver one message; back when it is acknowledged."""
        self._number += 1
        envelope = f"MAIL FROM:<a@bench.test>\r\nRCPT TO:<{self._user}@{DOMAIN}>\r\nDATA\r\n".encode()
        self._socket.sendall(envelope)
        for code in (b"250", b"250", b"354"):
            self._reply(code)
        self._socket.sendall(small_message(0, self._number) + b".\r\n")
        self._reply(b"250")

    def close(self) -> None:
        self._socket.close()


class Flagger:
    """Sets and takes away a flag of a message at random, by its number."""

    def __init__(self, session: IMAP, size: int) -> None:
        self._session = session
        self._chance = random.Random(size)
        answer = session.command("SELECT INBOX")
        found = re.search(rb"\* (\d+) EXISTS", answer)
        if found is None:
            raise BenchError(f"SELECT answered {answer[:200]!r}")
        self.exists = int(found[1])

    def __call__(self) -> None:
        number = self._chance.randrange(1, self.exists + 1)
        sign = self._chance.choice("+-")
        self._session.command(f"STORE {number} {sign}FLAGS (\\Flagged)")


def measure(folder: Path, *, runs: int, sizes: Sequence[int], plot: Path | None) -> list[str]:
    """Fill, start, take turns; the table, and the plot where one is asked for."""
    users = {size: f"u{at}" for at, size in enumerate(sorted(sizes))}
    first = Livemail(folder)
    first.stop()
    times: Times = {}
    say("bench: filling mailboxes of " + ", ".join(f"{size:,}" for size in users) + " messages")
    fill_all(first.data, users)

    def timed(what: str, size: int, do: Callable[[], object]) -> None:
        began = time.perf_counter()
        do()
        times.setdefault(what, {}).setdefault(size, []).append(time.perf_counter() - began)

    def open_all(server: Livemail, what: str) -> dict[int, IMAP]:
        sessions = {size: IMAP(server.imap, user, PASSWORD) for size, user in users.items()}
        for size, session in sessions.items():
            timed(what, size, partial(session.command, "EXAMINE INBOX"))
        return sessions

    server = Livemail(folder, is_new=False)
    try:
        open_all(server, "first SELECT, of a mailbox that was never opened")
    finally:
        server.stop()
    server = Livemail(folder, is_new=False)
    closing: list[Callable[[], object]] = [server.stop]
    try:
        openers = open_all(server, "first SELECT, after a restart")
        senders = {size: Sender(server.smtp, user) for size, user in users.items()}
        flaggers = {size: Flagger(IMAP(server.imap, user, PASSWORD), size) for size, user in users.items()}
        closing[:0] = [sender.close for sender in senders.values()]
        for size, flagger in flaggers.items():
            if flagger.exists < size:
                raise BenchError(f"the mailbox of {size:,} has {flagger.exists:,} messages")
        for at in range(runs + WARM_UP):
            if at == WARM_UP:
                times = {name: by_size for name, by_size in times.items() if name.startswith("first")}
            for size in users:
                timed("SELECT", size, partial(openers[size].command, "SELECT INBOX"))
                timed("deliver", size, senders[size])
                timed("STORE", size, flaggers[size])
        if plot is not None:
            series = [
                Series(name, {size: statistics.median(each) for size, each in by_size.items()})
                for name, by_size in times.items()
            ]
            draw(plot, "What a mailbox's size costs", "messages in the mailbox", "ms", series)
    finally:
        for close in closing:
            close()
    return table(times)


def table(times: Times) -> list[str]:
    """The table: milliseconds by size, and the ratio of the largest mailbox to the smallest."""
    lines = []
    for name, by_size in times.items():
        count = len(next(iter(by_size.values())))
        lines.append(f"{name}  (ms; median of {count}, [fifth to ninety-fifth of a hundred])")
        for size, seconds in by_size.items():
            ordered = sorted(each * 1000 for each in seconds)
            low, high = ordered[len(ordered) // 20], ordered[-1 - len(ordered) // 20]
            lines.append(f"  {size:>9,} messages{statistics.median(ordered):>9.2f}   [{low:.2f} to {high:.2f}]")
        medians = [statistics.median(each) for each in by_size.values()]
        ratio = medians[-1] / medians[0]
        bound = "" if name.startswith("first") else f", bound {BOUND:g}: {'reached' if ratio <= BOUND else 'MISSED'}"
        lines.append(f"  ratio of the largest to the smallest {ratio:.2f}{bound}")
    return lines
