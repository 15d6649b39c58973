"""One client's session: what its commands mean, and what it is told when.  RFC 3501 §3, §5.

The wire's events come in order and one at a time (`livemail.net.connection`); `take` turns each into a step.  A command
is parsed, checked against the table of states, and run; then the client is told what changed in its mailbox, and then
it gets the tagged reply: everything untagged that a command caused stands before its reply (RFC 3501 §5.5).

What a command comes to                          the client gets
    Done                                         tag OK [code] text
    MailError                                    tag NO [condition] text
    WireError                                    tag BAD text
    a Dialogue (AUTHENTICATE, IDLE)              the reply later; until then the wire gives lines
    anything else: a bug, logged with its trace  tag NO [SERVERBUG], without the exception's text

Changes come from the account's feed, one subscription per login.  They reach the view at once and the client when the
rules allow it (`state`): at the end of a command, or any time in IDLE.  A change can be published while SELECT still
waits for its snapshot; such changes are kept for the length of the command and played into the new view.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import CancelledError
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from livemail.imap.commands import TABLE, Entry, append
from livemail.imap.grammar.cursor import Cursor
from livemail.imap.outcome import Dialogue, Done
from livemail.imap.state import State
from livemail.imap.wire import Announced, Chunk, Command, Continue, Event, Limits, Line, Malformed
from livemail.interfaces.identity import Login
from livemail.interfaces.storage import FLAGS, KEYWORDS, UID_, FetchWant, IAccount, IChangeListener, IWatch
from livemail.mail.changes import AccountRemoved, Added, Change, Expunged, FlagsChanged
from livemail.mail.errors import MailError, NoSuchMailbox, WireError
from livemail.mail.ids import ModSeq
from livemail.net.connection import Gone

if TYPE_CHECKING:
    from livemail.imap.protocol import IMAPConnection
    from livemail.imap.settings import IMAPSettings
    from livemail.imap.site import Site
    from livemail.imap.view import View

_TRY_CREATE: Final = frozenset({"APPEND", "COPY", "MOVE"})

log = Logger("livemail.imap")


def limits_before_login(settings: IMAPSettings) -> Limits:
    """What a stranger may send; a literal of his that was not asked for ends the connection."""
    return Limits(settings.line_limit_before_login, settings.literal_limit_before_login)


def limits_after_login(settings: IMAPSettings) -> Limits:
    """What a client that logged in may send.

    Skipping as much as a message may have lets a client with LITERAL+ go on after ``NO [TRYCREATE]``.
    """
    return Limits(settings.line_limit, settings.literal_limit, settings.append_limit, streams=True)


def public_text(text: str) -> bytes:
    """One line of printable ASCII, whatever was given."""
    return "".join(c if " " <= c <= "~" else "?" for c in text).encode("ascii") or b"?"


@implementer(IChangeListener)
class Session:
    """login: None before.  view: the selected mailbox as the client knows it.  enabled: names of ENABLE."""

    __slots__ = (
        "__weakref__", "_bad_commands", "_busy", "_dialogue", "_ending", "_failed_logins", "_has_news", "_is_stale",
        "_missed", "_watch", "connection", "dialogue", "enabled", "login", "site", "tag", "upload", "view",
    )  # fmt: skip

    def __init__(self, connection: IMAPConnection, site: Site) -> None:
        self.connection = connection
        self.site = site
        self.login: Login | None = None
        self.enabled: set[str] = set()
        self.view: View | None = None
        self.dialogue: Dialogue | None = None
        self.upload: append.Upload | None = None
        self.tag = b"*"
        self._watch: IWatch | None = None
        self._bad_commands = 0
        self._failed_logins = 0
        self._busy = False
        self._has_news = False
        self._is_stale = False
        self._missed: list[tuple[Sequence[Change], bool]] = []
        self._ending = ""

    # ------------------------------------------------------------------------------------------------ what commands use

    @property
    def state(self) -> State:
        """Where the session stands."""
        if self.connection.is_closing:
            return State.LOGOUT
        if self.login is None:
            return State.NOT_AUTHENTICATED
        return State.AUTHENTICATED if self.view is None else State.SELECTED

    @property
    def account(self) -> IAccount:
        """The account of the login; the table of states keeps commands that need it from running before."""
        if self.login is None:
            raise RuntimeError("no login")
        return self.login.account

    @property
    def can_start_tls(self) -> bool:
        """Whether STARTTLS can be done."""
        return not self.connection.is_secure and self.connection.owner.tls_options() is not None

    @property
    def may_login(self) -> bool:
        """Whether passwords may cross this connection."""
        return self.connection.is_secure or (self.site.settings.cleartext_login and self.connection.is_local)

    def send(self, octets: bytes) -> None:
        """Queue whole response lines, each with its CRLF."""
        self.connection.write(octets)

    async def drained(self) -> None:
        """Wait until the client has read enough; call it between chunks of a long answer."""
        await self.connection.drained()

    def select_view(self, view: View) -> None:
        """A mailbox is selected.  Changes published since its snapshot was taken are played into the view."""
        self.view = view
        self._is_stale = False
        for changes, own in self._missed:
            self._notice(changes, own)
        self._missed.clear()

    def drop_view(self) -> None:
        """No mailbox is selected any more."""
        self.view = None
        self._is_stale = False
        self._has_news = False

    def logged_in(self, login: Login) -> None:
        """The client has proved who it is."""
        settings = self.site.settings
        self.login = login
        self._watch = login.account.watch(self)
        self.connection.wire.limits = limits_after_login(settings)
        self.connection.set_deadline(None)
        self.connection.set_idle_timeout(settings.idle_timeout)

    def login_failed(self) -> None:
        """One try was wrong; too many end the connection."""
        self._failed_logins += 1
        if self._failed_logins >= self.site.settings.max_failed_logins:
            self._ending = "Too many failed logins"

    def end(self) -> None:
        """The connection is lost or starts anew: give everything back."""
        if self.dialogue is not None:
            self.dialogue.stop()
            self.dialogue = None
        if self.upload is not None:
            self.upload.abort()
            self.upload = None
        if self._watch is not None:
            self._watch.stop()
            self._watch = None
        self.view = None
        login, self.login = self.login, None
        if login is not None:
            login.logout()

    # ------------------------------------------------------------------------------------------------ events

    def urgent(self) -> Coroutine[Any, Any, None] | None:
        """Return a step that does not wait for the client: the end of the session, or news in IDLE."""
        if self._ending:
            return self._bye(self._ending)
        if self._has_news and self._is_flushing:
            return self._tell(expunge=True)
        return None

    @property
    def _is_flushing(self) -> bool:
        """Whether the client may be told of changes at any time."""
        return self.dialogue is not None and self.dialogue.flushes

    def take(self, event: Event) -> Coroutine[Any, Any, None] | None:
        """Deal with one event of the wire; return what may have to wait."""
        if isinstance(event, Chunk):
            if self.upload is not None:
                self.upload.write(event.octets)
            return None
        if isinstance(event, Continue):
            self.send(b"+ OK\r\n")
            return None
        if isinstance(event, Malformed):
            self._malformed(event)
            return None
        if isinstance(event, Line):
            assert self.dialogue is not None
            return self._step(self._perform("", self.dialogue.line(event.line), expunge=True))
        self.tag = event.tag
        if isinstance(event, Announced):
            return self._step(self._announced(event))
        if event.streamed:
            return self._step(self._uploaded(event))
        return self._step(self._command(event))

    async def _step(self, step: Coroutine[Any, Any, None]) -> None:
        self._busy = True
        try:
            await step
        finally:
            self._busy = False
            self._missed.clear()

    async def _command(self, event: Command) -> None:
        word = event.name.decode("ascii")
        cursor = Cursor(event.fragments, event.literals)
        is_uid = False
        try:
            if word == "UID":
                cursor.space()
                word = cursor.word()
                is_uid = True
            entry = self._entry(word, is_uid)
            command = entry.parse(cursor, is_uid) if entry.rule.uid else entry.parse(cursor)
        except Exception as error:
            self._refuse(word, error)
            return
        await self._perform(word, entry.run(self, command), expunge=is_uid or entry.rule.expunge_allowed)

    def _entry(self, word: str, is_uid: bool = False) -> Entry:
        """Return the table's entry for a command that may come now."""
        entry = TABLE.get(word)
        if entry is None or (is_uid and not entry.rule.uid):
            raise WireError("Unknown command")
        if self.state not in entry.rule.states:
            raise WireError(f"{word} is not allowed when {self.state.value}")
        return entry

    async def _perform(self, word: str, running: Coroutine[Any, Any, Done | Dialogue | None], *, expunge: bool) -> None:
        """Run a command, or a line of its dialogue, to its reply."""
        outcome: Done | Dialogue | None = None
        failure: Exception | None = None
        try:
            outcome = await running
        except (Gone, CancelledError):
            raise
        except Exception as error:
            failure = error
        if failure is None and outcome is None:
            return
        if outcome is not None and not isinstance(outcome, Done):
            self.dialogue = outcome
            self.connection.wire.expect_lines(outcome.limit)
            return
        if self.dialogue is not None:
            self._leave_dialogue()
        await self._tell(expunge=expunge)
        if failure is not None:
            self._refuse(word, failure)
        else:
            assert outcome is not None
            self._reply(b"OK", outcome.code, outcome.text)
            if outcome.afterwards is not None:
                await outcome.afterwards()

    def _leave_dialogue(self) -> None:
        assert self.dialogue is not None
        self.dialogue.stop()
        self.dialogue = None
        self.connection.wire.expect_commands()

    # ------------------------------------------------------------------------------------------------ replies

    def _reply(self, status: bytes, code: bytes, text: str) -> None:
        bracketed = b"[" + code + b"] " if code else b""
        self.send(self.tag + b" " + status + b" " + bracketed + public_text(text) + b"\r\n")

    def _refuse(self, word: str, error: Exception) -> None:
        """Answer a command that did not succeed."""
        if isinstance(error, WireError):
            self._reply(b"BAD", b"", error.text)
            self._count_bad()
            if error.fatal:
                self._ending = self._ending or "Protocol error"
        elif isinstance(error, MailError):
            condition = error.condition
            if isinstance(error, NoSuchMailbox) and word in _TRY_CREATE:
                condition = "TRYCREATE"
            self._reply(b"NO", condition.encode("ascii"), error.text)
        else:
            log.failure(
                "{session} {peer}: {word} failed",
                Failure(error),
                session=self.connection.session_id,
                peer=self.connection.peer,
                word=word,
            )
            self._reply(b"NO", b"SERVERBUG", "Internal error")

    def _malformed(self, event: Malformed) -> None:
        if self.upload is not None:
            self.upload.abort()
            self.upload = None
        if self.dialogue is None:
            self.tag = event.tag
        self._reply(b"BAD", b"", event.text)
        self._count_bad()
        if event.fatal:
            self._ending = self._ending or "Protocol error"

    def _count_bad(self) -> None:
        self._bad_commands += 1
        if self._bad_commands >= self.site.settings.max_bad_commands:
            self._ending = self._ending or "Too many bad commands"

    async def _bye(self, text: str) -> None:
        self.send(b"* BYE " + public_text(text) + b"\r\n")
        self.connection.close()

    # ------------------------------------------------------------------------------------------------ APPEND's message

    async def _announced(self, event: Announced) -> None:
        """Decide whether a message may come, before it comes."""
        wire = self.connection.wire
        try:
            self._entry("APPEND")
            command = append.parse(Cursor((*event.fragments, b""), (*event.literals, b"")))
            self.upload = await append.begin(self, command, event.size)
        except (Gone, CancelledError):
            raise
        except Exception as error:
            goes_on = wire.refuse()
            await self._tell(expunge=True)
            self._refuse("APPEND", error)
            if not goes_on:
                self._ending = self._ending or "The message was refused and cannot be skipped"
            return
        wire.accept()
        if event.is_synchronising:
            self.send(b"+ OK\r\n")

    async def _uploaded(self, event: Command) -> None:
        upload, self.upload = self.upload, None
        assert upload is not None
        if event.fragments[-1]:
            upload.abort()
            self._refuse("APPEND", WireError("Expected the end of the command"))
            return
        await self._perform("APPEND", append.run(self, upload), expunge=True)

    # ------------------------------------------------------------------------------------------------ changes

    def changed(self, modseq: ModSeq, origin: object, changes: Sequence[Change] | None) -> None:
        """See `IChangeListener`."""
        if self.login is None:
            return
        own = origin is self.login.account
        if changes is None:
            self._is_stale = self._has_news = self.view is not None
        else:
            if self.view is not None:
                self._notice(changes, own)
            elif self._busy:
                self._missed.append((changes, own))
            if any(isinstance(change, AccountRemoved) for change in changes):
                self._ending = "The account was removed"
        if not self._busy and (self._ending or self._is_flushing):
            self.connection.pump()

    def _notice(self, changes: Sequence[Change], own: bool) -> None:
        view = self.view
        if view is not None and any(getattr(change, "mailbox", 0) == view.mailbox for change in changes):
            view.notice(changes, own)
            self._has_news = True

    async def _tell(self, *, expunge: bool) -> None:
        """Tell the client what changed in its mailbox, as far as it may be told now."""
        if self.view is None:
            return
        if self._is_stale:
            await self._catch_up(self.view)
        self._has_news = False
        self.view.flush(self.send, expunge=expunge, condstore="CONDSTORE" in self.enabled)

    async def _catch_up(self, view: View) -> None:
        """The feed lost count: ask the store what happened since the view's last change."""
        self._is_stale = False
        mailbox = view.mailbox
        try:
            since = await self.account.changes(mailbox, view.highest_modseq)
            rows: list[tuple[int, int, int]] = []
            keywords: tuple[str, ...] = ()
            async for batch in self.account.fetch(mailbox, since.changed, FetchWant()):
                keywords = batch.keywords
                rows.extend((row[UID_], row[FLAGS], row[KEYWORDS]) for row in batch.rows)
        except MailError as error:
            self._ending = error.text
            return
        changes: list[Change] = []
        if rows:
            # The view takes as new only what is above what it knows.
            changes.append(Added(mailbox, since.modseq, tuple(row[0] for row in rows)))
            changes.append(FlagsChanged(mailbox, since.modseq, tuple(rows), keywords))
        if since.vanished:
            changes.append(Expunged(mailbox, since.modseq, since.vanished))
        view.notice(changes, own=False)
