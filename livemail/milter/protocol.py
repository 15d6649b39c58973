"""The milter server's connection: packets in, one step each, in order."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from livemail.mail.errors import WireError
from livemail.milter.session import Session, Site
from livemail.milter.wire import Wire
from livemail.net.connection import Connection, Owner, Step

IDLE_SECONDS = 7210.0
"""libmilter's patience: an MTA keeps the connection as long as its SMTP client stays."""


class MilterConnection(Connection):
    """One MTA connected to us."""

    wire: Wire

    def __init__(self, owner: Owner, site: Site) -> None:
        super().__init__(owner)
        self.wire = Wire()
        self.idle_timeout = IDLE_SECONDS
        self.session = Session(self, site)

    def greet(self) -> Coroutine[Any, Any, None] | None:
        return None

    def next_step(self) -> Step:
        packet = self.wire.packet()
        return None if packet is None else self.session.run(*packet)

    def failed(self, error: BaseException) -> None:
        """Nobody could go on from here: the MTA sees a lost milter, and does what it was told to do about that."""
        if isinstance(error, WireError):
            self.log.warn("{session} {peer}: {error}", session=self.session_id, peer=self.peer, error=error.text)
        else:
            self.log.error("{session} milter session failed: {error!r}", session=self.session_id, error=error)
        self.close()

    def farewell(self, reason: str) -> bytes:
        return b""

    @property
    def may_drain(self) -> bool:
        return self.session.envelope is None

    def cleanup(self) -> None:
        self.session.close()
