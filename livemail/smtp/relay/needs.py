"""What a dialogue asks of whoever runs it, and how that may fail.  Values only; no I/O.

A dialogue is a generator.  It yields one of these and is sent the answer, or has `Broken` thrown into it:

    Turn     octets out, replies in        list of `Said`, in order
    Write    octets out                    None, when the peer has read enough for more
    Read     octets of the content         bytes
    Secure   the TLS handshake             how: "TLSv1.3 TLS_AES_256_GCM_SHA384"
"""

from __future__ import annotations

from typing import Literal

from livemail.interfaces.relay import Reply
from livemail.smtp.relay.state import Stage
from livemail.smtp.relay.wire import Said


class Turn:
    """Say something and wait for replies.  stages: what each further reply answers.

    leave: how many replies may still be missing when the dialogue goes on.  What arrives beyond what was asked for is a reply
    before it is due: Broken when the next thing is said.  is_whole: content goes with its envelope, so nothing was said in
    between that would have told; then one reply too many makes all of them doubtful at once.
    """

    __slots__ = ("is_whole", "leave", "octets", "stages")

    def __init__(self, octets: bytes, stages: tuple[Stage, ...], leave: int = 0, *, is_whole: bool = False) -> None:
        self.octets = octets
        self.stages = stages
        self.leave = leave
        self.is_whole = is_whole


class Write:
    """Send a block of content."""

    __slots__ = ("octets",)

    def __init__(self, octets: bytes) -> None:
        self.octets = octets


class Read:
    """Ask for octets of the content; fewer come only at its end."""

    __slots__ = ("length", "offset")

    def __init__(self, offset: int, length: int) -> None:
        self.offset = offset
        self.length = length


class Secure:
    """Begin TLS."""

    __slots__ = ()


Need = Turn | Write | Read | Secure

Kind = Literal["lost", "timeout", "garbage", "doubtful", "tls", "closing", "early", "content", "stopped"]


class Broken(Exception):
    """The connection is of no more use.

    kind: the peer went away; took too long; said what is no reply; gave more replies than there were commands; TLS failed; said
    421; replied before it was asked; our content cannot be read; we stop.
    reply: what to tell of it.  said: the replies of the turn that did come, in order.
    """

    def __init__(self, kind: Kind, reply: Reply, said: list[Said] | None = None) -> None:
        super().__init__(f"{kind}: {reply.code} {reply.text}")
        self.kind = kind
        self.reply = reply
        self.said = said or []
