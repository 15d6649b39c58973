"""What tests over any store need: contents, rows in one list, listeners that remember."""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from livemail.interfaces.storage import FetchWant, IAccount, IChangeListener, IMailStore
from livemail.mail.changes import Change
from livemail.mail.content import Content
from livemail.mail.ids import MailboxId, UIDSet


async def content(store: IMailStore, octets: bytes, chunk: int = 65536) -> Content:
    """Put octets through the store's sink, in chunks."""
    sink = store.new_content(len(octets))
    for offset in range(0, len(octets), chunk):
        sink.write(octets[offset : offset + chunk])
    return await sink.finish()


def message(subject: str = "s", *, body: str = "text", **fields: str) -> bytes:
    """Make a small message; ``message_id="<a@b>"`` becomes the field Message-Id."""
    header = {"from": "a@example.org", "to": "b@example.org", "subject": subject, **fields}
    lines = [f"{name.replace('_', '-').title()}: {value}" for name, value in header.items()]
    return "\r\n".join([*lines, "", body, ""]).encode()


async def fetch_all(account: IAccount, mailbox: MailboxId, uids: UIDSet | None = None, **want: Any) -> dict[str, list]:
    """Collect a whole fetch: rows and the wanted columns, each as one list; ``keywords`` of the last batch."""
    columns: dict[str, list] = {"rows": []}
    async for batch in account.fetch(mailbox, UIDSet.all() if uids is None else uids, FetchWant(**want)):
        columns["rows"].extend(batch.rows)
        for name in ("envelopes", "structures", "prefixes", "fields", "parts", "contents"):
            column = getattr(batch, name)
            if column is not None:
                assert len(column) == len(batch.rows), name
                columns.setdefault(name, []).extend(column)
        columns["keywords"] = list(batch.keywords)
    return columns


async def read_whole(account: IAccount, mailbox: MailboxId, uid: int, piece: int = 1 << 20) -> bytes | None:
    """Read one message through its reader, prefix included; None when it does not exist."""
    reader = await account.open_content(mailbox, uid)
    if reader is None:
        return None
    pieces = [await reader.read(offset, piece) for offset in range(0, reader.size, piece)]
    reader.close()
    return b"".join(pieces)


@implementer(IChangeListener)
class Recorder:
    """A listener that keeps what it is told: (modseq, origin, changes) per call."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, object, list[Change] | None]] = []

    def changed(self, modseq: int, origin: object, changes: Any) -> None:
        self.calls.append((modseq, origin, None if changes is None else list(changes)))

    @property
    def changes(self) -> list[Change]:
        """All changes told so far."""
        return [change for _, _, changes in self.calls for change in changes or ()]
