"""Letting go of what has been kept long enough, in the background.

Once an hour what is older than ``[storage] undelete`` goes.  When the disk comes near its reserve the time is halved, and halved
again every minute until it does not, so that kept mail never keeps new mail out; afterwards it grows back.  Their contents
are dead then, and compaction returns the space.  Files that a crash left in an account's folder of kept mail go by the time in
their name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from livemail.interfaces.runtime import Now
from livemail.interfaces.undelete import Kept
from livemail.mail.errors import MailError
from livemail.storage.disk import Disk
from livemail.storage.lmdb.deleted.operations import LetGo
from livemail.storage.lmdb.deleted.reading import older_than
from livemail.storage.lmdb.deleted.records import FOLDER, deleted_at
from livemail.storage.lmdb.operations.group import Operation
from livemail.storage.lmdb.schema import Environment, Tables

ROUND_SECONDS: Final = 60.0
PURGE_SECONDS: Final = 3600.0
BATCH: Final = 500
NEAR: Final = 2.0
"""Times the reserve: below it kept mail goes early, while compaction still has room to work in."""
LEAST_SECONDS: Final = 60.0
GRACE_SECONDS: Final = 86400
"""A file's name may be this much older than its row: the writer's clock was turned back."""

_log = Logger()


class Write(Protocol):
    """Runs an operation in the writer."""

    def __call__(self, operation: Operation, /, *, frees: bool = ...) -> Awaitable[Any]:
        """Done when it is durable."""


class Purging:
    """Of one store."""

    def __init__(
        self,
        environment: Environment,
        tables: Tables,
        disk: Disk,
        seconds: float,
        roots: Callable[[], list[Path]],
        write: Write,
        in_thread: Callable[..., Awaitable[Any]],
        now: Now,
    ) -> None:
        """seconds: for which messages are kept.  roots: folders of the accounts in Maildirs."""
        self._environment = environment
        self._tables = tables
        self._disk = disk
        self._seconds = seconds
        self._window = seconds
        self._roots = roots
        self._write = write
        self._in_thread = in_thread
        self._now = now
        self._clock: IReactorTime | None = None
        self._call: IDelayedCall | None = None
        self._due = float("-inf")

    async def run(self, seconds: float) -> Kept:
        """Let go of what was expunged longer ago than so many seconds; return how much that was."""
        before = int(self._now() - seconds) + (seconds <= 0)
        messages = octets = 0
        while keys := await self._in_thread(self._older_than, before):
            gone: Kept = await self._write(LetGo(keys), frees=True)
            messages += gone.messages
            octets += gone.octets
            if not gone.messages:
                break  # damaged rows: `livemail store check` names them
        await self._in_thread(partial(self._sweep, before - GRACE_SECONDS))
        return Kept(messages, octets)

    def _older_than(self, before: int) -> list[bytes]:
        with self._environment.begin() as txn:
            return older_than(txn, self._tables, before, BATCH)

    def _sweep(self, before: int) -> None:
        for root in self._roots():
            with contextlib.suppress(OSError):
                for path in (root / FOLDER).iterdir():
                    if 0 < deleted_at(path.name) < before:
                        path.unlink(missing_ok=True)

    # ------------------------------------------------------------------------------------------------------- by itself

    def run_with(self, clock: IReactorTime) -> None:
        """Look after kept messages as time passes on ``clock``."""
        self._clock = clock
        self._call = clock.callLater(ROUND_SECONDS, self._begin_round)

    def close(self) -> None:
        """No more rounds."""
        self._clock = None
        if self._call is not None and self._call.active():
            self._call.cancel()

    def _begin_round(self) -> None:
        Deferred.fromCoroutine(self._round()).addBoth(self._round_ended)

    def _round_ended(self, result: object) -> None:
        if isinstance(result, Failure) and self._clock is not None:
            if result.check(MailError):
                _log.warn("deleted mail was not let go and will be, later: {error}", error=result.getErrorMessage())
            else:
                _log.failure("letting go of deleted mail failed", result)
        if self._clock is not None:
            self._call = self._clock.callLater(ROUND_SECONDS, self._begin_round)

    async def _round(self) -> None:
        if self._clock is None:
            return
        now = self._clock.seconds()
        is_near = self._disk.is_below(NEAR)
        if is_near:
            self._window = self._window / 2 if self._window > LEAST_SECONDS else 0.0
        elif self._window < self._seconds:
            self._window = min(self._seconds, max(LEAST_SECONDS, self._window * 2))
        if not is_near and now < self._due:
            return
        self._due = now + PURGE_SECONDS
        gone = await self.run(self._window)
        if not gone.messages:
            return
        if is_near:
            _log.warn(
                "the disk is nearly full: deleted mail is kept for {hours:.1f} hours instead of {wanted:.0f};"
                " {messages} messages ({octets} octets) went early",
                hours=self._window / 3600, wanted=self._seconds / 3600, messages=gone.messages, octets=gone.octets,
            )  # fmt: skip
        else:
            _log.info(
                "deleted mail past its time is gone: {messages} messages, {octets} octets",
                messages=gone.messages, octets=gone.octets,
            )  # fmt: skip
