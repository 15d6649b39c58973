"""Tells the story of a mail transaction: a row of a few hundred octets, made once before the commit that files the message.

A message that is taken and filed for everybody costs one row, in that commit.  What was refused, discarded or partly refused gets its
row, or another one, when the answer is known; it goes with the next commit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from livemail.interfaces.filter import CONTINUE, ConnectionInfo, Defer, Record, Reject, Verdict
from livemail.interfaces.story import (
    MAX_RECIPIENTS,
    MAX_TEXT,
    MAX_TOLD,
    Quiet,
    Story,
    ToldFilter,
    ToldRecipient,
    encode_story,
)
from livemail.mail.content import Content
from livemail.mail.envelope import Envelope, Recipient
from livemail.mail.errors import MailError


class Notes(Protocol):
    """Where stories are kept: the store."""

    def note(self, transaction: str, story: bytes, digest: bytes = b"") -> None:
        """Keep one with the next commit, or with the one that files the content."""


class Teller:
    """One transaction's story while it happens."""

    __slots__ = (
        "_connection",
        "_helo",
        "_is_told",
        "_message_id",
        "_notes",
        "_refused",
        "_time",
        "error",
        "transaction",
    )

    def __init__(self, notes: Notes, transaction: str, time: float, connection: ConnectionInfo, helo: str) -> None:
        self.transaction = transaction
        self.error: MailError | None = None
        self._notes = notes
        self._time = time
        self._connection = connection
        self._helo = helo
        self._refused: list[ToldRecipient] = []
        self._is_told = False
        self._message_id = b""

    def refused(self, recipient: Recipient, error: MailError) -> None:
        """A recipient was refused."""
        if len(self._refused) < MAX_RECIPIENTS:
            self._refused.append(ToldRecipient(str(recipient.path), *_answer(error)))

    def sees(self, content: Content) -> None:
        """All content is here."""
        self._message_id = content.outline.message_id

    def committing(self, content: Content, envelope: Envelope, records: Sequence[Record], *, is_junk: bool) -> None:
        """The message is about to be made durable: its story goes with it."""
        self._message_id = content.outline.message_id
        self._note(envelope, records, content.size, (), "taken", None, is_junk, content.digest)

    def ended(
        self,
        envelope: Envelope,
        records: Sequence[Record],
        *,
        size: int,
        results: Sequence[MailError | None] = (),
        error: MailError | None = None,
        is_discarded: bool = False,
        is_junk: bool = False,
    ) -> None:
        """What was answered, where that is not that everything was taken.  results: of the envelope's recipients."""
        outcome = "discarded" if is_discarded else "refused" if error is not None else "taken"
        self._note(envelope, records, size, results, outcome, error, is_junk, b"")

    def close(self, envelope: Envelope, records: Sequence[Record], size: int) -> None:
        """The transaction is over: tell of one that was refused before there was a message."""
        if self._is_told or (self.error is None and not (self._refused and not envelope.recipients)):
            return
        error = self.error or MailError("No valid recipients", code=554, enhanced="5.5.1")
        self.ended(envelope, records, size=size, error=error)

    def _note(
        self,
        envelope: Envelope,
        records: Sequence[Record],
        size: int,
        results: Sequence[MailError | None],
        outcome: str,
        error: MailError | None,
        is_junk: bool,
        digest: bytes,
    ) -> None:
        self._is_told = True
        connection, recipients = self._connection, envelope.recipients
        told = [ToldRecipient(str(recipient.path)) for recipient in recipients[:MAX_RECIPIENTS]]
        for at, result in enumerate(results[:MAX_RECIPIENTS]):
            if result is not None:
                told[at] = ToldRecipient(told[at].path, *_answer(result))
        code, enhanced, text = _answer(error) if error is not None else (250, "2.0.0", "")
        story = Story(
            self.transaction,
            self._time,
            connection.service,
            connection.peer,
            connection.port,
            self._helo,
            connection.tls,
            connection.authcid,
            str(envelope.reverse_path.path),
            (*told, *self._refused),
            len(recipients) + len(self._refused),
            self._message_id[:MAX_TEXT],
            size,
            outcome,
            code,
            enhanced,
            text,
            error.reason[:MAX_TEXT] if error is not None else "",
            is_junk,
            *(_filters(records) if records else ((), ())),
        )
        self._notes.note(self.transaction, encode_story(story), digest)


def _answer(error: MailError | None) -> tuple[int, str, str]:
    return (0, "", "") if error is None else (error.code, error.enhanced, error.text[:MAX_TEXT])


def _filters(records: Sequence[Record]) -> tuple[tuple[tuple[int, ToldFilter], ...], tuple[Quiet, ...]]:
    """Divide what filters said into answers with their places, and the quiet ones."""
    if len(records) > MAX_TOLD:
        # What matters first: verdicts, edits and failures; then the rest, in their order again.
        ranked = sorted(range(len(records)), key=lambda at: (not _matters(records[at]), at))[:MAX_TOLD]
        records = [records[at] for at in sorted(ranked)]
    answers: list[tuple[int, ToldFilter]] = []
    quiet: list[Quiet] = []
    for at, record in enumerate(records):
        if record.verdict is CONTINUE and not record.edits and not record.is_failure:
            quiet.append((record.filter, record.stage, int(record.seconds * 1_000_000), record.count))
        else:
            answers.append((at, _told(record)))
    return tuple(answers), tuple(quiet)


def _told(record: Record) -> ToldFilter:
    return ToldFilter(
        record.filter,
        record.stage,
        _word(record.verdict),
        _said(record.verdict),
        getattr(record.verdict, "reason", "")[:MAX_TEXT],
        int(record.seconds * 1_000_000),
        record.count,
        record.is_failure,
        tuple(edit[:MAX_TEXT] for edit in record.edits[:20]),
    )


def _matters(record: Record) -> bool:
    return record.is_failure or bool(record.edits) or _word(record.verdict) != "continue"


def _said(verdict: Verdict) -> str:
    """What a refusal tells the peer."""
    if isinstance(verdict, Reject | Defer):
        return f"{verdict.code} {verdict.enhanced} {verdict.text}"[:MAX_TEXT]
    return ""


def _word(verdict: Verdict) -> str:
    return type(verdict).__name__.lower()
