"""One mail transaction: from MAIL to the last octet of content.  RFC 5321 §3.3.

It owns what must be given back: the delivery, the content sink, the content.  `close` gives everything back, is allowed at any
moment and more than once, and is the only way out.

Of one message SMTP lets us say one thing only.  When its recipients fare differently (an account was removed between
RCPT and the commit, a quota is used up), a temporary failure goes before a permanent one, and any failure before
success: the client then keeps the message or reports it, and the worst that happens is a second copy for those who have
it already.  LMTP (RFC 2033 §4.2) says each recipient's result.
"""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from livemail.interfaces.delivery import IDeliveryTransaction
from livemail.interfaces.filter import (
    CONTINUE,
    Accept,
    Continue,
    Defer,
    Discard,
    IFilterTransaction,
    Quarantine,
    Reject,
    Verdict,
)
from livemail.interfaces.storage import IContentSink
from livemail.mail.content import Content
from livemail.mail.envelope import Envelope, Recipient, ReversePath
from livemail.mail.errors import MailError, TooBig
from livemail.smtp.site import Site
from livemail.smtp.story import Teller

Results = list[MailError | None]


class InternalError(MailError):
    """A bug of ours, of which the peer learns nothing."""

    code, enhanced, default_text = 451, "4.3.0", "Internal error, try again later"


def verdict_error(verdict: Verdict) -> MailError | None:
    """Return the refusal a verdict asks for, None when it lets the message go on."""
    if isinstance(verdict, Reject | Defer):
        return MailError(verdict.text, reason=verdict.reason, code=verdict.code, enhanced=verdict.enhanced)
    return None


class MailTransaction:
    """See the module's text.  id: what our 250, Received and the log call the message."""

    log = Logger()

    __slots__ = (
        "_delivery",
        "_error",
        "_filters",
        "_head",
        "_is_discarded",
        "_is_junk",
        "_limit",
        "_sink",
        "_site",
        "_teller",
        "envelope",
        "id",
        "size",
    )

    def __init__(
        self,
        site: Site,
        filters: IFilterTransaction,
        delivery: IDeliveryTransaction,
        reverse_path: ReversePath,
        teller: Teller,
    ) -> None:
        """teller: knows the transaction's id, and who hands it in."""
        self.id = teller.transaction
        self._teller = teller
        self.envelope = Envelope(reverse_path, [])
        self.size = 0
        self._site = site
        self._filters = filters
        self._delivery = delivery
        self._limit = site.settings.max_message_octets
        self._sink: IContentSink | None = None
        self._head = b""  # Received, until the first octets of content go the same way: one pass instead of two.
        self._error: MailError | None = None
        self._is_discarded = False
        self._is_junk = False

    @property
    def error(self) -> MailError | None:
        """Why the content is not wanted any more; the rest of it is read and forgotten."""
        return self._error

    def apply(self, verdict: Verdict) -> None:
        """Take a verdict to heart.  Raises MailError for Reject and Defer."""
        if verdict is CONTINUE or isinstance(verdict, (Continue, Accept)):
            return
        if isinstance(verdict, Discard):
            self._is_discarded = True
        elif isinstance(verdict, Quarantine):
            self._is_junk = True
        else:
            error = verdict_error(verdict)
            assert error is not None
            self._teller.error = error
            raise error

    async def add_recipient(self, recipient: Recipient) -> None:
        """RCPT.  Raises MailError; the transaction goes on without this recipient then."""
        if len(self.envelope.recipients) >= self._site.settings.max_recipients:
            raise MailError("Too many recipients", code=452, enhanced="4.5.3")
        try:
            await self._delivery.add_recipient(recipient)
            self.apply(await self._filters.rcpt(recipient))
        except MailError as error:
            self._teller.error = None  # his alone
            self._teller.refused(recipient, error)
            raise
        self.envelope.recipients.append(recipient)

    async def begin_content(self, received: bytes) -> None:
        """DATA, or the first BDAT.  received: the trace field.  Raises MailError."""
        self.apply(await self._filters.data(self.envelope))
        if not self._is_discarded:
            self._sink = self._site.store.new_content(self.envelope.reverse_path.size)
            self._head = received

    def take(self, octets: bytes) -> None:
        """Take the next octets of content.  Raises nothing: what goes wrong is `error`."""
        self.size += len(octets)
        if self._error is not None:
            return
        if self.size > self._limit:
            self._forget_content(TooBig(f"Message over {self._limit} octets"))
        if self._sink is None:
            return
        if self._head:
            octets = self._head + octets
            self._head = b""
        try:
            self._sink.write(octets)
        except MailError as error:
            self._forget_content(error)
        except Exception:
            self.log.failure("{message}: content sink failed", message=self.id)
            self._forget_content(InternalError())

    def _forget_content(self, error: MailError) -> None:
        self._error = error
        if self._sink is not None:
            self._sink.abort()
            self._sink = None

    async def finish(self, *, refuse_bare_newlines: bool) -> Results:
        """All content is here: let the chain see it, make it durable.  Returns each recipient's result, in RCPT's order.

        Raises nothing but CancelledError (the connection is gone).
        """
        recipients = list(self.envelope.recipients)
        if self._head:
            self.take(b"")
        results: Results = [self._error] * len(recipients)
        if self._error is None and self._sink is not None:
            try:
                content = await self._sink.finish()
                results = await self._deliver(content, recipients, refuse_bare_newlines=refuse_bare_newlines)
            except MailError as error:
                self._error = error
            except CancelledError:
                raise
            except Exception:
                self.log.failure("{message}: not delivered", message=self.id)
                self._error = InternalError()
            if self._error is not None:
                results = [self._error] * len(recipients)
        worst = common_result(results)
        if worst is not None or self._is_discarded:
            self._teller.ended(
                self.envelope,
                self._filters.records,
                size=self.size,
                results=results,
                error=worst,
                is_discarded=self._is_discarded,
                is_junk=self._is_junk,
            )
        return results

    async def _deliver(self, content: Content, recipients: list[Recipient], *, refuse_bare_newlines: bool) -> Results:
        try:
            outline = content.outline
            self._teller.sees(content)
            if refuse_bare_newlines and outline.has_bare_newline:
                raise MailError("Message contains bare CR or LF; lines end with CRLF", code=550, enhanced="5.6.0")
            # One Received field is ours.
            if outline.received_count > self._site.settings.max_received + 1:
                raise MailError("Too many hops", code=554, enhanced="5.4.6")
            outcome = await self._filters.message(content, self.envelope)
            content = outcome.content
            self.apply(outcome.verdict)
            final = outcome.envelope
            if self._is_discarded or not final.recipients:
                return [None] * len(recipients)
            self._teller.committing(content, final, self._filters.records, is_junk=self._is_junk)
            results = await self._delivery.commit(content, final, junk=self._is_junk)
        finally:
            content.close()
        if final.recipients == recipients:
            return list(results)
        by_path = {recipient.path: result for recipient, result in zip(final.recipients, results, strict=True)}
        # A recipient the filters took out was dealt with by them.
        return [by_path.get(recipient.path) for recipient in recipients]

    def close(self) -> None:
        """Give everything back."""
        if self._sink is not None:
            self._sink.abort()
            self._sink = None
        self._teller.close(self.envelope, self._filters.records, self.size)
        self._delivery.abort()


def common_result(results: Results) -> MailError | None:
    """What SMTP answers for all recipients: see the module's text."""
    worst: MailError | None = None
    for error in results:
        if error is not None and (worst is None or (error.temporary and not worst.temporary)):
            worst = error
    return worst
