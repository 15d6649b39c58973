"""What ``livemail filter`` does when no server runs: the configuration is read, the store opened, a reactor run for as long as it takes."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from livemail.admin.filters import FilterOperations, described, known_plugins
from livemail.admin.operations import EX_UNAVAILABLE, Refused
from livemail.config import Config
from livemail.config.filters import filter_specs
from livemail.directory import StoreDirectory
from livemail.filters import Server
from livemail.filters.filter_set import FilterSet
from livemail.interfaces.storage import Progress
from livemail.storage.lmdb import LMDBStore

T = TypeVar("T")


def in_reactor(main: Callable[[Any], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine function in the reactor to its end; return its result or raise its exception.  Once in a program."""
    from twisted.internet import reactor
    from twisted.internet.defer import Deferred
    from twisted.python.failure import Failure

    chosen: Any = reactor
    ended: list[Any] = []

    def start() -> None:
        running: Deferred[Any] = Deferred.fromCoroutine(main(chosen))
        running.addBoth(ended.append)
        running.addBoth(lambda _: chosen.stop())

    chosen.callWhenRunning(start)
    chosen.run()
    if not ended:
        raise KeyboardInterrupt
    if isinstance(ended[0], Failure):
        ended[0].raiseException()
    result: T = ended[0]
    return result


def filter_operation(config: Config, operation: str, arguments: Mapping[str, Any], progress: Progress) -> Any:
    """``filter.list``, ``filter.reload`` or ``filter.replay``.  Raises Refused, StoreError."""
    if operation == "filter.list":
        return {
            "filters": [described(spec) for spec in filter_specs(config.filter)],
            "known": known_plugins(),
            "is_running": False,
        }
    if operation == "filter.reload":
        raise Refused(f"no server runs on {config.data}; the next one reads everything anew", EX_UNAVAILABLE)
    return in_reactor(lambda reactor: _replay(config, arguments, progress, reactor))


async def _replay(config: Config, arguments: Mapping[str, Any], progress: Progress, reactor: Any) -> Any:
    from twisted.internet.threads import deferToThread

    run_blocking: Any = deferToThread
    store = await LMDBStore.open(
        config.data,
        msgspec.structs.replace(config.storage, writer="thread"),
        call_from_thread=reactor.callFromThread,
        run_blocking=run_blocking,
        maildir_of=config.placement().maildir_of,
        quotas=config.quotas(),
    )
    try:
        directory = StoreDirectory(store, config.directory)
        await directory.load()
        folder = str(Path(config.data) / "filters")
        server = Server(
            hostname=config.hostname or "localhost",
            reactor=reactor,
            run_blocking=run_blocking,
            directory=directory,
            folder=folder,
        )
        filters = FilterSet(store, reactor, run_blocking, server)
        known = {spec.name: spec for spec in filter_specs(config.filter)}
        chosen = known.get(str(arguments["name"]))
        settings = {**arguments.get("settings", {})}
        if chosen is not None:
            table = next(each for each in config.filter if each.get("name", each["use"]) == chosen.name)
            settings = {**table, **settings}
            arguments = {**arguments, "name": settings.pop("use"), "settings": settings}
        operations = FilterOperations(filters, store, server, filter_specs, lambda: config.filter)
        return await operations.replay(arguments, progress)
    finally:
        await store.close()
