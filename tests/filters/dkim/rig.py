"""Filters of DKIM over one message: a chain with a store in memory, a clock and a DNS of a dict."""

from __future__ import annotations

from pathlib import Path as Folder
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from livemail.filters.author import Server
from livemail.filters.chain import FilterChain, FilterSpec
from livemail.filters.dkim.sign import DKIMSign
from livemail.filters.dkim.verify import DKIMVerify
from livemail.interfaces.filter import ConnectionInfo
from livemail.interfaces.relay import Answer
from livemail.mail.address import Address, Path
from livemail.mail.envelope import Envelope, Recipient, ReversePath
from livemail.mail.errors import MailError
from livemail.storage.memory.store import MemoryStore

NOW = 4_000_000_000.0
"""Later than the time dkimpy puts into signatures of its own."""
VECTORS = Folder(__file__).parents[2] / "vectors" / "dkim"


class DNS:
    """TXT records by name; an exception is raised.  asked: names in order."""

    def __init__(self, records: dict[str, Any]) -> None:
        self.records = records
        self.asked: list[str] = []

    async def txt(self, name: str) -> Answer:
        self.asked.append(name)
        found = self.records.get(name)
        if isinstance(found, MailError):
            raise found
        if found is None:
            return Answer((), exists=False)
        return Answer(tuple(found) if isinstance(found, list) else (found,))


def vector_keys() -> dict[str, bytes]:
    lines = (VECTORS / "keys.txt").read_text().splitlines()
    return {name: record.encode() for name, _, record in (line.partition("\t") for line in lines if "\t" in line)}


def passed(
    octets: bytes,
    kind: type[Any],
    *,
    records: dict[str, Any] | None = None,
    folder: Folder | None = None,
    authcid: str = "",
    directory: Any = None,
    run_blocking: Any = None,
    **settings: Any,
) -> tuple[bytes, DNS, Any]:
    """The message behind one filter, the DNS, and the outcome."""
    dns = DNS(records or {})
    clock = Clock()
    store = MemoryStore()
    server = Server(
        hostname="mx.example.org", reactor=clock, now=lambda: NOW, resolver=dns, directory=directory,  # type: ignore[arg-type]
        folder=str(folder or ""), run_blocking=run_blocking,
    )  # fmt: skip
    spec = FilterSpec("dkim", kind, kind.Config(**settings))
    chain = FilterChain([spec], store, clock, server=server)

    async def run() -> Any:
        _, state = await chain.connect(ConnectionInfo("s", "smtp", "192.0.2.1", authcid=authcid))
        reverse, recipient = ReversePath(Path.null), Recipient(Path(Address("you", "localhost")))
        await state.mail(reverse)
        await state.rcpt(recipient)
        envelope = Envelope(reverse, [recipient])
        await state.data(envelope)
        sink = store.new_content()
        sink.write(octets)
        return await state.message(await sink.finish(), envelope)

    running = Deferred.fromCoroutine(run())
    while not running.called:
        clock.advance(0)  # the chain lets the reactor have a turn now and then
    outcome: Any = running.result
    if not hasattr(outcome, "content"):
        raise outcome.value
    return outcome.content.read(0, outcome.content.size), dns, outcome


def verified(octets: bytes, records: dict[str, Any] | None = None, **settings: Any) -> str:
    """Authentication-Results as dkim-verify writes it, unfolded."""
    found, _, _ = passed(octets, DKIMVerify, records=records, **settings)
    first = found.replace(b"\r\n\t", b" ").replace(b"\r\n ", b" ").split(b"\r\n")[0].decode()
    assert first.startswith("Authentication-Results: ")
    return " ".join(first.split()).removeprefix("Authentication-Results: ")


def signed(octets: bytes, folder: Folder, authcid: str = "ann@example.org", **settings: Any) -> bytes:
    return passed(octets, DKIMSign, folder=folder, authcid=authcid, **settings)[0]
