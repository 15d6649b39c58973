"""The chain: asks filters in order, applies their edits, answers one verdict.

Which verdict wins: Reject, Defer, Discard and Accept end the chain at once; Quarantine is remembered while later filters go
on, and is the answer unless one of them says more.  What was decided at connect or helo holds for every transaction.

A filter that raises, takes longer than its timeout, edits twice or too late, returns nonsense or loses its process has decided
nothing: its edits are dropped, its name and line are logged, and the message is deferred (451), or goes on without it
where the configuration says ``skip``.  A failure in the middle of an edit can therefore never let half an edit through.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from time import perf_counter
from types import CoroutineType
from typing import Any, Final

import msgspec
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from livemail.filters.asking import Asked, FilterTimeout, Gone, InThread, checked, finish, raised_at, told, waits_at
from livemail.filters.author import BODY_CHUNK, Filter, Server, Transaction, TransactionState
from livemail.filters.edits import Edits
from livemail.filters.message import Message
from livemail.filters.plan import EMPTY, STAGES, FilterSpec, Loaded, Plan
from livemail.filters.shadow import Decisions
from livemail.interfaces.directory import LocalAccount, places_of
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
    Record,
    Skip,
    Verdict,
)
from livemail.interfaces.runtime import RunBlocking
from livemail.interfaces.storage import IMailStore
from livemail.mail.content import Content
from livemail.mail.envelope import Envelope, Recipient, ReversePath

__all__ = ["FAILED", "STAGES", "ChainTransaction", "FilterChain", "FilterSpec"]

FAILED: Final = Defer("4.3.0", "The message could not be checked, try again later", "a filter failed")

GRACE: Final = 2.0

BREATH: Final = 512 * 1024
"""Octets of one message the chain passes on before the reactor gets a turn."""


REPEATED: Final = ("rcpt", "body")
"""Stages a filter is asked at many times."""


@implementer(IFilterChain)
class FilterChain:
    """The filters of one service, in order.  plan: what new transactions use; `replace` changes it."""

    def __init__(
        self,
        filters: Sequence[FilterSpec | Loaded],
        store: IMailStore | None = None,
        clock: IReactorTime | None = None,
        run_blocking: RunBlocking | None = None,
        *,
        server: Server | None = None,
    ) -> None:
        """store: makes the contents of edited messages; clock: for timeouts; both needed as soon as there are filters.

        run_blocking: needed by filters that block.  server: what filters may use.
        """
        self.store = store
        self.clock = clock
        self.run_blocking = run_blocking
        self.server = server or Server(reactor=clock, run_blocking=run_blocking)
        self.plan = EMPTY
        self.replace([each if isinstance(each, Loaded) else Loaded(each, self.server) for each in filters])

    def replace(self, filters: Sequence[Loaded]) -> None:
        """Let transactions that begin from now on meet these filters."""
        if filters and (self.store is None or self.clock is None):
            raise ValueError("a chain with filters needs a store and a clock")
        if self.run_blocking is None and any(loaded.spec.filter.blocking for loaded in filters):
            raise ValueError("a chain with blocking filters needs run_blocking")
        self.plan = Plan(filters)

    async def connect(self, connection: ConnectionInfo) -> tuple[Verdict, IFilterTransaction]:
        """See `IFilterChain.connect`."""
        state = ChainTransaction(self, connection)
        return (await state.connect() if not state.plan.is_empty else CONTINUE), state


@implementer(IFilterTransaction)
class ChainTransaction:
    """The chain's state on one connection."""

    log = Logger()

    def __init__(self, chain: FilterChain, connection: ConnectionInfo) -> None:
        self._chain = chain
        self._connection = connection
        self._helo = ""
        # What was decided at connect and at the last helo holds for every transaction.
        self._standing: dict[str, Verdict] = {}
        self._settled = False  # Accept: the filters are not asked any more in this transaction
        self._asked: dict[int, Asked] = {}
        self.plan = chain.plan
        self.plan.use()
        self.state = TransactionState(connection)
        self._decisions: Decisions | None = None
        self._passed = 0

    @property
    def records(self) -> Sequence[Record]:
        """See `IFilterTransaction.records`."""
        return self.state.records

    # ------------------------------------------------------------------------------------------ stages

    async def connect(self) -> Verdict:
        """The connection's first stage."""
        return self._stand("connect", await self._ask("connect"))

    async def helo(self, name: str) -> Verdict:
        """See `IFilterTransaction.helo`."""
        self._helo = self.state.helo = name
        if self.plan.is_empty:
            return CONTINUE
        if any(asked.is_broken for asked in self._asked.values()):
            self._close_filters()
        return self._stand("helo", await self._ask("helo", name))

    def _stand(self, stage: str, verdict: Verdict) -> Verdict:
        self._standing.pop(stage, None)
        if not isinstance(verdict, Continue):
            self._standing[stage] = verdict
        return verdict

    @property
    def _held(self) -> Verdict:
        """What holds for every transaction: the connection's refusal first, then that of the last helo."""
        standing = list(self._standing.values())
        for verdict in standing:
            if not isinstance(verdict, Accept | Quarantine):
                return verdict
        # Quarantine before Accept, which does not lift it.
        return next((each for each in standing if isinstance(each, Quarantine)), standing[0] if standing else CONTINUE)

    async def mail(self, reverse_path: ReversePath) -> Verdict:
        """See `IFilterTransaction.mail`."""
        if self._asked:
            self._close_filters()
        if self._chain.plan is not self.plan:
            self.plan.leave()
            self.plan = self._chain.plan
            self.plan.use()
        if self._standing:
            held = self._held
            self._settled = any(isinstance(each, Accept) for each in self._standing.values())
            if not isinstance(held, Accept | Quarantine):
                return held
        else:
            held = CONTINUE
        if self.plan.is_empty:
            return held
        if self.state.reverse_path is not None:
            self._begin_state()
        self.state.reverse_path = reverse_path
        verdict = self._settle(await self._ask("mail", reverse_path))
        return held if isinstance(verdict, Continue) else verdict

    def _begin_state(self) -> None:
        records = [record for record in self.state.records if record.stage in {"connect", "helo"}]
        self.state = TransactionState(self._connection, self._helo)
        self.state.records += records

    async def rcpt(self, recipient: Recipient) -> Verdict:
        """See `IFilterTransaction.rcpt`."""
        if self.plan.is_empty:
            return CONTINUE
        mine: set[str] = set()
        if self.plan.needs_accounts:
            mine = await self._accounts_of(recipient)
        verdict = await self._ask("rcpt", recipient, accounts=mine)
        if isinstance(verdict, Continue | Accept | Quarantine):
            self.state.recipients.append(recipient)
            self.state.accounts |= mine
        return verdict

    async def _accounts_of(self, recipient: Recipient) -> set[str]:
        """The accounts a recipient means, and the address as written."""
        address = recipient.path.address
        directory = self._chain.server.directory
        if address is None:
            return set()
        names = {str(address).lower()}
        if directory is not None:
            found = places_of(await directory.resolve(address))
            names |= {place.name.lower() for place in found if isinstance(place, LocalAccount)}
        return names

    async def data(self, envelope: Envelope) -> Verdict:
        """See `IFilterTransaction.data`."""
        if self.plan.is_empty:
            return CONTINUE
        return self._settle(await self._ask("data"))

    def _settle(self, verdict: Verdict) -> Verdict:
        self._settled = self._settled or isinstance(verdict, Accept)
        return verdict

    async def message(self, content: Content, envelope: Envelope) -> Outcome:
        """See `IFilterTransaction.message`."""
        plan = self.plan
        if plan.is_empty or self._settled or not plan.content:
            return Outcome(CONTINUE, content, envelope)
        verdict: Verdict = CONTINUE
        fields = None
        try:
            for at in plan.content:
                if plan.filters[at].is_scoped and not self._is_wanted(at, "message", None):
                    continue
                edits = Edits()
                view = Message(content, edits, fields)
                answer = await self._judge(at, view, edits)
                if answer is CONTINUE and not edits.made:
                    fields = view.parsed_fields
                    continue
                if plan.filters[at].spec.shadow:
                    fields = view.parsed_fields
                    continue
                if edits.made and isinstance(answer, Continue | Quarantine | Accept):
                    envelope = self._edited(envelope, edits)
                    if edits.changes_message:
                        content = await self._rewrite(view)
                        view = Message(content)
                fields = view.parsed_fields
                if isinstance(answer, Quarantine):
                    verdict = answer
                elif not isinstance(answer, Continue):
                    # An Accept does not lift the quarantine that an earlier filter ordered.
                    verdict = verdict if isinstance(answer, Accept) and isinstance(verdict, Quarantine) else answer
                    break
            for at, asked in self._asked.items():
                fault = asked.late_edit()
                if fault is not None:
                    late = self._failure(at, "message", fault, 0.0)
                    verdict = verdict if isinstance(late, Continue) else late
        except BaseException:
            # The caller still has the content it gave us, and closes it; an edited one is ours.
            content.close()
            raise
        return Outcome(verdict, content, envelope)

    async def _judge(self, at: int, view: Message, edits: Edits) -> Verdict:
        """Ask one filter for headers, body and message.  After a failure nothing of its edits is left."""
        spec = self.plan.filters[at].spec
        try:
            asked = self._object(at)
        except Exception as error:
            return self._failure(at, "headers", error, 0.0)
        asked.edits = edits
        asked.tx.begin_edits(edits)
        answer: Verdict = CONTINUE
        before = len(self.state.records)
        for stage in self.plan.filters[at].content_stages:
            found = self._body(at, view) if stage == "body" else self._run(at, stage, (view,))
            answer = await found if isinstance(found, CoroutineType) else found  # type: ignore[assignment]
            if edits.fault and not asked.is_broken:
                answer = self._failure(at, stage, edits.fault, 0.0)
            if asked.is_broken or (answer is not CONTINUE and not isinstance(answer, Continue)):
                break
        edits.close()
        if asked.is_broken:
            edits.forget()
        elif edits.made:
            if self._decisions is not None:
                self._decisions.edited(at, edits)
            if not spec.shadow:
                self._note_edits(spec.name, edits, before)
        return answer

    def _note_edits(self, name: str, edits: Edits, before: int) -> None:
        records = self.state.records
        if len(records) > before:
            records[-1] = msgspec.structs.replace(records[-1], edits=edits.words())
        else:
            records.append(Record(name, "message", CONTINUE, 0.0, edits=edits.words()))

    async def _body(self, at: int, view: Message) -> Verdict:
        """Stream the body past one filter."""
        offset, end = view.content.outline.header_size, view.size
        verdict: Verdict = CONTINUE
        left = self.plan.filters[at].spec.timeout
        clock = self._chain.clock
        assert clock is not None
        while offset < end:
            chunk = view.content.read(offset, min(BODY_CHUNK, end - offset))
            if not chunk:
                raise OSError("the content ends early")
            offset += len(chunk)
            began = clock.seconds()
            found = self._run(at, "body", (chunk,), left)
            verdict = await found if isinstance(found, CoroutineType) else found  # type: ignore[assignment]
            left -= clock.seconds() - began
            if self._asked[at].is_broken or (verdict is not CONTINUE and not isinstance(verdict, Continue)):
                break
            if left <= 0:
                late = FilterTimeout(f"no verdict after {self.plan.filters[at].spec.timeout:g} s")
                return self._failure(at, "body", late, 0.0)
            await self._breathe(len(chunk))
        return CONTINUE if isinstance(verdict, Skip) else verdict

    async def _breathe(self, octets: int) -> None:
        """Let the reactor have a turn when much has passed since the last one."""
        self._passed += octets
        if self._passed < BREATH:
            return
        self._passed = 0
        turn: Deferred[None] = Deferred()
        assert self._chain.clock is not None
        call = self._chain.clock.callLater(0, turn.callback, None)
        try:
            await turn
        finally:
            if call.active():
                call.cancel()

    def _edited(self, envelope: Envelope, edits: Edits) -> Envelope:
        reverse_path, recipients = envelope.reverse_path, list(envelope.recipients)
        for edit in edits.envelope:
            if edit.action == "reverse-path":
                reverse_path = msgspec.structs.replace(reverse_path, path=edit.path)
            elif edit.action == "remove-recipient":
                recipients = [recipient for recipient in recipients if recipient.path != edit.path]
            elif all(recipient.path != edit.path for recipient in recipients):
                recipients.append(Recipient(edit.path))
        self.state.reverse_path, self.state.recipients = reverse_path, recipients
        return Envelope(reverse_path, recipients)

    async def _rewrite(self, view: Message) -> Content:
        """Make the edited content, and close the old one."""
        store = self._chain.store
        assert store is not None
        sink = store.new_content(view.size)
        try:
            await view.write_edited(sink, self._breathe)
            edited = await sink.finish()
        except BaseException:
            sink.abort()
            raise
        view.content.close()
        return edited

    # ------------------------------------------------------------------------------------------ running one filter

    async def _ask(self, stage: str, *arguments: Any, accounts: set[str] | None = None) -> Verdict:
        """Ask every filter that has the stage."""
        verdict: Verdict = CONTINUE
        positions = self.plan.stages[stage]
        if not positions or self._settled:
            return verdict
        for at in positions:
            if self.plan.filters[at].is_scoped and not self._is_wanted(
                at, stage, arguments[0] if stage == "rcpt" else None, accounts
            ):
                continue
            found = self._run(at, stage, arguments)
            answer: Any = await found if isinstance(found, CoroutineType) else found
            if answer is CONTINUE:
                continue
            if self.plan.filters[at].spec.shadow:
                continue
            if isinstance(answer, Quarantine):
                verdict = answer
            elif not isinstance(answer, Continue):
                refusal: Verdict = answer
                return refusal
        return verdict

    def _is_wanted(self, at: int, stage: str, recipient: Recipient | None, accounts: set[str] | None = None) -> bool:
        loaded = self.plan.filters[at]
        concerned = [recipient] if recipient is not None else self.state.recipients
        domains = {each.path.address.domain.lower() for each in concerned if each.path.address is not None}
        return loaded.has_scope(stage, self._connection, domains, self.state.accounts if accounts is None else accounts)

    def _object(self, at: int) -> Asked:
        asked = self._asked.get(at)
        if asked is None:
            if self.plan.shadows and self._decisions is None:
                self._decisions = Decisions(self.plan)
            asked = self._asked[at] = Asked(self.plan.filters[at].make(), Transaction(self.state))
        return asked

    def _run(
        self, at: int, stage: str, arguments: tuple[Any, ...], left: float | None = None
    ) -> Verdict | Coroutine[Any, Any, Verdict]:
        """Ask one filter one thing and record it; what a failure means is the answer then.

        Returns the verdict at once, or what is to be awaited for it where the filter waits for something.
        """
        loaded = self.plan.filters[at]
        started = perf_counter()
        try:
            asked = self._asked.get(at)
            if asked is None:
                asked = self._object(at)
            elif asked.is_broken:
                return asked.broken
            coroutine = getattr(asked.filter, stage)(asked.tx, *arguments)
            if loaded.in_thread:
                return self._later(at, stage, self._in_thread(loaded, stage, coroutine, left), started)
            awaited = coroutine.send(None)
        except StopIteration as stop:
            if stop.value is CONTINUE and stage not in REPEATED:  # What nearly all answers are.
                seconds = perf_counter() - started
                quiet: Verdict = CONTINUE
                self.state.records.append(Record(loaded.shown_name, stage, quiet, seconds))
                return quiet
            return self._came_to(at, stage, stop.value, started)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            return self._failure(at, stage, error, perf_counter() - started)
        return self._later(at, stage, self._rest(loaded, stage, coroutine, awaited, left), started)

    async def _later(self, at: int, stage: str, rest: Coroutine[Any, Any, Any], started: float) -> Verdict:
        try:
            verdict = await rest
        except Gone:
            raise CancelledError from None
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            return self._failure(at, stage, error, perf_counter() - started)
        return self._came_to(at, stage, verdict, started)

    def _came_to(self, at: int, stage: str, verdict: Any, started: float) -> Verdict:
        if verdict is not CONTINUE:
            try:
                verdict = checked(verdict, stage)
            except Exception as error:
                return self._failure(at, stage, error, perf_counter() - started)
        self._record(at, self.plan.filters[at].spec, stage, verdict, perf_counter() - started)
        answer: Verdict = verdict
        return answer

    async def _in_thread(self, loaded: Loaded, stage: str, coroutine: Any, left: float | None) -> Any:
        chain = self._chain
        assert chain.clock is not None
        assert chain.run_blocking is not None
        limit = loaded.spec.timeout if left is None else left
        return await InThread(loaded.spec.filter, stage).run(chain.run_blocking, coroutine, limit, chain.clock)

    async def _rest(self, loaded: Loaded, stage: str, coroutine: Any, awaited: Any, left: float | None) -> Any:
        clock = self._chain.clock
        assert clock is not None
        limit = loaded.spec.timeout if left is None else left
        if loaded.worker is not None:
            limit += GRACE  # The worker has the same limit, and says where its process was when it was killed.
        return await finish(coroutine, awaited, limit, clock, lambda: waits_at(loaded.spec.filter, stage, coroutine))

    def _failure(self, at: int, stage: str, error: BaseException, seconds: float) -> Verdict:
        """Log and record a failure; return what it means."""
        spec = self.plan.filters[at].spec
        asked = self._asked.get(at)
        if asked is None:
            asked = self._asked[at] = Asked(Filter(None), Transaction(self.state))  # type: ignore[arg-type]
        line = raised_at(spec.filter, stage, error)
        reason = f"filter {spec.name} failed at {stage}, {line}: {told(error)}"
        if spec.shadow:
            meaning: Verdict = CONTINUE
        else:
            passes = spec.on_failure == "skip" and not asked.filter.must_defer
            meaning = CONTINUE if passes else msgspec.structs.replace(FAILED, reason=reason)
        asked.is_broken, asked.broken = True, meaning
        if self._decisions is not None:
            self._decisions.failed(at, stage, told(error))
        self.log.failure(
            "{session} filter {filter} failed at {stage}, {line}: {error}; the message is {meaning}",
            failure=Failure(error),
            session=self._connection.session,
            filter=spec.name,
            stage=stage,
            line=line,
            error=told(error),
            meaning="not touched by a shadow"
            if spec.shadow
            else "deferred"
            if meaning is not CONTINUE
            else "passed without it",
        )
        self.state.records.append(Record(self.plan.filters[at].shown_name, stage, meaning, seconds, is_failure=True))
        return meaning

    def _record(self, at: int, spec: FilterSpec, stage: str, verdict: Verdict, seconds: float) -> None:
        records = self.state.records
        if verdict is CONTINUE and stage in REPEATED:
            # A thousand recipients or chunks are one record.
            for position in range(len(records) - 1, -1, -1):
                last = records[position]
                if last.stage != stage:
                    break
                if last.filter == self.plan.filters[at].shown_name and last.verdict is CONTINUE and not last.is_failure:
                    records[position] = Record(
                        last.filter, stage, verdict, last.seconds + seconds, False, last.count + 1, ()
                    )
                    return
        records.append(Record(self.plan.filters[at].shown_name, stage, verdict, seconds))
        if verdict is CONTINUE or isinstance(verdict, Continue | Skip):
            return
        if self._decisions is not None:
            self._decisions.note(at, stage, verdict)
        if spec.shadow:
            self._asked[at].is_broken = True  # It has said its last word.
        else:
            self.log.info(
                "{session} filter {filter} at {stage}: {verdict} after {seconds:.6f} s",
                session=self._connection.session,
                filter=spec.name,
                stage=stage,
                verdict=repr(verdict),
                seconds=seconds,
            )

    # ------------------------------------------------------------------------------------------ the rest of the life

    def authenticated(self, authcid: str, mechanism: str = "") -> None:
        """See `IFilterTransaction.authenticated`."""
        self._connection = msgspec.structs.replace(self._connection, authcid=authcid, mechanism=mechanism)
        self.state.connection = self._connection

    def secured(self, tls: str) -> None:
        """See `IFilterTransaction.secured`."""
        self._connection = msgspec.structs.replace(self._connection, tls=tls, authcid="", mechanism="")
        self._helo = ""
        self.reset()

    def reset(self) -> None:
        """See `IFilterTransaction.reset`."""
        if not self.plan.is_empty:
            self._close_filters()
            self._settled = False
            self._begin_state()

    def closed(self) -> None:
        """See `IFilterTransaction.closed`."""
        self._close_filters()
        self.plan.leave()
        self.plan = EMPTY

    def _close_filters(self) -> None:
        if self._decisions is not None:
            self._compare(self._decisions)
            self._decisions = None
        asked, self._asked = self._asked, {}
        for at, each in asked.items():
            spec = self.plan.filters[at].spec
            fault = each.late_edit()
            if fault is not None:
                # While the message was made durable, or refused: it can be neither changed nor deferred any more.
                line, session = raised_at(spec.filter, "message", fault), self._connection.session
                text = "{session} filter {filter} failed after its verdict, {line}: {error}; the message has its answer"
                self.log.failure(text, Failure(fault), session=session, filter=spec.name, line=line, error=told(fault))
            if not self.plan.filters[at].has_closed:
                continue
            try:
                each.filter.closed()
            except BaseException as error:
                line = raised_at(spec.filter, "closed", error)
                text = "filter {filter} failed at closed, {line}: {error}"
                self.log.failure(text, filter=spec.name, line=line, error=told(error))

    def _compare(self, decisions: Decisions) -> None:
        """Report where a shadow would have acted otherwise."""
        for at in self.plan.shadows:
            self.plan.filters[at].compared += at in self._asked
        for at, live, shadow in decisions.differences():
            loaded = self.plan.filters[at]
            loaded.differed += 1
            self.log.warn(
                "{session} shadow of {filter} differs: live {live}; shadow {shadow}",
                session=self._connection.session,
                filter=loaded.spec.name,
                live="; ".join(live)[:1000] or "nothing",
                shadow="; ".join(shadow)[:1000] or "nothing",
            )
