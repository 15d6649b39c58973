"""Expunged messages of one account in memory, kept for a while."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from struct import Struct
from typing import Final, NamedTuple

from livemail.interfaces.storage import DATE, FLAGS, KEYWORDS, SIZE, UID_
from livemail.interfaces.undelete import DeletedMessage, Kept
from livemail.mail.ids import AccountId
from livemail.storage.memory.mailbox import Mailbox, Message, keyword_names

_KEY: Final = Struct(">IQII")


class KeptMessage(NamedTuple):
    """A message with what its mailbox said of it."""

    message: Message
    mailbox: str
    keywords: tuple[str, ...]


class DeletedMessages:
    """What one account's expunges and deleted mailboxes left."""

    def __init__(self, account: AccountId, seconds: float) -> None:
        """seconds: for which a message is kept, 0 for not at all."""
        self._account = account
        self._seconds = seconds
        self._kept: dict[bytes, KeptMessage] = {}

    def put_by(self, mailbox: Mailbox, uids: Iterable[int], now: int, limit: int) -> None:
        """Keep messages that are about to leave their mailbox.  limit: octets at most, 0 for any number; the oldest go first."""
        if not self._seconds:
            return
        for uid in uids:
            message = mailbox.messages[uid]
            names = tuple(keyword_names(mailbox.keywords, message.row[KEYWORDS]))
            key = _KEY.pack(self._account, now, mailbox.id, uid)
            self._kept[key] = KeptMessage(message, mailbox.name, names)
        self._let_go_old(now)
        surplus = self.total().octets - limit if limit else 0
        for key in sorted(self._kept):
            if surplus <= 0:
                break
            surplus -= self._kept.pop(key).message.row[SIZE]

    def _let_go_old(self, now: int) -> None:
        for key in [key for key in self._kept if _KEY.unpack(key)[1] < now - self._seconds]:
            del self._kept[key]

    def total(self) -> Kept:
        """Return how much is kept."""
        return _sum(self._kept.values())

    def page(self, after: bytes, limit: int) -> list[DeletedMessage]:
        """Return those behind a key, the longest kept first."""
        return [_told(key, self._kept[key]) for key in sorted(key for key in self._kept if key > after)[:limit]]

    def choose(self, keys: Sequence[bytes]) -> dict[bytes, KeptMessage]:
        """Return those that are still kept."""
        return {key: self._kept[key] for key in keys if key in self._kept}

    def let_go(self, keys: Iterable[bytes]) -> Kept:
        """Forget messages; return how much that was."""
        return _sum([self._kept.pop(key) for key in keys if key in self._kept])

    def clear(self) -> None:
        """The account is removed."""
        self._kept.clear()


def _sum(kept: Iterable[KeptMessage]) -> Kept:
    sizes = [each.message.row[SIZE] for each in kept]
    return Kept(len(sizes), sum(sizes))


def _told(key: bytes, kept: KeptMessage) -> DeletedMessage:
    row = kept.message.row
    return DeletedMessage(
        key, _KEY.unpack(key)[1], kept.mailbox, row[UID_], row[SIZE], row[DATE], row[FLAGS], kept.keywords,
        kept.message.body.summary.envelope,
    )  # fmt: skip
