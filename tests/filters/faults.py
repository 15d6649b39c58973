"""Filters that misbehave, at whatever stage they are told to.  A module of its own, so that a process can import it."""

from __future__ import annotations

import os
import signal
import time

import msgspec
from twisted.internet.defer import CancelledError, Deferred

from livemail.filters import CONTINUE, SKIP, Defer, EditError, Filter, Path, Reject

STAGES = ("connect", "helo", "mail", "rcpt", "data", "headers", "body", "message")


class Misbehaving(Filter):
    """Does what ``how`` says at the stage ``at``."""

    class Config(msgspec.Struct, frozen=True):
        at: str = "message"
        how: str = "raise"

    message_ = None

    def closed(self):
        if self.config.at == "closed":
            raise ZeroDivisionError("closed")

    async def _stage(self, stage, tx, given=None):
        if stage == "headers":
            self.message_ = given
        if stage == self.config.at:
            return await getattr(self, "_" + self.config.how)(tx, given)
        return CONTINUE

    async def connect(self, tx):
        return await self._stage("connect", tx)

    async def helo(self, tx, name):
        return await self._stage("helo", tx, name)

    async def mail(self, tx, reverse_path):
        return await self._stage("mail", tx, reverse_path)

    async def rcpt(self, tx, recipient):
        return await self._stage("rcpt", tx, recipient)

    async def data(self, tx):
        return await self._stage("data", tx)

    async def headers(self, tx, message):
        return await self._stage("headers", tx, message)

    async def body(self, tx, chunk):
        return await self._stage("body", tx, chunk)

    async def message(self, tx, message):
        return await self._stage("message", tx, message)

    # What is done: each must never let the message through.

    async def _raise(self, tx, given):
        raise ZeroDivisionError("here")

    async def _exit(self, tx, given):
        raise SystemExit(3)

    async def _cancel(self, tx, given):
        raise CancelledError

    async def _hang(self, tx, given):
        await Deferred()

    async def _hang_for_ever(self, tx, given):
        while True:
            try:
                await Deferred()
            except Exception:
                continue

    async def _spin(self, tx, given):
        while True:
            time.sleep(0.01)  # noqa: ASYNC251 - what a filter must not do

    async def _eat(self, tx, given):
        return [bytes(1 << 50)]

    async def _eat_slowly(self, tx, given):
        hoard = []
        while True:
            hoard.append(bytearray(1 << 24))

    async def _nothing(self, tx, given):
        return None

    async def _nonsense(self, tx, given):
        return {"verdict": "accept"}

    async def _wrong_code(self, tx, given):
        return Reject(code=250, enhanced="2.0.0")

    async def _wrong_enhanced(self, tx, given):
        return Defer(enhanced="5.7.1")

    async def _skip(self, tx, given):
        return SKIP

    async def _edit_twice(self, tx, given):
        for _ in range(2):
            try:
                tx.change_reverse_path(Path.null)
            except EditError:
                if self.config.at in {"connect", "helo", "mail", "rcpt", "data"}:
                    raise
        return CONTINUE

    async def _die(self, tx, given):
        os.kill(os.getpid(), signal.SIGKILL)


class Editing(Filter):
    """Edits, and says what it saw."""

    async def headers(self, tx, message):
        message.insert_header("X-Process", str(os.getpid()))
        return CONTINUE

    async def body(self, tx, chunk):
        self.seen = getattr(self, "seen", 0) + len(chunk)
        return CONTINUE

    async def message(self, tx, message):
        message.add_header(
            "X-Seen", f"{self.seen} {message.size - message.summary.header_size} {message.text('subject')}"
        )
        message.add_header("X-Read", str(sum(len(chunk) for chunk in message.chunks())))
        tx.add_score(1.5, "seen elsewhere")
        return CONTINUE
