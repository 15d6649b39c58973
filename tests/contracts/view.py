"""A session's view of an account, kept up to date from the change feed alone."""

from __future__ import annotations

from typing import Any

from zope.interface import implementer

from livemail.interfaces.storage import IChangeListener
from livemail.mail.changes import Added, Expunged, FlagsChanged, MailboxCreated, MailboxDeleted, MailboxRenamed


@implementer(IChangeListener)
class View:
    """UIDs, last told flags, and names of every mailbox; checks the feed's promises while it listens."""

    def __init__(self) -> None:
        self.uids: dict[int, list[int]] = {}
        self.states: dict[int, dict[int, tuple[int, frozenset[str]]]] = {}
        self.names: dict[int, str] = {}
        self.modseq = 0
        self.faults: list[str] = []

    async def start(self, account: Any) -> Any:
        """Listen from now on; what there is, is read first."""
        watch = account.watch(self)
        for box in (await account.mailboxes()).mailboxes:
            selected = await account.select(box.name, False)
            self.names[box.id], self.uids[box.id], self.states[box.id] = box.name, list(selected.uids), {}
        return watch

    def changed(self, modseq: int, origin: object, changes: Any) -> None:
        if modseq < self.modseq:
            self.faults.append(f"told {modseq} after {self.modseq}")
        if changes is None:
            self.faults.append("told to ask")
            return
        for change in changes:
            if not self.modseq <= change.modseq <= modseq:
                self.faults.append(f"{change} told between {self.modseq} and {modseq}")
            self._apply(change)
        self.modseq = modseq

    def _apply(self, change: Any) -> None:
        match change:
            case Added(mailbox, _, uids):
                known = self.uids[mailbox]
                if list(uids) != sorted(set(uids)) or (known and uids[0] <= known[-1]):
                    self.faults.append(f"{change} does not ascend")
                known.extend(uids)
            case FlagsChanged(mailbox, _, rows, keywords):
                for uid, flags, bits in rows:
                    if uid not in self.uids[mailbox]:
                        self.faults.append(f"flags of {uid}, which is not there")
                    named = frozenset(name for bit, name in enumerate(keywords) if bits >> bit & 1)
                    self.states[mailbox][uid] = (flags, named)
            case Expunged(mailbox, _, uids):
                if any(uid not in self.uids[mailbox] for uid in uids):
                    self.faults.append(f"{change} of what is not there")
                self.uids[mailbox] = [uid for uid in self.uids[mailbox] if uid not in uids]
                self.states[mailbox] = {uid: s for uid, s in self.states[mailbox].items() if uid not in uids}
            case MailboxCreated(mailbox, _, name):
                self.names[mailbox], self.uids[mailbox], self.states[mailbox] = name, [], {}
            case MailboxRenamed(mailbox, _, _, name):
                self.names[mailbox] = name
            case MailboxDeleted(mailbox, _, _):
                del self.names[mailbox], self.uids[mailbox], self.states[mailbox]

    async def differences(self, account: Any) -> list[str]:
        """Compare with a fresh look at the store."""
        found = list(self.faults)
        boxes = {box.id: box for box in (await account.mailboxes()).mailboxes}
        if {id_: box.name for id_, box in boxes.items()} != self.names:
            found.append(f"names are {self.names}")
        for id_, box in boxes.items():
            fresh = list((await account.select(box.name, False)).uids)
            if fresh != self.uids.get(id_):
                found.append(f"{box.name} has {fresh}, the view {self.uids.get(id_)}")
        return found
