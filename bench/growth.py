"""What a mailbox's size costs whoever opens it, delivers to it and flags in it: 1,000 messages beside a million, in one server.

Every size has an account of its own, filled through the store before the server starts: a tenth of it is expunged, in as many more
places as it is larger, and the last messages are unseen, as in mailboxes that are used.  Behind the last of them in the index is one
more mailbox, so that none is spared what reading past its end costs.  Then the sizes take turns, one command each and in a new order
each time, so that whatever else the machine does, and what going first costs, hits all alike.
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
from itertools import pairwise
from pathlib import Path

from bench.ground import PASSWORD, BenchError, say
from bench.imap import IMAP
from bench.ours import DOMAIN, Livemail
from bench.plot import Series, draw
from livemail.interfaces.storage import UID_, AppendItem, FetchWant, IMailStore
from livemail.mail.flags import SEEN
from livemail.mail.ids import UIDSet
from livemail.mail.uids import UIDRuns
from livemail.net.threads import Threads
from livemail.storage.lmdb import LMDBStore
from livemail.storage.settings import StorageSettings

BOUND = 1.5
SIZES = (1_000, 10_000, 100_000, 1_000_000)
UNSEEN = 20
"""The last so many."""

GAPS = 10
"""In each thousand messages."""

BEHIND = 2_000
"""Messages in the mailbox behind the last."""

BATCH = 1_000
WARM_UP = 10
STARTS = 13
NEVER_OPENED = "first SELECT, of a mailbox that was never opened"

Times = dict[str, dict[int, list[float]]]
"""Seconds by what was done and the mailbox's size."""


def small_message(size: int, number: int) -> bytes:
    """No two are the same."""
    return (
        f"From: A <a{number % 97}@example.org>\r\nTo: b@example.net\r\nSubject: message {number} of {size}\r\n"
        f"Message-ID: <{size}.{number}@bench.test>\r\nDate: Tue, 24 Nov 2026 08:00:00 +0000\r\n\r\n{number}\r\n"
    ).encode()


async def fill(store: IMailStore, user: str, size: int, gaps: int) -> None:
    """Append, then expunge, until ``size`` messages are left.  gaps: in each thousand of them."""
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
    places = min(more, size * gaps // 1000)
    apart = size // places if places else 0
    ends = [more * at // places for at in range(places + 1)] if places else []
    gone = UIDSet((2 + at * apart, 1 + at * apart + end - start) for at, (start, end) in enumerate(pairwise(ends)))
    await account.expunge(inbox.id, gone, only_deleted=False)
    uids = UIDRuns()  # By FETCH: a SELECT would be the first.
    async for batch in account.fetch(inbox.id, UIDSet.all(), FetchWant()):
        uids.extend([row[UID_] for row in batch.rows])
    found = (len(uids), len(uids.ranges))
    if found != (wanted := (total - len(gone), places + 1)):
        raise BenchError(f"messages and runs of UIDs are {found}, and should be {wanted}")


def fill_all(data: Path, mailboxes: Sequence[tuple[str, int]], gaps: int) -> None:
    """Fill every (user, size), with no server running."""
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
            for user, size in mailboxes:
                threads.wait(fill(store, user, size, gaps))
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
    """Sets a flag of one message after the other, in random order, by its number; when all have it, takes it away again."""

    def __init__(self, session: IMAP, size: int) -> None:
        self._session = session
        answer = session.command("SELECT INBOX")
        found = re.search(rb"\* (\d+) EXISTS", answer)
        if found is None:
            raise BenchError(f"SELECT answered {answer[:200]!r}")
        self.exists = int(found[1])
        self._order = random.Random(size).sample(range(1, self.exists + 1), self.exists)
        self._done = 0

    def __call__(self) -> None:
        again, at = divmod(self._done, len(self._order))
        self._done += 1
        # Always a change: what a STORE that changes nothing costs is not the question.
        self._session.command(f"STORE {self._order[at]} {'+-'[again % 2]}FLAGS (\\Flagged)")


def measure(folder: Path, *, runs: int, sizes: Sequence[int], gaps: int, plot: Path | None) -> list[str]:
    """Fill, start, take turns; the table, and the plot where one is asked for."""
    users = {size: f"u{at}" for at, size in enumerate(sorted(sizes))}
    behind = f"u{len(users)}"
    first = Livemail(folder)
    first.stop()
    times: Times = {}
    chance = random.Random(len(users))

    def in_turn() -> list[int]:
        return chance.sample(list(users), len(users))

    say("bench: filling mailboxes of " + ", ".join(f"{size:,}" for size in users) + " messages")
    fill_all(first.data, [*((user, size) for size, user in users.items()), (behind, BEHIND)], gaps)

    def timed(what: str, size: int, do: Callable[[], object]) -> None:
        began = time.perf_counter()
        do()
        times.setdefault(what, {}).setdefault(size, []).append(time.perf_counter() - began)

    def open_all(server: Livemail, what: str) -> dict[int, IMAP]:
        with IMAP(server.imap, behind, PASSWORD) as other:  # What only a server's very first SELECT costs is no size's.
            other.command("EXAMINE INBOX")
        sessions = {size: IMAP(server.imap, user, PASSWORD) for size, user in users.items()}
        for size in in_turn():
            timed(what, size, partial(sessions[size].command, "EXAMINE INBOX"))
        return sessions

    for start in range(STARTS):
        server = Livemail(folder, is_new=False)
        try:
            open_all(server, "first SELECT, after a restart" if start else NEVER_OPENED)
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
            for size in in_turn():
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
        for size, seconds in sorted(by_size.items()):
            ordered = sorted(each * 1000 for each in seconds)
            low, high = ordered[len(ordered) // 20], ordered[-1 - len(ordered) // 20]
            lines.append(f"  {size:>9,} messages{statistics.median(ordered):>9.2f}   [{low:.2f} to {high:.2f}]")
        medians = [statistics.median(each) for _, each in sorted(by_size.items())]
        ratio = medians[-1] / medians[0]
        bound = "" if name == NEVER_OPENED else f", bound {BOUND:g}: {'reached' if ratio <= BOUND else 'MISSED'}"
        lines.append(f"  ratio of the largest to the smallest {ratio:.2f}{bound}")
    return lines
