"""The way out: where mail for a domain goes, and one attempt to bring a message there.

The queue asks `IRouting` for the hosts of a domain and hands a message with the recipients of one destination to
`IRelay`, which tries those hosts in order and answers for each recipient.  Neither remembers anything about the message:
what is to be tried when is the queue's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
from zope.interface import Interface

from livemail.interfaces.storage import IContentReader
from livemail.mail.envelope import Recipient, ReversePath

TLSPolicy = Literal["none", "may", "encrypt", "verify"]
"""none: never.  may: opportunistic, unverified, in the clear where the peer has no TLS or fails at it.  encrypt: TLS or defer.
verify: TLS with a certificate for the host's name (or of a TLSA record), or defer."""


class NextHop(msgspec.Struct, frozen=True):
    """One host to try.

    host: name as configured or found in DNS, or an address literal without brackets; "" with ``path``.  addresses: textual
    IPv6 and IPv4 addresses in the order to try.  path: of a Unix socket.  protocol: what is spoken.  implicit_tls: the
    handshake comes first.  login, password: for AUTH, "" for none.  source: local addresses to connect from, at most one
    of each family, empty for the system's choice.  reference: the name a verified certificate must have.
    """

    host: str
    port: int = 25
    addresses: tuple[str, ...] = ()
    path: str = ""
    protocol: Literal["smtp", "lmtp"] = "smtp"
    tls: TLSPolicy = "may"
    implicit_tls: bool = False
    login: str = ""
    password: str = ""
    source: tuple[str, ...] = ()
    reference: str = ""

    def __repr__(self) -> str:
        """Without the password: this stands in logs and tracebacks."""
        return f"NextHop({self.host or self.path!r}, {self.port}, {self.addresses!r}, {self.protocol}, tls={self.tls})"


class Hops(msgspec.Struct, frozen=True):
    """Where mail for a domain goes now.

    destination: key under which concurrency, back-off and connection reuse are counted: the domain, or the route's next hop.
    hops: in the order to try; never empty.  seconds: how long this answer may be remembered.
    """

    destination: str
    hops: tuple[NextHop, ...]
    seconds: float = 0.0


class IRouting(Interface):
    """From a recipient's domain to hosts.  RFC 5321 §5, RFC 7505."""

    def destination(domain: str) -> str:
        """The key of `Hops.destination` for a domain, without asking DNS: the queue groups and limits by it."""

    async def hops(domain: str) -> Hops:
        """Find the hosts.  domain: lower-case, A-labels or U-labels, or an address literal with brackets.

        Raises MailError: 556 5.1.10 null MX, 550 5.1.2 no such domain, 550 5.4.4 no MX host has an address we may use, 550 5.4.6
        we are the best MX ourselves (a loop), 451 4.4.3 DNS does not answer, 451 4.3.5 the route cannot be used now.
        """


class Job(msgspec.Struct, frozen=True):
    """One message for the recipients of one destination.

    id: what logs and Received fields call the message.  content: stays the caller's, who closes it.  content_offset: octets
    of it to skip (a delivery prefix that is not to be sent).  has_8bit, has_utf8_header: what the content needs of the peer.
    """

    id: str
    reverse_path: ReversePath
    recipients: tuple[Recipient, ...]
    content: IContentReader
    content_offset: int = 0
    has_8bit: bool = False
    has_utf8_header: bool = False


class Reply(msgspec.Struct, frozen=True, array_like=True):
    """What a peer said, or we instead of a peer that said nothing.

    code: 200 to 599.  enhanced: "5.1.1", made up from the code where the peer sent none.  text: printable, lines joined
    with one space, at most 512 characters, never a way to inject anything.  stage: connect, greeting, ehlo, starttls, tls, auth, mail, rcpt,
    data, content, lookup.  is_remote: whether the peer said it.
    """

    code: int
    enhanced: str
    text: str
    stage: str
    is_remote: bool = True


Fate = Literal["delivered", "deferred", "failed"]


class RecipientResult(msgspec.Struct, frozen=True):
    """What became of one recipient.  host: who answered, "" when nobody did.

    dsn: whether the peer took over the duty to report (it offers DSN); else a "relayed" report is ours to send.  RFC 3461 §5.2.2.
    """

    recipient: Recipient
    fate: Fate
    reply: Reply
    host: str = ""
    dsn: bool = False


class Attempt(msgspec.Struct, frozen=True, array_like=True):
    """One connection, tried or used.  started: seconds since the epoch, UTC.  tls: protocol and cipher, "" in the clear.

    outcome: the reply that ended it.  is_reused: the connection had carried messages before.
    """

    started: float
    seconds: float
    host: str
    address: str
    tls: str
    outcome: Reply
    is_reused: bool = False


class Attempted(msgspec.Struct, frozen=True):
    """What `IRelay.attempt` came to: each recipient's result in the job's order, and every connection it took.

    is_down: no host of the destination could be talked to, or it said 421: a reason to leave it alone for a while, and not
    an opinion about this message.
    """

    results: tuple[RecipientResult, ...]
    attempts: tuple[Attempt, ...]
    is_down: bool = False


class IRelay(Interface):
    """Brings messages to other hosts."""

    async def attempt(hops: Hops, job: Job) -> Attempted:
        """Try the hosts in order until each recipient has an answer that is not "try another host".

        Raises nothing but CancelledError: whatever happens is a result.  RFC 5321 §4.5.3.2's times hold for every phase.
        """

    async def close() -> None:
        """Say QUIT on idle connections; attempts that run are cancelled after their content's current chunk."""


class IResolver(Interface):
    """DNS, as far as mail needs it.  Names are A-labels without trailing dot, lower-case; answers are cached.

    Raises MailError 451 4.4.3 when no server answers in time (SERVFAIL, refusal, garbage and truncation that TCP does not
    mend included).  A name that does not exist, or has no such records, is an empty answer with `Answer.exists` telling which.
    """

    async def mx(name: str) -> Answer:
        """Records: (preference, host) by preference; a null MX is (0, "")."""

    async def addresses(name: str, families: Sequence[int] = (6, 4)) -> Answer:
        """Records: textual addresses, families in the order given."""

    async def txt(name: str) -> Answer:
        """Records: octets of each record, its strings joined."""

    async def ptr(address: str) -> Answer:
        """Records: names of a textual address."""

    async def tlsa(name: str) -> Answer:
        """Records: (usage, selector, matching type, octets)."""


class Answer(msgspec.Struct, frozen=True):
    """What DNS said.  exists: the name exists (it may have other records).  is_secure: AD from a trusted resolver.

    seconds: how long the answer holds.  canonical: the name behind CNAMEs.
    """

    records: tuple[object, ...]
    exists: bool = True
    is_secure: bool = False
    seconds: float = 0.0
    canonical: str = ""
