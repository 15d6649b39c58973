"""``twistd livemail milter``: the filters of livemail in front of another mail server.

    bind     the socket, while we may still be root
    load     the filters; a spool folder of our own for the messages they look at
    serve    Postfix and Sendmail connect (`livemail.milter`)
    drain    connections between two messages are closed, the others finish theirs

It needs no mail store and opens none, so it runs beside a livemail on the same data folder, or without any.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import time
from functools import partial
from pathlib import Path
from typing import Any, Final, cast

import msgspec
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, DeferredList, ensureDeferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from livemail.app import StartError
from livemail.config import Config, ConfigError
from livemail.config.filters import filter_specs
from livemail.filters.author import Server
from livemail.filters.filter_set import CannotLoad, FilterSet
from livemail.filters.find import CannotFind
from livemail.filters.plan import FilterSpec
from livemail.milter.place import Place
from livemail.milter.protocol import MilterConnection
from livemail.milter.session import Site
from livemail.net.listen import BindError, bind_tcp, listen_unix
from livemail.net.log import LineObserver
from livemail.net.resolver import exchange
from livemail.net.resolver.resolver import Resolver
from livemail.net.server import ConnectionFactory, Limits
from livemail.net.threads import Threads
from livemail.storage.disk import Disk
from livemail.storage.spool import Spool

FOLDER: Final = "milter"
"""In the data folder: a spool for each socket that is listened on."""


def chosen(config: Config, name: str) -> list[FilterSpec]:
    """The filters to serve: all of the configuration's, the one of a name, or one that is not in it with its defaults.

    Raises CannotFind, ValueError.
    """
    specs = filter_specs(config.filter)
    if not name:
        return specs
    found = [spec for spec in specs if spec.name == name]
    return found or filter_specs([{"use": name}])


class Serving(msgspec.Struct, frozen=True):
    """What was asked for.  place: where to listen.  service: what filters see.  only: one filter's name, "" for all."""

    place: Place
    service: str = "smtp"
    only: str = ""


class MilterServer(MultiService):
    """The milter as a service."""

    log = Logger()

    def __init__(
        self,
        config: Config,
        serving: Serving,
        reactor: Any,
        *,
        observer: LineObserver | None = None,
        read_config: Any = None,
        takes_signals: bool = False,
    ) -> None:
        """observer: reopened on SIGHUP.  read_config: reads the configuration anew, for SIGHUP; raises ConfigError."""
        MultiService.__init__(self)
        self.config = config
        self.serving = serving
        self._reactor = reactor
        self._observer = observer
        self._read_config = read_config
        self._takes_signals = takes_signals
        self._socket: socket.socket | None = None
        self._port: Any = None
        self._threads: Threads | None = None
        self._filters: FilterSet | None = None
        self._factory: ConnectionFactory | None = None
        self._resolver = Resolver(config.resolver, partial(exchange.ask, reactor), reactor.seconds, secrets.randbits)

    # ------------------------------------------------------------------------------------------ start

    def privilegedStartService(self) -> None:
        """Bind the socket.  Raises StartError."""
        self._bind()
        MultiService.privilegedStartService(self)

    def _bind(self) -> None:
        os.umask(0o077)
        place = self.serving.place
        if place.path:
            return
        try:
            host = place.host if place.is_address else socket.gethostbyname(place.host)
            self._socket = bind_tcp(host, place.port, self.config.net.backlog)
        except BindError as error:
            raise StartError([f"milter: {error}"]) from None
        except OSError as error:
            raise StartError([f"milter: {place.host}: {error.strerror}; write an address of this machine"]) from None

    def startService(self) -> None:
        """Load the filters and serve.  Raises StartError."""
        if self._socket is None and not self.serving.place.path:
            self._bind()
        try:
            self._serve()
        except (CannotFind, CannotLoad, BindError) as error:
            self._release()
            raise StartError([f"milter: {error}"]) from None
        except OSError as error:
            self._release()
            raise StartError([f"milter: {error.filename or self.config.data}: {error.strerror}"]) from None
        except BaseException:
            self._release()
            raise
        MultiService.startService(self)
        if self._takes_signals:
            self._reactor.callWhenRunning(self._take_signals)
        names = ", ".join(loaded.spec.name for loaded in self._filters.loaded) if self._filters else ""
        self.log.info("livemail milter on {place}: {names}", place=str(self.serving.place), names=names or "no filters")

    def _serve(self) -> None:
        config, place = self.config, self.serving.place
        self._threads = threads = Threads(config.net.blocking_threads)
        threads.hand_over(self._reactor)
        spool = self._spool(threads)
        surroundings = Server(
            hostname=config.hostname or socket.gethostname(),
            reactor=self._reactor,
            now=time.time,
            run_blocking=threads.blocking,
            resolver=self._resolver,
            folder=str(Path(config.data) / "filters"),
        )
        # Of a store the chain uses nothing but the making of contents.
        self._filters = FilterSet(cast(Any, spool), self._reactor, threads.blocking, surroundings)
        self._filters.replace(chosen(config, self.serving.only))
        settings = config.smtp_settings(self.serving.service)
        site = Site(
            chain=self._filters.chain(self.serving.service),
            service=self.serving.service,
            new_content=spool.new_content,
            max_message=settings.max_message_octets,
            max_recipients=settings.max_recipients,
            hostname=surroundings.hostname,
        )
        # A mail server opens one connection for each of its clients: what is limited is all of them together.
        limits = Limits(config.net.max_connections, config.net.max_connections)
        self._factory = ConnectionFactory(
            "milter", lambda owner: MilterConnection(owner, site), cast(IReactorTime, self._reactor), limits
        )
        if self._socket is None:
            self._port = listen_unix(self._reactor, place.path, self._factory, config.net.backlog)
        else:
            self._port = self._reactor.adoptStreamPort(self._socket.fileno(), self._socket.family, self._factory)
            self._socket.close()
            self._socket = None

    def _spool(self, threads: Threads) -> Spool:
        """A folder for this socket alone: whoever has the socket may remove what a crash left in it."""
        name = re.sub(r"[^A-Za-z0-9.-]+", "_", str(self.serving.place)).strip("_")
        folder = Path(self.config.data) / FOLDER / name
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        settings = self.config.storage
        return Spool(folder, secrets.token_bytes(32), settings, Disk(folder, settings), threads.blocking)

    def _release(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._threads is not None:
            self._threads.stop()
            self._threads = None

    # ------------------------------------------------------------------------------------------ while it runs

    def _take_signals(self) -> None:
        signal.signal(signal.SIGHUP, lambda *_: self._reactor.callFromThread(self.reload))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._reactor.callFromThread(self._reactor.stop))

    def reload(self) -> None:
        """SIGHUP: the filters, the name servers, and the log file.  A configuration with mistakes changes nothing."""
        problems: list[str] = []
        if self._read_config is not None and self._filters is not None:
            try:
                config = self._read_config()
                changed = self._filters.replace(chosen(config, self.serving.only))
                self.log.info("filters changed: {names}", names=", ".join(changed) or "none")
            except (ConfigError, CannotFind, CannotLoad, ValueError) as error:
                problems.append(str(error))
        self._resolver.reload()
        if self._observer is not None:
            try:
                self._observer.reopen()
            except OSError as error:
                problems.append(f"{self.config.log.file}: {error.strerror}")
        self.log.info("reloaded: {problems}", problems="; ".join(problems) or "filters, name servers and log file")

    # ------------------------------------------------------------------------------------------ stop

    def stopService(self) -> Deferred[None]:
        """Stop accepting, let messages finish for at most ``drain_time`` seconds, unload the filters."""
        return ensureDeferred(self._stop())

    async def _stop(self) -> None:
        stopping = MultiService.stopService(self)
        if stopping is not None:
            await stopping
        if self._port is not None:
            await DeferredList([_deferred(self._port.stopListening())], consumeErrors=True)
        if self._factory is not None:
            patience = self._reactor.callLater(self.config.net.drain_time, self._factory.abort)
            await self._factory.drain()
            if patience.active():
                patience.cancel()
        if self._filters is not None:
            await self._filters.stop()
        self._release()
        self.log.info("stopped")


def _deferred(value: Any) -> Deferred[Any]:
    made: Deferred[Any] = Deferred()
    if isinstance(value, Deferred):
        return value
    made.callback(value)
    return made
