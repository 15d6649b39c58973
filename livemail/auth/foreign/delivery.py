"""Message delivery of `twisted.mail`, in both directions.

    foreign → ours   `ForeignDelivery`: an `IMessageDelivery` as our `IDeliveryTarget`, so that our SMTP hands messages to it.
    ours → foreign   `OfferedDelivery`: our `IDeliveryTarget` as `IMessageDelivery` for `twisted.mail.smtp.ESMTP`.

`IMessageDelivery` gives every recipient a receiver of its own that hears every line.  Ours takes a message once: of the
receivers of one mail transaction the first listens, and all wait for its commit.  The stock ESMTP answers 250 to a
message when every receiver's Deferred has fired, and one failure is 550 for all; it is told of a refusal for all
recipients only when nobody got the message, because a sender who tries again would reach the others twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from email.utils import formatdate
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.mail.interfaces import IMessageDelivery, IMessageSMTP
from zope.interface import implementer

from livemail.interfaces.delivery import IDeliveryTarget, IDeliveryTransaction, Submitter
from livemail.interfaces.runtime import Now
from livemail.interfaces.storage import IContentSink, IMailStore
from livemail.mail.address import Address, Path
from livemail.mail.content import Content, chunks
from livemail.mail.envelope import Envelope, Recipient, ReversePath
from livemail.mail.errors import MailError, StorageFailed

_log = Logger()


# ---------------------------------------------------------------------------------------------------- foreign → ours


def _refusal(error: Exception) -> MailError:
    """Translate what a foreign delivery raised: its SMTP codes are kept, anything else is a temporary failure."""
    from twisted.mail.smtp import SMTPServerError

    if isinstance(error, MailError):
        return error
    if isinstance(error, SMTPServerError):
        text = error.resp.decode("ascii", "replace") if isinstance(error.resp, bytes) else str(error.resp)
        code = int(error.code)
        return MailError(" ".join(text.split()), code=code, enhanced="5.0.0" if code >= 500 else "4.0.0")
    _log.failure("A foreign message delivery failed")
    return StorageFailed()


def _lines(content: Content) -> Iterator[bytes]:
    """Yield the lines without CRLF; octets behind the last CRLF are a line."""
    rest = b""
    for chunk in chunks(content):
        *whole, rest = (rest + chunk).split(b"\r\n")
        yield from whole
    if rest:
        yield rest


@implementer(IDeliveryTransaction)
class _ForeignTransaction:
    def __init__(self, delivery: Any, origin: Any) -> None:
        self._delivery = delivery
        self._origin = origin
        self._users: dict[Path, tuple[Any, Callable[[], Any]]] = {}

    async def add_recipient(self, recipient: Recipient) -> None:
        """See `IDeliveryTransaction`."""
        from twisted.mail.smtp import User

        user = User(str(recipient.path.address).encode(), (b"", b""), self, self._origin)
        try:
            receive = await maybeDeferred(self._delivery.validateTo, user)
        except Exception as error:
            raise _refusal(error) from None
        self._users[recipient.path] = (user, receive)

    async def commit(self, content: Content, envelope: Envelope, *, junk: bool = False) -> Sequence[MailError | None]:
        """See `IDeliveryTransaction`; ``junk`` has no place in the foreign interface and is ignored."""
        results: list[MailError | None] = []
        for recipient in envelope.recipients:
            try:
                if recipient.path not in self._users:
                    await self.add_recipient(recipient)
                await self._deliver(content, *self._users[recipient.path])
            except Exception as error:
                results.append(_refusal(error))
            else:
                results.append(None)
        return results

    async def _deliver(self, content: Content, user: Any, receive: Callable[[], Any]) -> None:
        receiver = receive()
        try:
            received = self._delivery.receivedHeader((b"", b""), self._origin, [user])
            if received:
                receiver.lineReceived(received)
            for line in _lines(content):
                receiver.lineReceived(line)
        except BaseException:
            receiver.connectionLost()
            raise
        await maybeDeferred(receiver.eomReceived)

    def abort(self) -> None:
        """See `IDeliveryTransaction`; no receiver exists before the content does."""
        self._users.clear()


@implementer(IDeliveryTarget)
class ForeignDelivery:
    """Delivers through somebody's `IMessageDelivery`."""

    def __init__(self, delivery: Any) -> None:
        self._delivery = delivery

    async def begin(self, reverse_path: ReversePath, submitter: Submitter) -> IDeliveryTransaction:
        """See `IDeliveryTarget`."""
        from twisted.mail.smtp import Address as TheirAddress

        address = reverse_path.path.address
        origin = TheirAddress(str(address).encode() if address else b"")
        try:
            validated = await maybeDeferred(self._delivery.validateFrom, (b"", b""), origin)
        except Exception as error:
            raise _refusal(error) from None
        return _ForeignTransaction(self._delivery, validated or origin)


# ---------------------------------------------------------------------------------------------------- ours → foreign


def _path(theirs: Any) -> Path:
    """Turn a `twisted.mail.smtp.Address` into a Path."""
    if not theirs.local and not theirs.domain:
        return Path.null
    return Path(Address(theirs.local.decode("utf-8", "replace"), theirs.domain.decode("utf-8", "replace").lower()))


class _Mail:
    """One mail transaction of the stock ESMTP: begun at MAIL, its content written by the first receiver."""

    def __init__(self, transaction: IDeliveryTransaction, reverse_path: ReversePath, sink: IContentSink) -> None:
        self.transaction = transaction
        self.reverse_path = reverse_path
        self.sink = sink
        self.recipients: list[Recipient] = []
        self.leader: _Receiver | None = None
        self.failure: MailError | None = None
        self.is_committed = False
        self._is_over = False
        self._result: Any = None
        self._waiting: list[Deferred[None]] = []

    def write(self, line: bytes) -> None:
        """Take a line; a refusal is kept for the end, because the stock class answers there."""
        if self.failure is None:
            try:
                self.sink.write(line + b"\r\n")
            except MailError as error:
                self.failure = error

    def finished(self) -> Deferred[None]:
        """Fire when the message is durable, or fail when nobody got it; the first call commits."""
        waiter: Deferred[None] = Deferred()
        self._waiting.append(waiter)
        if not self.is_committed:
            self.is_committed = True
            Deferred.fromCoroutine(self._commit()).addBoth(self._answer)
        elif self._is_over:
            self._answer(self._result)
        return waiter

    def abort(self) -> None:
        self.sink.abort()
        self.transaction.abort()

    async def _commit(self) -> None:
        try:
            results = await self._deliver()
        except BaseException:
            self.abort()
            raise
        refusals = [result for result in results if result is not None]
        for refusal in refusals:
            _log.warn("a recipient was refused after acceptance: {text}", text=refusal.text)
        if refusals and len(refusals) == len(results):
            raise refusals[0]

    async def _deliver(self) -> Sequence[MailError | None]:
        if self.failure is not None:
            raise self.failure
        content = await self.sink.finish()
        try:
            return await self.transaction.commit(content, Envelope(self.reverse_path, list(self.recipients)))
        finally:
            content.close()

    def _answer(self, result: Any) -> None:
        # A commit that does not suspend is over before the other receivers have asked.
        self._is_over, self._result = True, result
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.callback(result)


@implementer(IMessageSMTP)
class _Receiver:
    def __init__(self, mail: _Mail) -> None:
        self._mail = mail
        if mail.leader is None:
            mail.leader = self

    def lineReceived(self, line: bytes) -> None:
        if self._mail.leader is self:
            self._mail.write(line)

    def eomReceived(self) -> Deferred[None]:
        return self._mail.finished()

    def connectionLost(self) -> None:
        self._mail.abort()


@implementer(IMessageDelivery)
class OfferedDelivery:
    """One connection's view of our delivery.

    store: gives the sinks.  hostname: in the Received field.  now: seconds since the epoch, UTC.
    """

    def __init__(
        self, target: IDeliveryTarget, store: IMailStore, submitter: Submitter, hostname: str, now: Now
    ) -> None:
        self._target = target
        self._store = store
        self._submitter = submitter
        self._hostname = hostname
        self._now = now
        self._mail: _Mail | None = None

    def receivedHeader(self, helo: tuple[bytes, bytes], origin: object, recipients: object) -> bytes:
        """See `IMessageDelivery`.  RFC 5321 §4.4."""
        name, peer = (ascii(part.decode("ascii", "replace"))[1:-1] for part in helo)
        date = formatdate(self._now())
        return f"Received: from {name} ([{peer}])\r\n\tby {self._hostname} with ESMTP; {date}".encode("ascii")

    def validateFrom(self, helo: tuple[bytes, bytes], origin: Any) -> Deferred[Any]:
        """See `IMessageDelivery`."""
        return Deferred.fromCoroutine(self._begin(origin))

    def validateTo(self, user: Any) -> Deferred[Callable[[], _Receiver]]:
        """See `IMessageDelivery`."""
        return Deferred.fromCoroutine(self._add(user))

    async def _begin(self, origin: Any) -> Any:
        from twisted.mail.smtp import SMTPBadSender

        reverse_path = ReversePath(_path(origin))
        if self._mail is not None and not self._mail.is_committed:
            self._mail.abort()  # RSET, of which the stock class tells nobody
        try:
            transaction = await self._target.begin(reverse_path, self._submitter)
            self._mail = _Mail(transaction, reverse_path, self._store.new_content())
        except MailError as error:
            raise SMTPBadSender(origin, code=error.code, resp=error.text) from None
        return origin

    async def _add(self, user: Any) -> Callable[[], _Receiver]:
        from twisted.mail.smtp import SMTPBadRcpt

        mail = self._mail
        recipient = Recipient(_path(user.dest))
        try:
            if mail is None:
                raise StorageFailed
            await mail.transaction.add_recipient(recipient)
        except MailError as error:
            raise SMTPBadRcpt(user, code=error.code, resp=error.text) from None
        mail.recipients.append(recipient)
        return lambda: _Receiver(mail)
