"""FETCH over a mailbox in memory: rows and columns in bounded batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from livemail.interfaces.storage import MODSEQ, SIZE, FetchBatch, FetchWant
from livemail.mail.ids import UIDSet
from livemail.storage.memory.mailbox import Mailbox, Message

BATCH_MESSAGES: Final = 1000
BATCH_OCTETS: Final = 1024 * 1024


def batches(mailbox: Mailbox, uids: UIDSet, want: FetchWant) -> Iterator[FetchBatch]:
    """Yield what a fetch gives.  Between two batches messages may vanish: then they are left out."""
    found: list[Message] = []
    octets = 0
    for uid in mailbox.chosen(uids):
        message = mailbox.messages.get(uid)
        if message is None or message.row[MODSEQ] <= want.changed_since:
            continue
        if want.contents and message.row[SIZE] <= want.contents_up_to:
            if found and octets + message.row[SIZE] > BATCH_OCTETS:
                yield _batch(found, mailbox.keywords, want)
                found, octets = [], 0
                if uid not in mailbox.messages:
                    continue
                message = mailbox.messages[uid]
            octets += message.row[SIZE]
        found.append(message)
        if len(found) == BATCH_MESSAGES:
            yield _batch(found, mailbox.keywords, want)
            found, octets = [], 0
    if found:
        yield _batch(found, mailbox.keywords, want)


def _batch(found: list[Message], keywords: tuple[str, ...], want: FetchWant) -> FetchBatch:
    batch = FetchBatch([message.row for message in found], keywords)
    if want.envelopes:
        batch.envelopes = [message.body.summary.envelope for message in found]
    if want.structures:
        batch.structures = [message.body.summary.structure for message in found]
    if want.fields or want.contents:
        batch.prefixes = [message.prefix for message in found]
    if want.fields:
        batch.fields = [message.body.summary.fields for message in found]
    if want.parts:
        batch.parts = [message.body.summary.parts for message in found]
    if want.contents:
        batch.contents = [
            message.prefix + message.body.octets if message.row[SIZE] <= want.contents_up_to else None
            for message in found
        ]
    return batch
