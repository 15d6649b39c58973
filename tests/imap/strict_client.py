"""A strict IMAP client: believes only what the server said, and objects when that cannot be true.

It keeps its own list of messages from EXISTS, EXPUNGE and FETCH, as every client must, and checks on every response that
the rules of RFC 3501 §5.5, §7.3, §7.4 and RFC 7162 §3.1 were kept.
"""

from __future__ import annotations

import re
from typing import Any

LITERAL = re.compile(rb"\{(\d+)\}$")
FETCH = re.compile(rb"\* (\d+) FETCH \((.*)\)", re.DOTALL)
NUMBER = re.compile(rb"\* (\d+) (EXISTS|RECENT|EXPUNGE)")
UID = re.compile(rb"\bUID (\d+)")
FLAGS = re.compile(rb"\bFLAGS \(([^)]*)\)")
MODSEQ = re.compile(rb"\bMODSEQ \((\d+)\)")

WITHOUT_EXPUNGE = (b"FETCH ", b"STORE ", b"SEARCH ")


class StrictClient:
    """What one client knows.  uids: by sequence number, None where it was not told; flags: by UID, where it was."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self.uids: list[int | None] = []
        self.flags: dict[int, frozenset[bytes]] = {}
        self.contents: dict[int, bytes] = {}
        self.recent_seen: set[int] = set()
        self.search: list[int] | None = None
        self.untagged: list[bytes] = []
        self.condstore = False
        self.read_only = False
        self.running = b""
        self.reply = b""
        self.may_be_refused = False
        self._tag = b""
        self._tags = 0
        self._rest = b""

    # ------------------------------------------------------------------------------------------ speaking

    def start(self, command: bytes) -> None:
        """Send a command; `running` is empty again when its tagged reply has come."""
        assert not self.running, "one at a time"
        self._tags += 1
        self._tag = b"s%d" % self._tags
        self.running, self.reply, self.untagged = command, b"", []
        self.may_be_refused = False
        self.client.connection.dataReceived(self._tag + b" " + command + b"\r\n")
        self.read()

    def do(self, command: bytes) -> list[bytes]:
        """Run a command to its end, which must be OK.  Returns the untagged responses."""
        self.start(command)
        assert not self.running, f"{command!r} did not end"
        assert self.reply.startswith(b"OK"), (command, self.reply)
        return self.untagged

    def select(self, mailbox: bytes, *, read_only: bool = False, condstore: bool = False) -> None:
        """Select, and learn UIDs and flags of what is there."""
        self.uids, self.flags, self.contents, self.recent_seen = [], {}, {}, set()
        self.condstore = self.condstore or condstore
        self.read_only = read_only
        self.do((b"EXAMINE " if read_only else b"SELECT ") + mailbox + (b" (CONDSTORE)" if condstore else b""))
        if self.uids:
            self.do(b"FETCH 1:* (UID FLAGS)")

    def idle(self) -> None:
        self.start(b"IDLE")

    def end_idle(self) -> None:
        self.client.connection.dataReceived(b"DONE\r\n")
        self.read()
        assert not self.running

    # ------------------------------------------------------------------------------------------ listening

    def read(self) -> None:
        """Take what the server wrote so far, response by response."""
        self._rest += self.client.take()
        while (response := self._next()) is not None:
            self._take(*response)

    def _next(self) -> tuple[bytes, list[bytes]] | None:
        """The next whole response: its text with {} for literals, and the literals."""
        text, literals, at = b"", [], 0
        while True:
            end = self._rest.find(b"\r\n", at)
            if end < 0:
                return None
            line = self._rest[at:end]
            found = LITERAL.search(line)
            if found is None:
                self._rest = self._rest[end + 2 :]
                return text + line, literals
            size = int(found[1])
            at = end + 2 + size
            if len(self._rest) < at:
                return None
            literals.append(self._rest[end + 2 : at])
            text += line[: found.start()] + b"{}"

    def _take(self, text: bytes, literals: list[bytes]) -> None:
        if text.startswith(b"+ "):
            assert self.running == b"IDLE"
            return
        if self._tag and text.startswith(self._tag + b" "):
            self.reply = text[len(self._tag) + 1 :]
            self.running = b""
            return
        assert text.startswith(b"* "), text
        assert self.running, f"not in a command: {text[:100]!r}"
        self.untagged.append(text)
        if found := NUMBER.fullmatch(text):
            self._counted(int(found[1]), found[2])
        elif found := FETCH.fullmatch(text):
            self._fetched(int(found[1]), found[2], literals)
        elif text.startswith(b"* SEARCH"):
            self.search = [int(number) for number in text.split(b"(")[0].split()[2:]]

    def _counted(self, number: int, what: bytes) -> None:
        if what == b"EXISTS":
            assert number >= len(self.uids), f"EXISTS {number} with {len(self.uids)} messages"
            self.uids.extend([None] * (number - len(self.uids)))
        elif what == b"EXPUNGE":
            assert not self.running.startswith(WITHOUT_EXPUNGE), f"EXPUNGE during {self.running!r}"
            assert 1 <= number <= len(self.uids), f"EXPUNGE {number} of {len(self.uids)}"
            self.flags.pop(self.uids.pop(number - 1) or 0, None)
        else:
            assert number <= len(self.uids), f"RECENT {number} of {len(self.uids)}"

    def _fetched(self, number: int, items: bytes, literals: list[bytes]) -> None:
        assert 1 <= number <= len(self.uids), f"FETCH {number} of {len(self.uids)}"
        uid = self.uids[number - 1]
        if found := UID.search(items):
            told = int(found[1])
            assert uid in {None, told}, f"message {number} is UID {uid}, not {told}"
            before = [u for u in self.uids[: number - 1] if u is not None]
            after = [u for u in self.uids[number:] if u is not None]
            assert not before or before[-1] < told, f"UID {told} behind {before[-1]}"
            assert not after or told < after[0], f"UID {told} before {after[0]}"
            uid = self.uids[number - 1] = told
        assert uid is not None, "only messages whose UID is known were asked about, or the UID is told"
        if found := FLAGS.search(items):
            flags = frozenset(found[1].split())
            if b"\\Recent" in flags:
                self.recent_seen.add(uid)
            self.flags[uid] = flags - {b"\\Recent"}
            asked = self.running.split(b"FETCH", 1)[-1] if b"FETCH" in self.running else b""
            if self.condstore and b"FLAGS" not in asked:
                assert MODSEQ.search(items), f"no MODSEQ in {items!r}"
        if literals:
            assert len(literals) == 1
            self.contents[uid] = literals[0]
