"""What a filter is, and the transaction it looks at.

Stages come in this order; all are optional, and a stage that a class does not override costs nothing:

    connect → helo → (mail → rcpt… → data → headers → message)… → closed

One object serves one mail transaction.  ``connect`` and ``helo`` belong to the connection and are asked of an object of their
own: what they were told stands in ``tx.connection`` and ``tx.helo`` for everybody after them.  ``closed`` is called once on every object.

Edits (`Transaction` for the envelope, `Message` for header and body) are possible at headers and message.  They take
effect when the filter returns, and not at all when it raises or runs out of time.
"""

from __future__ import annotations

from typing import ClassVar

import msgspec

from livemail.filters.message import Message
from livemail.interfaces.filter import CONTINUE, ConnectionInfo, EnvelopeEdit, Verdict
from livemail.mail.address import Address, Path
from livemail.mail.envelope import Envelope, Recipient, ReversePath


class Record(msgspec.Struct, frozen=True):
    """What one filter said at one stage.  seconds: how long it took."""

    filter: str
    stage: str
    verdict: Verdict
    seconds: float


class Transaction:
    """A mail transaction as filters see it.

    connection, helo: who hands the message in.  reverse_path: None before MAIL.  recipients: accepted so far.
    records: what filters said before.  scores: (points, reason) they added.
    """

    def __init__(self, connection: ConnectionInfo, helo: str = "") -> None:
        self.connection = connection
        self.helo = helo
        self.reverse_path: ReversePath | None = None
        self.recipients: list[Recipient] = []
        self.records: list[Record] = []
        self.scores: list[tuple[float, str]] = []
        self._edits: list[EnvelopeEdit] = []
        self._may_edit = False

    @property
    def score(self) -> float:
        """The sum of all scores."""
        return sum(points for points, _ in self.scores)

    def add_score(self, points: float, reason: str) -> None:
        """Say how suspicious (positive) or welcome (negative) the message is, for a later filter to judge."""
        self.scores.append((points, reason))

    def add_recipient(self, address: Address) -> None:
        """Send a copy to one more address; it is routed, and may be refused, as any other."""
        self._edit(EnvelopeEdit("add-recipient", Path(address)))

    def remove_recipient(self, path: Path) -> None:
        """Send no copy there."""
        self._edit(EnvelopeEdit("remove-recipient", path))

    def change_reverse_path(self, path: Path) -> None:
        """Have bounces go elsewhere."""
        self._edit(EnvelopeEdit("reverse-path", path))

    def _edit(self, edit: EnvelopeEdit) -> None:
        if not self._may_edit:
            raise RuntimeError("the envelope can be edited at the stages headers and message only")
        self._edits.append(edit)

    def begin_edits(self) -> None:
        """The chain's: edits may come."""
        self._edits, self._may_edit = [], True

    def end_edits(self, envelope: Envelope, *, apply: bool) -> Envelope:
        """The chain's: edits are over; return the envelope with or without them."""
        edits, self._edits, self._may_edit = self._edits, [], False
        if not edits or not apply:
            return envelope
        reverse_path, recipients = envelope.reverse_path, list(envelope.recipients)
        for edit in edits:
            if edit.action == "reverse-path":
                reverse_path = msgspec.structs.replace(reverse_path, path=edit.path)
            elif edit.action == "remove-recipient":
                recipients = [recipient for recipient in recipients if recipient.path != edit.path]
            elif all(recipient.path != edit.path for recipient in recipients):
                recipients.append(Recipient(edit.path))
        self.reverse_path, self.recipients = reverse_path, recipients
        return Envelope(reverse_path, recipients)


class Filter:
    """Base of all filters: override the stages you need, set `blocking` when you compute for long.

    blocking: the stages run in a thread and must not await anything.
    """

    class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
        """What the administrator may choose; override with typed fields and defaults."""

    blocking: ClassVar[bool] = False

    def __init__(self, config: msgspec.Struct) -> None:
        self.config = config

    async def connect(self, tx: Transaction) -> Verdict:
        """Somebody connected."""
        return CONTINUE

    async def helo(self, tx: Transaction, name: str) -> Verdict:
        """EHLO, HELO or LHLO."""
        return CONTINUE

    async def mail(self, tx: Transaction, reverse_path: ReversePath) -> Verdict:
        """A mail transaction begins."""
        return CONTINUE

    async def rcpt(self, tx: Transaction, recipient: Recipient) -> Verdict:
        """One recipient; the verdict is his alone, except Discard and Quarantine, which are the message's."""
        return CONTINUE

    async def data(self, tx: Transaction) -> Verdict:
        """The content is about to come."""
        return CONTINUE

    async def headers(self, tx: Transaction, message: Message) -> Verdict:
        """The message is here; decide by its header."""
        return CONTINUE

    async def message(self, tx: Transaction, message: Message) -> Verdict:
        """The message is here; decide by all of it."""
        return CONTINUE

    def closed(self) -> None:
        """This object is not needed any more."""
