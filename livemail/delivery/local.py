"""The MDA: files a message in the mailboxes of its local recipients.  RFC 5321 §4.4 (Return-Path), RFC 5233, RFC 9228.

One message is one `IMailStore.deliver` call, one durable commit, however many recipients it has.  Several
recipients that mean the same mailbox (two aliases of one account) get one copy.

Which mailbox: Junk when the message is quarantined; for ``you+detail`` the mailbox named ``detail`` when the account has one
(strangers never create mailboxes); INBOX otherwise.

Each copy has its own prefix, kept apart from the shared content: Return-Path, Delivered-To with the account's name, and
X-Original-To where the recipient was written otherwise.  A message that comes back with our Delivered-To in its header has
gone in a circle and is refused (554 5.4.6).

What goes to other domains goes to the queue, in the same commit; or it is captured in the sender's own mailbox, envelope recipients
listed in front of it (X-Envelope-To: his own mailbox, so Bcc stays between him and us); without either it is refused.

Who asked to hear of success (NOTIFY=SUCCESS) hears after the commit, by a report that is delivered as any message is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from twisted.internet.defer import CancelledError
from twisted.logger import Logger
from zope.interface import implementer

from livemail.delivery.bounce import Original, Outcome, Reporter
from livemail.delivery.bounce.queued import stored
from livemail.delivery.forward import SUCCESS, delivered_to, is_expanded, is_forwarded, onward
from livemail.delivery.router import Route, route, route_bounce
from livemail.delivery.settings import DeliverySettings
from livemail.delivery.srs import Rewriter, is_rewritten
from livemail.interfaces.delivery import IDeliveryTarget, IDeliveryTransaction, Submitter
from livemail.interfaces.directory import IDirectory, LocalAccount, places_of
from livemail.interfaces.queue import Addressed, Filing, IQueue, Outgoing, Report
from livemail.interfaces.relay import IRouting, Reply
from livemail.interfaces.storage import Delivered, Delivery, IMailStore
from livemail.mail.address import Address, Path
from livemail.mail.content import Content
from livemail.mail.envelope import Envelope, Recipient, ReversePath
from livemail.mail.errors import InvalidName, MailError, NoSuchMailbox
from livemail.mail.flags import SEEN
from livemail.mail.ids import AccountId
from livemail.mail.names import INBOX, canonical_name

JUNK: Final = "Junk"

_DELIVERED_TO: Final = re.compile(rb"^delivered-to:[ \t]*([^\r\n]*?)[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_HEADER_OCTETS: Final = 256 * 1024
"""How much of a header is searched for Delivered-To; loops through longer ones end by counting Received."""

_Place = tuple[AccountId, str]


DELIVERED: Final = Reply(250, "2.1.5", "Delivered", "content", is_remote=False)
"""What is said of success here.  RFC 3463 §3.2."""

_OURS: Final = Submitter("report", is_ours=True)


class NotRelaying(MailError):
    """There is no queue."""

    code, enhanced, default_text = 550, "5.3.3", "This server does not relay to other domains yet"


class MailLoop(MailError):
    """Our own Delivered-To is in the header.  RFC 9228 §4."""

    code, enhanced, default_text = 554, "5.4.6", "Mail loop: this message was delivered here before"


@implementer(IDeliveryTarget)
class LocalDelivery:
    """Delivery into the store, and into the queue."""

    log = Logger()

    def __init__(
        self,
        store: IMailStore,
        directory: IDirectory,
        settings: DeliverySettings,
        *,
        queue: IQueue | None = None,
        routing: IRouting | None = None,
        reporter: Reporter | None = None,
        rewriter: Rewriter | None = None,
    ) -> None:
        """queue, routing: both or neither; without them nothing leaves.  reporter: None where success is not reported.

        rewriter: accepts bounces to addresses it made, and makes them unless the settings say otherwise.
        """
        self.store = store
        self.directory = directory
        self.settings = settings
        self.queue = queue
        self.routing = routing
        self.reporter = reporter
        self.rewriter = rewriter

    async def begin(self, reverse_path: ReversePath, submitter: Submitter) -> IDeliveryTransaction:
        """See `IDeliveryTarget.begin`."""
        address = reverse_path.path.address
        if submitter.account is not None and address is not None and self.settings.check_sender:
            places = places_of(await self.directory.resolve(address))
            if not any(isinstance(place, LocalAccount) and place.account == submitter.account.id for place in places):
                raise MailError(
                    f"{reverse_path.path} is not an address of {submitter.account.name}", code=550, enhanced="5.7.1"
                )
        return LocalTransaction(self, reverse_path, submitter)

    async def deliver_report(self, content: Content, envelope: Envelope) -> None:
        """Deliver a report of ours to whom it is for.  Raises MailError.  Does not close the content."""
        transaction = LocalTransaction(self, envelope.reverse_path, _OURS)
        for error in await transaction.commit(content, envelope):
            if error is not None:
                raise error

    async def file_report(self, report: Report) -> Filing:
        """Say where a report of the queue's goes, for the queue to file.  Its content stays the caller's.

        One that its addressee cannot get (he is gone, or elsewhere while nothing leaves) goes to postmaster, as often as
        `Reporter.may_bother_postmaster` allows.  Raises MailError when it can go nowhere, or not now.
        """
        try:
            return await self._filing(report.content, report.envelope)
        except MailError as error:
            reporter = self.reporter
            if error.temporary or reporter is None or not reporter.may_bother_postmaster(report.envelope.recipients):
                raise
            to = ", ".join(str(each.path) for each in report.envelope.recipients)
            self.log.warn("a report to {to} goes to postmaster: {error}", to=to, error=str(error))
        instead = Envelope(report.envelope.reverse_path, [Recipient(Path(reporter.postmaster))])
        return await self._filing(report.content, instead)

    async def _filing(self, content: Content, envelope: Envelope) -> Filing:
        plan = await LocalTransaction(self, envelope.reverse_path, _OURS).plan(content, envelope)
        for error in plan.errors:
            if error is not None:
                raise error
        return Filing(tuple(plan.batch.values()), plan.outgoing)

    def refuse_remote(self, found: Route, submitter: Submitter) -> None:
        """Raise NotRelaying for what can neither be sent nor captured."""
        if not found.remote:
            return
        if self.settings.capture_outbound:
            if submitter.account is None:
                raise NotRelaying(reason="outbound mail is captured, and a stranger has no mailbox for it")
        elif self.queue is None:
            raise NotRelaying

    async def mailbox_of(self, place: LocalAccount) -> str:
        """Return the mailbox an address without quarantine means."""
        if not place.detail:
            return INBOX
        try:
            name = canonical_name(place.detail)
            account = await self.store.account(place.account)
            return (await account.mailbox(name)).name
        except (InvalidName, NoSuchMailbox):
            return INBOX


class Plan(msgspec.Struct):
    """What a message's commit is to do.

    batch: copies for mailboxes, each place once.  outgoing: for the queue.  places: of each recipient; errors: of each
    recipient, None for those that are well.  asked: recipients, by index, who asked to hear of success.
    """

    batch: dict[_Place, Delivery]
    outgoing: tuple[Outgoing, ...]
    places: list[list[_Place]]
    errors: list[MailError | None]
    asked: list[tuple[int, Route]]


@implementer(IDeliveryTransaction)
class LocalTransaction:
    """One message's delivery."""

    def __init__(self, target: LocalDelivery, reverse_path: ReversePath, submitter: Submitter) -> None:
        self._target = target
        self._reverse_path = reverse_path
        self._submitter = submitter
        self._routes: dict[Path, Route] = {}

    async def add_recipient(self, recipient: Recipient) -> None:
        """See `IDeliveryTransaction.add_recipient`."""
        await self._route(recipient.path)

    async def _route(self, path: Path) -> Route:
        found = self._routes.get(path)
        if found is None:
            target, address = self._target, path.address
            assert address is not None, "the null path is no recipient"
            if (
                target.rewriter is not None
                and is_rewritten(address)
                and target.directory.is_local_domain(address.domain)
            ):
                found = await route_bounce(
                    target.directory, target.rewriter, self._reverse_path.path, address, self._submitter
                )
            else:
                found = await route(target.directory, address, self._submitter, self._reverse_path.path)
            target.refuse_remote(found, self._submitter)
            self._routes[path] = found
        return found

    async def commit(self, content: Content, envelope: Envelope, *, junk: bool = False) -> Sequence[MailError | None]:
        """See `IDeliveryTransaction.commit`."""
        plan = await self.plan(content, envelope, junk=junk)
        await self._file(plan)
        if plan.asked:
            await self._report_success(content, envelope, plan.asked, plan.errors)
        return plan.errors

    async def plan(self, content: Content, envelope: Envelope, *, junk: bool = False) -> Plan:
        """Find out what goes where; nothing is done yet."""
        seen = _delivered_to(content)
        return_path = f"Return-Path: {envelope.reverse_path.path}\r\n"
        batch: dict[_Place, Delivery] = {}
        places: list[list[_Place]] = []
        errors: list[MailError | None] = []
        leaving: list[tuple[Recipient, Route]] = []
        asked: list[tuple[int, Route]] = []
        for at, recipient in enumerate(envelope.recipients):
            places.append([])
            errors.append(None)
            try:
                found = self._routes.get(recipient.path) or await self._route(recipient.path)
            except MailError as error:  # a filter added this recipient
                errors[-1] = error
                continue
            for target in found.local:
                if seen and target.name.lower().encode() in seen:
                    errors[-1] = MailLoop()
                    continue
                mailbox = JUNK if junk else INBOX if not target.detail else await self._target.mailbox_of(target)
                place = (target.account, mailbox)
                places[-1].append(place)
                if place not in batch:
                    prefix = return_path + _delivered_fields(target, recipient.path)
                    batch[place] = Delivery(target.account, mailbox, content, prefix.encode())
            if found.remote:
                if seen and is_forwarded(recipient, found) and delivered_to(recipient) in seen:
                    errors[-1] = MailLoop()
                    continue
                leaving.append((recipient, found))
                if self._captures:
                    places[-1].append(self._outbox)
            if SUCCESS in recipient.notify:
                asked.append((at, found))
        outgoing: tuple[Outgoing, ...] = ()
        if leaving and self._captures:
            addresses = [address for _, found in leaving for address in found.remote]
            prefix = return_path + _envelope_fields(addresses)
            account, mailbox = self._outbox
            batch[self._outbox] = Delivery(account, mailbox, content, prefix.encode(), SEEN)
        elif leaving:
            outgoing = self._outgoing(content, envelope, leaving)
        return Plan(batch, outgoing, places, errors, asked)

    @property
    def _captures(self) -> bool:
        return self._target.settings.capture_outbound and self._submitter.account is not None

    @property
    def _outbox(self) -> _Place:
        assert self._submitter.account is not None
        return self._submitter.account.id, self._target.settings.outbox

    def _outgoing(
        self, content: Content, envelope: Envelope, leaving: list[tuple[Recipient, Route]]
    ) -> tuple[Outgoing, ...]:
        """Make the queue's messages: one for each reverse-path and trace."""
        target = self._target
        assert target.routing is not None
        rewriter = target.rewriter if target.settings.rewrite_senders else None
        account = self._submitter.account
        return tuple(
            Outgoing(
                content,
                group.reverse_path,
                tuple(Addressed(each, target.routing.destination(_domain(each))) for each in group.recipients),
                prefix=group.prefix,
                submitter=account.id if account is not None else AccountId(0),
                transaction=self._submitter.transaction,
            )
            for group in onward(envelope, leaving, target.directory, rewriter)
        )

    async def _file(self, plan: Plan) -> None:
        """One commit for all copies; then put each recipient's worst result into the plan's errors."""
        batch, outgoing, places, errors = plan.batch, plan.outgoing, plan.places, plan.errors
        outcomes: Sequence[Delivered | MailError]
        if outgoing:
            assert self._target.queue is not None
            filed = await self._target.queue.accept(Filing(tuple(batch.values()), outgoing))
            outcomes = filed.delivered
        elif batch:
            outcomes = await self._target.store.deliver(list(batch.values()))
        else:
            return
        failed = {
            place: outcome for place, outcome in zip(batch, outcomes, strict=True) if isinstance(outcome, MailError)
        }
        if failed:
            for at, mine in enumerate(places):
                for place in mine:
                    error = failed.get(place)
                    known = errors[at]
                    if error is not None and (known is None or (error.temporary and not known.temporary)):
                        errors[at] = error

    async def _report_success(
        self, content: Content, envelope: Envelope, asked: list[tuple[int, Route]], errors: list[MailError | None]
    ) -> None:
        """Tell the sender of what was delivered here.  The message is taken already: nothing that goes wrong now undoes that."""
        target = self._target
        reporter = target.reporter
        if reporter is None:
            return
        now = reporter.now()
        outcomes = [
            Outcome(
                envelope.recipients[at], "expanded" if is_expanded(found) else "delivered", DELIVERED, attempted=now
            )
            for at, found in asked
            # One place elsewhere: whoever delivers there reports.
            if errors[at] is None and (found.local or is_expanded(found))
        ]
        if not outcomes:
            return
        original = Original.of_content("", envelope.reverse_path, now, content)
        try:
            for composed in await reporter.compose(original, outcomes):
                report = await stored(composed, target.store)
                try:
                    await target.deliver_report(report.content, report.envelope)
                finally:
                    report.content.close()
        except MailError as error:
            target.log.warn("a report to {to} is lost: {error}", to=envelope.reverse_path.path, error=str(error))
        except CancelledError:  # the connection is gone; the message is not
            raise
        except Exception:
            target.log.failure("a report to {to} failed", to=envelope.reverse_path.path)

    def abort(self) -> None:
        """Nothing is held before `commit`."""


def _domain(recipient: Recipient) -> str:
    assert recipient.path.address is not None
    return recipient.path.address.domain


def _delivered_fields(target: LocalAccount, path: Path) -> str:
    original = str(path.address)
    field = f"Delivered-To: {target.name}\r\n"
    return field if original.lower() == target.name else f"{field}X-Original-To: {original}\r\n"


def _envelope_fields(addresses: Iterable[Address]) -> str:
    """List recipients one a line, each once."""
    return "X-Envelope-To: " + ",\r\n\t".join(dict.fromkeys(str(address) for address in addresses)) + "\r\n"


def _delivered_to(content: Content) -> frozenset[bytes]:
    """Return the values of Delivered-To in the header, lower-case; almost always none."""
    header = content.read(0, min(content.outline.header_size, _HEADER_OCTETS))
    # A search without case over 4 KB costs 20 microseconds; lower() and find cost 1.
    if b"delivered-to:" not in header.lower():
        return frozenset()
    return frozenset(value.lower() for value in _DELIVERED_TO.findall(header))
