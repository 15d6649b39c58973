"""What the commands mean.  RFC 1939, 2449 (CAPA), 2595 (STLS), 3206 (AUTH-RESP-CODE), 5034 (AUTH), 6856 (UTF8, LANG).

Every answer begins +OK or -ERR; a code in brackets says what a program may conclude:

    [AUTH] the credentials are wrong   [IN-USE] another session has the maildrop   [SYS/TEMP] try later   [SYS/PERM] do not

Once +OK of a multi-line answer is out there is no way to take it back.  When storage fails behind it, the
connection is cut before the terminating dot, so that no client takes the half for the whole.

Languages and UTF-8: every text here is ASCII English, so LANG knows i-default and en.  Names and passwords are UTF-8.
# Lenient: messages go out as stored whether the client said UTF8 or not; RFC 6856 §2 would have a message with
UTF-8 in its header refused before UTF8 was said, which in the field makes such mail (spam, mostly) unreadable and
unremovable for the clients that are out there.
"""

from __future__ import annotations

import binascii
import ipaddress
from base64 import b64encode
from collections.abc import Callable, Coroutine, Iterable
from itertools import islice
from typing import Any, Final, Protocol

from livemail.interfaces.filter import ConnectionInfo
from livemail.interfaces.identity import AuthenticationFailed, ISASLExchange, Login
from livemail.mail.errors import MailError, WireError
from livemail.pop3.grammar import parse_command, parse_number, parse_text
from livemail.pop3.maildrop import Maildrop, NoSuchMessage, open_maildrop
from livemail.pop3.site import Site
from livemail.pop3.state import AFTER, State
from livemail.pop3.wire import Stuffing

CHUNK_OCTETS: Final = 64 * 1024
_LINES_AT_ONCE: Final = 2000

Arguments = list[bytes]


class Link(Protocol):
    """What a session needs of its connection."""

    @property
    def session_id(self) -> str:
        """Stands in every log line."""

    @property
    def peer(self) -> str:
        """Address of the client, "" for a Unix socket."""

    @property
    def peer_port(self) -> int:
        """Its port."""

    @property
    def tls(self) -> str:
        """Protocol and cipher, "" in the clear."""

    def write(self, octets: bytes) -> None:
        """Queue octets."""

    async def drained(self) -> None:
        """Wait until the client has read enough."""

    def close(self) -> None:
        """Close after what is queued."""

    def abort(self) -> None:
        """Close at once."""

    def has_tls_to_offer(self) -> bool:
        """Whether STLS can be answered."""

    async def start_tls(self) -> bool:
        """Begin TLS; False when the connection was dropped instead."""

    def expect_sasl(self, is_expected: bool) -> None:
        """The next line is, or is not any more, one of a SASL exchange."""

    def logged_in(self) -> None:
        """The login deadline is met."""


def is_loopback(peer: str) -> bool:
    """Whether the client is on this machine."""
    try:
        return not peer or ipaddress.ip_address(peer.partition("%")[0]).is_loopback
    except ValueError:
        return False


class Session:
    """One client's dialogue; `run` takes a line at a time."""

    def __init__(self, link: Link, site: Site) -> None:
        self.link = link
        self.site = site
        self.state = State.AUTHORIZATION
        self.is_amid_answer = False
        self.retrieved = 0
        self.removed = 0
        self._user = ""
        self._exchange: ISASLExchange | None = None
        self._login: Login | None = None
        self._maildrop: Maildrop | None = None
        self._bad_commands = 0
        self._failed_logins = 0
        self._commands: dict[str, Callable[[Arguments], Coroutine[Any, Any, None]]] = {
            "CAPA": self._capa, "QUIT": self._quit, "LANG": self._lang, "STLS": self._stls, "UTF8": self._utf8,
            "USER": self._user_name, "PASS": self._pass, "AUTH": self._auth, "NOOP": self._noop, "STAT": self._stat,
            "LIST": self._list, "UIDL": self._uidl, "RETR": self._retr, "TOP": self._top, "DELE": self._dele,
            "RSET": self._rset,
        }  # fmt: skip

    # ------------------------------------------------------------------------------------------ the dialogue

    @property
    def account_name(self) -> str:
        """Canonical login, "" before."""
        return self._login.record.name if self._login else ""

    def greet(self) -> None:
        """Say who we are; no ``<...>`` in it, because that would offer APOP (RFC 1939 §7)."""
        self._ok(f"{self.site.hostname} POP3 server ready")

    async def run(self, line: bytes) -> None:
        """Answer one line."""
        try:
            if self._exchange is not None:
                await self._continue_sasl(line)
            else:
                await self._command(line)
        except WireError as error:
            self.refuse(error)
        except MailError as error:
            if self.is_amid_answer:
                raise
            self._refuse_wish(error)
        except BaseException:
            self._end_sasl()
            raise

    async def _command(self, line: bytes) -> None:
        keyword, rule, arguments = parse_command(line)
        if self.state not in rule.states:
            raise WireError(f"{keyword} is not allowed {'before' if rule.states == AFTER else 'after'} login")
        await self._commands[keyword](arguments)

    def refuse(self, error: WireError) -> None:
        """Answer octets that are not POP3."""
        self._end_sasl()
        self._err(error.text)
        self._bad_commands += 1
        if error.fatal:
            self.link.close()
        elif self._bad_commands >= self.site.settings.max_bad_commands:
            self._err("Too many errors")
            self.link.close()

    def closed(self) -> None:
        """The connection is over: let go of everything; marks are forgotten."""
        self._end_sasl()
        self._maildrop = None
        if self._login is not None:
            login, self._login = self._login, None
            self.site.locks.give_back(login.record.id)
            login.logout()

    def secured(self) -> None:
        """TLS is up: the session is as at the start.  RFC 2595 §4."""
        self._user = ""
        self._end_sasl()

    def _refuse_wish(self, error: MailError) -> None:
        self._end_sasl()
        if isinstance(error, AuthenticationFailed):
            self._err(f"[AUTH] {error.text}")
            self._failed_logins += 1
            if self._failed_logins >= self.site.settings.max_failed_logins:
                self.link.close()
        elif isinstance(error, NoSuchMessage):
            self._err(error.text)
        else:
            self._err(f"[SYS/{'TEMP' if error.temporary else 'PERM'}] {error.text}")

    # ------------------------------------------------------------------------------------------ answers

    def _ok(self, text: str) -> None:
        self.link.write(f"+OK {text}\r\n".encode("ascii", "replace"))

    def _err(self, text: str) -> None:
        self.link.write(f"-ERR {text}\r\n".encode("ascii", "replace"))

    async def _listing(self, text: str, lines: Iterable[bytes]) -> None:
        """Answer with a multi-line listing; its lines end with CRLF and none begins with a dot."""
        self._ok(text)
        self.is_amid_answer = True
        lines = iter(lines)
        while some := b"".join(islice(lines, _LINES_AT_ONCE)):
            self.link.write(some)
            if len(some) >= CHUNK_OCTETS // 4:
                await self.link.drained()
        self.link.write(b".\r\n")
        self.is_amid_answer = False

    # ------------------------------------------------------------------------------------------ any state

    def _may_login(self) -> bool:
        return bool(self.link.tls) or (self.site.settings.cleartext_login and is_loopback(self.link.peer))

    async def _capa(self, _: Arguments) -> None:
        """CAPA.  RFC 2449 §5, §6."""
        lines = ["TOP", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING", "EXPIRE NEVER", "LOGIN-DELAY 0"]
        lines += ["UTF8 USER", "LANG"]
        if self._may_login():
            lines += ["USER", f"SASL {' '.join(self.site.authenticator.mechanisms())}"]
        if self.state is State.AUTHORIZATION and not self.link.tls and self.link.has_tls_to_offer():
            lines.append("STLS")
        lines.append("IMPLEMENTATION livemail")
        await self._listing("Capability list follows", (f"{line}\r\n".encode("ascii") for line in lines))

    async def _quit(self, _: Arguments) -> None:
        """QUIT.  RFC 1939 §4, §6: in TRANSACTION, now is when marked messages are removed."""
        refusal: MailError | None = None
        if self._maildrop is not None:
            try:
                if marked := self._maildrop.marked:
                    await self._maildrop.messages.remove(marked)
                    self.removed = len(marked)
            except MailError as error:
                refusal = error
        # The lock is free before the answer is out: who reads it may connect again at once.
        self.closed()
        if refusal is None:
            self._ok("Bye")
        else:
            self._err(f"[SYS/{'TEMP' if refusal.temporary else 'PERM'}] No message was removed: {refusal.text}")
        self.link.close()

    async def _lang(self, arguments: Arguments) -> None:
        """LANG.  RFC 6856 §3."""
        if not arguments:
            await self._listing("Languages follow", (b"i-default Default language\r\n", b"en English\r\n"))
            return
        tag = arguments[0].lower()
        if tag in {b"*", b"i-default"}:
            self._ok("i-default Default language")
        elif tag == b"en" or tag.startswith(b"en-"):
            self._ok("en English")
        else:
            self._err("No such language")

    # ------------------------------------------------------------------------------------------ AUTHORIZATION

    async def _stls(self, _: Arguments) -> None:
        """STLS.  RFC 2595 §4."""
        if self.link.tls:
            raise WireError("TLS is active already")
        if not self.link.has_tls_to_offer():
            raise WireError("TLS is not available")
        self._ok("Begin TLS")
        if await self.link.start_tls():
            self.secured()

    async def _utf8(self, _: Arguments) -> None:
        """UTF8.  RFC 6856 §2."""
        self._ok("UTF-8 it is")

    async def _user_name(self, arguments: Arguments) -> None:
        """USER: never says whether the name exists."""
        self._require_privacy()
        self._user = parse_text(arguments[0])
        self._ok("Send PASS")

    async def _pass(self, arguments: Arguments) -> None:
        """PASS."""
        self._require_privacy()
        user, self._user = self._user, ""
        if not user:
            raise WireError("USER comes first")
        await self._enter(await self.site.authenticator.login(user, parse_text(arguments[0]), self._connection()))

    async def _auth(self, arguments: Arguments) -> None:
        """AUTH.  RFC 5034 §4; without a mechanism it lists them, as clients from before CAPA expect."""
        self._require_privacy()
        mechanisms = self.site.authenticator.mechanisms()
        if not arguments:
            await self._listing("Mechanisms follow", (f"{name}\r\n".encode("ascii") for name in mechanisms))
            return
        exchange = self.site.authenticator.start(arguments[0].decode("ascii", "replace"), self._connection())
        response: bytes | None = None
        if len(arguments) > 1:
            response = b"" if arguments[1] == b"=" else _from_base64(arguments[1])
        self._exchange = exchange
        await self._step_sasl(exchange, response)

    async def _continue_sasl(self, line: bytes) -> None:
        exchange = self._exchange
        assert exchange is not None
        if line == b"*":
            self._end_sasl()
            self._err("Authentication cancelled")
            return
        await self._step_sasl(exchange, _from_base64(line))

    async def _step_sasl(self, exchange: ISASLExchange, response: bytes | None) -> None:
        result = await exchange.step(response)
        if isinstance(result, Login):
            self._end_sasl()
            await self._enter(result)
            return
        self.link.expect_sasl(True)
        self.link.write(b"+ " + b64encode(result) + b"\r\n")

    def _end_sasl(self) -> None:
        if self._exchange is not None:
            self._exchange = None
            self.link.expect_sasl(False)

    def _require_privacy(self) -> None:
        if not self._may_login():
            raise WireError("TLS is required before login")

    def _connection(self) -> ConnectionInfo:
        link = self.link
        return ConnectionInfo(link.session_id, self.site.service, link.peer, link.peer_port, link.tls)

    async def _enter(self, login: Login) -> None:
        """Lock and list the maildrop.  RFC 1939 §4."""
        if not self.site.locks.take(login.record.id):
            login.logout()
            self._err("[IN-USE] Another session has this maildrop")
            return
        self._login = login
        try:
            self._maildrop = await open_maildrop(login.account)
        except BaseException:
            self.closed()
            raise
        self.state = State.TRANSACTION
        self.link.logged_in()
        self._ok(f"{self._maildrop.count} messages ({self._maildrop.octets} octets)")

    # ------------------------------------------------------------------------------------------ TRANSACTION

    @property
    def _drop(self) -> Maildrop:
        assert self._maildrop is not None
        return self._maildrop

    async def _noop(self, _: Arguments) -> None:
        """NOOP."""
        self._ok("")

    async def _stat(self, _: Arguments) -> None:
        """STAT."""
        self.link.write(b"+OK %d %d\r\n" % (self._drop.count, self._drop.octets))

    async def _list(self, arguments: Arguments) -> None:
        """LIST."""
        drop = self._drop
        if arguments:
            position = drop.position(parse_number(arguments[0]))
            self._ok(f"{position + 1} {drop.size(position)}")
        else:
            await self._listing(f"{drop.count} messages ({drop.octets} octets)", drop.scan_listing())

    async def _uidl(self, arguments: Arguments) -> None:
        """UIDL.  RFC 1939 §7."""
        drop = self._drop
        if arguments:
            position = drop.position(parse_number(arguments[0]))
            self._ok(f"{position + 1} {drop.messages.unique_id(position).decode('ascii')}")
        else:
            await self._listing("Unique-id listing follows", drop.unique_id_listing())

    async def _retr(self, arguments: Arguments) -> None:
        """RETR."""
        position = self._drop.position(parse_number(arguments[0]))
        await self._send(position, None)
        self.retrieved += 1

    async def _top(self, arguments: Arguments) -> None:
        """TOP: the header, the blank line and so many lines of the body.  RFC 1939 §7."""
        position = self._drop.position(parse_number(arguments[0]))
        await self._send(position, parse_number(arguments[1]))

    async def _send(self, position: int, lines: int | None) -> None:
        """Stream a message; lines: of the body, None for all."""
        drop, link = self._drop, self.link
        reader = await drop.messages.open(position)
        if reader is None:
            raise NoSuchMessage(f"message {position + 1} is gone: another session removed it")
        try:
            size: int = reader.size
            body = size if lines is None else min(size, await drop.messages.header_size(position))
            link.write(b"+OK %d octets\r\n" % size if lines is None else b"+OK Top of message follows\r\n")
            self.is_amid_answer = True
            stuffing = Stuffing()
            at = 0
            while at < body or (lines and at < size):
                chunk = await reader.read(at, CHUNK_OCTETS if at >= body else min(CHUNK_OCTETS, body - at))
                if not chunk:
                    raise MailError(reason="a message ended before its size")
                at += len(chunk)
                if lines is not None and at > body:
                    chunk, lines = _first_lines(chunk, lines)
                link.write(stuffing.stuff(chunk))
                await link.drained()
            link.write(stuffing.end())
            self.is_amid_answer = False
        finally:
            reader.close()

    async def _dele(self, arguments: Arguments) -> None:
        """DELE: marks only."""
        position = self._drop.position(parse_number(arguments[0]))
        self._drop.mark(position)
        self._ok(f"message {position + 1} marked as deleted")

    async def _rset(self, _: Arguments) -> None:
        """RSET."""
        self._drop.rset()
        self._ok(f"{self._drop.count} messages ({self._drop.octets} octets)")


def _from_base64(octets: bytes) -> bytes:
    """Decode a SASL response.  Raises WireError, which does not quote it.  RFC 5034 §4."""
    try:
        return binascii.a2b_base64(octets, strict_mode=True)
    except (binascii.Error, ValueError):
        raise WireError("Invalid base64") from None


def _first_lines(chunk: bytes, lines: int) -> tuple[bytes, int]:
    """Cut a chunk of the body behind its ``lines``-th LF; return it and how many lines are still wanted."""
    there = chunk.count(b"\n")
    if there < lines:
        return chunk, lines - there
    end = 0
    for _ in range(lines):
        end = chunk.index(b"\n", end) + 1
    return chunk[:end], 0
