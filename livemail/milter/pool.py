"""Connections to one milter, kept for the next SMTP client.

A dialogue is taken for a mail transaction and parked behind it, still telling of the SMTP connection it told of.  The same SMTP
connection gets it back as it is.  Another one gets a new connection, or, where the administrator says that the milter can take it,
the dialogue that was parked longest, made to forget (QUIT_NC).  Not by default: Sendmail and Postfix do not do it, and
milters built with Debian's libmilter 1.0.1 (OpenDKIM) say no word after it.  What is parked for long, and what is too much, is
closed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from livemail.milter.client import Answer, Client, Link, Times

Open = Callable[[], Awaitable[Link]]


class Held(msgspec.Struct, eq=False):
    """A dialogue with what it has been told.  session: of the SMTP connection.  is_settled: nothing more is asked in it."""

    client: Client
    session: str = ""
    told_connect: object = None
    told_helo: object = None
    is_settled: bool = False
    standing: Answer | None = None
    parked: float = 0.0


class Pool:
    """The dialogues with one milter."""

    def __init__(
        self,
        open_: Open,
        clock: Any,
        *,
        times: Times,
        max_body: int,
        max_idle: int,
        idle_seconds: float,
        reuse: bool = False,
    ) -> None:
        """open_: makes a connection, raises MilterError.  max_idle: dialogues parked at most, for idle_seconds at most.

        reuse: they may tell of several SMTP connections.
        """
        self._open = open_
        self._clock = clock
        self._times = times
        self._max_body = max_body
        self._max_idle = max_idle
        self._reuse = reuse
        self._idle_seconds = idle_seconds
        self._parked: list[Held] = []  # longest parked first
        self._timer: Any = None
        self._is_closed = False

    async def take(self, session: str) -> Held:
        """A dialogue for an SMTP connection: its own, one that was made to forget another's, or a new one.

        Raises MilterError.
        """
        self._forget_lost()
        for held in self._parked:
            if held.session == session:
                self._parked.remove(held)
                return held
        # One that was parked just now is probably wanted back: leave it while there is room for more.
        reusable = [held for held in self._parked if self._reuse and held.client.can_go_on]
        if reusable and len(self._parked) >= min(2, self._max_idle):
            held = reusable[0]
            self._parked.remove(held)
            held.client.next()
            return Held(held.client, session)
        client = Client(await self._open(), self._times, self._max_body)
        try:
            await client.negotiate()
        except BaseException:
            client.link.drop()
            raise
        return Held(client, session)

    def park(self, held: Held) -> None:
        """Give a dialogue back; no mail transaction is open in it any more."""
        if not held.client.link.is_open:
            return
        if self._is_closed:
            held.client.quit()
            return
        held.parked = self._clock.seconds()
        self._parked.append(held)
        while len(self._parked) > self._max_idle:
            self._parked.pop(0).client.quit()
        self._arm()

    @property
    def idle(self) -> int:
        """Dialogues parked."""
        return len(self._parked)

    def close(self) -> None:
        """Say goodbye on all that are parked, and on the others when they are parked."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        parked, self._parked = self._parked, []
        for held in parked:
            held.client.quit()

    def _forget_lost(self) -> None:
        self._parked = [held for held in self._parked if held.client.link.is_open]

    def _arm(self) -> None:
        if self._timer is None and self._parked:
            due = self._parked[0].parked + self._idle_seconds
            self._timer = self._clock.callLater(max(0.0, due - self._clock.seconds()), self._expire)

    def _expire(self) -> None:
        self._timer = None
        self._forget_lost()
        now = self._clock.seconds()
        while self._parked and self._parked[0].parked + self._idle_seconds <= now:
            self._parked.pop(0).client.quit()
        self._arm()
