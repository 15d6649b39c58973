"""The filters' part of the wiring, and what of the world outside a test may replace."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from livemail.admin.filters import FilterOperations
from livemail.admin.operations import Operations
from livemail.config import Config
from livemail.config.filters import filter_specs
from livemail.filters.author import Server
from livemail.filters.filter_set import FilterSet
from livemail.filters.plan import FilterSpec
from livemail.filters.shipped.submission import Submission
from livemail.interfaces.directory import IDirectory
from livemail.interfaces.relay import IResolver
from livemail.interfaces.runtime import Now
from livemail.interfaces.storage import IMailStore
from livemail.net.threads import Threads


class Outside(msgspec.Struct, frozen=True):
    """What is not ours, and a test may put something else for.  resolver: None for the configured name servers."""

    now: Now = time.time
    resolver: IResolver | None = None


WORLD: Final = Outside()


def wire_filters(
    config: Config,
    reactor: Any,
    store: IMailStore,
    threads: Threads,
    directory: IDirectory,
    resolver: IResolver,
    outside: Outside,
) -> FilterSet:
    """Load the filters: the submission rules, which are always there, then the configured ones.  Raises CannotFind, CannotLoad."""
    surroundings = Server(
        hostname=config.hostname or socket.gethostname(),
        reactor=reactor,
        now=outside.now,
        run_blocking=threads.blocking,
        resolver=resolver,
        directory=directory,
        folder=str(Path(config.data) / "filters"),
    )
    rules = Submission.Config(config.delivery.check_from, config.delivery.repair_submissions)
    always = FilterSpec("submission", Submission, rules, services=frozenset({"submission", "submissions"}))
    filters = FilterSet(store, reactor, threads.blocking, surroundings, always=(always,))
    filters.replace(filter_specs(config.filter))
    return filters


def add_filter_operations(
    filters: FilterSet,
    operations: Operations,
    store: IMailStore,
    read_config: Callable[[], Config] | None,
    config: Config,
) -> FilterOperations:
    """Offer what can be done to the filters while they work.  read_config: reads the file again; raises ConfigError."""

    def tables() -> Sequence[Mapping[str, Any]]:
        return (read_config() if read_config is not None else config).filter

    found = FilterOperations(filters, store, filters.server, filter_specs, tables)
    operations.add("filter.list", found.list)
    operations.add("filter.reload", found.reload)
    operations.add("filter.replay", found.replay)
    return found
