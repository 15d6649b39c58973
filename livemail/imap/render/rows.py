"""Whole batches of rows as FETCH responses.  RFC 9051 §7.5.2, RFC 7162 §3.1.4.2.

A list of a hundred thousand messages is a hundred thousand rows of the same shape, so the items a command asks for
are compiled once into one format string and one column function each; a batch is then

    map(format.__mod__, zip(numbers, column, column, …))

and every loop over messages runs in C.  Measured on CPython 3.11 for UID and FLAGS: 0.25 µs a message, the
same as a line of ``%`` in a comprehension written for exactly these two items, without writing one for every combination.
Items come in a fixed order, whatever order they were asked in (RFC 9051 §7.5.2 lets the server choose).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import compress
from operator import itemgetter
from typing import Any, Final

import msgspec

from livemail.imap.render.dates import InternalDates
from livemail.imap.render.flags import FlagTexts
from livemail.imap.view import View
from livemail.interfaces.storage import DATE, FLAGS, KEYWORDS, MODSEQ, SIZE, UID_, ZONE, FetchBatch, Row
from livemail.mail.message.structure import basic_body

_FORMATS: Final[dict[str, bytes]] = {
    "UID": b"UID %d",
    "FLAGS": b"FLAGS (%b)",
    "MODSEQ": b"MODSEQ (%d)",
    "INTERNALDATE": b"INTERNALDATE %b",
    "RFC822.SIZE": b"RFC822.SIZE %d",
    "ENVELOPE": b"ENVELOPE %b",
    "BODY": b"BODY %b",
    "BODYSTRUCTURE": b"BODYSTRUCTURE %b",
}
ROW_ITEMS: Final = frozenset(_FORMATS)
"""Items that need no content."""

_uid: Final[Callable[[Row], int]] = itemgetter(UID_)
_modseq: Final[Callable[[Row], int]] = itemgetter(MODSEQ)
_size: Final[Callable[[Row], int]] = itemgetter(SIZE)
_flags: Final = itemgetter(FLAGS, KEYWORDS)
_date: Final = itemgetter(DATE, ZONE)

_COLUMNS: Final = ("envelopes", "structures", "prefixes", "fields", "parts", "contents")


class RowRenderer:
    """Renders what one command asks of every row.  Lives as long as the command."""

    def __init__(self, items: Iterable[str], labels: Iterable[bytes] = ()) -> None:
        """items: names out of `ROW_ITEMS`.  labels: of the sections whose values `lines` is given."""
        wanted = frozenset(items)
        self.items = tuple(item for item in _FORMATS if item in wanted)
        self.head = b"* %d FETCH (" + b" ".join(_FORMATS[item] for item in self.items)
        """Format of a response up to, without, its closing parenthesis."""
        values = [label.replace(b"%", b"%%") + b" {%d}\r\n%b" for label in labels]
        self.line = self.head + b" " * bool(self.items and values) + b" ".join(values) + b")\r\n"
        self._dates = InternalDates()
        self._texts = FlagTexts(())
        self._recent_texts = FlagTexts((), recent=True)

    def lines(
        self, view: View, numbers: Sequence[int], batch: FetchBatch, values: Sequence[Iterable[Any]] = ()
    ) -> Iterator[bytes]:
        """Whole responses for every row of a numbered batch.

        values: for each label the column of the sizes and the column of the octets.
        """
        return map(self.line.__mod__, self._arguments(view, numbers, batch, values))

    def heads(self, view: View, numbers: Sequence[int], batch: FetchBatch) -> Iterator[bytes]:
        """Responses for every row of a numbered batch, still open."""
        return map(self.head.__mod__, self._arguments(view, numbers, batch))

    def _arguments(
        self, view: View, numbers: Sequence[int], batch: FetchBatch, values: Sequence[Iterable[Any]] = ()
    ) -> Iterator[tuple[Any, ...]]:
        columns: list[Iterable[Any]] = [numbers]
        rows = batch.rows
        for item in self.items:
            if item == "UID":
                columns.append(map(_uid, rows))
            elif item == "FLAGS":
                columns.append(self._flags_column(view, batch))
            elif item == "MODSEQ":
                columns.append(map(_modseq, rows))
            elif item == "INTERNALDATE":
                columns.append(map(self._dates.__getitem__, map(_date, rows)))
            elif item == "RFC822.SIZE":
                columns.append(map(_size, rows))
            elif item == "ENVELOPE":
                columns.append(batch.envelopes or ())
            elif item == "BODY":
                columns.append(map(basic_body, batch.structures or ()))
            else:
                columns.append(batch.structures or ())
        return zip(*columns, *values, strict=True)

    def _flags_column(self, view: View, batch: FetchBatch) -> Iterable[bytes]:
        rows = batch.rows
        if self._texts.keywords != batch.keywords:
            self._texts = FlagTexts(batch.keywords)
            self._recent_texts = FlagTexts(batch.keywords, recent=True)
        texts, recent_texts = self._texts, self._recent_texts
        recent = view.recent_in(rows[0][UID_], rows[-1][UID_])
        if recent is None:
            is_recent = view.is_recent
            return [(recent_texts if is_recent(row[UID_]) else texts)[row[FLAGS], row[KEYWORDS]] for row in rows]
        return map((recent_texts if recent else texts).__getitem__, map(_flags, rows))


def number_rows(view: View, batch: FetchBatch) -> tuple[Sequence[int], FetchBatch]:
    """Return the rows' sequence numbers, and the batch without the rows the client has not been told of."""
    uids = list(map(_uid, batch.rows))
    numbers = view.numbers(uids)
    if numbers is not None:
        return numbers, batch
    found = [view.sequence_number(uid) for uid in uids]
    known = [number for number in found if number is not None]
    if len(known) == len(found):
        return known, batch
    told = [number is not None for number in found]
    kept = {
        name: None if (column := getattr(batch, name)) is None else list(compress(column, told)) for name in _COLUMNS
    }
    return known, msgspec.structs.replace(batch, rows=list(compress(batch.rows, told)), **kept)
