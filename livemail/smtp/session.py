"""What SMTP's commands mean.  RFC 5321 §3, §4; RFC 2033 (LMTP), 2920, 3030, 3207, 4954, 6409.

The session knows the dialogue and nothing of the transport, which it meets as `Link`.  `command` runs one command line; while
`in_content` is true the connection gives octets to `take`, and calls `end_of_content` behind the last.  Every way out of a
mail transaction, whoever takes it, goes through `reset`.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Final, Protocol

from twisted.internet.defer import CancelledError
from twisted.logger import Logger

from livemail.interfaces.delivery import Submitter
from livemail.interfaces.filter import ConnectionInfo, Defer, IFilterTransaction, Reject
from livemail.interfaces.identity import Login
from livemail.mail.errors import MailError, TooBig, WireError
from livemail.net.log import tell
from livemail.smtp import grammar, replies, trace
from livemail.smtp.authentication import Authentication
from livemail.smtp.site import Site
from livemail.smtp.state import TABLE, State, refusal_text
from livemail.smtp.story import Teller
from livemail.smtp.transaction import InternalError, MailTransaction, Results, common_result
from livemail.smtp.wire import Wire

_LOG: Final = Logger(namespace="livemail.smtp.session.Session")

_WEB: Final = frozenset(b"GET POST PUT HEAD DELETE OPTIONS CONNECT TRACE PATCH PRI".split())
_JUNK: Final = frozenset({"NOOP", "RSET", "VRFY", "EXPN", "HELP", "EHLO", "HELO", "LHLO"})
_NO_ARGUMENT: Final = frozenset({"DATA", "RSET", "QUIT", "STARTTLS"})


class Link(Protocol):
    """The connection, as far as a session is concerned."""

    session_id: str
    peer: str
    peer_port: int
    tls: str
    wire: Wire

    def write(self, octets: bytes) -> None:
        """Queue octets for the peer."""

    def close(self) -> None:
        """Close after what is queued."""

    def spoke_first(self) -> bool:
        """Whether octets came before they were due."""

    def offers_tls(self) -> bool:
        """Whether STARTTLS would work."""

    async def start_tls(self) -> bool:
        """Begin TLS; False when the connection was dropped instead."""


class Session:
    """One client's dialogue.  in_content: octets from the peer are content."""

    log = Logger()

    def __init__(self, link: Link, site: Site) -> None:
        self.link = link
        self.site = site
        self.state = State.START
        self.in_content = False
        self.helo = ""
        self.is_esmtp = False
        self.login: Login | None = None
        self.transaction: MailTransaction | None = None
        self._authentication: Authentication | None = None
        self._filters: IFilterTransaction | None = None
        self._errors = 0
        self._refusals = 0
        self._junk = 0
        self._auth_failures = 0
        self._messages = 0
        self._chunk_is_last = True  # DATA's content is one last chunk
        self._by_bdat = False
        self._swallowed: WireError | MailError | None = None  # what to say behind octets nobody wants

    @property
    def connection_info(self) -> ConnectionInfo:
        """Who is there, as filters and the authenticator see it."""
        link = self.link
        authcid = self.login.record.name if self.login else ""
        return ConnectionInfo(link.session_id, self.site.service, link.peer, link.peer_port, link.tls, authcid)

    @property
    def _is_utf8(self) -> bool:
        return self.transaction is not None and self.transaction.envelope.reverse_path.smtputf8

    @property
    def is_encrypted(self) -> bool:
        """Whether nobody listens in."""
        return bool(self.link.tls)

    # ------------------------------------------------------------------------------------------ beginning and end

    async def greet(self) -> None:
        """Say 220, or say why not.  RFC 5321 §3.1."""
        verdict, self._filters = await self.site.chain.connect(self.connection_info)
        if isinstance(verdict, Reject | Defer):
            # RFC 5321 §3.1: 554 instead of 220; 421 is what may be said at any time.
            code = 554 if isinstance(verdict, Reject) else 421
            self.link.write(replies.reply(code, verdict.enhanced, verdict.text))
            self.link.close()
        elif self.site.settings.forbid_early_talk and self.link.spoke_first():
            self.link.write(replies.TOO_EARLY)
            self.link.close()
        else:
            word = "LMTP" if self.site.is_lmtp else "ESMTP"
            self.link.write(b"220 %s %s livemail\r\n" % (self.site.hostname.encode(), word.encode()))

    def secured(self) -> None:
        """TLS is on."""
        if self._filters is not None:
            self._filters.secured(self.link.tls)

    def reset(self) -> None:
        """End the mail transaction, whatever came of it: the one way out of every state but START."""
        self.in_content = False
        self._swallowed = None
        self._by_bdat = False
        if self.state is not State.START:
            self.state = State.READY
        if self.transaction is not None:
            transaction, self.transaction = self.transaction, None
            transaction.close()
            if self._filters is not None:
                self._filters.reset()

    def forget(self) -> None:
        """Be as at the start: TLS has begun, or the connection is over.  RFC 3207 §4.2."""
        self.reset()
        self.state = State.START
        self.helo, self.is_esmtp = "", False
        self.stop_authentication()
        if self.login is not None:
            login, self.login = self.login, None
            login.logout()

    def closed(self) -> None:
        """The connection is over: give everything back."""
        self.forget()
        if self._filters is not None:
            filters, self._filters = self._filters, None
            filters.closed()

    def stop_authentication(self) -> None:
        """Leave the SASL exchange, if there is one."""
        self._authentication = None
        self.link.wire.takes_long_lines = False

    # ------------------------------------------------------------------------------------------ commands

    def command(self, line: bytes) -> Coroutine[Any, Any, None] | None:
        """Run one command line: return what may have to wait for something, None when all is done.

        What this or the coroutine raises (WireError, MailError) is the connection's to bring back to `refuse`: a
        coroutine of its own, only to catch it, is a tenth of what a short command costs.
        """
        if self._authentication is not None:
            return self._continue_authentication(line)
        verb, _, argument = line.partition(b" ")
        entry = _COMMANDS.get(verb) or _COMMANDS.get(verb.upper())
        if entry is None:
            self._unknown(line, verb)
            return None
        name, run, states, counts_as_junk, takes_argument = entry
        if counts_as_junk:
            self._junk += 1
            if self._junk > self.site.settings.max_junk_commands:
                self._give_up("Too many commands without a message")
                return None
        # BDAT's octets follow whether it is allowed or not.
        if self.state not in states and name != "BDAT":
            raise _out_of_order(name, self.state)
        if argument and not takes_argument and argument.strip():
            raise WireError(f"{name} takes no argument", code=501, enhanced="5.5.4")
        return run(self, argument)

    def wire_error(self, error: WireError) -> None:
        """The wire could not make a line of what came."""
        self.stop_authentication()
        self.refuse(error)

    def refuse(self, error: WireError | MailError) -> None:
        """Answer an error, and count it."""
        if isinstance(error, WireError):
            self._errors += 1
            if self._errors >= self.site.settings.max_errors and not error.fatal:
                self._give_up("Too many errors")
                return
        else:
            self.log.info(
                "{session} {peer}: {code} {enhanced} {text} {reason}",
                session=self.link.session_id,
                peer=self.link.peer,
                code=error.code,
                enhanced=error.enhanced,
                text=error.text,
                reason=error.reason,
            )
            self._refusals += not error.temporary
            if self._refusals >= self.site.settings.max_refusals:
                self._give_up("Too many refused commands")
                return
        self.link.write(replies.refusal(error, utf8=self._is_utf8))
        if isinstance(error, WireError) and error.fatal:
            self.reset()
            self.link.close()

    def _give_up(self, text: str) -> None:
        self.log.info("{session} {peer}: {text}", session=self.link.session_id, peer=self.link.peer, text=text)
        self.reset()
        self.link.write(replies.reply(421, "4.7.0", f"{self.site.hostname} {text}"))
        self.link.close()

    def _unknown(self, line: bytes, verb: bytes) -> None:
        if verb.upper() in _WEB or b" HTTP/" in line:
            # A browser was sent here to make us run its body as commands.
            self.link.write(replies.NOT_A_MAIL_CLIENT)
            self.link.close()
            return
        self.refuse(WireError("Command not known", code=500, enhanced="5.5.1"))

    async def _hello(self, argument: bytes, name: str) -> None:
        if (name == "LHLO") != self.site.is_lmtp:
            # RFC 2033 §4.1: LHLO instead of HELO and EHLO, so that neither protocol is taken for the other.
            raise WireError("Say LHLO here" if self.site.is_lmtp else "Command not known", code=500, enhanced="5.5.1")
        helo = grammar.parse_helo(argument)
        self.reset()
        self.state = State.START
        assert self._filters is not None
        verdict = await self._filters.helo(helo)
        if isinstance(verdict, Reject | Defer):
            raise MailError(verdict.text, code=verdict.code, enhanced=verdict.enhanced, reason=verdict.reason)
        self.helo = helo
        self.is_esmtp = name != "HELO"
        self.state = State.READY
        texts = [self.site.hostname]
        if self.is_esmtp:
            texts += self.extensions()
        self.link.write(replies.lines(250, texts))

    def _ehlo(self, argument: bytes) -> Coroutine[Any, Any, None]:
        return self._hello(argument, "EHLO")

    def _helo(self, argument: bytes) -> Coroutine[Any, Any, None]:
        return self._hello(argument, "HELO")

    def _lhlo(self, argument: bytes) -> Coroutine[Any, Any, None]:
        return self._hello(argument, "LHLO")

    def extensions(self) -> list[str]:
        """What EHLO lists: exactly what would work now."""
        offered = [
            "PIPELINING",
            f"SIZE {self.site.settings.max_message_octets}",
            "8BITMIME",
            "SMTPUTF8",
            "ENHANCEDSTATUSCODES",
            "CHUNKING",
        ]
        if self.site.dsn:
            offered.append("DSN")
        if self._may_start_tls():
            offered.append("STARTTLS")
        authenticator = self.site.authenticator
        if authenticator is not None and self.site.is_submission and self._may_log_in() and self.login is None:
            offered.append(" ".join(["AUTH", *authenticator.mechanisms()]))
        return [*offered, "HELP"]

    def _may_start_tls(self) -> bool:
        return not self.is_encrypted and self.site.service != "submissions" and self.link.offers_tls()

    def _may_log_in(self) -> bool:
        return self.is_encrypted or self.site.settings.allow_cleartext_auth

    async def _mail(self, argument: bytes) -> None:
        if self.site.is_submission and self.login is None:
            # RFC 6409 §4.3, RFC 3207 §4.
            text = "Authentication required" if self._may_log_in() else "Issue STARTTLS first"
            raise MailError(text, code=530, enhanced="5.7.0")
        reverse_path = grammar.parse_mail(argument, dsn=self.site.dsn)
        limit = self.site.settings.max_message_octets
        if reverse_path.size > limit:
            raise TooBig(f"Message over {limit} octets")
        id_ = f"{self.link.session_id}.{self._messages + 1}"
        submitter = Submitter(self.site.service, self.login.record if self.login else None, transaction=id_)
        delivery = await self.site.target.begin(reverse_path, submitter)
        assert self._filters is not None
        self._messages += 1
        teller = Teller(self.site.store, id_, self.site.now(), self.connection_info, self.helo)
        self.transaction = MailTransaction(self.site, self._filters, delivery, reverse_path, teller)
        try:
            self.transaction.apply(await self._filters.mail(reverse_path))
        except BaseException:
            self.reset()
            raise
        self.state = State.MAIL
        self.link.write(replies.SENDER_OK)

    async def _rcpt(self, argument: bytes) -> None:
        transaction = self.transaction
        assert transaction is not None
        smtputf8 = transaction.envelope.reverse_path.smtputf8
        recipient = grammar.parse_rcpt(argument, smtputf8=smtputf8, dsn=self.site.dsn)
        await transaction.add_recipient(recipient)
        self.state = State.RCPT
        self.link.write(replies.RECIPIENT_OK)

    def _rset(self, _: bytes) -> None:
        self.reset()
        self.link.write(replies.OK)

    def _noop(self, _: bytes) -> None:
        self.link.write(replies.OK)

    def _help(self, _: bytes) -> None:
        self.link.write(replies.HELP)

    def _vrfy(self, _: bytes) -> None:
        # RFC 5321 §3.5.3, §7.3: the same for every address, so that nobody can ask who is here.
        self.link.write(replies.CANNOT_VERIFY)

    def _expn(self, _: bytes) -> None:
        self.link.write(replies.NO_EXPANSION)

    def _quit(self, _: bytes) -> None:
        self.reset()
        self.link.write(replies.BYE)
        self.link.close()

    async def _starttls(self, _: bytes) -> None:
        if self.is_encrypted:
            raise WireError("TLS is on already", code=503, enhanced="5.5.1")
        if not self._may_start_tls():
            raise WireError("STARTTLS is not offered", code=502, enhanced="5.5.1")
        self.link.write(replies.READY_FOR_TLS)
        if await self.link.start_tls():
            self.forget()

    # ------------------------------------------------------------------------------------------ AUTH

    async def _auth(self, argument: bytes) -> None:
        authenticator = self.site.authenticator
        if authenticator is None or not self.site.is_submission:
            raise WireError("AUTH is not offered", code=502, enhanced="5.5.1")
        if self.login is not None:
            raise WireError("Authenticated already", code=503, enhanced="5.5.1")
        if not self._may_log_in():
            raise MailError("Encryption required for authentication", code=538, enhanced="5.7.11")
        authentication, response = Authentication.start(authenticator, argument, self.connection_info)
        await self._step_authentication(authentication, response)

    async def _continue_authentication(self, line: bytes) -> None:
        authentication = self._authentication
        assert authentication is not None
        self.stop_authentication()
        await self._step_authentication(authentication, authentication.response(line))

    async def _step_authentication(self, authentication: Authentication, response: bytes | None) -> None:
        try:
            result = await authentication.step(response)
        except MailError as error:
            if not error.temporary:
                self._auth_failures += 1
                if self._auth_failures >= self.site.settings.max_auth_failures:
                    self.link.write(replies.refusal(error))
                    self._give_up("Too many failed authentications")
                    return
            raise
        if isinstance(result, Login):
            self.login = result
            assert self._filters is not None
            self._filters.authenticated(result.record.name, authentication.mechanism)
            self.link.write(replies.AUTHENTICATED)
        else:
            self._authentication = authentication
            self.link.wire.takes_long_lines = True
            self.link.write(result)

    # ------------------------------------------------------------------------------------------ content

    async def _data(self, _: bytes) -> None:
        await self._begin_content()
        if self.site.settings.forbid_early_talk and self.link.spoke_first():
            # RFC 2920 §3.1: DATA ends a pipelined group.  Who sends content before 354 does not listen to replies.
            self.reset()
            self.link.write(replies.TOO_EARLY)
            self.link.close()
            return
        self.link.write(replies.GO_AHEAD)
        self._chunk_is_last = True
        self.in_content = True
        self.link.wire.begin_data()

    async def _begin_content(self) -> None:
        transaction = self.transaction
        assert transaction is not None
        recipients = transaction.envelope.recipients
        field = trace.received(
            helo=self.helo,
            peer=self.link.peer,
            hostname=self.site.hostname,
            word=trace.protocol_word(
                is_lmtp=self.site.is_lmtp,
                is_esmtp=self.is_esmtp,
                is_tls=self.is_encrypted,
                is_authenticated=self.login is not None,
                is_utf8=transaction.envelope.reverse_path.smtputf8,
            ),
            message=transaction.id,
            tls=self.link.tls,
            recipient=recipients[0].path if len(recipients) == 1 else None,
            now=self.site.now(),
        )
        try:
            await transaction.begin_content(field)
        except BaseException:
            self.reset()
            raise

    async def _bdat(self, argument: bytes) -> None:
        """RFC 3030 §2.  The announced octets are taken from the stream whatever the answer, or the connection ends."""
        size, is_last = grammar.parse_bdat(argument)
        limit = self.site.settings.max_message_octets
        transaction = self.transaction
        error: WireError | MailError | None = None
        if self.state not in TABLE["BDAT"]:
            error = _out_of_order("BDAT", self.state)
        elif transaction is not None and transaction.size + size > limit:
            error = TooBig(f"Message over {limit} octets")
        elif self.state is State.RCPT:
            try:
                await self._begin_content()
            except MailError as refused:
                error = refused
            except CancelledError:
                raise
            except Exception:
                # Whatever happened to us, the octets come; taken for commands they would be anybody's commands.
                self.log.failure("{session}: BDAT failed", session=self.link.session_id)
                error = InternalError()
        if error is not None and size > limit:
            self.refuse(error)
            self.reset()
            self.link.close()
            return
        self.in_content = True
        self._swallowed = error
        self._chunk_is_last = is_last
        self._by_bdat = True
        if error is None:
            self.state = State.CHUNKS
        self.link.wire.begin_bdat(size)

    def take(self, octets: bytes) -> None:
        """Take octets of content."""
        if self._swallowed is None and self.transaction is not None:
            self.transaction.take(octets)

    async def end_of_content(self) -> None:
        """The octets of DATA, or of one BDAT, are complete."""
        self.in_content = False
        transaction = self.transaction
        if self._swallowed is not None or transaction is None:
            error = self._swallowed
            self.reset()
            if error is not None:
                self.refuse(error)
                if transaction is not None and self._chunk_is_last and self.site.is_lmtp:
                    rest = len(transaction.envelope.recipients) - 1
                    self.link.write(replies.refusal(error) * rest)
            return
        if not self._chunk_is_last:
            if transaction.error is None:
                self.link.write(replies.CHUNK_OK)
            else:
                self.reset()
                self.refuse(transaction.error)
            return
        refuse_bare_newlines = self.site.settings.refuse_bare_newlines and not self._by_bdat
        try:
            results = await transaction.finish(refuse_bare_newlines=refuse_bare_newlines)
            self._answer(transaction, results)
        finally:
            self.reset()
        self._junk = 0

    def _answer(self, transaction: MailTransaction, results: Results) -> None:
        worst = common_result(results)
        tell(
            _LOG,
            "{session} {message}: {outcome} from {reverse_path} for {recipients} size {size} helo {helo} peer {peer}",
            session=self.link.session_id,
            message=transaction.id,
            outcome="taken" if worst is None else f"{worst.code} {worst.enhanced} {worst.text} {worst.reason}",
            reverse_path=transaction.envelope.reverse_path.path,
            recipients=len(results),
            size=transaction.size,
            helo=self.helo,
            peer=self.link.peer,
        )
        done = b"250 2.0.0 Ok: taken as %s\r\n" % transaction.id.encode()
        if self.site.is_lmtp:
            self.link.write(b"".join(done if error is None else replies.refusal(error) for error in results))
        else:
            self.link.write(done if worst is None else replies.refusal(worst))


def _out_of_order(name: str, state: State) -> WireError:
    return WireError(refusal_text(name, state), code=503, enhanced="5.5.1")


_Run = Callable[[Session, bytes], Coroutine[Any, Any, None] | None]

# Name, method, states it is allowed in, whether it counts as junk, whether it takes an argument: one look-up for all.
# States in a tuple: an Enum is found there by identity, in a set by its hash, which is a function in Python.
_COMMANDS: Final[dict[bytes, tuple[str, _Run, tuple[State, ...], bool, bool]]] = {
    name.encode(): (
        name, getattr(Session, "_" + name.lower()), tuple(cells), name in _JUNK, name not in _NO_ARGUMENT
    )
    for name, cells in TABLE.items()
}  # fmt: skip
