"""Evaluating a search over storage's batches, cheapest evidence first.

Rows decide most programs; what they leave open is looked at again with the cached header fields, or with the content, in a
second pass over just those messages.  Messages small enough come with the batch, larger ones are read through their
reader by windows.  The reactor gets its turn back every `TURN_SECONDS`: a search through a large mailbox takes as long
as it takes, and nobody else notices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from twisted.internet.defer import Deferred

from livemail.imap.fetch_stream import SMALL_OCTETS
from livemail.interfaces.storage import HEADER_SIZE, MODSEQ, UID_, FetchBatch, FetchWant, Row
from livemail.mail.ids import UID, ModSeq, UIDSet
from livemail.mail.message.summary import decode_parts
from livemail.mail.search import AllOf, SearchKey, UIDs
from livemail.mail.search_match import InMemory, Matcher, Needs, compile_search

if TYPE_CHECKING:
    from livemail.imap.session import Session

TURN_SECONDS: Final = 0.05
MAX_HEADER_OCTETS: Final = 1024 * 1024


class Source(Protocol):
    """Whatever a message can be read from."""

    async def read(self, offset: int, length: int) -> bytes:
        """The octets [offset, offset+length), fewer at the end."""


class Breath:
    """Gives the reactor its turn when this one has lasted long enough."""

    def __init__(self, clock: Any, now: Any) -> None:
        """clock: IReactorTime.  now: monotonic seconds; the reactor's own clock stands still in a test."""
        self._clock = clock
        self._now = now
        self._since = now()

    async def take(self) -> None:
        """Let others run, if it is time."""
        if self._now() - self._since >= TURN_SECONDS:
            turn: Deferred[None] = Deferred()
            self._clock.callLater(0, turn.callback, None)
            await turn
            self._since = self._now()


class _Paced:
    """A source that lets others run between two windows."""

    def __init__(self, source: Source, breath: Breath) -> None:
        self._source = source
        self._breath = breath

    async def read(self, offset: int, length: int) -> bytes:
        await self._breath.take()
        return await self._source.read(offset, length)


class Search:
    """One search over the selected mailbox."""

    def __init__(self, session: Session, breath: Breath) -> None:
        assert session.view is not None
        self.session = session
        self.view = session.view
        self.breath = breath
        self.found: list[UID] = []
        self.modseq: ModSeq = 0
        """The highest ModSeq among the found."""

    async def run(self, key: SearchKey) -> None:
        """Fill `found`, ascending.  Raises MailError, Gone."""
        candidates = _candidates(key, UIDSet([(self.view.uids[0], self.view.uids[-1])]) if self.view.uids else UIDSet())
        if not candidates:
            return
        matcher = compile_search(key)
        left = await self._by_rows(matcher, candidates)
        if left and matcher.needs == Needs.FIELDS:
            left = await self._by_fields(matcher, UIDSet.of(left))
        if left:
            await self._by_content(matcher, UIDSet.of(left))
        self.found.sort()

    def _take(self, row: Row) -> None:
        # A message the client was told of, and only that: the others have no number yet.
        self.found.append(row[UID_])
        self.modseq = max(self.modseq, row[MODSEQ])

    async def _batches(self, uids: UIDSet, want: FetchWant) -> Any:
        async for batch in self.session.account.fetch(self.view.mailbox, uids, want):
            yield batch
            await self.breath.take()

    async def _by_rows(self, matcher: Matcher, uids: UIDSet) -> list[UID]:
        left: list[UID] = []
        by_row, is_recent = matcher.by_row, self.view.is_recent
        async for batch in self._batches(uids, FetchWant()):
            keywords = batch.keywords
            for row in batch.rows:
                verdict = by_row(row, keywords, is_recent=is_recent(row[UID_]))
                if verdict:
                    self._take(row)
                elif verdict is None:
                    left.append(row[UID_])
        return left

    async def _by_fields(self, matcher: Matcher, uids: UIDSet) -> list[UID]:
        left: list[UID] = []
        async for batch in self._batches(uids, FetchWant(fields=True)):
            prefixes = batch.prefixes or [b""] * len(batch.rows)
            for row, prefix, fields in zip(batch.rows, prefixes, batch.fields or (), strict=True):
                verdict = None
                if fields is not None:
                    is_recent = self.view.is_recent(row[UID_])
                    verdict = matcher.by_header(row, batch.keywords, prefix + fields, is_recent=is_recent)
                if verdict:
                    self._take(row)
                elif verdict is None:
                    left.append(row[UID_])
        return left

    async def _by_content(self, matcher: Matcher, uids: UIDSet) -> None:
        want = FetchWant(contents=True, contents_up_to=SMALL_OCTETS, parts=matcher.needs == Needs.CONTENT)
        async for batch in self._batches(uids, want):
            for index, row in enumerate(batch.rows):
                if await self._matches(matcher, batch, index):
                    self._take(row)
                await self.breath.take()

    async def _matches(self, matcher: Matcher, batch: FetchBatch, index: int) -> bool:
        row = batch.rows[index]
        content = batch.contents[index] if batch.contents is not None else None
        if content is not None:
            prefix_size = len(batch.prefixes[index]) if batch.prefixes is not None else 0
            return await self._decide(matcher, batch, index, InMemory(content), prefix_size)
        reader = await self.session.account.open_content(self.view.mailbox, row[UID_])
        if reader is None:
            return False
        try:
            return await self._decide(matcher, batch, index, _Paced(reader, self.breath), reader.prefix_size)
        finally:
            reader.close()

    async def _decide(self, matcher: Matcher, batch: FetchBatch, index: int, source: Source, prefix_size: int) -> bool:
        row = batch.rows[index]
        is_recent = self.view.is_recent(row[UID_])
        header = await source.read(0, min(row[HEADER_SIZE], MAX_HEADER_OCTETS))
        verdict = matcher.by_header(row, batch.keywords, header, is_recent=is_recent)
        if verdict is not None or not batch.parts:
            return bool(verdict)
        root = decode_parts(batch.parts[index])
        return await matcher.by_content(row, batch.keywords, header, source, root, prefix_size, is_recent=is_recent)


def _candidates(key: SearchKey, told: UIDSet) -> UIDSet:
    """Return what need be looked at: a set of UIDs beside the other keys leaves the rest of the mailbox alone."""
    if isinstance(key, UIDs):
        return key.uids
    if isinstance(key, AllOf):
        sets = [each.uids for each in key.keys if isinstance(each, UIDs)]
        if sets:
            return min(sets, key=len)
    return told
