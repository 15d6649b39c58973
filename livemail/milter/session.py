"""What an MTA's commands mean: the chain asked for Postfix or Sendmail.

The session knows the dialogue and nothing of the transport, which it meets as `Link`.  Header and body go into a content sink as they
arrive, in memory while small and in a spool file when large; the chain sees the whole message at its end, as it does inside
livemail, and what it made of it goes back as edits (`changes`).  Every way out of a mail transaction goes through `_reset`.

In front of the content stands a field Received, as it does inside livemail: in place of the MTA's own, which milters are not
shown.  So a filter sees as many of them, and counts positions, as it does inside livemail.

An edit that the MTA did not offer to make cannot be left out: the message is deferred and the log says which.  A message that cannot
be taken in (too big, no space) is answered at its end.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable
from email.utils import formatdate
from typing import Any, ClassVar, Final, Protocol

import msgspec
from twisted.logger import Logger

from livemail.filters.message import MAX_HEADER_OCTETS, Message
from livemail.interfaces.filter import (
    CONTINUE,
    Accept,
    ConnectionInfo,
    Defer,
    Discard,
    IFilterChain,
    IFilterTransaction,
    Outcome,
    Quarantine,
    Reject,
    Verdict,
)
from livemail.interfaces.runtime import Now
from livemail.interfaces.storage import IContentSink
from livemail.mail.content import Content
from livemail.mail.envelope import Envelope
from livemail.mail.errors import MailError, TooBig, WireError
from livemail.mail.message.outline import Outlined
from livemail.mail.message.summary import Summary
from livemail.milter import codes, grammar
from livemail.milter.changes import CannotChange, body_chunks, envelope_changes, header_changes, same_body
from livemail.milter.grammar import Edit, Options, Quarantined
from livemail.milter.state import TABLE, State
from livemail.milter.wire import packet

WANTED_STEPS: Final = codes.NR_HDR | codes.NR_EOH | codes.NR_BODY | codes.NO_UNKNOWN | codes.HDR_LEADSPC
"""Header and body are judged at the end: answers to them would only cost time.  No option, where the MTA has none of it."""

MACROS: Final[dict[bytes, tuple[bytes, ...]]] = {
    codes.CONNECT: (b"j", b"{daemon_name}"),
    codes.HELO: (b"{tls_version}", b"{cipher}"),
    codes.MAIL: (b"i", b"{auth_authen}", b"{auth_type}"),
    codes.BODYEOB: (b"i",),
}
"""What we ask the MTA to tell."""

_PER_MESSAGE: Final = (codes.MAIL, codes.RCPT, codes.DATA, codes.HEADER, codes.EOH, codes.BODY, codes.BODYEOB)


class Site(msgspec.Struct, frozen=True):
    """What all connections of one listener share.

    service: what filters see in `ConnectionInfo.service`.  new_content: begins a content.  max_message: octets.  now: seconds
    since the epoch.
    """

    chain: IFilterChain
    service: str
    new_content: Callable[[int], IContentSink]
    max_message: int
    max_recipients: int
    hostname: str = "localhost"
    now: Now = time.time


class Link(Protocol):
    """The connection, as far as a session is concerned."""

    session_id: str

    def write(self, octets: bytes) -> None:
        """Queue octets for the MTA."""

    async def drained(self) -> None:
        """Wait until the MTA has read enough for more."""

    def close(self) -> None:
        """Close after what is queued."""


class Session:
    """One MTA connection's dialogue."""

    log = Logger()

    def __init__(self, link: Link, site: Site) -> None:
        self.link = link
        self.site = site
        self.state = State.NEW
        self.options = Options(0, 0, 0)
        self.envelope: Envelope | None = None
        self._filters: IFilterTransaction | None = None
        self._macros: dict[bytes, dict[bytes, bytes]] = {}
        self._tls = ""
        self._authcid = ""
        self._connections = 0
        self._peer = self._greeted_as = ""
        self._sink: IContentSink | None = None
        self._header_octets = 0
        self._octets = 0
        self._error: MailError | None = None
        self._quarantine: Quarantine | None = None
        self._asked_data = False

    async def run(self, command: bytes, data: bytes) -> None:
        """Deal with one packet.  Raises WireError for what the protocol does not allow: the connection is of no use then."""
        if command == codes.QUIT:
            self.close()
            self.link.close()
            return
        if command == codes.MACRO:
            if self.state is State.NEW:
                raise WireError("macros before the negotiation", fatal=True)
            stage, values = grammar.parse_macros(data)
            if len(self._macros) < 32 or stage in self._macros:
                self._macros[stage] = {name.strip(b"{}"): value for name, value in values.items()}
            return
        cells = TABLE.get(command)
        if cells is None or self.state not in cells:
            raise WireError(f"{command!r} is not allowed in state {self.state.value}", fatal=True)
        await self._run[command](self, data)
        self.state = cells[self.state]

    def close(self) -> None:
        """The connection is over.  Allowed more than once."""
        self._reset()
        filters, self._filters = self._filters, None
        if filters is not None:
            filters.closed()

    def _reset(self) -> None:
        """The mail transaction is over."""
        if self._sink is not None:
            self._sink.abort()
            self._sink = None
        if self.envelope is not None and self._filters is not None:
            self._filters.reset()
        self.envelope = None
        self._error = self._quarantine = None
        self._header_octets = self._octets = 0
        self._asked_data = False
        for stage in _PER_MESSAGE:
            self._macros.pop(stage, None)

    def _macro(self, stage: bytes, name: bytes) -> str:
        return self._macros.get(stage, {}).get(name, b"").decode("utf-8", "backslashreplace")

    # ------------------------------------------------------------------------------------------ connection

    async def _negotiate(self, data: bytes) -> None:
        offered = grammar.parse_options(data)
        if offered.version < codes.OLDEST:
            raise WireError(f"the MTA speaks version {offered.version} of the milter protocol", fatal=True)
        version = min(offered.version, codes.VERSION)
        actions = offered.actions & codes.ACTIONS[version] & ~codes.ACT_SETSYMLIST
        macros = MACROS if offered.actions & codes.ACT_SETSYMLIST and version >= codes.VERSION else {}
        if macros:
            actions |= codes.ACT_SETSYMLIST
        self.options = Options(version, actions, offered.steps & WANTED_STEPS & codes.STEPS[version], macros)
        self.link.write(packet(codes.OPTNEG, grammar.render_options(self.options)))

    async def _connect(self, data: bytes) -> None:
        peer = grammar.parse_connect(data)
        try:
            address = str(ipaddress.ip_address(peer.address))
        except ValueError:
            address = ""
        self._connections += 1
        self._tls = self._authcid = self._greeted_as = ""
        self._peer = address
        session = f"{self.link.session_id}.{self._connections}"
        connection = ConnectionInfo(session, self.site.service, address, peer.port)
        self.log.info("{session} connect from {peer} through a milter client", session=session, peer=address or "local")
        verdict, self._filters = await self.site.chain.connect(connection)
        self._answer(codes.CONNECT, verdict)

    async def _helo(self, data: bytes) -> None:
        assert self._filters is not None
        version = self._macro(codes.HELO, b"tls_version")
        tls = f"{version} {self._macro(codes.HELO, b'cipher')}".strip() if version else ""
        if tls and tls != self._tls:
            self._tls = tls
            self._filters.secured(tls)
        name = data.rstrip(b"\0").decode("utf-8", "backslashreplace")
        self._greeted_as = name
        self._answer(codes.HELO, await self._filters.helo(name))

    async def _abort(self, _data: bytes) -> None:
        self._reset()

    async def _quit_nc(self, _data: bytes) -> None:
        self.close()
        self._macros.clear()

    async def _unknown(self, _data: bytes) -> None:
        if not self.options.steps & codes.NR_UNKNOWN:
            self.link.write(packet(codes.CONTINUE))

    # ------------------------------------------------------------------------------------------ envelope

    async def _mail(self, data: bytes) -> None:
        assert self._filters is not None
        self._reset_for(codes.MAIL)
        authcid = self._macro(codes.MAIL, b"auth_authen")
        if authcid and authcid != self._authcid:
            self._authcid = authcid
            self._filters.authenticated(authcid, self._macro(codes.MAIL, b"auth_type").upper())
        reverse_path = grammar.parse_mail(data)
        self.envelope = Envelope(reverse_path, [])
        self._answer(codes.MAIL, await self._filters.mail(reverse_path))

    def _reset_for(self, stage: bytes) -> None:
        """Begin a transaction; the macros that have come for it stay."""
        macros = self._macros.get(stage)
        self._reset()
        if macros is not None:
            self._macros[stage] = macros

    async def _rcpt(self, data: bytes) -> None:
        assert self._filters is not None
        assert self.envelope is not None
        recipient = grammar.parse_rcpt(data)
        if len(self.envelope.recipients) >= self.site.max_recipients:
            self._answer(codes.RCPT, Defer("4.5.3", "Too many recipients", "", 452))
            return
        verdict = await self._filters.rcpt(recipient)
        if not isinstance(verdict, Reject | Defer):
            self.envelope.recipients.append(recipient)
        # The chain's Accept is this recipient's; the milter protocol's would be the whole message's.
        self._answer(codes.RCPT, CONTINUE if isinstance(verdict, Accept) else verdict)

    async def _data(self, _data: bytes) -> None:
        self._answer(codes.DATA, await self._ask_data())

    async def _ask_data(self) -> Verdict:
        assert self._filters is not None
        assert self.envelope is not None
        self._asked_data = True
        return await self._filters.data(self.envelope)

    # ------------------------------------------------------------------------------------------ content

    async def _begin_content(self) -> None:
        """The first octet of content, or none at all."""
        if self._sink is not None or self._error is not None:
            return
        if not self._asked_data:  # before version 4 DATA is not told
            verdict = await self._ask_data()
            if isinstance(verdict, Reject | Defer):
                self._error = MailError(verdict.text, code=verdict.code, enhanced=verdict.enhanced)
                return
            if isinstance(verdict, Quarantine):
                self._quarantine = verdict
        assert self.envelope is not None
        try:
            self._sink = self.site.new_content(0)
        except MailError as error:
            self._error = error
        self._take(self._received())

    def _received(self) -> bytes:
        """The field that stands for the MTA's own.  RFC 5321 §4.4."""
        literal = f"IPv6:{self._peer}" if ":" in self._peer else self._peer
        origin = f" ([{literal}])" if self._peer else ""
        id_ = self._macro(codes.MAIL, b"i") or self._macro(codes.RCPT, b"i") or self.link.session_id
        helo = self._greeted_as or "unknown"
        field = f"Received: from {helo}{origin}\r\n\tby {self.site.hostname} with ESMTP id {id_};"
        return f"{_one_line(field)}\r\n\t{formatdate(self.site.now())[:-5]}+0000\r\n".encode()

    def _take(self, octets: bytes) -> None:
        if self._error is not None or self._sink is None:
            return
        self._octets += len(octets)
        try:
            if self._octets > self.site.max_message:
                raise TooBig(f"Message over {self.site.max_message} octets")
            self._sink.write(octets)
        except MailError as error:
            self._error = error
            self._sink.abort()
            self._sink = None

    async def _header(self, data: bytes) -> None:
        await self._begin_content()
        name, value = grammar.parse_header(data, leading_space=bool(self.options.steps & codes.HDR_LEADSPC))
        field = name + b":" + value + b"\r\n"
        self._header_octets += len(field)
        if self._header_octets > MAX_HEADER_OCTETS and self._error is None:
            self._error = TooBig(f"Header over {MAX_HEADER_OCTETS} octets")
        self._take(field)
        self._acknowledge(codes.HEADER)

    async def _eoh(self, _data: bytes) -> None:
        await self._begin_content()
        self._take(b"\r\n")
        self._acknowledge(codes.EOH)

    async def _body(self, data: bytes) -> None:
        self._take(data)
        self._acknowledge(codes.BODY)

    def _acknowledge(self, command: bytes) -> None:
        if not self.options.steps & codes.NOT_ANSWERED[command]:
            self.link.write(packet(codes.CONTINUE))

    async def _end(self, data: bytes) -> None:
        assert self._filters is not None
        assert self.envelope is not None
        if data:
            self._take(data)
        try:
            await self._judge(self._filters, self.envelope)
        except MailError as error:
            self._refuse(error)
        finally:
            self._reset()

    async def _judge(self, filters: IFilterTransaction, envelope: Envelope) -> None:
        sink, self._sink = self._sink, None
        if self._error is not None or sink is None:
            raise self._error or MailError("No content", code=451, enhanced="4.3.0")
        try:
            content = await sink.finish()
        except BaseException:
            sink.abort()
            raise
        # The chain closes what it replaces, but what went in is needed to tell what was changed.
        original = _Kept(content)
        outcome: Outcome | None = None
        try:
            outcome = await filters.message(original, envelope)
            verdict = outcome.verdict
            if isinstance(verdict, Reject | Defer | Discard):
                self._answer(codes.BODYEOB, verdict)
                return
            if not outcome.envelope.recipients:
                self._answer(codes.BODYEOB, Discard("no recipient is left"))
                return
            if not await self._edit(content, envelope, outcome):
                return
            quarantine = verdict if isinstance(verdict, Quarantine) else self._quarantine
            if quarantine is not None and not self._send(Quarantined(quarantine.reason or "quarantined by policy")):
                return
            self.link.write(packet(codes.CONTINUE))
        finally:
            if outcome is not None:
                outcome.content.close()
            content.close()

    async def _edit(self, content: Content, envelope: Envelope, outcome: Outcome) -> bool:
        """Send the edits; False when one cannot be made and the message was deferred instead."""
        edits: list[Edit] = envelope_changes(envelope, outcome.envelope)
        new_body = False
        if not isinstance(outcome.content, _Kept):
            try:
                edits += header_changes(Message(content).fields, Message(outcome.content).fields)
            except CannotChange as error:
                self._cannot(str(error))
                return False
            new_body = not same_body(content, outcome.content)
        if new_body and not self._may(codes.REPLBODY):
            return False
        if not all(self._send(edit) for edit in edits):
            return False
        if new_body:
            # Together and last: Postfix takes no other edit between two parts of a body.
            for chunk in body_chunks(outcome.content):
                self._send(chunk)
                await self.link.drained()
        return True

    def _may(self, command: bytes) -> bool:
        if self.options.actions & codes.ACTION_OF_EDIT[command]:
            return True
        self._cannot(f"the MTA does not offer to make the edit {command.decode()}")
        return False

    def _cannot(self, why: str) -> None:
        self.log.error("{session} the message is deferred: {why}", session=self.link.session_id, why=why)
        self._refuse(MailError("The message could not be changed as policy asks", code=451, enhanced="4.3.5"))

    def _send(self, edit: Edit) -> bool:
        command, data = grammar.render_edit(edit, leading_space=bool(self.options.steps & codes.HDR_LEADSPC))
        if not self._may(command):
            return False
        self.link.write(packet(command, data))
        return True

    # ------------------------------------------------------------------------------------------ answers

    def _refuse(self, error: MailError) -> None:
        self.link.write(packet(codes.REPLYCODE, grammar.render_reply(error.code, error.enhanced, error.text)))

    def _answer(self, command: bytes, verdict: Verdict) -> None:
        """Say what a verdict means in this protocol."""
        is_message = command not in {codes.CONNECT, codes.HELO}
        if isinstance(verdict, Reject | Defer):
            self.link.write(packet(codes.REPLYCODE, grammar.render_reply(verdict.code, verdict.enhanced, verdict.text)))
            return
        if isinstance(verdict, Quarantine) and is_message:
            self._quarantine = verdict  # said with the end of the message, the only place for it
        if isinstance(verdict, Discard) and is_message:
            self.link.write(packet(codes.DISCARD))
        elif isinstance(verdict, Accept) and is_message and self._quarantine is None:
            self.link.write(packet(codes.ACCEPT))
        else:
            self.link.write(packet(codes.CONTINUE))

    _run: ClassVar[dict[bytes, Any]] = {
        codes.OPTNEG: _negotiate,
        codes.CONNECT: _connect,
        codes.HELO: _helo,
        codes.MAIL: _mail,
        codes.RCPT: _rcpt,
        codes.DATA: _data,
        codes.HEADER: _header,
        codes.EOH: _eoh,
        codes.BODY: _body,
        codes.BODYEOB: _end,
        codes.UNKNOWN: _unknown,
        codes.ABORT: _abort,
        codes.QUIT_NC: _quit_nc,
    }


def _one_line(field: str) -> str:
    """What a client said of itself cannot make a field of its own."""
    lines = field.split("\r\n\t")
    return "\r\n\t".join("".join(c if c.isprintable() else "?" for c in line) for line in lines)


class _Kept:
    """The content as the chain gets it: closing it closes nothing yet."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self.size = content.size
        self.digest = content.digest
        self.read = content.read

    @property
    def outline(self) -> Outlined:
        """See `livemail.mail.content.Content.outline`."""
        return self._content.outline

    @property
    def summary(self) -> Summary:
        """See `livemail.mail.content.Content.summary`."""
        return self._content.summary

    def close(self) -> None:
        """The session closes the content itself."""
