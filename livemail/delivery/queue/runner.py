"""The runner: claims what is due, has it attempted, settles what became of it.

    queue.claim ─▶ job ─▶ routing.hops ─▶ relay.attempt ─▶ outcomes ─▶ reporter ─▶ queue.settle
                    │                                                                ▲
                    └── its destination is down, or it is decided: no attempt ───────┘

New mail need not wait to be looked for: where there is room for it, it is claimed by the commit that accepts it and comes with its
content (`Attendant`), so that most mail costs two commits, one to take it and one to be done with it.

What it holds is what it works on: at most ``connections`` attempts, as many jobs claimed ahead, and `SWEPT` recipients that need
no attempt, however long the queue is.  Everything else is the queue's: the schedule, who is next, what became of it.

Exactly once, nearly
    The report about a failure is filed by the commit that records it, so a death leaves both or neither.  A delivery cannot
    be recorded by the peer's commit: when we die between its "250" and our settlement, the recipient is due again and is
    delivered twice.  Settlements that wait for the disk go together in one transaction, so that window is one commit long,
    some milliseconds, and is there for at most ``connections`` jobs: no attempt begins while so many wait for the disk.  When the disk is full it lasts until there is room: what
    was delivered stays claimed, is not tried again, and is settled then.

Leases are prolonged while an attempt runs.  One that runs out all the same (the process was stopped for longer) is
taken back; its attempt's end is then not ours to settle, and is logged.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Protocol

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from livemail.delivery.queue.limits import Limits
from livemail.delivery.queue.outcomes import NO_ANSWER, Verdicts
from livemail.delivery.queue.schedule import Schedule
from livemail.delivery.queue.settings import QueueSettings
from livemail.interfaces.queue import (
    Claimed,
    DestinationNews,
    Filing,
    IQueue,
    QueuedRecipient,
    QueueId,
    Report,
    Reporter,
    Settled,
    Settlement,
    queue_id_text,
)
from livemail.interfaces.relay import Attempt, Attempted, Fate, Hops, IRelay, IRouting, Job, RecipientResult, Reply
from livemail.interfaces.runtime import MakeRunning, Now, Running
from livemail.interfaces.storage import IContentReader
from livemail.mail.errors import MailError

_log = Logger()  # Of the module: one that is a class's attribute is made anew at each look at it.

PATIENCE: Final = 15.0
"""Seconds after which something the store refused for now is tried again."""

LOOK: Final = 5.0
"""Seconds between two looks for what needs no connection, while all of them are in use."""


_Key = tuple[int, int]
"""Of a job: its message and its first recipient."""


class Clock(Protocol):
    """What the runner needs of the reactor."""

    def callLater(self, delay: float, callable: Callable[..., object], *args: object) -> Any:  # noqa: A002
        """As `IReactorTime.callLater`."""


class Runner:
    """Works on one queue."""

    def __init__(
        self,
        queue: IQueue,
        routing: IRouting,
        relay: IRelay,
        reporter: Reporter,
        file: Callable[[Report], Awaitable[Filing]],
        settings: QueueSettings,
        *,
        clock: Clock,
        now: Now,
        random: Callable[[], float],
        running: MakeRunning,
    ) -> None:
        """file: says where a report goes, as a `Filing` of it.  random: in [0, 1), for the jitter."""
        self._queue = queue
        self._routing = routing
        self._relay = relay
        self._reporter = reporter
        self._file = file
        self._settings = settings
        self._clock = clock
        self._now = now
        self._running = running
        self.schedule = Schedule(settings, random)
        self.limits = Limits(settings)
        self._is_running = False
        self._is_claiming = False
        self._is_wanted = False
        self._is_more = True
        self._timer: Any = None
        self._due = float("inf")
        self._keeper: Any = None
        self._jobs: dict[_Key, tuple[Claimed, Running]] = {}
        self._idle: Deferred[None] | None = None
        self._ending: list[tuple[Settlement, DestinationNews | None, Deferred[Settled]]] = []
        self._is_settling = False
        self.finished = 0
        """Recipients dealt with: attempted, swept or reported."""

    # ------------------------------------------------------------------------------------------------- start and stop

    def start(self) -> None:
        """Begin."""
        self._is_running = True
        self._queue.attend(self, self._settings.lease)
        self._keep()
        self.look()

    async def stop(self) -> None:
        """Begin nothing new; attempts get ``stop_time`` to finish, then they are cut off.  What is not settled is due at the next start."""
        self._is_running = False
        self._queue.attend(None)
        for timer in (self._timer, self._keeper):
            if timer is not None and timer.active():
                timer.cancel()
        if self._jobs:
            _log.info("queue: {count} attempts finish", count=len(self._jobs))
            self._idle = Deferred()
            patience = self._clock.callLater(self._settings.stop_time, self._cut_off)
            await self._idle
            if patience.active():
                patience.cancel()
        await self._relay.close()

    def _cut_off(self) -> None:
        for _, job in list(self._jobs.values()):
            job.cancel()

    # -------------------------------------------------------------------------------------------------------- looking

    def wake(self, when: float) -> None:
        """Something is due at ``when``, perhaps now."""
        if when <= self._now():
            self.look()
        elif when < self._due:
            self._set_timer(when)

    def look(self) -> None:
        """Claim what is due, as far as there is room."""
        if not self._is_running:
            return
        if self._is_claiming:
            self._is_wanted = True
            return
        if self.limits.is_full:
            self._is_more = True
            # What needs no connection must not wait for one for ever.
            self._set_timer(min(self._due, self._now() + LOOK))
            return
        self._claim_soon()

    def _claim_soon(self) -> None:
        self._is_claiming = True
        Deferred.fromCoroutine(self._claim()).addErrback(self._bug, "claiming")

    async def _claim(self) -> None:
        try:
            self._is_wanted = True
            while self._is_running and self._is_wanted:
                self._is_wanted = False
                try:
                    claims = await self._queue.claim(self.limits.for_claim(), self._settings.lease)
                except MailError as error:
                    _log.warn("queue: nothing can be claimed now: {error}", error=error)
                    self._set_timer(self._now() + PATIENCE)
                    return
                if not self._is_running:
                    return  # What was claimed is void at the next start.
                self._is_more = claims.is_more
                self._set_timer(claims.next_due)
                for job in claims.jobs:
                    self._begin(job)
                if self.limits.is_full:
                    break
        finally:
            self._is_claiming = False
            self._is_more = self._is_more or self._is_wanted

    def _set_timer(self, due: float) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._due = due
        if due != float("inf") and self._is_running:
            # A day at most: clocks step, and floats of a far future are no delays.
            self._timer = self._clock.callLater(min(86400.0, max(0.0, due - self._now())), self._timed)

    def _timed(self) -> None:
        self._due = float("inf")
        if self._is_running and not self._is_claiming:
            self._claim_soon()
        else:
            self._is_wanted = True

    def _keep(self) -> None:
        """Now and then: prolong the leases of what runs, take back what is void."""
        self._keeper = self._clock.callLater(self._settings.lease / 3, self._keep)
        Deferred.fromCoroutine(self._keep_leases()).addErrback(self._bug, "keeping leases")

    async def _keep_leases(self) -> None:
        ahead = [job for jobs in self.limits.waiting.values() for job in jobs]
        claims = [
            (job.message.id, [one.number for one in job.message.recipients])
            for job in [*(job for job, _ in self._jobs.values()), *ahead]
        ]
        try:
            if claims:
                await self._queue.renew(claims, self._settings.lease)
            count = await self._queue.reclaim()
        except MailError as error:
            _log.warn("queue: leases cannot be prolonged now: {error}", error=error)
            return
        if count:
            _log.warn("queue: {count} claims had run out; they are due again", count=count)

    # -------------------------------------------------------------------------------------- mail that is being accepted

    def keep_room(self, destination: str, recipients: int) -> bool:
        """See `Attendant.keep_room`."""
        return self._is_running and recipients <= self._settings.recipients and self.limits.keep_room(destination)

    def begin(self, claimed: Claimed) -> None:
        """See `Attendant.begin`."""
        self.limits.give_back(claimed.destination)
        if self._is_running:  # Else the claim is void at the next start.
            try:
                self._begin(claimed)
            except Exception:
                # Whoever brought the mail has nothing to do with it; the claim runs out and is tried again.
                _log.failure("queue: {what} failed", what=self._id(claimed))

    def give_back(self, destination: str) -> None:
        """See `Attendant.give_back`."""
        self.limits.give_back(destination)
        if self._is_more:
            self.look()

    # ---------------------------------------------------------------------------------------------------------- a job

    def _begin(self, claimed: Claimed) -> None:
        is_attempt = not claimed.is_decided and claimed.down is None
        if is_attempt and not self.limits.may_begin(claimed.destination):
            self.limits.put_by(claimed)
            return
        if is_attempt:
            self.limits.begin(claimed.destination, claimed.failures)
        else:
            self.limits.swept += len(claimed.message.recipients)
        key = (claimed.message.id, claimed.message.recipients[0].number)
        job = self._running(self._work(claimed, is_attempt=is_attempt), lambda _, error: self._ended(key, error))
        self._jobs[key] = (claimed, job)
        job.start()

    def _ended(self, key: _Key, error: BaseException | None) -> None:
        claimed, _ = self._jobs.pop(key)
        self.finished += len(claimed.message.recipients)
        if error is not None:
            self._bug(Failure(error), self._id(claimed))
        self._look_for_more()
        if self._idle is not None and not self._jobs:
            idle, self._idle = self._idle, None
            idle.callback(None)

    def _look_for_more(self) -> None:
        """There is room again: begin what was claimed ahead; look, if the last look left something for want of room."""
        if self._is_running:
            for claimed in self.limits.ready():
                self._begin(claimed)
        if self._is_more:
            self.look()

    async def _work(self, claimed: Claimed, *, is_attempt: bool) -> None:
        verdicts = Verdicts(self.schedule, claimed.message, self._now())
        attempts: tuple[Attempt, ...] = ()
        news: DestinationNews | None = None
        is_active = is_attempt
        unsettled = 0
        try:
            if claimed.is_decided:
                for one in claimed.message.recipients:
                    verdicts.failed(one, one.verdict or NO_ANSWER, was_tried=False)
            elif claimed.down is not None:
                for one in claimed.message.recipients:
                    verdicts.deferred(one, claimed.down, was_tried=False)
            else:
                verdicts, attempts, news = await self._attempt(claimed)
                if news is None:
                    # What was learnt of a destination the queue must know before another job is claimed for it.
                    is_active = False
                    unsettled = 1
                    self.limits.unsettled += 1
                    self.limits.end(claimed.destination, claimed.failures)
                    self._look_for_more()
                if news is not None and news.failures:
                    for other in self.limits.take_waiting(claimed.destination):
                        self._begin(msgspec.structs.replace(other, down=news.reply))
            await self._settle(claimed, verdicts, attempts, news)
        finally:
            self.limits.unsettled -= unsettled
            if is_active:
                self.limits.end(claimed.destination, claimed.failures)
            if not is_attempt:
                self.limits.swept -= len(claimed.message.recipients)

    async def _attempt(self, claimed: Claimed) -> tuple[Verdicts, tuple[Attempt, ...], DestinationNews | None]:
        """Try to deliver; return the outcomes, the connections it took, and what was learnt about the destination."""
        message = claimed.message
        started = self._now()
        here = [
            one
            for one in message.recipients
            if one.recipient.path.address
            and self._destination(one.recipient.path.address.domain) == claimed.destination
        ]
        moved = [one for one in message.recipients if one not in here]
        attempted, is_final = Attempted((), ()), False
        if here:
            attempted, is_final = await self._try_hosts(claimed, here)
        verdicts = Verdicts(self.schedule, message, self._now())
        self._judge(verdicts, here, attempted, is_final=is_final)
        for one in moved:
            assert one.recipient.path.address is not None
            verdicts.moved(one, self._destination(one.recipient.path.address.domain))
        news = self._learn(claimed, attempted, started) if here else None
        return verdicts, attempted.attempts, news

    def _destination(self, domain: str) -> str:
        destination: str = self._routing.destination(domain)
        return destination

    async def _try_hosts(self, claimed: Claimed, here: Sequence[QueuedRecipient]) -> tuple[Attempted, bool]:
        """Find the hosts and hand the message over; return what came of it, and whether the hosts are final ones (LMTP)."""
        message = claimed.message
        content: IContentReader | None = None
        try:
            first = here[0].recipient.path.address
            assert first is not None, "the null path is no recipient"
            hops: Hops = await self._routing.hops(first.domain)
            is_final = hops.hops[0].protocol == "lmtp"
            content = claimed.content or await self._open(message.id)
            job = Job(
                queue_id_text(message.id),
                message.reverse_path,
                tuple(one.recipient for one in here),
                content,
                0,
                message.has_8bit,
                message.has_utf8_header,
            )
            return await self._relay.attempt(hops, job), is_final
        except MailError as error:
            if error.reason:
                _log.info("{id}: {error}", id=queue_id_text(message.id), error=error)
            stage = "lookup" if content is None else "content"
            reply = Reply(error.code, error.enhanced, error.text, stage, is_remote=False)
            fate: Fate = "deferred" if error.temporary else "failed"
            results = tuple(RecipientResult(one.recipient, fate, reply) for one in here)
            # When the way cannot be found now, it cannot be found for the others either.
            return Attempted(results, (), is_down=error.temporary and content is None), False
        finally:
            if content is not None:
                content.close()

    async def _open(self, id_: QueueId) -> IContentReader:
        content: IContentReader | None = await self._queue.open_content(id_)
        if content is None:
            raise MailError("the message is gone", code=451, enhanced="4.3.0")
        return content

    def _judge(
        self, verdicts: Verdicts, here: Sequence[QueuedRecipient], attempted: Attempted, *, is_final: bool
    ) -> None:
        for one, result in zip(here, attempted.results, strict=True):
            if result.fate == "delivered":
                verdicts.delivered(one, result.reply, result.host, is_final=is_final, is_reported=result.dsn)
            elif result.fate == "failed":
                verdicts.failed(one, result.reply, result.host)
            else:
                verdicts.deferred(one, result.reply, result.host)

    def _learn(self, claimed: Claimed, attempted: Attempted, started: float) -> DestinationNews | None:
        """Draw conclusions about the destination."""
        name, limits = claimed.destination, self.limits
        if attempted.is_down:
            now = self._now()
            failures = limits.is_down(name, started, now)
            last = attempted.attempts[-1].outcome if attempted.attempts else attempted.results[0].reply
            wait = self.schedule.back_off(failures)
            _log.info(
                "{destination} cannot be reached ({reply}); it is left alone for {wait} s",
                destination=name,
                reply=last.text,
                wait=round(wait),
            )
            return DestinationNews(name, failures, now + wait, last)
        was_down = claimed.failures or limits.window(name).failures
        if any(result.fate == "delivered" for result in attempted.results):
            limits.went_well(name)
        elif all(result.fate == "deferred" and result.reply.is_remote for result in attempted.results):
            limits.was_too_much(name)
        if was_down:
            limits.window(name).failures = 0
            _log.info("{destination} can be reached again", destination=name)
            return DestinationNews(name)
        return None

    # ------------------------------------------------------------------------------------------------------- settling

    async def _settle(
        self,
        claimed: Claimed,
        verdicts: Verdicts,
        attempts: tuple[Attempt, ...],
        news: DestinationNews | None,
    ) -> None:
        """Record the outcomes with the reports about them, however long the store takes to have room for that."""
        while True:
            reports: list[Report] = []
            try:
                filing = await self._filing(claimed, verdicts, reports) if verdicts.concerned else None
                settlement = Settlement(claimed.message.id, tuple(verdicts.outcomes), attempts, filing)
                settled = await self._end(settlement, news)
                break
            except MailError as error:
                if not error.temporary:
                    raise
                _log.warn("{id} cannot be settled now: {error}", id=self._id(claimed), error=error)
            finally:
                for report in reports:
                    report.content.close()
            if not self._is_running:
                return  # The claim is void at the next start.
            await self._sleep(PATIENCE)
        self._tell(claimed, verdicts, settled)

    async def _filing(self, claimed: Claimed, verdicts: Verdicts, reports: list[Report]) -> Filing | None:
        """Compose the reports, put them into ``reports``, and say where they go; None when nobody is to hear anything.

        Raises MailError when that may work later.
        """
        content = await self._queue.open_content(claimed.message.id)
        if content is None:
            return None
        try:
            reports += await self._reporter(claimed.message, content, verdicts.concerned)
        except (MailError, CancelledError):
            raise
        except Exception:
            # A bug must not make a failure silent: what would have ended without a report stays in the queue.
            _log.failure("{id}: no report could be composed", id=self._id(claimed))
            verdicts.take_back(self._now() + self._settings.retry_most)
            return None
        finally:
            content.close()
        filings = []
        for report in reports:
            try:
                filings.append(await self._file(report))
            except MailError as error:
                if error.temporary:
                    raise
                recipients = ", ".join(str(each.path) for each in report.envelope.recipients)
                _log.warn(
                    "{id}: a report to {to} cannot go there: {error}", id=self._id(claimed), to=recipients, error=error
                )
        deliveries = tuple(each for one in filings for each in one.deliveries)
        outgoing = tuple(each for one in filings for each in one.outgoing)
        return Filing(deliveries, outgoing) if filings else None

    def _end(self, settlement: Settlement, news: DestinationNews | None) -> Deferred[Settled]:
        """Hand in a settlement; those that come while one is on its way to the disk go together."""
        done: Deferred[Settled] = Deferred()
        self._ending.append((settlement, news, done))
        if not self._is_settling:
            self._is_settling = True
            Deferred.fromCoroutine(self._end_all()).addErrback(self._bug, "settling")
        return done

    async def _end_all(self) -> None:
        try:
            while self._ending:
                batch, self._ending = self._ending, []
                news = {each.destination: each for _, each, _ in batch if each is not None}
                try:
                    settled = await self._queue.settle([one for one, _, _ in batch], list(news.values()))
                except Exception as error:  # Whatever it is, whoever waits must hear of it.
                    for _, _, done in batch:
                        done.errback(error)
                else:
                    for (_, _, done), one in zip(batch, settled, strict=True):
                        done.callback(one)
        finally:
            self._is_settling = False

    def _sleep(self, seconds: float) -> Deferred[None]:
        done: Deferred[None] = Deferred(lambda _: timer.cancel())
        timer = self._clock.callLater(seconds, done.callback, None)
        return done

    def _tell(self, claimed: Claimed, verdicts: Verdicts, settled: Settled) -> None:
        """Write what became of it into the log."""
        if not settled.is_done:
            _log.warn("{id}: its claim had run out before it was settled; it is tried again", id=self._id(claimed))
            return
        by_number = {one.number: one for one in claimed.message.recipients}
        for outcome in verdicts.outcomes:
            if outcome.reply is None:
                continue
            _log.info(
                "{id}: {fate} {recipient}{at}: {code} {enhanced} {text}",
                id=self._id(claimed),
                fate=outcome.fate,
                recipient=str(by_number[outcome.number].recipient.path),
                at=f" at {outcome.host}" if outcome.host else "",
                code=outcome.reply.code,
                enhanced=outcome.reply.enhanced,
                text=outcome.reply.text,
            )
        if settled.filed is not None:
            for result in settled.filed.delivered:
                if isinstance(result, MailError):
                    _log.warn("{id}: the report could not be filed: {error}", id=self._id(claimed), error=result)

    @staticmethod
    def _id(claimed: Claimed) -> str:
        return queue_id_text(QueueId(claimed.message.id))

    def _bug(self, failure: Any, what: str) -> None:
        """What no part of the runner expects: logged; the claim runs out and is tried again."""
        if failure.check(CancelledError) is None:
            _log.failure("queue: {what} failed", failure=failure, what=what)
