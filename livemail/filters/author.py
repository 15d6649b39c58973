"""What a filter is, and the transaction it looks at.

Stages come in this order; all are optional, and a stage that a class does not override costs nothing:

    connect → helo → (mail → rcpt… → data → headers → body… → message → closed)… → closed

One object serves one mail transaction.  ``connect`` and ``helo`` belong to the connection and are asked of an object of their
own: what they were told stands in ``tx.connection`` and ``tx.helo`` for everybody after them.  ``closed`` is called once on every object.

``headers``, ``body`` and ``message`` come when the whole message is here: first all three of the first filter, then, with its
edits applied, those of the second, and so on.  ``body`` gets what is behind the blank line in chunks of at most `BODY_CHUNK` octets,
in order, never at the same time; nothing holds more of it than the filter keeps.

Edits (`Transaction` for the envelope, `Message` for header and body) are possible at headers, body and message.  They take
effect when the filter has come to its verdict, and not at all when it raises, runs out of time, edits twice or too late.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, ClassVar, Final, Literal

import msgspec

from livemail.filters.edits import LATE, EditError, Edits
from livemail.filters.message import Message
from livemail.interfaces.directory import IDirectory
from livemail.interfaces.filter import CONTINUE, ConnectionInfo, EnvelopeEdit, Record, Verdict
from livemail.interfaces.relay import IResolver
from livemail.interfaces.runtime import Now, RunBlocking
from livemail.mail.address import Address, Path
from livemail.mail.envelope import Recipient, ReversePath

BODY_CHUNK: Final = 64 * 1024
"""Octets of a body chunk at most."""

Stage = Literal["connect", "helo", "mail", "rcpt", "data", "headers", "body", "message"]


class Server(msgspec.Struct, frozen=True, kw_only=True):
    """The server around a filter: what it may use.  What a test injects, the filter gets.

    reactor: for timers and connections.  now: seconds since the epoch.  run_blocking: awaits a function in a thread.
    resolver: DNS.  directory: which addresses and accounts are ours.  folder: a folder for what filters keep, "" for none.
    """

    hostname: str = "localhost"
    reactor: Any = None
    now: Now = time.time
    run_blocking: RunBlocking | None = None
    resolver: IResolver | None = None
    directory: IDirectory | None = None
    folder: str = ""


class TransactionState:
    """What all filters of one mail transaction share.  accounts: those the recipients belong to, where somebody asked."""

    __slots__ = ("accounts", "connection", "helo", "recipients", "records", "reverse_path", "scores")

    def __init__(self, connection: ConnectionInfo, helo: str = "") -> None:
        self.connection = connection
        self.helo = helo
        self.reverse_path: ReversePath | None = None
        self.recipients: list[Recipient] = []
        self.records: list[Record] = []
        self.scores: list[tuple[float, str]] = []
        self.accounts: set[str] = set()


class Transaction:
    """A mail transaction as one filter sees it."""

    __slots__ = ("_edits", "_state")

    def __init__(self, state: TransactionState) -> None:
        self._state = state
        self._edits: Edits | None = None

    @property
    def connection(self) -> ConnectionInfo:
        """Who hands the message in."""
        return self._state.connection

    @property
    def helo(self) -> str:
        """The name the client gave itself, "" before."""
        return self._state.helo

    @property
    def reverse_path(self) -> ReversePath | None:
        """MAIL's argument as the filters before left it; None before MAIL."""
        return self._state.reverse_path

    @property
    def recipients(self) -> Sequence[Recipient]:
        """Accepted so far, as the filters before left them."""
        return self._state.recipients

    @property
    def records(self) -> Sequence[Record]:
        """What filters said before."""
        return self._state.records

    @property
    def scores(self) -> Sequence[tuple[float, str]]:
        """(points, reason) that filters added."""
        return self._state.scores

    @property
    def score(self) -> float:
        """The sum of all scores."""
        return sum(points for points, _ in self._state.scores)

    def add_score(self, points: float, reason: str) -> None:
        """Say how suspicious (positive) or welcome (negative) the message is, for a later filter to judge."""
        self._state.scores.append((float(points), str(reason)))

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
        if self._edits is None:
            raise EditError(LATE)
        self._edits.of_envelope(edit)

    @property
    def state(self) -> TransactionState:
        """The chain's: what all filters share."""
        return self._state

    @property
    def edits(self) -> Edits | None:
        """The chain's: where edits are noted."""
        return self._edits

    def begin_edits(self, edits: Edits) -> None:
        """The chain's: from now on edits are noted there."""
        self._edits = edits


class Filter:
    """Base of all filters: override the stages you need, set `blocking` when you compute for long.

    blocking: the stages run in a thread and must not await anything.
    server: the `Server` around.  shared: what `start` returned, the same for all objects.
    must_defer: an object that knows it was about to act sets it: a failure from then on defers, even with on_failure = "skip".
    """

    class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
        """What the administrator may choose; override with typed fields and defaults.

        A method ``faults`` may yield (key, what is wrong with it and what to write instead) for what types cannot say.
        """

    blocking: ClassVar[bool] = False

    server: Server = Server()
    shared: Any = None
    must_defer: bool = False

    def __init__(self, config: msgspec.Struct) -> None:
        self.config: Any = config

    @classmethod
    def start(cls, config: Any, server: Server) -> Any:  # noqa: ARG003 - for those who override it
        """Called once when the filter is loaded; make what all its objects share.  An exception keeps it from loading."""
        return None

    @classmethod
    def stop(cls, shared: Any) -> None:
        """Called once when the filter is unloaded and no transaction uses it any more."""

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
        """The message is here; decide by its header.  The body's chunks come next."""
        return CONTINUE

    async def body(self, tx: Transaction, chunk: bytes) -> Verdict:
        """The next octets behind the blank line, `BODY_CHUNK` at most; SKIP when the rest does not matter."""
        return CONTINUE

    async def message(self, tx: Transaction, message: Message) -> Verdict:
        """The message is here and its body has passed; decide by all of it."""
        return CONTINUE

    def closed(self) -> None:
        """This object is not needed any more."""
