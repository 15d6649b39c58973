"""What one account of a store must look like, in the plainest code: lists, sets and no thought of speed.

Independent of every back end: nothing of `livemail.storage` is used.  ModSeqs are the store's own choice; the model takes the
one of each command from the store (`stamp`), after checking that it is higher than all before.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from livemail.mail.errors import InvalidName, MailboxExists, MailError, NoSuchMailbox, NotPermitted
from livemail.mail.flags import DELETED, SEEN

NEW = {
    "INBOX": "",
    "Drafts": "\\Drafts",
    "Sent": "\\Sent",
    "Junk": "\\Junk",
    "Trash": "\\Trash",
    "Archive": "\\Archive",
}


@dataclass(eq=False)
class ModelMessage:
    """One message in one mailbox; keywords lower-case."""

    uid: int
    octets: bytes
    flags: int
    keywords: frozenset[str]
    date: int
    zone: int
    origin: int
    modseq: int = 0


@dataclass(eq=False)
class ModelMailbox:
    """One mailbox.  gone: (uid, modseq) of what was expunged."""

    name: str
    special_use: str = ""
    messages: list[ModelMessage] = field(default_factory=list)
    uid_next: int = 1
    recent_from: int = 1
    gone: list[tuple[int, int]] = field(default_factory=list)
    highest: int = 0

    def named(self, uids: set[int]) -> list[ModelMessage]:
        return [message for message in self.messages if message.uid in uids]

    def counters(self) -> tuple[int, int, int, int]:
        """exists, unseen, deleted, size."""
        return (
            len(self.messages),
            len([m for m in self.messages if not m.flags & SEEN]),
            len([m for m in self.messages if m.flags & DELETED]),
            sum(len(m.octets) for m in self.messages),
        )


class Model:
    """One account.  After every command, what it touched waits in ``touched`` for `stamp`."""

    def __init__(self) -> None:
        self.boxes = {name: ModelMailbox(name, special_use) for name, special_use in NEW.items()}
        self.subscribed = set(NEW)
        self.highest = 0
        self.origins = 0
        self.touched: list[ModelMessage] = []
        self.expunged: list[tuple[ModelMailbox, int]] = []
        self.kept: list[tuple[str, ModelMessage]] = []
        """What was expunged and can come back: where it was, and what it was then."""

    def box(self, name: str) -> ModelMailbox:
        if name not in self.boxes:
            raise NoSuchMailbox
        return self.boxes[name]

    def stamp(self, box: ModelMailbox, modseq: int) -> None:
        """The command that just ran had this ModSeq, and this mailbox was among those it changed."""
        assert modseq > self.highest or (modseq == self.highest and box.highest < modseq)
        self.highest = box.highest = modseq
        for message in self.touched:
            if message in box.messages:
                message.modseq = modseq
        box.gone += [(uid, modseq) for where, uid in self.expunged if where is box]

    def done(self) -> None:
        self.touched, self.expunged = [], []

    def create(self, name: str) -> None:
        if name in self.boxes:
            raise MailboxExists
        parts = name.split("/")
        for depth in range(len(parts)):
            above = "/".join(parts[: depth + 1])
            if above not in self.boxes:
                self.boxes[above] = ModelMailbox(above)

    def delete(self, name: str) -> None:
        self.box(name)
        if name == "INBOX" or any(other.startswith(name + "/") for other in self.boxes):
            raise NotPermitted
        self.kept += [(name, replace(message)) for message in self.boxes[name].messages]
        del self.boxes[name]

    def rename(self, old: str, new: str) -> None:
        box = self.box(old)
        if new in self.boxes:
            raise MailboxExists
        if old == "INBOX":
            self.create(new)
            self._transfer(box, {m.uid for m in box.messages}, self.boxes[new], is_move=True)
            return
        if new.startswith(old + "/"):
            raise NotPermitted
        family = [name for name in self.boxes if name == old or name.startswith(old + "/")]
        if any((new + name[len(old) :]).count("/") >= 32 for name in family):
            raise InvalidName
        moved = {new + name[len(old) :]: self.boxes.pop(name) for name in family}
        parts = new.split("/")[:-1]
        if parts and "/".join(parts) not in self.boxes:
            self.create("/".join(parts))
        for name, each in moved.items():
            each.name = name
            self.boxes[name] = each

    def subscribe(self, name: str, wish: bool) -> None:
        if wish:
            self.subscribed.add(name)
        else:
            self.subscribed.discard(name)

    def add(self, name: str, octets: bytes, flags: int, keywords: set[str], date: int, zone: int) -> int:
        box = self.box(name)
        self.origins += 1
        folded = frozenset(k.lower() for k in keywords)
        message = ModelMessage(box.uid_next, octets, flags, folded, date, zone, self.origins)
        box.messages.append(message)
        box.uid_next += 1
        self.touched.append(message)
        return message.uid

    def store(
        self, name: str, uids: set[int], op: str, flags: int, keywords: set[str], since: int | None
    ) -> tuple[list[int], set[int]]:
        """Return the UIDs the condition allowed, and those it refused."""
        allowed, refused = [], set()
        words = frozenset(k.lower() for k in keywords)
        for message in self.box(name).named(uids):
            if since is not None and message.modseq > since:
                refused.add(message.uid)
                continue
            allowed.append(message.uid)
            before = (message.flags, message.keywords)
            if op == "add":
                after = (message.flags | flags, message.keywords | words)
            elif op == "remove":
                after = (message.flags & ~flags, message.keywords - words)
            else:
                after = (flags, words)
            message.flags, message.keywords = after
            if before != after:
                self.touched.append(message)
        return allowed, refused

    def transfer(self, name: str, uids: set[int], target: str, *, is_move: bool) -> list[tuple[int, int]]:
        """COPY or MOVE; return (source, target) UIDs."""
        return self._transfer(self.box(name), uids, self.box(target), is_move=is_move)

    def _transfer(
        self, source: ModelMailbox, uids: set[int], to: ModelMailbox, *, is_move: bool
    ) -> list[tuple[int, int]]:
        pairs = []
        for message in source.named(uids):
            copy = replace(message, uid=to.uid_next)
            to.uid_next += 1
            to.messages.append(copy)
            self.touched.append(copy)
            pairs.append((message.uid, copy.uid))
        if is_move:
            self._remove(source, {uid for uid, _ in pairs})
        return pairs

    def expunge(self, name: str, uids: set[int] | None, *, only_deleted: bool) -> set[int]:
        box = self.box(name)
        chosen = {
            m.uid for m in box.messages if (uids is None or m.uid in uids) and (not only_deleted or m.flags & DELETED)
        }
        self.kept += [(name, replace(message)) for message in box.named(chosen)]
        self._remove(box, chosen)
        return chosen

    def take_back(self, kept: tuple[str, ModelMessage], into: str) -> int:
        """Undelete one; return its new UID."""
        if into not in self.boxes:
            self.create(into)
        self.kept.remove(kept)
        box = self.boxes[into]
        back = replace(kept[1], uid=box.uid_next, flags=kept[1].flags & ~DELETED, modseq=0)
        box.uid_next += 1
        box.messages.append(back)
        self.touched.append(back)
        return back.uid

    def _remove(self, box: ModelMailbox, uids: set[int]) -> None:
        box.messages = [m for m in box.messages if m.uid not in uids]
        self.expunged += [(box, uid) for uid in sorted(uids)]

    def changes(self, name: str, since: int) -> tuple[set[int], set[int]]:
        """UIDs that exist and changed, UIDs that vanished."""
        box = self.box(name)
        return {m.uid for m in box.messages if m.modseq > since}, {uid for uid, at in box.gone if at > since}

    def outcome(self, name: str, *args: object, **kwargs: object) -> object:
        """Return what a method returns, or the class of its refusal."""
        try:
            return getattr(self, name)(*args, **kwargs)
        except MailError as refusal:
            return type(refusal)
