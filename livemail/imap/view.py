"""What one client has been told about the mailbox it selected.  RFC 9051 §2.3.1.2, §5.2, §7.5.1, RFC 2180.

A sequence number means a message only to one client at one moment: position in the list of messages the server has
told *this* client of.  So the list is kept here, and the mailbox's changes wait here until the client may be told.

    told          the UIDs, ascending; sequence number = index + 1.  Changes only in `flush`.
    arrived       UIDs above the told ones; told by EXISTS, which is allowed at any time.
    expunged      told UIDs that are gone; told by EXPUNGE, which is allowed only at the end of a command that does not speak
                  in sequence numbers (never in FETCH, STORE, SEARCH).  Until then they keep their numbers.
    flags         told UIDs whose flags changed; told by FETCH.

Invariants
    What is told is ascending without duplicates, and storage's messages in the told range are a subset of it: UIDs
    are told in the order they were given, and one that left never comes back.  A range of sequence numbers
    is therefore one range of UIDs, and a batch of rows as long as the slice of the view between its ends *is* that slice.
    Replaying a change the view knows already does nothing.

A message expunged by another session and not yet told has a number and no content.  FETCH, STORE, COPY and SEARCH pass
over it in silence, and FETCH and STORE by sequence number end with ``OK [EXPUNGEISSUED]`` (RFC 5530 §3, RFC 2180
§4.1.1, §4.2.1: the rest of the command is worth more than a NO).

A mailbox deleted under the session looks as if everything in it had been expunged; commands on it answer NO
[NONEXISTENT].  A renamed one stays selected under its new name (RFC 2180 §3.4).

A silenced change (STORE .SILENT of the client's own) is dropped only when nothing of somebody else's was waiting for the
same message: the client can foresee its own change and not that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from livemail.imap.render.flags import flag_text, flags_line, permanent_flags_line
from livemail.imap.sequence import SequenceSet
from livemail.interfaces.storage import Selected
from livemail.mail.changes import (
    AccountRemoved,
    Added,
    Change,
    Expunged,
    FlagsChanged,
    MailboxDeleted,
    MailboxRenamed,
)
from livemail.mail.errors import WireError
from livemail.mail.ids import UID, ModSeq, UIDSet
from livemail.mail.uids import UIDRuns


class View:
    """The told state of one selected mailbox, and what waits to be told."""

    def __init__(
        self, selected: Selected, *, read_only: bool, claim: Callable[[View, UID], None] | None = None
    ) -> None:
        """selected: the snapshot SELECT reported.

        claim: called when a read-write session is told of messages below a UID; it asks storage for their \\Recent
        and calls `claimed`, now or later.  None: everything new is recent (RFC 3501 §2.3.2: when it cannot be
        known, it is).
        """
        info = selected.info
        self.name = info.name
        self.mailbox = info.id
        self.uid_validity = info.uid_validity
        self.read_only = read_only
        self.keywords = info.keywords
        self.highest_modseq: ModSeq = info.highest_modseq
        self.is_gone = False
        self.uids = UIDRuns.of(selected.uids)
        self._snapshot = info.highest_modseq
        self._claim = claim
        self._arrived: list[UID] = []
        self._expunged: set[UID] = set()
        self._flags: dict[UID, tuple[int, int, ModSeq, bool]] = {}
        self._keywords_told = self.keywords
        self._recent: list[tuple[UID, UID]] = []
        if info.uid_next > info.recent_from:
            self._recent.append((info.recent_from, info.uid_next - 1))
        self._recent_told = self.recent

    # ------------------------------------------------------------------------------------------ what happened

    def notice(self, changes: Iterable[Change], own: bool) -> None:
        """Take changes of the account, in order.  own: this session's command made them."""
        for change in changes:
            if isinstance(change, AccountRemoved):
                self._vanish()
                continue
            if getattr(change, "mailbox", 0) != self.mailbox or change.modseq <= self._snapshot:
                continue
            self.highest_modseq = max(self.highest_modseq, change.modseq)
            if isinstance(change, FlagsChanged):
                self._flags_changed(change, own)
            elif isinstance(change, Added):
                self._added(change.uids)
            elif isinstance(change, Expunged):
                self._messages_gone(change.uids)
            elif isinstance(change, MailboxDeleted):
                self._vanish()
            elif isinstance(change, MailboxRenamed):
                self.name = change.name

    def _flags_changed(self, change: FlagsChanged, own: bool) -> None:
        if len(change.keywords) > len(self.keywords):
            self.keywords = change.keywords
        waiting = self._flags
        for uid, flags, bits in change.rows:
            before = waiting.get(uid)
            if before is None:
                waiting[uid] = (flags, bits, change.modseq, not own)
            elif change.modseq >= before[2]:
                waiting[uid] = (flags, bits, change.modseq, before[3] or not own)

    def _added(self, uids: Sequence[UID]) -> None:
        last = self._arrived[-1] if self._arrived else self.uids[-1] if self.uids else 0
        self._arrived.extend(uid for uid in uids if uid > last)

    def _messages_gone(self, uids: UIDSet) -> None:
        told = uids.select(self.uids)
        self._expunged.update(told)
        for uid in told:
            self._flags.pop(uid, None)
        if self._arrived:
            self._arrived = [uid for uid in self._arrived if uid not in uids]

    def _vanish(self) -> None:
        self.is_gone = True
        self._messages_gone(UIDSet.all())

    def silence(self, uids: Iterable[UID], modseq: ModSeq) -> None:
        """The client knows these flags (its own STORE, or it has just been answered): drop them up to ``modseq``.

        What another session changed stays.
        """
        waiting = self._flags
        for uid in uids:
            change = waiting.get(uid)
            if change is not None and change[2] <= modseq and not change[3]:
                del waiting[uid]

    def answered(self, uids: Iterable[UID], modseq: ModSeq) -> None:
        """The client was sent these messages' flags as of ``modseq``, whoever changed them."""
        waiting = self._flags
        for uid in uids:
            change = waiting.get(uid)
            if change is not None and change[2] <= modseq:
                del waiting[uid]

    def changed_uids(self, modseq: ModSeq) -> set[UID]:
        """UIDs whose waiting change is that of ``modseq``."""
        return {uid for uid, change in self._flags.items() if change[2] == modseq}

    # ------------------------------------------------------------------------------------------ what the client is told

    def flush(self, send: Callable[[bytes], None], *, expunge: bool, condstore: bool) -> None:
        """Tell what may be told now, in one write.

        expunge: EXPUNGE is allowed.  condstore: FETCH carries MODSEQ (RFC 7162 §3.1).
        """
        lines: list[bytes] = []
        self.tell_keywords(lines.append)
        if expunge and self._expunged:
            lines.append(self._tell_expunged())
        if self._arrived:
            self._tell_arrived(lines)
        if self._recent_told != (recent := self.recent):
            self._recent_told = recent
            lines.append(b"* %d RECENT\r\n" % recent)
        if self._flags:
            self._tell_flags(lines, condstore)
        if lines:
            send(b"".join(lines))

    def tell_keywords(self, send: Callable[[bytes], None]) -> None:
        """Announce keywords the client has not heard of, before it meets them in a FETCH.  RFC 9051 §7.3.5."""
        if self._keywords_told is not self.keywords:
            if self._keywords_told != self.keywords:
                send(flags_line(self.keywords) + permanent_flags_line(self.keywords, read_only=self.read_only))
            self._keywords_told = self.keywords

    def learn_keywords(self, keywords: tuple[str, ...]) -> None:
        """Take the keyword names that came with a batch of rows."""
        if len(keywords) > len(self.keywords):
            self.keywords = keywords

    def _tell_expunged(self) -> bytes:
        gone = sorted(self._expunged)
        numbers = [self.uids.position(uid) for uid in gone]
        # From the highest number down: what goes does not renumber what follows.
        lines = b"".join([b"* %d EXPUNGE\r\n" % (number + 1) for number in reversed(numbers)])
        recent = self.recent
        self.uids.remove(UIDSet.of(gone))
        self._expunged.clear()
        # The client subtracts the recent ones among them itself.
        self._recent_told -= recent - self.recent
        return lines

    def _tell_arrived(self, lines: list[bytes]) -> None:
        first, up_to = self._arrived[0], self._arrived[-1] + 1
        self.uids.extend(self._arrived)
        self._arrived.clear()
        lines.append(b"* %d EXISTS\r\n" % len(self.uids))
        if self._claim is None:
            self.claimed(first, up_to)
        else:
            self._claim(self, up_to)

    def _tell_flags(self, lines: list[bytes], condstore: bool) -> None:
        for uid in sorted(self._flags):
            flags, bits, modseq, _ = self._flags[uid]
            number = self.sequence_number(uid)
            if number is None or uid in self._expunged:
                continue
            text = flag_text(flags, bits, self.keywords, recent=self.is_recent(uid))
            if condstore:
                lines.append(b"* %d FETCH (UID %d FLAGS (%b) MODSEQ (%d))\r\n" % (number, uid, text, modseq))
            else:
                lines.append(b"* %d FETCH (UID %d FLAGS (%b))\r\n" % (number, uid, text))
        self._flags.clear()

    # ------------------------------------------------------------------------------------------ \Recent

    @property
    def recent(self) -> int:
        """How many told messages are \\Recent in this session."""
        position = self.uids.position
        return sum(position(last + 1) - position(first) for first, last in self._recent)

    def claimed(self, first: UID, up_to: UID) -> None:
        """Messages from ``first`` and below ``up_to`` are this session's \\Recent."""
        if first >= up_to:
            return
        if self._recent and first <= self._recent[-1][1] + 1:
            self._recent[-1] = (self._recent[-1][0], max(self._recent[-1][1], up_to - 1))
        else:
            self._recent.append((first, up_to - 1))

    def is_recent(self, uid: UID) -> bool:
        """Whether this session was the first to be told of a message.  RFC 3501 §2.3.2."""
        return any(first <= uid <= last for first, last in reversed(self._recent))

    def recent_in(self, first: UID, last: UID) -> bool | None:
        """Whether all (True) or none (False) of the UIDs from first to last are recent; None when it differs."""
        for low, high in self._recent:
            if low <= first and last <= high:
                return True
            if low <= last and first <= high:
                return None
        return False

    # ------------------------------------------------------------------------------------------ numbers

    def sequence_number(self, uid: UID) -> int | None:
        """1-based number of a told message, None for one the client has not been told of."""
        return self.uids.position(uid) + 1 if uid in self.uids else None

    def numbers(self, rows_uids: Sequence[UID]) -> Sequence[int] | None:
        """Sequence numbers of ascending told UIDs as a range, when they are a contiguous slice of the view.

        None when they are not contiguous: look them up one by one.
        """
        first, last = self.uids.position(rows_uids[0]), self.uids.position(rows_uids[-1])
        if last - first == len(rows_uids) - 1 and rows_uids[0] in self.uids and rows_uids[-1] in self.uids:
            return range(first + 1, last + 2)
        return None

    def uid_set(self, sequence_set: SequenceSet, *, uid: bool, strict: bool = True) -> UIDSet:
        """Resolve a set to the told messages' UIDs.  RFC 9051 §9 sequence-set, §6.4.9.

        uid: the numbers are UIDs; those not told of are cut off above and ignored inside.  Otherwise a number above
        the last message, or ``*`` in an empty mailbox, raises WireError; with ``strict`` false (SEARCH) it is ignored.
        """
        told = self.uids
        count = len(told)
        if uid:
            if not count:
                return UIDSet()
            highest = told[-1]
            ranges = [(first or highest, last or highest) for first, last in sequence_set.ranges]
            # ``n:*`` with n above the last UID means the last message: the end that is ``*`` comes first then.
            return UIDSet((low, min(high, highest)) for low, high in map(_ascending, ranges) if low <= highest)
        ranges = [(first or count, last or count) for first, last in sequence_set.ranges]
        found: list[tuple[int, int]] = []
        for low, high in map(_ascending, ranges):
            if high > count or not count:
                if strict:
                    raise WireError("No such message" if count else "The mailbox is empty")
                high = min(high, count)  # noqa: PLW2901 - clipped, as in C
                if low > high or not count:
                    continue
            found.append((told[low - 1], told[high - 1]))
        return UIDSet(found)


def _ascending(ends: tuple[int, int]) -> tuple[int, int]:
    first, last = ends
    return ends if first <= last else (last, first)
