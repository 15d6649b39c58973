"""Answering a FETCH: batches of rows in, responses out, as fast as the client reads and no faster.  RFC 9051 §7.5.2.

Three ways, by what is asked
    rows only       one batch is one write (`render.rows`): lists, flags, envelopes, structures, cached header fields
    small messages  storage hands whole messages out with the batch, up to `SMALL_OCTETS` each and 1 MiB together
    large messages  read by chunks of `CHUNK_OCTETS`, one on its way at a time: a message of 200 MB costs what one
                    of 200 KB costs

A literal's size is said before its octets, so nothing may go wrong behind it: the first chunk of a message is read before
its response begins (a damaged message is then left out and the reply is NO), and when a later one cannot be had the connection is cut,
because any other octet would be taken for the message's.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import add
from typing import TYPE_CHECKING, Any, Final

import msgspec
from twisted.logger import Logger

from livemail.imap.fetch_items import Items
from livemail.imap.render.picks import pick_fields
from livemail.imap.render.rows import RowRenderer, number_rows
from livemail.imap.render.sections import MAX_HEADER_OCTETS, Section, cut_sections, literal
from livemail.interfaces.storage import (
    FLAGS,
    HEADER_SIZE,
    UID_,
    FetchBatch,
    FetchWant,
    IContentReader,
    Row,
)
from livemail.mail.errors import MailError, StorageFailed
from livemail.mail.flags import SEEN
from livemail.mail.ids import UID, ModSeq, UIDSet
from livemail.mail.message.summary import Part, decode_parts
from livemail.net.connection import Gone

if TYPE_CHECKING:
    from livemail.imap.session import Session

SMALL_OCTETS: Final = 64 * 1024
SMALL_HEADER_OCTETS: Final = 16 * 1024
"""Reading a whole message for its header pays up to here; above, the header is read alone."""
CHUNK_OCTETS: Final = 64 * 1024

log = Logger("livemail.imap.fetch")


class Answer(msgspec.Struct):
    """What a client got.  count: responses.  unseen: UIDs whose content was read and that are not \\Seen yet.

    failure: why a message was left out; one damaged message does not stand before those behind it.
    """

    count: int = 0
    unseen: list[UID] = []
    failure: StorageFailed | None = None


class Piece(msgspec.Struct, frozen=True):
    """One section of one large message, ready to be sent: an item at hand, or its beginning and the range to follow."""

    item: bytes
    is_read: bool = False
    offset: int = 0
    end: int = 0


def columns(items: Items, changed_since: ModSeq = 0) -> FetchWant:
    """Return what storage has to read for these items, and no more."""
    sections = items.sections
    cached = bool(sections) and all(section.is_cached for section in sections)
    contents = bool(sections) and not cached
    header_only = contents and all(section.needs_header_only for section in sections)
    return FetchWant(
        envelopes="ENVELOPE" in items.rows,
        structures=not items.rows.isdisjoint({"BODY", "BODYSTRUCTURE"}),
        fields=cached,
        parts=any(section.path for section in sections),
        contents=contents,
        contents_up_to=SMALL_HEADER_OCTETS if header_only else SMALL_OCTETS,
        changed_since=changed_since,
    )


async def answer(session: Session, uids: UIDSet, items: Items, changed_since: ModSeq = 0) -> Answer:
    """Send a FETCH response for every message of a set the client has been told of.  Raises MailError, Gone.

    A message that cannot be read is left out, and noted in the result.
    """
    view = session.view
    assert view is not None
    result = Answer()
    if not uids:
        return result
    wanted = columns(items, changed_since)
    rows = RowRenderer(items.rows, [section.label for section in items.sections])
    async for found in session.account.fetch(view.mailbox, uids, wanted):
        if not found.rows:
            continue
        numbers, batch = number_rows(view, found)
        if not numbers:
            continue
        view.learn_keywords(batch.keywords)
        view.tell_keywords(session.send)
        if wanted.fields:
            lines = list(rows.lines(view, numbers, batch, _picked_columns(items.sections, batch)))
            heads = list(rows.heads(view, numbers, batch)) if None in (batch.fields or ()) else []
            await _Batch(session, items.sections, result).send_lines(lines, heads, batch)
        elif items.sections:
            await _Batch(session, items.sections, result).send(list(rows.heads(view, numbers, batch)), batch)
        else:
            session.send(b"".join(rows.lines(view, numbers, batch)))
            result.count += len(numbers)
        await session.drained()
    return result


def _picked_columns(sections: tuple[Section, ...], batch: FetchBatch) -> list[Sequence[Any]]:
    """Return sizes and octets of each section of header fields, by row; rows without cached fields have fillers."""
    headers: list[bytes] = [text or b"" for text in batch.fields or ()]
    if any(batch.prefixes or ()):
        headers = list(map(add, batch.prefixes or (), headers))
    found: list[Sequence[Any]] = []
    for section in sections:
        # RFC 9051 §6.4.5: the blank line behind the header is part of every selection.
        picked = [text + b"\r\n" for text in pick_fields(headers, section.names)]
        if section.offset is not None:
            picked = [text[slice(*section.clip(0, len(text)))] for text in picked]
        found += (list(map(len, picked)), picked)
    return found


class _Batch:
    """Sends the messages of one batch with their sections."""

    def __init__(self, session: Session, sections: tuple[Section, ...], result: Answer) -> None:
        self.session = session
        self.sections = sections
        self.result = result
        self.sets_seen = any(section.sets_seen for section in sections)

    async def send_lines(self, lines: list[bytes], heads: list[bytes], batch: FetchBatch) -> None:
        """lines: the responses, not to be sent for rows without cached fields; for these there are heads."""
        begin = 0
        assert batch.fields is not None
        for at in [at for at, text in enumerate(batch.fields) if text is None] if heads else []:
            self._send_joined(lines[begin:at], batch.rows[begin:at])
            await self._send_or_note(heads[at], batch.rows[at], None)
            begin = at + 1
        self._send_joined(lines[begin:], batch.rows[begin:])

    def _send_joined(self, lines: list[bytes], rows: Sequence[Row]) -> None:
        self.session.send(b"".join(lines))
        self.result.count += len(lines)
        if self.sets_seen:
            self.result.unseen += [row[UID_] for row in rows if not row[FLAGS] & SEEN]

    async def send(self, heads: list[bytes], batch: FetchBatch) -> None:
        """heads: the open responses of the batch's rows."""
        send = self.session.send
        prefixes = batch.prefixes or [b""] * len(heads)
        parts = batch.parts or [b""] * len(heads)
        texts = batch.contents or [None] * len(heads)
        waiting = 0
        for head, row, prefix, packed, text in zip(heads, batch.rows, prefixes, parts, texts, strict=True):
            root = decode_parts(packed) if packed else None
            if text is None:
                await self._send_or_note(head, row, root)
                waiting = 0
            else:
                items = cut_sections(self.sections, text, row[HEADER_SIZE], len(prefix), root)
                response = _join(head, items)
                send(response)
                self._sent(row)
                waiting += len(response)
                if waiting >= CHUNK_OCTETS:
                    await self.session.drained()
                    waiting = 0

    def _sent(self, row: Row) -> None:
        self.result.count += 1
        if self.sets_seen and not row[FLAGS] & SEEN:
            self.result.unseen.append(row[UID_])

    # ------------------------------------------------------------------------------------------ large messages

    async def _send_or_note(self, head: bytes, row: Row, root: Part | None) -> None:
        try:
            await self._send_large(head, row, root)
        except StorageFailed as error:
            self.result.failure = error

    async def _send_large(self, head: bytes, row: Row, root: Part | None) -> None:
        session = self.session
        assert session.view is not None
        reader: IContentReader | None = await session.account.open_content(session.view.mailbox, row[UID_])
        if reader is None:  # expunged between the row and here
            return
        try:
            pieces = [await self._piece(section, reader, row[HEADER_SIZE], root) for section in self.sections]
            first = await _first_chunk(pieces, reader)
            session.send(head)
            separator = b"" if head.endswith(b"(") else b" "
            for piece in pieces:
                session.send(separator + piece.item)
                if piece.is_read:
                    await self._stream(piece, reader, first)
                    first = None
                else:
                    await session.drained()
                separator = b" "
            session.send(b")\r\n")
            await session.drained()
        finally:
            reader.close()
        self._sent(row)

    async def _piece(self, section: Section, reader: IContentReader, header_size: int, root: Part | None) -> Piece:
        found = section.range(reader.size, header_size, reader.prefix_size, root)
        if found is None:
            return Piece(section.label + b" NIL")
        offset, end = found
        if section.is_selection:
            picked = section.select(await _read(reader, offset, min(end, offset + MAX_HEADER_OCTETS)))
            start, stop = section.clip(0, len(picked))
            return Piece(literal(section.label, picked[start:stop]))
        offset, end = section.clip(offset, end)
        return Piece(b"%b {%d}\r\n" % (section.label, end - offset), True, offset, end)

    async def _stream(self, piece: Piece, reader: IContentReader, first: bytes | None) -> None:
        session = self.session
        offset = piece.offset
        if first is not None:
            session.send(first)
            offset += len(first)
        while offset < piece.end:
            await session.drained()
            try:
                chunk = await _read(reader, offset, min(piece.end, offset + CHUNK_OCTETS))
            except MailError as error:
                log.warn(
                    "{session} {peer}: message damaged behind octet {offset}, connection cut: {reason}",
                    session=session.connection.session_id,
                    peer=session.connection.peer,
                    offset=offset,
                    reason=str(error),
                )
                session.connection.abort()
                raise Gone from error
            session.send(chunk)
            offset += len(chunk)
        await session.drained()


async def _first_chunk(pieces: list[Piece], reader: IContentReader) -> bytes | None:
    """Read the beginning of the first piece that is read from storage."""
    for piece in pieces:
        if piece.is_read:
            return await _read(reader, piece.offset, min(piece.end, piece.offset + CHUNK_OCTETS))
    return None


async def _read(reader: IContentReader, offset: int, end: int) -> bytes:
    """Read a range whole.  Raises StorageFailed when the message is shorter than its record says."""
    if offset >= end:
        return b""
    octets = await reader.read(offset, end - offset)
    while len(octets) < end - offset:
        more = await reader.read(offset + len(octets), end - offset - len(octets))
        if not more:
            raise StorageFailed(reason=f"message ends at octet {offset + len(octets)}, expected {end}")
        octets += more
    return octets


def _join(head: bytes, items: list[bytes]) -> bytes:
    separator = b"" if head.endswith(b"(") else b" "
    return b"%b%b%b)\r\n" % (head, separator, b" ".join(items))
