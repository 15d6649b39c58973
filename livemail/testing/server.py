"""The whole suite in your process: every service on a free port of loopback, mail in memory, time, DNS and faults in your hands.

    class Welcome(TestCase):                          # twisted.trial
        async def test_new_users_get_mail(self):
            server = TestServer(accounts={"ann@localhost": "secret"})
            await server.start()
            self.addCleanup(server.stop)
            await invite("ann@localhost", smtp=server.smtp)
            message = await server.wait_for("ann@localhost", subject="Welcome")

With pytest use the fixture ``mail_server`` (`livemail.testing.pytest_plugin`), whose methods wait instead of being awaited.
"""

from __future__ import annotations

import email
import gc
import os
import shutil
import smtplib
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from email.message import EmailMessage
from email.policy import default as default_policy
from pathlib import Path
from typing import Any, Literal

import msgspec
from twisted.internet.threads import deferToThread

from livemail.app import MailServer
from livemail.auth.passwords import Passwords
from livemail.auth.settings import AuthSettings
from livemail.config import Config, Listen, local_profile
from livemail.directory.settings import DirectorySettings
from livemail.filter_wiring import Outside
from livemail.filters import Filter
from livemail.filters.chain import FilterSpec
from livemail.interfaces.storage import UID_, AccountRecord, Delivered, Delivery, FetchWant, IContentSink, IMailStore
from livemail.mail.errors import MailError, StorageFailed
from livemail.mail.ids import UIDSet
from livemail.net.listen import bind_tcp
from livemail.net.threads import Threads
from livemail.net.tls import CertificateStore, Files, local_ca
from livemail.storage.memory.store import MemoryStore
from livemail.testing.clock import MovableReactor
from livemail.testing.resolver import TestResolver

Operation = Literal["deliver", "content", "login"]
Place = tuple[str, int]

_CHEAP = AuthSettings(argon2_time=1, argon2_memory=64, failure_delay=0.0)


class ReceivedMessage(msgspec.Struct):
    """A message in a mailbox.  octets: as stored, delivery fields in front; message: the same, parsed."""

    uid: int
    octets: bytes

    @property
    def message(self) -> EmailMessage:
        """Parsed by the standard library."""
        found: Any = email.message_from_bytes(self.octets, policy=default_policy)
        parsed: EmailMessage = found
        return parsed

    @property
    def subject(self) -> str:
        """Decoded, "" when there is none."""
        return str(self.message.get("Subject", ""))

    @property
    def text(self) -> str:
        """The text of the first text part."""
        body = self.message.get_body(("plain", "html"))
        return str(body.get_content()) if body is not None else ""


class Faults:
    """What goes wrong next, because a test wants it to."""

    def __init__(self) -> None:
        self._due: dict[str, list[Any]] = {}

    def fail(self, operation: Operation, error: Exception | None = None, times: int = 1) -> None:
        """Let an operation fail.  deliver: the commit of a message; content: beginning one; login: looking an account up.

        error: StorageFailed (451) when None.  times: -1 for until `clear`.
        """
        self._due[operation] = [error if error is not None else StorageFailed(reason="a test wants it"), times]

    def clear(self) -> None:
        """Nothing goes wrong any more."""
        self._due.clear()

    def check(self, operation: Operation) -> None:
        """Raise what is due."""
        due = self._due.get(operation)
        if due is None or due[1] == 0:
            return
        due[1] -= 1
        raise due[0]


class FaultyStore(MemoryStore):
    """A memory store that fails when it is told to."""

    faults: Faults

    def new_content(self, size_hint: int = 0) -> IContentSink:
        self.faults.check("content")
        return super().new_content(size_hint)

    def deliver_now(self, batch: Sequence[Delivery]) -> Sequence[Delivered | MailError]:
        self.faults.check("deliver")
        return super().deliver_now(batch)

    async def account_named(self, name: str) -> AccountRecord | None:
        self.faults.check("login")
        return await super().account_named(name)


class _Server(MailServer):
    """The real server with its store and ports replaced."""

    def __init__(self, config: Config, reactor: Any, store: IMailStore, outside: Outside) -> None:
        super().__init__(config, reactor, outside=outside)
        self._given = store

    def _bind(self) -> None:
        bound = [(each, bind_tcp("127.0.0.1", 0, 64)) for each in self.config.listen]
        listen = []
        for each, handle in bound:
            placed = Listen(service=each.service, address=f"127.0.0.1:{handle.getsockname()[1]}")
            listen.append(placed)
            self._sockets.append((placed, handle))
        self.config = msgspec.structs.replace(self.config, listen=tuple(listen))

    def _open(self) -> None:
        self._threads = Threads(2)
        self._store = self._given
        files = local_ca(self._data / "tls")
        self._certificates = CertificateStore([Files(files.certificate, files.key)], self._reactor.seconds, "1.2")
        self._sender_keys = [os.urandom(32)]

    def cut_connections(self) -> int:
        """Drop every connection, as a network does."""
        return sum(factory.abort() for factory in self._factories)

    @property
    def filter_set(self) -> Any:
        """The filters."""
        return self._filters


class TestServer:
    """A mail server for tests.

    clock, resolver, faults, store: what the test decides.  Services by name: smtp, submission, submissions, lmtp, imap, imaps,
    pop3, pop3s, each (host, port) once started.  Passwords go in the clear on loopback.
    """

    __test__ = False

    def __init__(
        self,
        *,
        accounts: Mapping[str, str] | None = None,
        domains: Sequence[str] = ("localhost",),
        filters: Sequence[type[Filter] | FilterSpec] = (),
        services: Sequence[str] = (),
        store: IMailStore | None = None,
        reactor: Any = None,
        change: Callable[[Config], Config] | None = None,
    ) -> None:
        """accounts: name to password.  services: only these.  store: FaultyStore by default.  change: the configuration's last word."""
        if reactor is None:
            from twisted.internet import reactor as chosen

            reactor = chosen
        self.clock = MovableReactor(reactor, time.time())
        self.resolver = TestResolver()
        self.faults = Faults()
        self._folder = Path(tempfile.mkdtemp(prefix="livemail-test-"))
        if store is None:
            store = FaultyStore(now=self.clock.now)
            store.faults = self.faults
        self.store: IMailStore = store
        config = local_profile(self._folder, {})
        listen = tuple(each for each in config.listen if not services or each.service in services)
        config = msgspec.structs.replace(
            config,
            listen=listen,
            auth=_CHEAP,
            net=msgspec.structs.replace(config.net, drain_time=1.0, stall_time=0.0),
            directory=DirectorySettings(local_domains=tuple(domains)),
        )
        self.config = change(config) if change is not None else config
        self._accounts = dict(accounts if accounts is not None else {f"you@{domains[0]}": "secret"})
        self._filters = [each if isinstance(each, FilterSpec) else FilterSpec(each.__name__, each) for each in filters]
        self._passwords = dict(self._accounts)
        self._server = _Server(self.config, self.clock, self.store, Outside(now=self.clock.now, resolver=self.resolver))
        self._restore: list[Callable[[], object]] = []
        self._is_running = False

    # ------------------------------------------------------------------------------------------------- its life

    async def start(self) -> TestServer:
        """Bind, wire, serve.  In the reactor's thread."""
        umask, interval, threshold = os.umask(0o077), sys.getswitchinterval(), gc.get_threshold()
        self._restore = [
            lambda: os.umask(umask),
            lambda: sys.setswitchinterval(interval),
            lambda: gc.set_threshold(*threshold),
        ]
        self.clock.start()
        try:
            self._server.privilegedStartService()
            self._server.startService()
        except BaseException:
            self._put_back()
            raise
        gc.unfreeze()
        self._is_running = True
        for name, password in self._accounts.items():
            await self.add_account(name, password)
        if self._filters:
            self._server.filter_set.replace(self._filters)
        return self

    async def stop(self) -> None:
        """Let connections finish for a second, then give everything back.  Allowed more than once."""
        if self._is_running:
            self._is_running = False
            self._server.cut_connections()
            await self._server.stopService()
        self._put_back()

    def _put_back(self) -> None:
        self.clock.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
        restore, self._restore = self._restore, []
        for each in restore:
            each()

    def place(self, service: str) -> Place:
        """(host, port) of a service."""
        for each in self._server.config.listen:
            if each.service == service:
                return each.place.host, each.place.port
        raise KeyError(f"{service} is not served here")

    def __getattr__(self, name: str) -> Place:
        if name in {"smtp", "submission", "submissions", "lmtp", "imap", "imaps", "pop3", "pop3s"}:
            return self.place(name)
        raise AttributeError(name)

    @property
    def ca(self) -> str:
        """PEM file of the authority that signed the server's certificate for localhost."""
        return str(self._folder / "tls" / "ca.pem")

    # ------------------------------------------------------------------------------------------------ what is in it

    async def add_account(self, name: str, password: str = "secret") -> None:  # noqa: S107 - a test's
        """Make an account with INBOX and the usual mailboxes."""
        threads = self._server._threads  # noqa: SLF001 - our own subclass
        assert threads is not None
        hashed = await Passwords(threads.blocking, _CHEAP).hash(password)
        [record] = await self.store.add_accounts([(name, hashed)])
        if isinstance(record, MailError):
            raise record
        self._passwords[name] = password

    async def add_filter(self, filter: type[Filter], *, name: str = "", **config: Any) -> None:  # noqa: A002
        """Append a filter; it holds from the next mail transaction on.  config: its own keys, and those of `FilterSpec`."""
        own = set(filter.Config.__struct_fields__)
        settings = msgspec.convert({key: value for key, value in config.items() if key in own}, filter.Config)
        common = {key: value for key, value in config.items() if key not in own}
        self._filters.append(FilterSpec(name or filter.__name__, filter, settings, **common))
        self._server.filter_set.replace(self._filters)

    async def clear_filters(self) -> None:
        """Have no filters."""
        self._filters.clear()
        self._server.filter_set.replace(())

    async def send(
        self,
        message: EmailMessage | bytes | str,
        *,
        sender: str = "sender@example.org",
        recipients: Sequence[str] = ("you@localhost",),
        login: str = "",
        service: str = "",
    ) -> None:
        """Hand a message in by SMTP, or by submission when ``login`` names an account.  Raises smtplib's exceptions."""
        await deferToThread(self.send_here, message, sender=sender, recipients=recipients, login=login, service=service)

    def send_here(
        self,
        message: EmailMessage | bytes | str,
        *,
        sender: str = "sender@example.org",
        recipients: Sequence[str] = ("you@localhost",),
        login: str = "",
        service: str = "",
    ) -> None:
        """As `send`, waiting for the replies; in any thread but the reactor's."""
        octets = message.as_bytes() if isinstance(message, EmailMessage) else message
        octets = octets.encode() if isinstance(octets, str) else octets
        if b"\r\n" not in octets:
            octets = octets.replace(b"\n", b"\r\n")
        host, port = self.place(service or ("submission" if login else "smtp"))
        kind = smtplib.LMTP if service == "lmtp" else smtplib.SMTP
        with kind(host, port) as client:
            if login:
                client.login(login, self._passwords[login])
            client.sendmail(login or sender, list(recipients), octets)

    async def mail(self, account: str = "you@localhost", mailbox: str = "INBOX") -> list[ReceivedMessage]:
        """Every message in a mailbox, by UID; none when the mailbox does not exist."""
        record = await self.store.account_named(account)
        if record is None:
            raise KeyError(f"there is no account {account}")
        handle = await self.store.account(record.id)
        try:
            info = await handle.mailbox(mailbox)
        except MailError:
            return []
        found = []
        async for batch in handle.fetch(info.id, UIDSet.all(), FetchWant(contents=True, contents_up_to=1 << 30)):
            for row, octets in zip(batch.rows, batch.contents or (), strict=False):
                found.append(ReceivedMessage(row[UID_], octets or b""))
        return found

    async def wait_for(
        self,
        account: str = "you@localhost",
        *,
        mailbox: str = "INBOX",
        subject: str = "",
        count: int = 1,
        patience: float = 10.0,
    ) -> list[ReceivedMessage]:
        """Wait until a mailbox has ``count`` messages whose subject holds some text; return them.  Raises TimeoutError.

        patience: real seconds, whatever the test's clock does.
        """
        from twisted.internet.task import deferLater

        ends = time.monotonic() + patience
        while True:
            there = await self.mail(account, mailbox)
            found = [each for each in there if subject in each.subject]
            if len(found) >= count:
                return found
            if time.monotonic() > ends:
                subjects = ", ".join(repr(each.subject) for each in there) or "none"
                raise TimeoutError(
                    f"{account} {mailbox} has {len(found)} of {count} messages {subject!r}; all there: {subjects}"
                )
            await deferLater(self.clock._reactor, 0.01, lambda: None)  # noqa: SLF001 - real time

    async def advance(self, seconds: float) -> None:
        """Let the server's time pass."""
        self.clock.advance(seconds)

    async def cut_connections(self) -> int:
        """Drop every connection; returns how many there were."""
        return self._server.cut_connections()
