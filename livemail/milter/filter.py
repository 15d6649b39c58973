"""``use = "milter"``: an external milter asked as a filter of the chain.

Each stage asks the milter what its stage of the same name is.  What a milter says means here:

    accept               CONTINUE, and this milter is not asked again (in this message; said at connect or helo: in this
                         connection).  Other filters still are: it is not the chain's Accept.
    reject, tempfail     Reject, Defer with Sendmail's words
    reply code           Reject or Defer with the milter's
    discard, quarantine  Discard, Quarantine
    shutdown             Defer

Edits come with the answer to the end of the message and are made when all of them have arrived.  Positions count as Sendmail
and Postfix count them: the milter is not shown the Received field that we have put in front, changes count without it,
insertions with it.

A milter that is not there, too slow or talking nonsense is a failure of the filter: the message is deferred, or goes on where
``on_failure`` says so.  Lost in the middle of its edits, or with a reply that cannot be read, the message is deferred
whatever ``on_failure`` says.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec
from twisted.logger import Logger

from livemail.filters import CONTINUE, Defer, Discard, Filter, Message, Quarantine, Reject, Transaction, Verdict
from livemail.mail.address import Path
from livemail.mail.content import Content
from livemail.mail.envelope import Recipient, ReversePath
from livemail.milter import codes, grammar
from livemail.milter.client import Answer, Client, MilterError, Times
from livemail.milter.grammar import (
    BodyChunk,
    HeaderChange,
    Peer,
    Quarantined,
    RecipientAdded,
    RecipientRemoved,
    ReversePathChanged,
)
from livemail.milter.link import open_link
from livemail.milter.place import parse_place
from livemail.milter.pool import Held, Pool

BODY_CHUNK: Final = 64 * 1024

_LOST: Final = Defer("4.3.0", "The message could not be checked, try again later", "")
_SHUTDOWN: Final = Defer("4.3.2", "Service is shutting down, try again later", "milter: shutdown", 451)
_REJECT: Final = Reject("5.7.1", "Command rejected", "milter: reject")
_TEMPFAIL: Final = Defer("4.7.1", "Service unavailable, try again later", "milter: tempfail")


class Milter(Filter):
    """An external milter."""

    class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
        """Where it is, and how long it may take.

        socket: ``inet:PORT@HOST``, ``inet6:PORT@HOST`` or ``unix:/path``.  connect_time, command_time, content_time: seconds
        to be connected to, to answer a command, to answer the end of the message ("still busy" begins it anew).
        max_idle: connections kept between two messages, for idle_time seconds.  reuse: they may serve other SMTP clients as well, which
        not every milter can.  max_body_octets: of a body it may make.
        daemon_name: the macro of that name, by which milters tell submission from other mail; "" for the service's name.
        """

        socket: str
        connect_time: float = 10.0
        command_time: float = 20.0
        content_time: float = 120.0
        max_idle: int = 20
        idle_time: float = 20.0
        reuse: bool = False
        max_body_octets: int = 64 * 1024 * 1024
        daemon_name: str = ""

        def faults(self) -> Iterator[tuple[str, str]]:
            """What the types cannot say."""
            try:
                parse_place(self.socket)
            except ValueError as error:
                yield "socket", f'cannot be "{self.socket}"; {error}'
            for name in ("connect_time", "command_time", "content_time"):
                if getattr(self, name) <= 0:
                    yield name, "must be more than 0 seconds"

    log = Logger()

    def __init__(self, config: msgspec.Struct) -> None:
        super().__init__(config)
        self._held: Held | None = None
        self._is_settled = False
        self._told_mail = False
        self._is_asking = False
        self._failure: MilterError | None = None

    @classmethod
    def start(cls, config: Any, server: Any) -> Pool:
        """Make the pool all objects share; the milter need not be there yet."""
        place = parse_place(config.socket)
        times = Times(config.connect_time, config.command_time, config.content_time)
        return Pool(
            lambda: open_link(server.reactor, place, config.connect_time),
            server.reactor,
            times=times,
            max_body=config.max_body_octets,
            max_idle=config.max_idle,
            idle_seconds=config.idle_time,
            reuse=config.reuse,
        )

    @classmethod
    def stop(cls, shared: Any) -> None:
        """Close what is parked."""
        shared.close()

    # ------------------------------------------------------------------------------------------ stages

    async def connect(self, tx: Transaction) -> Verdict:
        """See `Filter.connect`."""
        return await self._guarded(self._attach(tx))

    async def helo(self, tx: Transaction, name: str) -> Verdict:
        """See `Filter.helo`."""
        return await self._guarded(self._attach(tx))

    async def mail(self, tx: Transaction, reverse_path: ReversePath) -> Verdict:
        """See `Filter.mail`."""
        return await self._guarded(self._mail(tx, reverse_path))

    async def rcpt(self, tx: Transaction, recipient: Recipient) -> Verdict:
        """See `Filter.rcpt`."""
        return await self._guarded(self._rcpt(tx, recipient))

    async def data(self, tx: Transaction) -> Verdict:
        """See `Filter.data`."""
        return await self._guarded(self._data(tx))

    async def headers(self, tx: Transaction, message: Message) -> Verdict:
        """See `Filter.headers`."""
        return await self._guarded(self._headers(tx, message))

    async def message(self, tx: Transaction, message: Message) -> Verdict:
        """See `Filter.message`."""
        return await self._guarded(self._message(tx, message))

    def closed(self) -> None:
        """See `Filter.closed`."""
        held, self._held = self._held, None
        if held is not None and self._is_asking:
            # The chain's patience has ended; an answer that comes now would be taken for another's.
            held.client.link.drop()
        elif held is not None:
            held.client.abort()
            self.shared.park(held)

    # ------------------------------------------------------------------------------------------ what they do

    async def _guarded(self, stage: Any) -> Verdict:
        """Ask, unless the answer is known; a failure holds for all later stages, so that none of them passes by it."""
        if self._failure is not None or self._is_settled:
            stage.close()
            if self._failure is not None:
                raise MilterError(str(self._failure))
            return CONTINUE
        self._is_asking = True
        try:
            answer: Answer | Verdict | None = await stage
        except MilterError as error:
            self._failure = error
            self._drop()
            if error.must_defer:
                self.log.warn(
                    "milter {socket}: {error}; the message is deferred", socket=self.config.socket, error=str(error)
                )
                return msgspec.structs.replace(_LOST, reason=f"milter {self.config.socket}: {error}")
            raise MilterError(f"milter {self.config.socket}: {error}") from None
        except BaseException as error:  # out of time, or a bug: where the dialogue stands is not known
            self._failure = MilterError(f"{type(error).__name__} in an earlier stage")
            self._drop()
            raise
        finally:
            self._is_asking = False
        if answer is None:
            return CONTINUE
        return self._verdict(answer) if isinstance(answer, Answer) else answer

    def _drop(self) -> None:
        held, self._held = self._held, None
        if held is not None:
            held.client.link.drop()

    def _verdict(self, answer: Answer) -> Verdict:
        if answer.command == codes.ACCEPT:
            self._is_settled = True
        reply = answer.reply
        if reply is not None:
            enhanced = reply.enhanced or f"{reply.code // 100}.7.1"
            text = reply.text or "Refused by policy"
            reason = f"milter: {reply.code} {reply.text}"
            if reply.code >= 500:
                return Reject(enhanced, text, reason, reply.code)
            # 421 would promise to close the connection, which is not the milter's to do.
            return Defer(enhanced, text, reason, 451 if reply.code == 421 else reply.code)
        words: dict[bytes, Verdict] = {
            codes.REJECT: _REJECT,
            codes.TEMPFAIL: _TEMPFAIL,
            codes.DISCARD: Discard("milter: discard"),
            codes.SHUTDOWN: _SHUTDOWN,
        }
        return words.get(answer.command, CONTINUE)

    async def _attach(self, tx: Transaction) -> Answer | None:
        """Have a dialogue that has been told of this connection and its latest HELO; None when there is nothing to say."""
        connection = tx.connection
        held = self._held
        if held is None:
            held = self._held = await self.shared.take(connection.session)
        here = (connection.peer, connection.port)
        if held.told_connect != here:
            held.told_connect = here
            name = f"[{connection.peer}]" if connection.peer else "localhost"
            peer = Peer(name, connection.peer, connection.port)
            held.standing = self._kept(held, await held.client.connect(peer, self._macros(tx, codes.CONNECT)))
        said = (tx.helo, connection.tls)
        if held.standing is None and not held.is_settled and tx.helo and held.told_helo != said:
            held.told_helo = said
            held.standing = self._kept(held, await held.client.helo(tx.helo, self._macros(tx, codes.HELO)))
        if held.is_settled:
            self._is_settled = True
        return held.standing

    @staticmethod
    def _kept(held: Held, answer: Answer) -> Answer | None:
        """What was said of the connection holds for all its mail transactions."""
        if answer.command == codes.ACCEPT:
            held.is_settled = True
        return None if answer.command in {codes.CONTINUE, codes.ACCEPT} else answer

    async def _mail(self, tx: Transaction, reverse_path: ReversePath) -> Answer | None:
        standing = await self._attach(tx)
        if standing is not None or self._is_settled:
            return standing
        self._told_mail = True
        path = grammar.render_path(reverse_path.path)
        return await self._client.mail(path, grammar.mail_parameters(reverse_path), self._macros(tx, codes.MAIL))

    @property
    def _client(self) -> Client:
        if self._held is None:
            raise MilterError("asked before MAIL")
        return self._held.client

    async def _begun(self, tx: Transaction) -> Answer | None:
        """Tell of MAIL where that was not done: a filter for some recipients only is first asked when one of them comes."""
        if self._told_mail or tx.reverse_path is None:
            return None
        answer = await self._mail(tx, tx.reverse_path)
        return None if answer is None or answer.command == codes.CONTINUE else answer

    async def _rcpt(self, tx: Transaction, recipient: Recipient) -> Answer:
        begun = await self._begun(tx)
        if begun is not None or self._is_settled:
            return begun or Answer(codes.CONTINUE)
        path = grammar.render_path(recipient.path)
        macros = self._macros(tx, codes.RCPT)
        address = recipient.path.address
        macros |= {
            b"{rcpt_addr}": path[1:-1],
            b"{rcpt_host}": address.domain.encode() if address else b"",
            b"{rcpt_mailer}": b"local",
        }
        return await self._client.rcpt(path, grammar.rcpt_parameters(recipient), macros)

    async def _data(self, tx: Transaction) -> Answer:
        return await self._client.data(self._macros(tx, codes.DATA))

    async def _headers(self, tx: Transaction, message: Message) -> Answer:
        shown, _ = self._visible(message)
        return await self._client.headers(shown, self._macros(tx, codes.EOH))

    async def _message(self, tx: Transaction, message: Message) -> Answer | Verdict:
        client = self._client
        content: Content = message.content
        at = content.outline.header_size
        while at < content.size and client.wants_body:
            chunk = content.read(at, min(BODY_CHUNK, content.size - at))
            answer: Answer = await client.body(chunk)
            if answer.command != codes.CONTINUE:
                return answer
            at += len(chunk)
        client.on_edit = self._acts
        try:
            answer = await client.end_of_message(self._macros(tx, codes.BODYEOB))
        finally:
            client.on_edit = None
        if answer.command in {codes.CONTINUE, codes.ACCEPT}:
            return self._edit(tx, message, answer) or answer
        return answer

    def _acts(self) -> None:
        """An edit has come: even when the chain's patience ends before the milter's answer, the message is not to pass."""
        self.must_defer = True

    def _edit(self, tx: Transaction, message: Message, answer: Answer) -> Verdict | None:
        """Make the milter's edits; return Quarantine when it asked for that.

        Raises MilterError that defers when one cannot be made: the message is not to go on without it.
        """
        verdict: Verdict | None = None
        envelope = _EnvelopeEdits(tx)
        _, hides_received = self._visible(message)
        try:
            for edit in answer.edits:
                match edit:
                    case HeaderChange():
                        _edit_header(message, edit, hides_received=hides_received)
                    case BodyChunk(octets):
                        message.replace_body(octets)
                    case RecipientAdded(recipient):
                        envelope.add(recipient.path)
                    case RecipientRemoved(path):
                        envelope.remove(path)
                    case ReversePathChanged(path):
                        envelope.reverse_path = path
                    case Quarantined(reason):
                        verdict = Quarantine(f"milter: {reason}")
            envelope.make()
        except Exception as error:  # a bug of ours must not let the message pass by it either
            self.log.failure("milter {socket}: an edit could not be made", socket=self.config.socket)
            raise MilterError(f"made an edit that cannot be: {error}", must_defer=True) from None
        return verdict

    def _visible(self, message: Message) -> tuple[list[tuple[bytes, bytes]], bool]:
        """Fields as a milter is shown them, and whether one was left out: the Received field that is ours.

        Where the chain serves another MTA there is none: it has kept back its own.
        """
        shown: list[tuple[bytes, bytes]] = []
        ours = f"by {self.server.hostname} with ".encode()
        received = hidden = False
        for name, raw in message.fields:
            if not received and name.lower() == b"received":
                received = True
                hidden = ours in raw
                if hidden:
                    continue
            if name and b":" in raw:
                shown.append((name, raw.partition(b":")[2].removesuffix(b"\n").removesuffix(b"\r")))
        return shown, hidden

    def _macros(self, tx: Transaction, command: bytes) -> dict[bytes, bytes]:
        """What the milter may want to know at a stage, by Sendmail's names."""
        connection = tx.connection
        values: dict[str, str] = {}
        if command == codes.CONNECT:
            values = {
                "j": self.server.hostname,
                "{daemon_name}": self.config.daemon_name or connection.service,
                "v": "livemail",
                "_": f"[{connection.peer}]" if connection.peer else "localhost",
                "{client_addr}": connection.peer,
                "{client_name}": f"[{connection.peer}]" if connection.peer else "localhost",
                "{client_ptr}": "unknown",
                "{client_port}": str(connection.port),
            }
        elif command == codes.HELO and connection.tls:
            version, _, cipher = connection.tls.partition(" ")
            values = {"{tls_version}": version, "{cipher}": cipher}
        elif command == codes.MAIL:
            address = tx.reverse_path.path.address if tx.reverse_path is not None else None
            values = {
                "i": connection.session,
                "{mail_addr}": str(address) if address else "<>",
                "{mail_host}": address.domain if address else "",
                "{mail_mailer}": "esmtp",
            }
            if connection.authcid:
                values |= {"{auth_authen}": connection.authcid, "{auth_type}": connection.mechanism or "unknown"}
        elif command != codes.HELO:
            values = {"i": connection.session}
        return {name.encode(): _octets(value) for name, value in values.items()}


def _octets(value: str) -> bytes:
    return value.encode("utf-8", "replace").replace(b"\0", b"?")


class _EnvelopeEdits:
    """What a milter's edits of the envelope come to: it may change its mind, a filter edits each thing once."""

    def __init__(self, tx: Transaction) -> None:
        self._tx = tx
        self._known = {_folded(recipient.path): recipient.path for recipient in tx.recipients}
        self._wanted = dict(self._known)
        self.reverse_path: Path | None = None

    def add(self, path: Path) -> None:
        """One recipient more."""
        self._wanted.setdefault(_folded(path), path)

    def remove(self, path: Path) -> None:
        """One less, whatever the case of its letters."""
        self._wanted.pop(_folded(path), None)

    def make(self) -> None:
        """Edit the transaction."""
        for name, path in self._known.items():
            if name not in self._wanted:
                self._tx.remove_recipient(path)
        for name, path in self._wanted.items():
            if name not in self._known and path.address is not None:
                self._tx.add_recipient(path.address)
        if self.reverse_path is not None:
            self._tx.change_reverse_path(self.reverse_path)


def _folded(path: Path) -> str:
    return str(path).lower()


def _edit_header(message: Message, edit: HeaderChange, *, hides_received: bool) -> None:
    name, value = edit.name.decode("ascii"), edit.value.removeprefix(b" ")
    if edit.action == "add":
        message.add_header(name, value)
    elif edit.action == "insert":
        message.insert_header(name, value, edit.index)
    else:
        index = edit.index - 1 + (1 if hides_received and name.lower() == "received" else 0)
        if edit.value:
            message.change_header(name, value, index)
        else:
            message.remove_header(name, index)
