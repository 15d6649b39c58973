"""The filter chain as a mail transaction meets it: stages, verdicts, edits.

The chain belongs to a connection (`IFilterChain.connect`), runs its filters at every stage in the configured order, applies
the edits of each before the next sees the message, and answers one verdict.  An exception or timeout in a filter is a
Defer with the filter's name in the log, unless the configuration says to skip it.  `livemail.filters` holds the
authors' side of the same contract.
"""

from __future__ import annotations

import msgspec
from zope.interface import Attribute, Interface

from livemail.mail.address import Path
from livemail.mail.content import Content
from livemail.mail.envelope import Envelope, Recipient, ReversePath


class Continue(msgspec.Struct, frozen=True):
    """No opinion: go on with the next filter, then with the transaction."""


class Accept(msgspec.Struct, frozen=True):
    """Accept without asking later filters.  At mail, data or message: the whole transaction; at rcpt: this recipient."""

    reason: str = ""


class Reject(msgspec.Struct, frozen=True):
    """Refuse for good.  enhanced: 5.y.z; text: one public line."""

    enhanced: str = "5.7.1"
    text: str = "Refused by policy"
    reason: str = ""
    code: int = 550


class Defer(msgspec.Struct, frozen=True):
    """Refuse for now.  enhanced: 4.y.z."""

    enhanced: str = "4.7.1"
    text: str = "Refused for now by policy, try again later"
    reason: str = ""
    code: int = 451


class Discard(msgspec.Struct, frozen=True):
    """Answer 250 and forget the message."""

    reason: str = ""


class Quarantine(msgspec.Struct, frozen=True):
    """Accept, and file in Junk instead of where it would go."""

    reason: str = ""


class Skip(msgspec.Struct, frozen=True):
    """No opinion, and no more chunks of this body: go on with the stage message.  At the stage body only."""


Verdict = Continue | Accept | Reject | Defer | Discard | Quarantine | Skip

CONTINUE = Continue()
SKIP = Skip()


class Record(msgspec.Struct, frozen=True):
    """What one filter said at one stage.

    seconds: how long it took.  is_failure: it came to no verdict of its own; ``verdict`` is what that means here.
    count: how often it was asked (recipients, chunks of the body).  edits: what it changed, one word each.
    """

    filter: str
    stage: str
    verdict: Verdict
    seconds: float
    is_failure: bool = False
    count: int = 1
    edits: tuple[str, ...] = ()


class ConnectionInfo(msgspec.Struct, frozen=True):
    """Who is at the other end.

    session: id that stands in every log line of the connection.  service: smtp, submission, submissions or lmtp.
    peer: textual address, "" for a Unix socket.  tls: protocol and cipher, "" in the clear.  authcid: the
    authenticated login, "" before.  mechanism: the SASL mechanism it came by, upper-case, "" before or where it is not known.
    """

    session: str
    service: str
    peer: str
    port: int = 0
    tls: str = ""
    authcid: str = ""
    mechanism: str = ""


class Outcome(msgspec.Struct, frozen=True):
    """What the chain made of a whole message: the verdict, and the message and envelope as edited.

    content: the one passed in when nothing was edited; else a new one, and the chain has closed the old one.
    """

    verdict: Verdict
    content: Content
    envelope: Envelope


class IFilterTransaction(Interface):
    """The chain's state for one connection; `mail` begins a mail transaction, `reset` ends it early."""

    records = Attribute("sequence of Record: what the filters said in this mail transaction, in order")

    async def helo(name: str) -> Verdict:
        """EHLO, HELO or LHLO."""

    async def mail(reverse_path: ReversePath) -> Verdict:
        """MAIL, before the reply."""

    async def rcpt(recipient: Recipient) -> Verdict:
        """RCPT, before the reply; the recipient is one the router would take."""

    async def data(envelope: Envelope) -> Verdict:
        """DATA or the first BDAT, before the content."""

    async def message(content: Content, envelope: Envelope) -> Outcome:
        """The whole message: stages headers, body and message of every filter."""

    def authenticated(authcid: str, mechanism: str = "") -> None:
        """AUTH succeeded, by this SASL mechanism."""

    def secured(tls: str) -> None:
        """STARTTLS succeeded; what was learned before is forgotten."""

    def reset() -> None:
        """The mail transaction is over, delivered or not."""

    def closed() -> None:
        """The connection is over."""


class IFilterChain(Interface):
    """The configured filters of one service."""

    async def connect(connection: ConnectionInfo) -> tuple[Verdict, IFilterTransaction]:
        """A connection was accepted, nothing has been said yet."""


class HeaderEdit(msgspec.Struct, frozen=True):
    """One edit of the header.  index: 0-based occurrence of the name for change and remove; position for insert.

    value: octets; CR and LF only as folding (CRLF before a space or tab); empty for remove.
    """

    action: str
    name: bytes
    value: bytes = b""
    index: int = 0


class EnvelopeEdit(msgspec.Struct, frozen=True):
    """One edit of the envelope.  action: add-recipient, remove-recipient, reverse-path."""

    action: str
    path: Path


class IFilterPlugin(Interface):
    """A filter's entry in a dropin (``twisted/plugins/*.py``): what ``use = "NAME"`` finds."""

    name = Attribute("the NAME of ``use``: lower-case letters, digits, hyphens")
    filter = Attribute("where the class is: ``dotted.path:Class``; imported when a configuration uses it")
    description = Attribute("one line for ``livemail filter list``")
