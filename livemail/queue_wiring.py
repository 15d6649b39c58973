"""The queue's part of the wiring: what brings queued mail to other hosts, and what an administrator does with it."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from twisted.internet.task import deferLater

from livemail.admin.operations import Operations
from livemail.admin.queue import QueueOperations
from livemail.config import Config
from livemail.delivery.bounce import Reporter
from livemail.delivery.bounce.queued import QueueReporter
from livemail.delivery.local import LocalDelivery
from livemail.delivery.queue.runner import Runner
from livemail.interfaces.relay import IRouting
from livemail.interfaces.runtime import Now
from livemail.interfaces.storage import IMailStore
from livemail.mail.address import Path
from livemail.mail.errors import WireError
from livemail.net.coroutines import Run
from livemail.net.tls_client import ClientTLS
from livemail.smtp.grammar import parse_path
from livemail.smtp.relay.relay import Relay


def wire_queue(
    config: Config,
    reactor: Any,
    hostname: str,
    delivery: LocalDelivery,
    routing: IRouting,
    reporter: Reporter,
    now: Now,
) -> Runner:
    """Connect the runner.  Raises CertificateError when the authorities of [relay] tls_ca cannot be read."""
    store = delivery.store
    return Runner(
        store.queue,
        routing,
        Relay(reactor, config.relay, hostname, now, ClientTLS(config.relay.tls_ca)),
        QueueReporter(reporter, store),
        delivery.file_report,
        config.queue,
        clock=reactor,
        now=now,
        random=secrets.SystemRandom().random,
        running=Run,
    )


def add_queue_operations(
    operations: Operations, store: IMailStore, now: Now, *, runner: Runner | None = None, reactor: Any = None
) -> None:
    """Offer what can be done with the queue.  runner, reactor: of a server that runs, None when none does."""
    sleep: Callable[[float], Awaitable[object]] | None = partial(deferLater, reactor) if reactor is not None else None
    for name, function in QueueOperations(store.queue, now, path_of, runner=runner, sleep=sleep).operations().items():
        operations.add(name, function)


def path_of(text: str) -> Path:
    """Read an address as RCPT does.  Raises ValueError."""
    try:
        return parse_path(f"<{text}>".encode(), "5.1.3", smtputf8=True)
    except WireError as error:
        raise ValueError(error.text) from None
