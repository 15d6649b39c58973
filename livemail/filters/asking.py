"""Asking one filter one thing: to its end, for as long as it may take, wherever it runs; and saying where it went wrong.

Most stages end without waiting for anything: then asking is one ``send``.  One that waits gets until its timeout; after that it is
cancelled and forgotten, even when it goes on regardless.  A blocking filter's thread cannot be stopped: it goes on until its own end, its
edits and its verdict are refused, and the log says on which line it was.
"""

from __future__ import annotations

import re
import sys
import threading
import traceback
from collections.abc import Callable, Coroutine, Generator
from pathlib import PurePath
from types import CoroutineType, FrameType, TracebackType
from types import coroutine as generator_coroutine
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from livemail.filters.author import Filter, Transaction
from livemail.filters.edits import EditError, Edits
from livemail.interfaces.filter import CONTINUE, Accept, Continue, Defer, Discard, Quarantine, Reject, Skip, Verdict
from livemail.interfaces.runtime import RunBlocking

_ENHANCED: Final = re.compile(r"[245]\.\d{1,3}\.\d{1,3}")


class FilterTimeout(Exception):
    """A stage took longer than it may."""


class Nonsense(Exception):
    """What a stage returned is no verdict."""


class Gone(BaseException):
    """The connection went away while a filter was asked: not the filter's failure, and not its business."""


class Asked:
    """One filter's object in one transaction.

    is_broken: it is not asked any more, because it failed, or because it is a shadow and has spoken; broken: the answer to
    everything it would be asked then.  edits: what it made of the message, None before that comes.
    """

    __slots__ = ("broken", "edits", "filter", "is_broken", "tx")

    def __init__(self, filter_: Filter, tx: Transaction) -> None:
        self.filter = filter_
        self.tx = tx
        self.is_broken = False
        self.broken: Verdict = CONTINUE
        self.edits: Edits | None = None

    def late_edit(self) -> EditError | None:
        """Return why its edits are void when it has not failed for that yet: it made one after its verdict."""
        return None if self.edits is None or self.is_broken else self.edits.fault


def checked(verdict: Any, stage: str) -> Verdict:
    """Return what a stage returned if it is a verdict.  Raises Nonsense."""
    if isinstance(verdict, Continue):
        return verdict
    if isinstance(verdict, Skip):
        if stage != "body":
            raise Nonsense(f"{stage} returned SKIP, which is for the stage body")
        return verdict
    if isinstance(verdict, Reject | Defer):
        first = 5 if isinstance(verdict, Reject) else 4
        sound = (
            isinstance(verdict.code, int)
            and verdict.code // 100 == first
            and isinstance(verdict.enhanced, str)
            and _ENHANCED.fullmatch(verdict.enhanced) is not None
            and verdict.enhanced[0] == str(first)
            and isinstance(verdict.text, str)
            and isinstance(verdict.reason, str)
        )
        if not sound:
            raise Nonsense(
                f"{stage} returned {verdict!r}: its code is {first}xx, its enhanced code {first}.y.z, its text text"
            )
        return verdict
    if isinstance(verdict, Accept | Discard | Quarantine):
        if not isinstance(verdict.reason, str):
            raise Nonsense(f"{stage} returned {verdict!r}: its reason is no text")
        return verdict
    raise Nonsense(f"{stage} returned {verdict!r:.100}, which is no verdict")


# ------------------------------------------------------------------------------------------------- where it went wrong


def defined_at(filter_: type[Filter], stage: str) -> str:
    """Where a stage is defined: file and line."""
    code = getattr(getattr(filter_, stage, None), "__code__", None)
    return f"{PurePath(code.co_filename).name}:{code.co_firstlineno}" if code is not None else filter_.__module__


def _own_files(filter_: type[Filter], stage: str) -> set[str]:
    """The files a filter is written in, those of its bases included."""
    modules = [sys.modules.get(base.__module__) for base in filter_.__mro__ if base not in {Filter, object}]
    files = {getattr(module, "__file__", None) or "" for module in modules}
    method = getattr(filter_, stage, None)
    # One that is inherited from Filter is not the filter's: a late edit is told of the stage message, whether that is its own or not.
    code = getattr(method, "__code__", None) if method is not getattr(Filter, stage, None) else None
    return (files | {code.co_filename if code is not None else ""}) - {""}


def raised_at(filter_: type[Filter], stage: str, error: BaseException) -> str:
    """The innermost line of the filter's own files on the way to an exception."""
    found = getattr(error, "filter_line", "")
    if found:
        return str(found)
    own = _own_files(filter_, stage)
    line = ""
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename in own:
            line = f"{PurePath(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
        trace = trace.tb_next
    return line or defined_at(filter_, stage)


def waits_at(filter_: type[Filter], stage: str, coroutine: Any) -> str:
    """The line of the filter's own files that a suspended stage waits at."""
    own = _own_files(filter_, stage)
    line = ""
    while isinstance(coroutine, CoroutineType):
        frame = coroutine.cr_frame
        if frame is not None and frame.f_code.co_filename in own:
            line = f"{PurePath(frame.f_code.co_filename).name}:{frame.f_lineno}"
        coroutine = coroutine.cr_await
    return line or defined_at(filter_, stage)


def runs_at(filter_: type[Filter], stage: str, thread: int) -> str:
    """The line of the filter's own files that another thread is on."""
    own = _own_files(filter_, stage)
    frame: FrameType | None = sys._current_frames().get(thread)  # noqa: SLF001 (the documented way to another thread's stack)
    while frame is not None:
        if frame.f_code.co_filename in own:
            return f"{PurePath(frame.f_code.co_filename).name}:{frame.f_lineno}"
        frame = frame.f_back
    return defined_at(filter_, stage)


def told(error: BaseException) -> str:
    """An exception in one line."""
    return "".join(traceback.format_exception_only(error)).strip().replace("\n", " ")[:300]


# ------------------------------------------------------------------------------------------------------- to its end


async def finish(
    coroutine: Coroutine[Any, Any, Any], awaited: Any, limit: float, clock: IReactorTime, where: Callable[[], str]
) -> Any:
    """Await the rest of a coroutine that suspended with ``awaited``, for at most ``limit`` seconds.

    Raises FilterTimeout, Gone when whoever awaits this is cancelled, else what the coroutine raises.
    """
    running: Deferred[Any] = Deferred.fromCoroutine(_rest(coroutine, awaited))
    return await _bounded(running, limit, clock, where)


async def _bounded(running: Deferred[Any], limit: float, clock: IReactorTime, where: Callable[[], str]) -> Any:
    is_gone = False

    def cancelled(_: Deferred[Any]) -> None:
        nonlocal is_gone
        is_gone = True
        running.cancel()

    answer: Deferred[Any] = Deferred(cancelled)

    def ended(result: Any) -> None:
        if not answer.called:
            answers.append(result)
            answer.callback(None)

    answers: list[Any] = []
    running.addBoth(ended)

    def expired() -> None:
        error = FilterTimeout(f"no verdict after {limit:g} s")
        error.filter_line = where()  # type: ignore[attr-defined]
        answers.append(Failure(error))
        answer.callback(None)
        running.cancel()

    call = clock.callLater(max(0.0, limit), expired)
    try:
        await answer
    except CancelledError:
        raise Gone from None
    finally:
        if call.active():
            call.cancel()
    if is_gone:
        raise Gone
    (result,) = answers
    if isinstance(result, Failure):
        if result.value is None:
            raise RuntimeError("failed without an exception")
        raise result.value.with_traceback(result.getTracebackObject())
    return result


@generator_coroutine
def _rest(coroutine: Coroutine[Any, Any, Any], awaited: Any) -> Generator[Any, Any, Any]:
    """Go on with a coroutine whose first ``send`` was somebody else's."""
    try:
        while True:
            try:
                value = yield awaited
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as error:
                awaited = coroutine.throw(error)
            else:
                awaited = coroutine.send(value)
    except StopIteration as stop:
        return stop.value


class InThread:
    """One call of a blocking filter's stage in a thread."""

    def __init__(self, filter_: type[Filter], stage: str) -> None:
        self._filter = filter_
        self._stage = stage
        self._thread = 0
        self._is_void = False

    async def run(
        self, run_blocking: RunBlocking, coroutine: Coroutine[Any, Any, Any], limit: float, clock: IReactorTime
    ) -> Any:
        """Run it to its end.  Raises as `finish`."""
        running: Deferred[Any] = Deferred.fromCoroutine(_elsewhere(run_blocking, self._drive, coroutine))
        try:
            return await _bounded(running, limit, clock, self._where)
        except (FilterTimeout, Gone):
            self._is_void = True
            raise

    def _drive(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """In the thread.  What is raised crosses as a value: an executor treats some exceptions as its own."""
        if self._is_void:
            coroutine.close()
            return CONTINUE, None
        self._thread = threading.get_ident()
        try:
            coroutine.send(None)
        except StopIteration as stop:
            return stop.value, None
        except BaseException as error:
            return None, error
        coroutine.close()
        return None, RuntimeError("a blocking filter must not await")

    def _where(self) -> str:
        return runs_at(self._filter, self._stage, self._thread)


async def _elsewhere(run_blocking: RunBlocking, drive: Callable[..., Any], coroutine: Coroutine[Any, Any, Any]) -> Any:
    result, error = await run_blocking(drive, coroutine)
    if error is not None:
        raise error
    return result
