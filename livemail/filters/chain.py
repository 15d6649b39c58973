"""The chain: runs filters in order, applies their edits, answers one verdict.

Which verdict wins: Reject, Defer, Discard and Accept end the chain at once; Quarantine is remembered while later filters go
on, and is the answer unless one of them says more.  What was decided at connect or helo holds for every transaction.

A filter that raises, or takes longer than its timeout, has decided nothing: its edits are dropped, its name is logged, and
the message is deferred (451), or goes on where the configuration says ``skip``.  A failure in the middle of an edit can therefore
never let half an edit through.
"""

from __future__ import annotations

import time
from collections.abc import Coroutine, Sequence
from typing import Any, Final, Literal

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from zope.interface import implementer

from livemail.filters.author import Filter, Record, Transaction
from livemail.filters.message import Message
from livemail.interfaces.filter import (
    CONTINUE,
    Accept,
    ConnectionInfo,
    Continue,
    Defer,
    IFilterChain,
    IFilterTransaction,
    Outcome,
    Quarantine,
    Verdict,
)
from livemail.interfaces.runtime import RunBlocking
from livemail.interfaces.storage import IMailStore
from livemail.mail.content import Content
from livemail.mail.envelope import Envelope, Recipient, ReversePath

STAGES: Final = ("connect", "helo", "mail", "rcpt", "data", "headers", "message")

FAILED: Final = Defer("4.3.0", "The message could not be checked, try again later", "a filter failed")


class FilterSpec(msgspec.Struct, frozen=True):
    """One configured filter.  name: in logs.  timeout: seconds a stage may take.  config: None for the class's defaults."""

    name: str
    filter: type[Filter]
    config: msgspec.Struct | None = None
    on_failure: Literal["defer", "skip"] = "defer"
    timeout: float = 30.0

    def make(self) -> Filter:
        """Make the object for one mail transaction."""
        return self.filter(self.config if self.config is not None else self.filter.Config())


@implementer(IFilterChain)
class FilterChain:
    """The filters of one service, in order."""

    def __init__(
        self,
        filters: Sequence[FilterSpec],
        store: IMailStore | None = None,
        clock: IReactorTime | None = None,
        run_blocking: RunBlocking | None = None,
    ) -> None:
        """store: makes the contents of edited messages; clock: for timeouts; both needed as soon as there are filters.

        run_blocking: needed by filters that block.
        """
        if filters and (store is None or clock is None):
            raise ValueError("a chain with filters needs a store and a clock")
        if run_blocking is None and any(spec.filter.blocking for spec in filters):
            raise ValueError("a chain with blocking filters needs run_blocking")
        self.specs = tuple(filters)
        self.store = store
        self.clock = clock
        self.run_blocking = run_blocking
        self.stages: dict[str, list[int]] = {
            stage: [at for at, spec in enumerate(filters) if getattr(spec.filter, stage) is not getattr(Filter, stage)]
            for stage in STAGES
        }

    async def connect(self, connection: ConnectionInfo) -> tuple[Verdict, IFilterTransaction]:
        """See `IFilterChain.connect`."""
        state = ChainTransaction(self, connection)
        return await state.connect(), state


@implementer(IFilterTransaction)
class ChainTransaction:
    """The chain's state on one connection."""

    log = Logger()

    def __init__(self, chain: FilterChain, connection: ConnectionInfo) -> None:
        self._chain = chain
        self._connection = connection
        self._helo = ""
        self._standing: Verdict = CONTINUE  # decided at connect or helo: holds for every transaction
        self._settled = False  # Accept: the filters are not asked any more in this transaction
        self._filters: dict[int, Filter] = {}
        self.tx = Transaction(connection)

    # ------------------------------------------------------------------------------------------ stages

    async def connect(self) -> Verdict:
        """The connection's first stage."""
        return self._stand(await self._ask("connect"))

    async def helo(self, name: str) -> Verdict:
        """See `IFilterTransaction.helo`."""
        self._helo = self.tx.helo = name
        return self._stand(await self._ask("helo", name))

    def _stand(self, verdict: Verdict) -> Verdict:
        if not isinstance(verdict, Continue):
            self._standing = verdict
        return verdict

    async def mail(self, reverse_path: ReversePath) -> Verdict:
        """See `IFilterTransaction.mail`."""
        if not self._chain.specs:
            return CONTINUE
        self._close_filters()
        self.tx = Transaction(self._connection, self._helo)
        self.tx.reverse_path = reverse_path
        self._settled = isinstance(self._standing, Accept)
        if not isinstance(self._standing, Continue | Accept | Quarantine):
            return self._standing
        verdict = self._settle(await self._ask("mail", reverse_path))
        return self._standing if isinstance(verdict, Continue) else verdict

    async def rcpt(self, recipient: Recipient) -> Verdict:
        """See `IFilterTransaction.rcpt`."""
        if not self._chain.specs:
            return CONTINUE
        verdict = await self._ask("rcpt", recipient)
        if isinstance(verdict, Continue | Accept | Quarantine):
            self.tx.recipients.append(recipient)
        return verdict

    async def data(self, envelope: Envelope) -> Verdict:
        """See `IFilterTransaction.data`."""
        if not self._chain.specs:
            return CONTINUE
        return self._settle(await self._ask("data"))

    def _settle(self, verdict: Verdict) -> Verdict:
        self._settled = self._settled or isinstance(verdict, Accept)
        return verdict

    async def message(self, content: Content, envelope: Envelope) -> Outcome:
        """See `IFilterTransaction.message`."""
        chain = self._chain
        verdict: Verdict = CONTINUE
        if not chain.specs or self._settled:
            return Outcome(verdict, content, envelope)
        try:
            for at, spec in enumerate(chain.specs):
                if at not in chain.stages["headers"] and at not in chain.stages["message"]:
                    continue
                view = Message(content)
                self.tx.begin_edits()
                answer, is_sound = await self._run(at, spec, "headers", view)
                if is_sound and isinstance(answer, Continue):
                    answer, is_sound = await self._run(at, spec, "message", view)
                envelope = self.tx.end_edits(envelope, apply=is_sound)
                if is_sound and view.is_edited:
                    content = await self._rewrite(view)
                if isinstance(answer, Quarantine):
                    verdict = answer
                elif not isinstance(answer, Continue):
                    # An Accept does not lift the quarantine that an earlier filter ordered.
                    verdict = verdict if isinstance(answer, Accept) and isinstance(verdict, Quarantine) else answer
                    break
        except BaseException:
            # The caller still has the content it gave us, and closes it; an edited one is ours.
            content.close()
            raise
        return Outcome(verdict, content, envelope)

    async def _rewrite(self, view: Message) -> Content:
        """Make the edited content, and close the old one."""
        store = self._chain.store
        assert store is not None
        sink = store.new_content(view.size)
        try:
            view.write_edited(sink)
            edited = await sink.finish()
        except BaseException:
            sink.abort()
            raise
        view.content.close()
        return edited

    # ------------------------------------------------------------------------------------------ running one filter

    async def _ask(self, stage: str, *arguments: Any) -> Verdict:
        """Ask every filter that has the stage."""
        verdict: Verdict = CONTINUE
        stages = self._chain.stages[stage]
        if not stages or self._settled:
            return verdict
        for at in stages:
            answer, _ = await self._run(at, self._chain.specs[at], stage, *arguments)
            if isinstance(answer, Quarantine):
                verdict = answer
            elif not isinstance(answer, Continue):
                return answer
        return verdict

    async def _run(self, at: int, spec: FilterSpec, stage: str, *arguments: Any) -> tuple[Verdict, bool]:
        """Ask one filter; return its verdict, and whether it came to one."""
        if at not in self._chain.stages[stage]:
            return CONTINUE, True
        started = time.perf_counter()
        is_sound = True
        try:
            found = self._filters.get(at)
            if found is None:
                found = self._filters[at] = spec.make()
            verdict: Verdict = await self._bounded(spec, getattr(found, stage)(self.tx, *arguments))
            if not isinstance(verdict, Verdict):
                raise TypeError(f"{stage} returned {verdict!r}, not a verdict")  # noqa: TRY301
        except CancelledError:  # the connection is gone
            raise
        except Exception:
            self.log.failure(
                "{session} filter {filter} failed at {stage}",
                session=self._connection.session,
                filter=spec.name,
                stage=stage,
            )
            verdict, is_sound = CONTINUE if spec.on_failure == "skip" else FAILED, False
        record = Record(spec.name, stage, verdict, time.perf_counter() - started)
        self.tx.records.append(record)
        write = self.log.debug if isinstance(verdict, Continue) else self.log.info
        write(
            "{session} filter {filter} at {stage}: {verdict} after {seconds:.6f} s",
            session=self._connection.session,
            filter=spec.name,
            stage=stage,
            verdict=repr(verdict),
            seconds=record.seconds,
        )
        return verdict, is_sound

    async def _bounded(self, spec: FilterSpec, stage: Coroutine[Any, Any, Verdict]) -> Verdict:
        """Run a stage to its end, in a thread when it blocks, for as long as it may take."""
        chain = self._chain
        assert chain.clock is not None
        if spec.filter.blocking:
            assert chain.run_blocking is not None
            stage = _in_thread(chain.run_blocking, stage)
        running = Deferred.fromCoroutine(stage)
        if not running.called:
            running.addTimeout(spec.timeout, chain.clock)
        return await running

    # ------------------------------------------------------------------------------------------ the rest of the life

    def authenticated(self, authcid: str) -> None:
        """See `IFilterTransaction.authenticated`."""
        self._connection = msgspec.structs.replace(self._connection, authcid=authcid)
        self.tx.connection = self._connection

    def secured(self, tls: str) -> None:
        """See `IFilterTransaction.secured`."""
        self._connection = msgspec.structs.replace(self._connection, tls=tls, authcid="")
        self._helo = ""
        self.reset()

    def reset(self) -> None:
        """See `IFilterTransaction.reset`."""
        if self._chain.specs:
            self._close_filters()
            self._settled = False
            self.tx = Transaction(self._connection, self._helo)

    def closed(self) -> None:
        """See `IFilterTransaction.closed`."""
        self._close_filters()

    def _close_filters(self) -> None:
        filters, self._filters = self._filters, {}
        for at, made in filters.items():
            try:
                made.closed()
            except Exception:
                self.log.failure("filter {filter} failed at closed", filter=self._chain.specs[at].name)


async def _in_thread(run_blocking: RunBlocking, stage: Coroutine[Any, Any, Verdict]) -> Verdict:
    return await run_blocking(_drive, stage)


def _drive(stage: Coroutine[Any, Any, Verdict]) -> Verdict:
    """Run a coroutine that awaits nothing to its end."""
    try:
        stage.send(None)
    except StopIteration as stop:
        verdict: Verdict = stop.value
        return verdict
    stage.close()
    raise RuntimeError("a blocking filter must not await")
