"""Several sessions on one mailbox, in any interleaving: nobody ever sees a wrong sequence number.

The sessions are the real ones, fed with octets; the clients are strict (`strict_client`).  A slow client reads one write of the
server at a time, so that others act between two batches, and in the middle of a message, of its FETCH.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from livemail.interfaces.storage import FLAGS, KEYWORDS, UID_, FetchWant
from livemail.mail.flags import FlagChange, flag_names
from livemail.mail.ids import UIDSet
from livemail.storage.memory import batches
from tests.imap.rig import Rig, finish
from tests.imap.strict_client import StrictClient

CLIENTS = 3
WORDS = ["\\Seen", "\\Flagged", "\\Deleted", "\\Draft", "work", "$Junk"]

clients = st.integers(0, CLIENTS - 1)
words = st.lists(st.sampled_from(WORDS), max_size=3, unique=True)
operations = st.sampled_from([b"+FLAGS", b"-FLAGS", b"FLAGS"])
positions = st.integers(1, 40)


class Slow:
    """Wraps a transport's write so that each write fills the peer's window."""

    def __init__(self, client):
        self.client = client
        self.is_slow = False
        write = client.transport.write

        def written(octets):
            write(octets)
            if self.is_slow:
                client.connection.pauseProducing()

        client.transport.write = written


class Sessions(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.rig = Rig()
        self.other = self.rig.account()
        finish(self.other.create_mailbox("Box"))
        finish(self.other.create_mailbox("Target"))
        self.name = "Box"
        self.serial = 0
        self.octets = {}
        self.recent = {}
        self.clients = []
        self.slow = []
        for _ in range(CLIENTS):
            client = self.rig.client()
            self.clients.append(StrictClient(client))
            self.slow.append(Slow(client))

    @initialize(count=st.integers(0, 6), examines=st.booleans())
    def begin(self, count, examines):
        for _ in range(count):
            self.deliver(1, False)
        for at, client in enumerate(self.clients):
            client.select(b"Box", read_only=examines and at == 2, condstore=at == 1)
            self.check_recent(client)

    # ------------------------------------------------------------------------------------------ the store's side

    @rule(count=st.integers(1, 3), large=st.booleans())
    def deliver(self, count, large):
        messages = []
        for _ in range(count):
            self.serial += 1
            messages.append(b"Subject: m%d\r\n\r\n" % self.serial + b"x" * (70_000 if large else 10) + b"\r\n")
        appended = self.rig.append(self.name, *messages)
        self.octets.update(zip(appended.uids, messages, strict=True))

    @rule(at=positions, op=st.sampled_from(["add", "remove", "replace"]), flags=st.integers(0, 31))
    def foreign_flags(self, at, op, flags):
        rows = self.rows()
        if rows:
            finish(self.other.store(self.box(), UIDSet.of([rows[at % len(rows)][UID_]]), FlagChange(op, flags)))

    @rule(at=positions)
    def foreign_expunge(self, at):
        rows = self.rows()
        if rows:
            finish(self.other.expunge(self.box(), UIDSet.of([rows[at % len(rows)][UID_]]), only_deleted=False))

    @rule()
    def rename(self):
        for client in self.clients:
            # A slow client's COPY waits for it to read; when its turn comes the name is another's, or nobody's.
            if client.running.endswith(b" " + self.name.encode()):
                client.may_be_refused = True
        new = "Renamed" if self.name == "Box" else "Box"
        finish(self.other.rename_mailbox(self.name, new))
        self.name = new

    # ------------------------------------------------------------------------------------------ the clients' side

    def free(self, who, *, messages=True):
        """The client, when it can send a command (about messages) now."""
        client = self.clients[who]
        return client if not client.running and (client.uids or not messages) else None

    def numbers(self, client, first, last):
        low, high = sorted((first % len(client.uids), last % len(client.uids)))
        return low, high, b"%d:%d" % (low + 1, high + 1)

    @rule(who=clients)
    def noop(self, who):
        if client := self.free(who, messages=False):
            client.start(b"NOOP")

    @rule(who=clients)
    def toggle_idle(self, who):
        client = self.clients[who]
        if client.running == b"IDLE":
            client.end_idle()
        elif not client.running and not self.slow[who].is_slow:
            client.idle()

    @rule(who=clients)
    def toggle_slow(self, who):
        if self.free(who, messages=False):
            self.slow[who].is_slow = not self.slow[who].is_slow
            if not self.slow[who].is_slow:
                self.clients[who].client.connection.resumeProducing()

    @rule(who=clients)
    def read_on(self, who):
        """A slow client reads what is there and gets the next piece."""
        if self.slow[who].is_slow:
            self.clients[who].client.connection.resumeProducing()
            self.clients[who].read()

    @rule(who=clients, first=positions, last=positions, items=st.sampled_from(
        [b"(UID FLAGS)", b"(UID)", b"(UID BODY.PEEK[])", b"(UID BODY[])", b"(UID FLAGS MODSEQ)", b"(UID ENVELOPE)"]
    ))  # fmt: skip
    def fetch(self, who, first, last, items):
        if client := self.free(who):
            client.start(b"FETCH %s %s" % (self.numbers(client, first, last)[2], items))
            if b"MODSEQ" in items:
                client.condstore = True

    @rule(who=clients, first=st.integers(1, 30), last=st.one_of(st.none(), st.integers(1, 30)))
    def uid_fetch(self, who, first, last):
        if client := self.free(who):
            client.start(b"UID FETCH %d:%s (FLAGS)" % (first, b"*" if last is None else b"%d" % last))

    @rule(who=clients, first=positions, last=positions, op=operations, flags=words, silent=st.booleans())
    def store(self, who, first, last, op, flags, silent):
        client = self.free(who)
        if client is None or client.read_only:
            return
        low, high, numbers = self.numbers(client, first, last)
        if silent:
            for uid in client.uids[low : high + 1]:
                if uid in client.flags:
                    client.flags[uid] = predict(client.flags[uid], op, flags)
        client.start(b"STORE %s %s%s (%s)" % (numbers, op, b".SILENT" if silent else b"", " ".join(flags).encode()))

    @rule(who=clients, deleted=st.booleans())
    def search(self, who, deleted):
        client = self.free(who)
        if client is None:
            return
        # What the client is told of behind the answer had no number yet when the search ran.
        known = {uid for uid in client.uids if uid is not None}
        client.search = None
        client.start(b"SEARCH DELETED" if deleted else b"SEARCH ALL")
        if not client.running:
            there = {row[UID_] for row in self.rows() if not deleted or row[FLAGS] & 8}
            found = [client.uids[number - 1] for number in client.search]
            assert {uid for uid in found if uid is not None} & known == there & known

    @rule(who=clients, uid=st.one_of(st.none(), st.integers(1, 30)))
    def expunge(self, who, uid):
        client = self.free(who, messages=False)
        if client is not None and not client.read_only:
            client.start(b"EXPUNGE" if uid is None else b"UID EXPUNGE %d" % uid)

    @rule(who=clients, first=positions, move=st.booleans(), home=st.booleans(), uid=st.booleans())
    def copy(self, who, first, move, home, uid):
        client = self.free(who)
        if client is None or (move and client.read_only):
            return
        low, _, numbers = self.numbers(client, first, first)
        source = client.uids[low]
        if uid and source is None:
            return
        before = {row[UID_] for row in self.rows()}
        command = b"UID " * uid + (b"MOVE " if move else b"COPY ") + (b"%d" % source if uid else numbers)
        client.start(command + b" " + (self.name.encode() if home else b"Target"))
        for new in {row[UID_] for row in self.rows()} - before:
            if source is not None:
                self.octets[new] = self.octets.get(source, b"")

    @rule(who=clients, condstore=st.booleans())
    def reselect(self, who, condstore):
        if (client := self.free(who, messages=False)) and not self.slow[who].is_slow:
            client.select(self.name.encode(), read_only=client.read_only, condstore=condstore)
            self.check_recent(client)

    @precondition(lambda self: not any(client.running for client in self.clients))
    @rule()
    def settle(self):
        """After NOOP everybody knows what is there, without asking."""
        rows = {row[UID_]: row for row in self.rows()}
        keywords = finish(self.other.mailbox(self.name)).keywords
        for client, slow in zip(self.clients, self.slow, strict=True):
            slow.is_slow = False
            client.client.connection.resumeProducing()
            client.do(b"NOOP")
            assert len(client.uids) == len(rows)
            for uid, flags in client.flags.items():
                assert flags == flags_of(rows[uid], keywords), f"UID {uid}"
            if client.uids:
                client.do(b"FETCH 1:* (UID FLAGS)")
            assert client.uids == sorted(rows)
            self.check_recent(client)

    # ------------------------------------------------------------------------------------------ what must hold

    @invariant()
    def contents_are_those_of_their_messages(self):
        for client in self.clients:
            for uid, octets in client.contents.items():
                assert octets == self.octets.get(uid, octets)
            client.contents.clear()

    @invariant()
    def nobody_was_refused(self):
        for client in self.clients:
            refused = client.reply and not client.reply.startswith(b"OK")
            assert not refused or (client.may_be_refused and b"TRYCREATE" in client.reply), client.reply

    def check_recent(self, client):
        """A message is \\Recent to one read-write session at most."""
        if not client.read_only:
            view = client.client.connection.session.view
            for uid in client.recent_seen:
                assert self.recent.setdefault(uid, view) is view, f"UID {uid} was another session's \\Recent"

    def box(self):
        return finish(self.other.mailbox(self.name)).id

    def rows(self):
        async def read():
            return [
                row async for batch in self.other.fetch(self.box(), UIDSet.all(), FetchWant()) for row in batch.rows
            ]

        return finish(read())

    def teardown(self):
        for client, slow in zip(self.clients, self.slow, strict=True):
            slow.is_slow = False
            client.client.connection.resumeProducing()
            client.read()
            if client.running == b"IDLE":
                client.end_idle()
            assert not client.running
        self.settle()


def predict(known, op, flags):
    """What a client makes of its own .SILENT."""
    given = frozenset(flag.encode() for flag in flags)
    if op == b"FLAGS":
        return given
    return known | given if op == b"+FLAGS" else known - given


def flags_of(row, keywords):
    names = flag_names(row[FLAGS]) + [word for bit, word in enumerate(keywords) if row[KEYWORDS] >> bit & 1]
    return frozenset(name.encode() for name in names)


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch):
    monkeypatch.setattr(batches, "BATCH_MESSAGES", 2)


TestSessions = Sessions.TestCase
TestSessions.settings = settings(
    max_examples=80, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)
