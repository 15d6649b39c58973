"""The only wiring: who has read this has met every part by name.

    bind      sockets, while we may still be root            `MailServer.privilegedStartService`
    open      the store; the local profile's first run       `MailServer.startService`
    wire      store → directory → portal → filters → delivery → sites  `wire`
    serve     the reactor adopts the sockets
    drain     421, BYE, -ERR; then the store is closed       `MailServer.stopService`

A start either succeeds whole or raises `StartError` with everything that is in its way.
"""

from __future__ import annotations

import gc
import os
import secrets
import shlex
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, Final, cast

import msgspec
from twisted.application.service import MultiService
from twisted.cred.portal import Portal
from twisted.internet.defer import Deferred, DeferredList, ensureDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory

from livemail.admin import addresses, control, first_run, route_words
from livemail.admin.backups import Backups
from livemail.admin.explain import Explain
from livemail.admin.filters import FilterOperations
from livemail.admin.mending import Mending
from livemail.admin.operations import Operations, Refused
from livemail.admin.transfers import Transfers
from livemail.admin.undelete import Undeletes
from livemail.auth.authenticator import Authenticator
from livemail.auth.cache import VerifiedCache
from livemail.auth.checker import DirectoryChecker
from livemail.auth.passwords import Passwords
from livemail.auth.realm import MailRealm
from livemail.auth.throttle import Throttle
from livemail.config import Config, Listen
from livemail.config.model import IMPLICIT_TLS
from livemail.delivery.bounce import Reporter
from livemail.delivery.local import LocalDelivery
from livemail.delivery.ourselves import Ourselves
from livemail.delivery.queue.runner import Runner
from livemail.delivery.routing import Routing
from livemail.delivery.secret import SecretError
from livemail.delivery.srs import Rewriter, load_keys
from livemail.directory import AddressBook, StoreDirectory
from livemail.filter_wiring import WORLD, Outside, add_filter_operations, wire_filters
from livemail.filters.filter_set import CannotLoad, FilterSet
from livemail.filters.find import CannotFind
from livemail.imap.protocol import IMAPConnection
from livemail.imap.site import Site as IMAPSite
from livemail.interfaces.relay import IResolver
from livemail.interfaces.storage import IMailStore
from livemail.mail.address import Address
from livemail.mail.errors import MailError, StorageFull
from livemail.net.connection import Connection
from livemail.net.files import connections_possible
from livemail.net.listen import BindError, bind_tcp, listen_unix
from livemail.net.log import LineObserver
from livemail.net.resolver import exchange
from livemail.net.resolver.resolver import Resolver
from livemail.net.server import ConnectionFactory, Limits
from livemail.net.threads import StallAlarm, Threads
from livemail.net.tls import CertificateError, CertificateStore, Files, local_ca
from livemail.net.turns import Turns
from livemail.pop3.locks import MaildropLocks
from livemail.pop3.protocol import POP3Connection
from livemail.pop3.site import Site as POP3Site
from livemail.queue_wiring import add_queue_operations, wire_queue
from livemail.smtp.protocol import SMTPConnection
from livemail.smtp.site import Site as SMTPSite
from livemail.storage.lmdb import LMDBStore
from livemail.storage.lmdb.folder import StoreError, StoreMissing, advice_on

Build = Callable[[ConnectionFactory], Connection]

SWITCH_INTERVAL: Final = 0.0005
"""Seconds.  The writer is a thread; at Python's 5 ms it would wait ten commits' time for its turn."""


class StartError(Exception):
    """The server cannot start; each reason says what to do.  Nothing was lost."""

    def __init__(self, reasons: list[str], advice: str = "") -> None:
        """advice: what helps against all of them."""
        lines = [f"livemail cannot start: {reason}" for reason in reasons]
        super().__init__("\n".join([*lines, advice] if advice else lines))
        self.reasons = reasons


class Parts(msgspec.Struct):
    """What the wiring made.  build: per service, what makes a connection for its factory.  filters, runner: to be stopped."""

    build: dict[str, Build]
    operations: Operations
    directory: StoreDirectory
    resolver: Resolver | IResolver
    routing: Routing
    filters: FilterSet
    runner: Runner


def wire(
    config: Config,
    reactor: Any,
    store: IMailStore,
    threads: Threads,
    sender_keys: Sequence[bytes],
    outside: Outside = WORLD,
) -> Parts:
    """Connect the parts.  sender_keys: of the reverse-paths that forwarding makes.

    Raises SecretError when a password file cannot be read.
    """
    hostname = config.hostname or socket.gethostname()
    directory = StoreDirectory(store, config.directory)

    passwords = Passwords(threads.blocking, config.auth)
    cache = VerifiedCache(reactor.seconds, seconds=config.auth.remember_seconds, capacity=config.auth.remember_entries)
    portal = Portal(MailRealm(directory, store), [DirectoryChecker(directory, store, passwords, cache)])
    authenticator = Authenticator(portal, Throttle(reactor.seconds, config.auth), reactor)

    resolver, routing = wire_routing(config, reactor, hostname, outside)

    filters = wire_filters(config, reactor, store, threads, directory, resolver, outside)
    reporter = Reporter(hostname, Address("postmaster", config.domains[0]), outside.now, new_token, config.bounce)
    rewriter = Rewriter(sender_keys, config.domains[0], outside.now)
    delivery = LocalDelivery(
        store, directory, config.delivery, queue=store.queue, routing=routing, reporter=reporter, rewriter=rewriter
    )
    runner = wire_queue(config, reactor, hostname, delivery, routing, reporter, outside.now)

    def smtp(service: str) -> Build:
        site = SMTPSite(
            service=service,
            hostname=hostname,
            settings=config.smtp_settings(service),
            store=store,
            target=delivery,
            chain=filters.chain(service),
            authenticator=authenticator,
            now=outside.now,
            dsn=True,
        )
        return lambda owner: SMTPConnection(owner, site)

    def imap(_: str) -> Build:
        site = IMAPSite(config.imap, hostname, store, authenticator)
        return lambda owner: IMAPConnection(owner, site)

    locks = MaildropLocks()

    def pop3(service: str) -> Build:
        site = POP3Site(config.pop3, hostname, authenticator, locks, service)
        return lambda owner: POP3Connection(owner, site)

    build = {service: smtp(service) for service in ("smtp", "submission", "submissions", "lmtp")}
    build |= {service: imap(service) for service in ("imap", "imaps")}
    build |= {service: pop3(service) for service in ("pop3", "pop3s")}
    operations = Operations(store, directory.local_domains, passwords.hash)
    addresses.add_to(operations, AddressBook(store, directory, outside.now), directory)
    route_words.add_to(operations, directory, routing)
    operations.add("message.explain", Explain(store))
    more = transfers(config, store, directory, threads).operations()
    more |= Mending(store, is_serving=True).operations()
    more |= Undeletes(store, directory.local_domains, threads.blocking, outside.now).operations()
    more |= Backups(store, directory.local_domains, threads.blocking).operations()
    for name, function in more.items():
        operations.add(name, function)
    add_queue_operations(operations, store, outside.now, runner=runner, reactor=reactor)
    return Parts(build, operations, directory, resolver, routing, filters, runner)


def transfers(config: Config, store: IMailStore, directory: StoreDirectory, threads: Threads) -> Transfers:
    """Import and export; one thread at least is left for passwords."""
    return Transfers(store, directory.local_domains, threads.blocking, max(1, config.net.blocking_threads - 1))


def wire_routing(config: Config, reactor: Any, hostname: str, outside: Outside) -> tuple[Resolver | IResolver, Routing]:
    """Connect what finds the hosts for a domain.  Raises SecretError when a password file cannot be read."""
    resolver = outside.resolver or Resolver(
        config.resolver, partial(exchange.ask, reactor), reactor.seconds, secrets.randbits
    )
    takers = [listen.place for listen in config.listen if listen.service in {"smtp", "submission", "submissions"}]
    ourselves = Ourselves(
        [hostname, config.relay.hello_name, *config.relay.own_names], [(place.host, place.port) for place in takers]
    )
    shuffle = secrets.SystemRandom().shuffle
    return resolver, Routing(config.relay, config.route, resolver=resolver, ourselves=ourselves, shuffle=shuffle)


def new_token() -> str:
    """Make the left side of a Message-ID: letters and digits nobody can guess."""
    return secrets.token_hex(16)


class MailServer(MultiService):
    """The server as one service.  Services added to it start after the mail services and stop before them.

    Starting blocks until the store is open, which takes as long as recovery does: under two seconds.
    """

    log = Logger()

    def __init__(
        self,
        config: Config,
        reactor: Any,
        *,
        is_local_profile: bool = False,
        observer: LineObserver | None = None,
        show: Callable[[str], object] | None = None,
        takes_signals: bool = False,
        read_config: Callable[[], Config] | None = None,
        outside: Outside = WORLD,
    ) -> None:
        """is_local_profile: makes the account of the first run.  observer: reopened on SIGHUP.  show: prints the banner.

        takes_signals: SIGTERM and SIGINT end the program with status 0 once all is drained, a second one cuts the draining
        short; SIGHUP reloads.  For a program of its own, not for a service inside another.
        """
        MultiService.__init__(self)
        self.config = config
        self.is_local_profile = is_local_profile
        self._reactor = reactor
        self._observer = observer
        self._show = show
        self._data = Path(config.data)
        self._sockets: list[tuple[Listen, socket.socket | None]] = []
        self._certificates: CertificateStore | None = None
        self._threads: Threads | None = None
        self._store: IMailStore | None = None
        self._parts: Parts | None = None
        self._sender_keys: Sequence[bytes] = ()
        self._filters: FilterSet | None = None
        self._stories: Any = None
        self._factories: list[ConnectionFactory] = []
        self._ports: list[Any] = []
        self._alarm = StallAlarm(reactor, config.net.stall_time) if config.net.stall_time else None
        self._takes_signals = takes_signals
        self._read_config = read_config
        self._outside = outside
        self._filter_operations: FilterOperations | None = None
        self._is_stopping = False
        self._banner = ""

    # ------------------------------------------------------------------------------------------ start

    def privilegedStartService(self) -> None:
        """Bind every socket and read the certificates' keys.  Raises StartError."""
        self._bind()
        MultiService.privilegedStartService(self)

    def _bind(self) -> None:
        os.umask(0o077)
        reasons = []
        for listen in self.config.listen:
            place = listen.place
            try:
                bound = None if place.path else bind_tcp(place.host, place.port, self.config.net.backlog)
                self._sockets.append((listen, bound))
            except BindError as error:
                reasons.append(f"{listen.service}: {error}")
        tls = self.config.tls
        if tls.certificate:
            files = [Files(tls.certificate, tls.key), *(Files(each.certificate, each.key) for each in tls.more)]
            try:
                self._certificates = CertificateStore(files, self._reactor.seconds, tls.minimum)
            except CertificateError as error:
                reasons.append(str(error))
        if reasons:
            self._release()
            raise self._explained(reasons)

    def _explained(self, reasons: list[str]) -> StartError:
        """Say once what helps against taken ports."""
        if not any("is in use by another program" in reason for reason in reasons):
            return StartError(reasons)
        try:
            pid = control.ask(self._data, "ping", {}, lambda *_: None)["pid"]
        except (OSError, Refused):
            pass
        else:
            return StartError([f"livemail runs already on {self._data}, process {pid}; stop it with `kill {pid}`"])
        if self.is_local_profile:
            return StartError(
                reasons,
                "Stop that program, or put LIVEMAIL_PORT_OFFSET=10000 in the environment: it is added to every port.",
            )
        return StartError(reasons, "Stop that program, or change the address of that [[listen]] in the configuration.")

    def startService(self) -> None:
        """Open the store, wire everything, serve.  Raises StartError."""
        sys.setswitchinterval(SWITCH_INTERVAL)
        gc.freeze()
        gc.set_threshold(50_000, 20, 50)
        if not self._sockets:
            # twist, unlike twistd, starts services without the privileged step.
            self._bind()
        try:
            self._open()
            self._serve()
        except StorageFull:
            self._release()
            raise StartError(
                [
                    f"too little is free on the disk of {self._data}; free some space, or have the data elsewhere (LIVEMAIL_DATA)"
                ]
            ) from None
        except MailError as error:
            self._release()
            raise StartError([f"the first account could not be made: {error}"]) from None
        except (BindError, SecretError) as error:
            self._release()
            raise StartError([str(error)]) from None
        except (CannotFind, CannotLoad) as error:
            self._release()
            raise StartError([str(error)]) from None
        except CannotListenError as error:
            self._release()
            raise StartError([f"the control socket: {error.socketError}"]) from None
        except OSError as error:
            self._release()
            raise StartError([f"{error.filename or self._data}: {error.strerror}; move it out of the way"]) from None
        except BaseException:
            self._release()
            raise
        MultiService.startService(self)
        self._announce()

    def _open(self) -> None:
        # Until `hand_over` the calls of other threads are taken by `wait`: an error at start is an exception here.
        self._threads = threads = Threads(self.config.net.blocking_threads)
        try:
            opening = LMDBStore.open(
                self._data,
                self.config.storage,
                call_from_thread=threads.call,
                after_turn=threads.after_turn,
                run_blocking=threads.blocking,
                watcher=threads,
                create=self.is_local_profile or self._may_create(),
                maildir_of=self.config.placement().maildir_of,
                quotas=self.config.quotas(),
            )
            self._store = store = threads.wait(opening)
            store.sync.poll_with(self._reactor)
            store.compaction.run_with(self._reactor)
            store.purging.run_with(self._reactor)
            if self.config.tls.local_ca:
                files = local_ca(self._data / "tls")
                self._certificates = CertificateStore([files], self._reactor.seconds, self.config.tls.minimum)
            self._sender_keys = load_keys(self._data / "srs.key")
        except StoreMissing as error:
            if self._data.is_dir():
                raise StartError([str(error)]) from None
            advice = f"make it (install -d -m 700 {shlex.quote(str(self._data))}), mount its disk, or correct `data`"
            raise StartError([f"the data folder {self._data} does not exist; {advice}"]) from None
        except (StoreError, CertificateError) as error:
            cause = error.__cause__
            told = advice_on(cause, self._data) if isinstance(cause, OSError) else ""
            raise StartError([told or str(error)]) from None
        except ValueError as error:  # of the keys
            raise StartError([str(error)]) from None
        except OSError as error:
            told = advice_on(error, self._data)
            raise StartError(
                [told or f"{error.filename or self._data}: {error.strerror}; the data folder must be ours to write"]
            ) from None

    def _may_create(self) -> bool:
        """A configured data folder must exist and may be empty; conf/livemail.toml says how that meets unmounted disks."""
        return self._data.is_dir()

    def _serve(self) -> None:
        assert self._store is not None
        assert self._threads is not None
        self._parts = parts = wire(
            self.config, self._reactor, self._store, self._threads, self._sender_keys, self._outside
        )
        self._filters = parts.filters
        self._threads.wait(parts.directory.load())
        self._filter_operations = add_filter_operations(
            parts.filters, parts.operations, self._store, self._read_config, self.config
        )
        text = self._first_run(parts) if self.is_local_profile else ""
        self._ports.append(control.listen(self._reactor, self._data, parts.operations))
        limits = Limits(self._max_connections(), self.config.net.max_connections_per_address)
        for listen, bound in self._sockets:
            factory = ConnectionFactory(
                listen.service,
                parts.build[listen.service],
                cast(IReactorTime, self._reactor),
                limits,
                self._certificates,
                self._threads.after_turn,
            )
            self._factories.append(factory)
            serving: Any = factory
            if listen.service in IMPLICIT_TLS:
                assert self._certificates is not None
                serving = TLSMemoryBIOFactory(self._certificates, False, factory, self._reactor)
            if bound is None:
                port = listen_unix(self._reactor, listen.place.path, serving, self.config.net.backlog)
            else:
                port = self._reactor.adoptStreamPort(bound.fileno(), bound.family, serving)
                bound.close()
            self._ports.append(port)
        self._sockets.clear()
        turns = Turns(self._reactor)
        if self._takes_signals:
            turns.take_over()
        self._threads.hand_over(self._reactor, turns)
        if not self.config.delivery.capture_outbound:
            # What is captured is not to leave, and neither is what waits from a time before.
            self._reactor.callWhenRunning(parts.runner.start)
        self._banner = text

    def _max_connections(self) -> int:
        wanted = self.config.net.max_connections
        possible = connections_possible(wanted)
        if possible < wanted:
            self.log.warn(
                "only {possible} connections at once, not the {wanted} of [net] max_connections: the system lets this"
                " process open too few files; raise that (ulimit -n, or LimitNOFILE= of the systemd unit)",
                possible=possible,
                wanted=wanted,
            )
        return possible

    def _keep_stories(self) -> None:
        """Once a second: what was refused is kept too, when nothing else is committed."""
        if self._store is not None:
            self._store.flush_stories()
            self._stories = self._reactor.callLater(1.0, self._keep_stories)

    def _announce(self) -> None:
        self._keep_stories()
        if self._alarm is not None:
            self._alarm.start()
        if self._takes_signals:
            # Not before the reactor runs: it sets its own then, which would end the program as killed by the signal.  And
            # nothing is said before: whoever reads that we serve may send a signal at once.
            self._reactor.callWhenRunning(self._take_signals)
            self._reactor.callWhenRunning(self._say_what_runs)
        else:
            self._say_what_runs()

    def _say_what_runs(self) -> None:
        if self._show is not None and self._banner:
            self._show(self._banner)
        else:
            places = ", ".join(f"{listen.service} {listen.address}" for listen in self.config.listen)
            self.log.info("livemail serves {places}", places=places)

    def _first_run(self, parts: Parts) -> str:
        assert self._store is not None
        assert self._threads is not None
        places: dict[str, str] = {listen.service: listen.address for listen in self.config.listen}
        places["ca"] = str(self._data / "tls" / "ca.pem")
        command = command_line()

        async def prepared() -> tuple[Mapping[str, str], bool, list[str]]:
            assert self._store is not None
            values, is_new = await first_run.prepare(
                self._data, places, self._store, self.config.domains[0], parts.operations.hash_password, command
            )
            return values, is_new, [record.name for record in await self._store.accounts()]

        values, is_new, accounts = self._threads.wait(prepared())
        return first_run.banner(values, is_new, command, accounts)

    def _release(self) -> None:
        """Give back what a start that failed has taken."""
        for _, bound in self._sockets:
            if bound is not None:
                bound.close()
        self._sockets.clear()
        for port in self._ports:
            port.stopListening()
        self._ports.clear()
        if self._threads is not None:
            if self._store is not None:
                self._threads.wait(self._store.close())
            self._threads.stop()

    # ------------------------------------------------------------------------------------------ while it runs

    def _take_signals(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, self._signalled)

    def _signalled(self, number: int, _frame: FrameType | None) -> None:
        if number == signal.SIGHUP:
            self._reactor.callFromThread(self.reload)
        elif not self._is_stopping:
            self._is_stopping = True
            self._reactor.callFromThread(self._reactor.stop)
        else:
            self._reactor.callFromThread(self._cut_off)

    def reload(self) -> None:
        """SIGHUP: certificates that changed, the log file, name servers, the hosts file, the passwords of routes, and filters."""
        problems = self._certificates.reload() if self._certificates is not None else []
        if self._parts is not None:
            if isinstance(self._parts.resolver, Resolver):
                self._parts.resolver.reload()
            try:
                self._parts.routing.reload()
            except SecretError as error:
                problems.append(str(error))
        if self._filter_operations is not None:
            try:
                self._filter_operations.reload_now()
            except Refused as error:
                problems.append(error.text)
        if self._observer is not None:
            try:
                self._observer.reopen()
            except OSError as error:
                problems.append(f"{self.config.log.file}: {error.strerror}")
        self.log.info(
            "reloaded: {problems}",
            problems="; ".join(problems) or "certificates, filters, log file, name servers, passwords of routes",
        )

    # ------------------------------------------------------------------------------------------ stop

    def stopService(self) -> Deferred[None]:
        """Stop accepting, let connections finish for at most ``drain_time`` seconds, close the store."""
        return ensureDeferred(self._stop())

    async def _stop(self) -> None:
        stopping = MultiService.stopService(self)
        if stopping is not None:
            await stopping
        await DeferredList([port.stopListening() for port in self._ports if port is not None], consumeErrors=True)
        self._ports.clear()
        attempts = ensureDeferred(self._parts.runner.stop()) if self._parts is not None else None
        await self._drain()
        if attempts is not None:
            await attempts
        if self._stories is not None and self._stories.active():
            self._stories.cancel()
        if self._filters is not None:
            await self._filters.stop()
        if self._store is not None:
            await self._store.close()
            self._store = None
        if self._alarm is not None:
            self._alarm.stop()
        if self._threads is not None:
            self._threads.stop()
        self.log.info("stopped")

    async def _drain(self) -> None:
        count = sum(len(factory.connections) for factory in self._factories)
        if count:
            self.log.info("stopping: {count} connections finish", count=count)
        everyone = DeferredList([factory.drain() for factory in self._factories])
        patience = self._reactor.callLater(self.config.net.drain_time, self._cut_off)
        await everyone
        if patience.active():
            patience.cancel()

    def _cut_off(self) -> None:
        left = sum(factory.abort() for factory in self._factories)
        if left:
            self.log.warn("{count} connections did not finish in time and were cut off", count=left)


def command_line() -> str:
    """How the livemail command is called here, as short as it works from this folder."""
    program = Path(sys.executable).with_name("livemail")
    if not program.exists():
        return f"{shlex.quote(sys.executable)} -m livemail"
    try:
        return shlex.quote(str(program.relative_to(Path.cwd())))
    except ValueError:
        return shlex.quote(str(program))
