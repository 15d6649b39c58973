"""The MTA's side of a dialogue with one milter: what is asked, what may be answered, and when it counts as lost.

`Client` knows the protocol and nothing of the transport, which it meets as `Link`.  Its life:

    negotiate ─▶ (connect ─▶ helo ─▶ (mail ─▶ rcpt… ─▶ data ─▶ header… ─▶ eoh ─▶ body… ─▶ end_of_message | abort)… ─▶ next)… ─▶ quit

``next`` is QUIT_NC: the same connection tells of another SMTP client.  A step that the milter did not want is answered CONTINUE
without being sent; one it does not answer is sent and taken for CONTINUE.

What goes wrong is a `MilterError`; the dialogue is of no use behind it.  `MilterError.must_defer` says that what the milter wanted is known to be
more than nothing: it was lost in the middle of its edits, or gave a reply nobody can read.  Such a message must not
go on as if it had not been filtered, whatever the administrator chose for a milter that is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, Protocol

import msgspec

from livemail.mail.errors import WireError
from livemail.milter import codes, grammar
from livemail.milter.grammar import BodyChunk, Edit, Options, Peer, ReplyCode
from livemail.milter.state import ANSWERS, EDITS
from livemail.milter.wire import CHUNK_OCTETS, packet, strings

MAX_EDITS: Final = 10_000
"""Edits of one message, new body aside."""

_EMPTY_ANSWERS: Final = frozenset({
    codes.CONTINUE, codes.ACCEPT, codes.REJECT, codes.TEMPFAIL, codes.DISCARD, codes.SKIP, codes.PROGRESS,
    codes.SHUTDOWN, codes.CONN_FAIL,
})  # fmt: skip


class MilterError(Exception):
    """A milter that is not there, does not answer, or talks nonsense.  must_defer: see the module's text."""

    def __init__(self, text: str, *, must_defer: bool = False) -> None:
        super().__init__(text)
        self.must_defer = must_defer


class Times(msgspec.Struct, frozen=True):
    """Seconds a milter may take: to be connected to, to answer a command, to answer the end of the message."""

    connect: float = 30.0
    command: float = 30.0
    content: float = 300.0


class Link(Protocol):
    """The connection, as far as a dialogue is concerned."""

    @property
    def is_open(self) -> bool:
        """Whether it is there."""

    def send(self, octets: bytes) -> None:
        """Queue octets for the milter."""

    async def drained(self, seconds: float) -> None:
        """Wait until the milter has read enough for more.  Raises MilterError."""

    async def receive(self, seconds: float) -> tuple[bytes, bytes]:
        """Wait for the next packet.  Raises MilterError, WireError."""

    def raise_limit(self, octets: int) -> None:
        """Packets with so many octets of data are allowed from now on."""

    def drop(self) -> None:
        """Close after what is queued.  Allowed more than once."""


class Answer(msgspec.Struct, frozen=True):
    """What a milter said.  command: one of `state.ANSWERS`.  reply: REPLYCODE's.  edits: what came before it."""

    command: bytes
    reply: ReplyCode | None = None
    edits: tuple[Edit, ...] = ()


_CONTINUE: Final = Answer(codes.CONTINUE)

OFFERED_ACTIONS: Final = codes.ACTIONS[codes.VERSION]
OFFERED_STEPS: Final = (codes.STEPS[codes.VERSION] & ~codes.RCPT_REJECTED) | codes.MDS_256K | codes.MDS_1M
"""Rejected recipients are not told: when we ask the milter, the router has refused them."""


class Client:
    """One dialogue.  max_body: octets a new body may have.  options: as negotiated.  on_edit: called when an edit comes."""

    def __init__(self, link: Link, times: Times, max_body: int) -> None:
        self.link = link
        self.options = Options(0, 0, 0)
        self.chunk_octets = CHUNK_OCTETS
        self.is_connected = False
        self.on_edit: Callable[[], None] | None = None
        self._times = times
        self._max_body = max_body
        self._skipped: set[bytes] = set()
        self._in_transaction = False

    # ------------------------------------------------------------------------------------------ beginning and end

    async def negotiate(self) -> None:
        """Agree on version, actions and steps.  Raises MilterError."""
        offered = Options(codes.VERSION, OFFERED_ACTIONS, OFFERED_STEPS)
        self.link.send(packet(codes.OPTNEG, grammar.render_options(offered)))
        command, data = await self._receive(self._times.command)
        if command != codes.OPTNEG:
            raise self._lost(f"answered {command!r} to the negotiation")
        try:
            options = grammar.parse_options(data)
        except WireError as error:
            raise self._lost(error.text) from None
        if not codes.OLDEST <= options.version <= codes.VERSION:
            raise self._lost(f"speaks version {options.version}; we speak {codes.OLDEST} to {codes.VERSION}")
        unknown = options.actions & ~codes.ACTIONS[options.version]
        if unknown:
            raise self._lost(f"wants actions {unknown:#x}, which version {options.version} does not have")
        unknown = options.steps & ~OFFERED_STEPS
        if unknown:
            raise self._lost(f"wants steps {unknown:#x}, which were not offered")
        if options.steps & codes.MDS_1M:
            self.chunk_octets = 1024 * 1024 - 1
        elif options.steps & codes.MDS_256K:
            self.chunk_octets = 256 * 1024 - 1
        self.link.raise_limit(self.chunk_octets)
        self.options = options

    @property
    def can_go_on(self) -> bool:
        """Whether the connection can tell of another SMTP client.  QUIT_NC came with version 6."""
        return self.link.is_open and self.options.version >= codes.VERSION

    def next(self) -> None:
        """Forget the SMTP client; another one follows."""
        self.abort()
        if self.is_connected:
            self.link.send(packet(codes.QUIT_NC))
            self.is_connected = False

    def abort(self) -> None:
        """The mail transaction is over early."""
        self._skipped.clear()
        if self._in_transaction:
            self._in_transaction = False
            self.link.send(packet(codes.ABORT))

    def quit(self) -> None:
        """Say goodbye."""
        if self.link.is_open:
            self.link.send(packet(codes.QUIT))
        self.link.drop()

    # ------------------------------------------------------------------------------------------ stages

    async def connect(self, peer: Peer, macros: Mapping[bytes, bytes]) -> Answer:
        """An SMTP client connected."""
        self.is_connected = True
        return await self._command(codes.CONNECT, grammar.render_connect(peer), macros)

    async def helo(self, name: str, macros: Mapping[bytes, bytes]) -> Answer:
        """EHLO, HELO or LHLO; again after STARTTLS."""
        return await self._command(codes.HELO, strings(name.encode("utf-8", "replace")), macros)

    async def mail(self, path: bytes, parameters: Sequence[bytes], macros: Mapping[bytes, bytes]) -> Answer:
        """A mail transaction begins."""
        self._in_transaction = True
        return await self._command(codes.MAIL, strings(path, *parameters), macros)

    async def rcpt(self, path: bytes, parameters: Sequence[bytes], macros: Mapping[bytes, bytes]) -> Answer:
        """One recipient."""
        return await self._command(codes.RCPT, strings(path, *parameters), macros)

    async def data(self, macros: Mapping[bytes, bytes]) -> Answer:
        """The content is about to come."""
        if self.options.version < 4:
            return _CONTINUE
        return await self._command(codes.DATA, b"", macros)

    async def headers(self, fields: Sequence[tuple[bytes, bytes]], macros: Mapping[bytes, bytes]) -> Answer:
        """All header fields (name, value as this package has it) and their end."""
        for name, value in fields:
            if self._is_unwanted(codes.HEADER):
                break
            text = grammar.to_milter_value(value, leading_space=self.leading_space)
            answer = await self._command(codes.HEADER, strings(name, text), {})
            if answer.command != codes.CONTINUE:
                return answer
        return await self._command(codes.EOH, b"", macros)

    @property
    def leading_space(self) -> bool:
        """Whether header values travel with the space in front."""
        return bool(self.options.steps & codes.HDR_LEADSPC)

    @property
    def wants_body(self) -> bool:
        """Whether chunks of the body are worth reading."""
        return not self._is_unwanted(codes.BODY)

    async def body(self, chunk: bytes) -> Answer:
        """The next octets of the body."""
        for at in range(0, len(chunk), self.chunk_octets):
            answer = await self._command(codes.BODY, chunk[at : at + self.chunk_octets], {})
            await self.link.drained(self._times.content)
            if answer.command != codes.CONTINUE or not self.wants_body:
                return answer
        return _CONTINUE

    async def end_of_message(self, macros: Mapping[bytes, bytes]) -> Answer:
        """The message is complete: the milter's edits, and its answer."""
        answer = await self._command(codes.BODYEOB, b"", macros)
        self._in_transaction = False
        self._skipped.clear()
        return answer

    # ------------------------------------------------------------------------------------------ the dialogue

    def _is_unwanted(self, command: bytes) -> bool:
        return command in self._skipped or bool(self.options.steps & codes.NOT_WANTED.get(command, 0))

    async def _command(self, command: bytes, data: bytes, macros: Mapping[bytes, bytes]) -> Answer:
        if not self.link.is_open:
            raise self._lost("closed the connection")
        if self._is_unwanted(command):
            return _CONTINUE
        named = self._chosen(command, macros)
        if named:
            self.link.send(packet(codes.MACRO, grammar.render_macros(command, named)))
        self.link.send(packet(command, data))
        if self.options.steps & codes.NOT_ANSWERED.get(command, 0):
            return _CONTINUE
        seconds = self._times.content if command == codes.BODYEOB else self._times.command
        edits = _Edits(self.options, self._max_body)
        answer: Answer | None = None
        while answer is None:
            said = b""
            try:
                said, data = await self._receive(seconds)
                answer = self._read(command, said, data, edits)
            except WireError as error:
                spoke = edits.were_made or command == codes.BODYEOB or said == codes.REPLYCODE
                raise self._lost(error.text, must_defer=spoke) from None
            except MilterError as error:
                self.link.drop()
                error.must_defer = error.must_defer or edits.were_made
                raise
        return answer

    def _read(self, command: bytes, said: bytes, data: bytes, edits: _Edits) -> Answer | None:
        """What a packet says to a command; None when the answer is still to come.  Raises WireError, MilterError."""
        if said in _EMPTY_ANSWERS and data:
            raise WireError(f"answered {said!r} with octets behind it")
        if said == codes.PROGRESS:
            return None
        if command == codes.BODYEOB and said in EDITS:
            if self.on_edit is not None:
                self.on_edit()
            edits.take(said, data)
            return None
        if said not in ANSWERS[command]:
            raise WireError(f"answered {said!r} to {command!r}")
        if said == codes.CONN_FAIL:
            raise MilterError("failed by its own account")
        if said == codes.SKIP:
            self._skipped.add(command)
            return _CONTINUE
        return Answer(said, grammar.parse_reply(data) if said == codes.REPLYCODE else None, edits.taken())

    def _chosen(self, command: bytes, macros: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """Those the milter asked for at this stage, by name with or without braces; all where it did not choose."""
        wanted = self.options.macros.get(command)
        if wanted is None:
            return dict(macros)
        names = {name.strip(b"{}") for name in wanted}
        return {name: value for name, value in macros.items() if name.strip(b"{}") in names}

    async def _receive(self, seconds: float) -> tuple[bytes, bytes]:
        try:
            return await self.link.receive(seconds)
        except WireError as error:
            raise self._lost(error.text) from None

    def _lost(self, text: str, *, must_defer: bool = False) -> MilterError:
        self.link.drop()
        return MilterError(text, must_defer=must_defer)


class _Edits:
    """What one message's edits have come to."""

    def __init__(self, options: Options, max_body: int) -> None:
        self.were_made = False
        self._options = options
        self._max_body = max_body
        self._edits: list[Edit] = []
        self._body: list[bytes] = []
        self._body_octets = 0
        self._has_body = False

    def take(self, command: bytes, data: bytes) -> None:
        """Note one.  Raises WireError."""
        self.were_made = True
        if not self._options.actions & codes.ACTION_OF_EDIT[command]:
            raise WireError(f"made an edit {command!r} that was not negotiated")
        edit = grammar.parse_edit(command, data, leading_space=bool(self._options.steps & codes.HDR_LEADSPC))
        if isinstance(edit, BodyChunk):
            self._has_body = True
            self._body_octets += len(edit.octets)
            if self._body_octets > self._max_body:
                raise WireError(f"made a body of more than {self._max_body} octets")
            self._body.append(edit.octets)
            return
        self._edits.append(edit)
        if len(self._edits) > MAX_EDITS:
            raise WireError(f"made more than {MAX_EDITS} edits")

    def taken(self) -> tuple[Edit, ...]:
        """All edits; the new body is one."""
        return tuple(self._all())

    def _all(self) -> Iterator[Edit]:
        yield from self._edits
        if self._has_body:
            yield BodyChunk(b"".join(self._body))
