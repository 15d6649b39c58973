"""Rows and columns of a fetch, out of foreign messages one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from livemail.interfaces.storage import FetchBatch, FetchWant, Row
from livemail.mail.ids import UID
from livemail.mail.message.summary import Summary

if TYPE_CHECKING:
    from livemail.auth.foreign.imap_mailbox import Known


class Columns:
    """One batch in the making.  octets: of the contents in it."""

    def __init__(self, want: FetchWant) -> None:
        self.octets = 0
        self._want = want
        self._rows: list[Row] = []
        self._summaries: list[Summary | None] = []
        self._contents: list[bytes | None] = []

    @property
    def needs_summary(self) -> bool:
        """Whether a row is not enough."""
        want = self._want
        return want.envelopes or want.structures or want.fields or want.parts

    def takes_content(self, size: int) -> bool:
        """Whether a message of so many octets comes whole."""
        return self._want.contents and size <= self._want.contents_up_to

    def add(self, uid: UID, known: Known, summary: Summary | None, octets: bytes | None) -> None:
        """Take one message.  octets: the whole of it, where they are at hand."""
        date, zone = known.date
        row = (
            uid, known.flags, known.keywords, known.modseq, date, zone, known.size, known.header_size, date, uid, uid,
        )  # fmt: skip
        self._rows.append(row)
        self._summaries.append(summary)
        content = octets if self.takes_content(known.size) else None
        self._contents.append(content)
        self.octets += len(content or b"")

    def finish(self, keywords: tuple[str, ...]) -> FetchBatch:
        """Return the batch."""
        want = self._want
        batch = FetchBatch(self._rows, keywords)
        summaries = [summary for summary in self._summaries if summary is not None]
        if want.envelopes:
            batch.envelopes = [summary.envelope for summary in summaries]
        if want.structures:
            batch.structures = [summary.structure for summary in summaries]
        if want.fields or want.contents:
            batch.prefixes = [b""] * len(self._rows)
        if want.fields:
            batch.fields = [summary.fields for summary in summaries]
        if want.parts:
            batch.parts = [summary.parts for summary in summaries]
        if want.contents:
            batch.contents = self._contents
        return batch
