"""One filter, or several, asked about one message: the real chain over a memory store, without a server.

The message passes every stage from connect to message, as it would from a client, and the answer says what a client would be told, what
the message and envelope became, how long each stage took.  A filter that fails is a failure here too: its exception is raised, or told in
``result.failure`` where the caller wants to go on.
"""

from __future__ import annotations

from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar, cast

import msgspec
from twisted.internet.task import Clock

from livemail.filters import Filter, Server
from livemail.filters.chain import FilterChain, FilterSpec
from livemail.filters.once import Circumstances, FilterResult, retire, run_once
from livemail.interfaces.storage import IMailStore
from livemail.mail.content import Content
from livemail.storage.memory.store import MemoryStore

T = TypeVar("T")

CHUNK_OCTETS = 64 * 1024


class FilterFailed(AssertionError):
    """The filter raised, hung or answered nonsense; in a server the message would be deferred."""


class _Called:
    """A call that was made at once."""

    def active(self) -> bool:
        return False


class ImpatientClock(Clock):
    """Where no reactor runs, what is due at once is called at once."""

    def callLater(self, delay: float, callable: Any, *args: Any, **kw: Any) -> Any:  # noqa: A002 - Clock's words
        if delay > 0:
            return super().callLater(delay, callable, *args, **kw)
        callable(*args, **kw)
        return _Called()


def run_filter(filter: type[Filter] | Sequence[FilterSpec], message: bytes, **more: Any) -> FilterResult:  # noqa: A002
    """Ask a filter that waits for nothing; arguments as `run_filter_async`.  Raises FilterFailed when it fails.

    For a filter that awaits the network or a timer use `run_filter_async`, where a reactor runs.
    """
    return _finish(run_filter_async(filter, message, **more))


async def run_filter_async(
    filter: type[Filter] | Sequence[FilterSpec],  # noqa: A002
    message: bytes | Content,
    *,
    sender: str = "sender@example.org",
    recipients: Sequence[str] = ("you@localhost",),
    peer: str = "192.0.2.1",
    helo: str = "client.example.org",
    service: str = "smtp",
    tls: str = "",
    authcid: str = "",
    server: Server | None = None,
    store: IMailStore | None = None,
    may_fail: bool = False,
    name: str = "",
    **config: Any,
) -> FilterResult:
    """Pass one message through a filter, or through several specifications in order.

    message: octets with CRLF line endings (LF alone is made CRLF), or a content of ``store``, closed here.  sender: "" for the null
    reverse-path.  config: the keys of the filter's own Config, typed as a configuration file would have them.
    """
    if isinstance(filter, type):
        settings = msgspec.convert(config, filter.Config)
        specs: Sequence[FilterSpec] = [FilterSpec(name or filter.__name__, filter, settings)]
    elif config:
        raise TypeError(f"keys {', '.join(config)} are for one filter; several bring their own")
    else:
        specs = filter
    clock: Any = server.reactor if server is not None and server.reactor is not None else ImpatientClock()
    store = store if store is not None else MemoryStore()
    here: Any = _here
    surroundings = server if server is not None else Server(reactor=clock, run_blocking=here)
    chain = FilterChain(specs, store, clock, surroundings.run_blocking or here, server=surroundings)
    about = Circumstances(
        sender=sender, recipients=recipients, peer=peer, helo=helo, service=service, tls=tls, authcid=authcid
    )
    try:
        content = message if not isinstance(message, bytes) else await _content(store, message)
        result = await run_once(chain, content, about)
    finally:
        retire(chain.plan.filters)
    if not result.message and isinstance(message, bytes):
        result.message = message
    if result.failure and not may_fail:
        raise FilterFailed(result.failure)
    return result


async def _content(store: IMailStore, octets: bytes) -> Content:
    if b"\n" in octets and b"\r\n" not in octets:
        octets = octets.replace(b"\n", b"\r\n")
    sink = store.new_content(len(octets))
    for at in range(0, len(octets), CHUNK_OCTETS):
        sink.write(octets[at : at + CHUNK_OCTETS])
    return await sink.finish()


async def _here(function: Any, *arguments: Any, **more: Any) -> Any:
    """Run a blocking filter where we are: a test may wait for it."""
    return function(*arguments, **more)


def _finish(coroutine: Coroutine[Any, Any, T]) -> T:
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return cast(T, stop.value)
    coroutine.close()
    raise FilterFailed(
        "the filter waits for something, and no reactor runs here; use run_filter_async in a trial test, or the mail_server fixture"
    )
