"""What running a command comes to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec


class Done(msgspec.Struct, frozen=True):
    """The command succeeded: ``tag OK [code] text``.

    text: ASCII, one line.  code: response code without its brackets, b"" for none.
    afterwards: run when the tagged reply has been queued (STARTTLS, LOGOUT).
    """

    text: str
    code: bytes = b""
    afterwards: Callable[[], Awaitable[None]] | None = None


class Dialogue(Protocol):
    """The command goes on with lines of the client that are not commands (AUTHENTICATE, IDLE).

    The session has the tag; while a dialogue is on, the wire gives lines and nothing else.
    """

    limit: int
    """Octets of its longest line."""

    flushes: bool
    """Whether the client may be told of changes at any time while the dialogue is on (IDLE)."""

    async def line(self, line: bytes) -> Done | None:
        """Take the next line, without its CRLF.  None: more lines follow.  Raises as a command's `run`."""

    def stop(self) -> None:
        """The dialogue is over, whatever the reason."""
