"""Stories on their way to the next commit.

A story of a message that is about to be filed waits for the request that brings its content, and goes into the same group: it is durable when the message
is, and knows where the copies went.  All others go with whatever is committed next.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from typing import Final

from livemail.interfaces.story import KeptStory, StoryPlace
from livemail.mail.content import Content
from livemail.mail.ids import UID, AccountId, MailboxId

MAX_PENDING: Final = 4096

Row = tuple[bytes, bytes, bytes]
"""Key, digest of the content the story is about (b"" for none), the story."""

_COUNT: Final = Struct("<H")
_PLACE: Final = Struct("<III")
MAX_PLACES: Final = 1000


def story_key(transaction: str) -> bytes:
    """The key of a transaction's row: seconds, serial number of the session and number of the message, so that keys ascend."""
    session, _, number = transaction.rpartition(".")
    seconds, _, serial = session.partition("-")
    return f"{seconds:0>8}-{serial:0>8}.{number:0>8}".encode()[:500]


class Pending:
    """Stories that are not committed yet.  lost: those that were dropped because nothing was committed for long."""

    def __init__(self) -> None:
        self._with_content: dict[bytes, Row] = {}
        self._others: dict[bytes, Row] = {}
        self._aged: set[bytes] = set()
        self._flying: dict[bytes, Row] = {}
        self.lost = 0

    def __len__(self) -> int:
        return len(self._with_content) + len(self._others)

    def add(self, key: bytes, digest: bytes, story: bytes) -> None:
        """Keep a story; digest b"" for one that waits for no content."""
        if len(self) >= MAX_PENDING:
            self.lost += 1
            return
        if digest:
            self._with_content[digest] = (key, digest, story)
        else:
            self._others[key] = (key, digest, story)

    def get(self, key: bytes) -> KeptStory | None:
        """A story that waits."""
        for row in self._rows():
            if row[0] == key:
                return KeptStory(row[2])
        return None

    def _rows(self) -> list[Row]:
        """The latest first."""
        return [
            *reversed(self._others.values()),
            *reversed(self._with_content.values()),
            *reversed(self._flying.values()),
        ]

    def find(self, text: bytes) -> dict[bytes, KeptStory]:
        """Those that wait and contain some octets, by their keys, the latest last."""
        return {row[0]: KeptStory(row[2]) for row in reversed(self._rows()) if text in row[2]}

    def take(self, contents: Iterable[Content]) -> list[Row]:
        """Return the stories about these contents, and all that wait for none."""
        waiting = self._with_content
        rows = [waiting.pop(content.digest) for content in contents if content.digest in waiting] if waiting else []
        if self._others:
            rows += self._others.values()
            self._others = {}
        self._flying.update((row[0], row) for row in rows)
        return rows

    def landed(self, rows: Iterable[Row]) -> None:
        """What was taken is committed, or lost with the commit."""
        for row in rows:
            if self._flying.get(row[0]) is row:
                del self._flying[row[0]]

    def age(self) -> None:
        """Called now and then: stories that have waited for their contents through two calls go without them."""
        stale = {digest: row for digest, row in self._with_content.items() if digest in self._aged}
        for digest in stale:
            del self._with_content[digest]
        self._others = {row[0]: row for row in stale.values()} | self._others
        self._aged = set(self._with_content)


def pack_kept(story: bytes, places: list[tuple[int, int, int]]) -> bytes:
    """Pack a row of ``story``."""
    some = places[:MAX_PLACES]
    return b"".join((_COUNT.pack(len(some)), *(_PLACE.pack(*place) for place in some), story))


def unpack_kept(row: bytes) -> KeptStory:
    """Unpack a row of ``story``."""
    (count,) = _COUNT.unpack_from(row)
    end = _COUNT.size + count * _PLACE.size
    places = tuple(
        StoryPlace(AccountId(account), MailboxId(mailbox), UID(uid))
        for account, mailbox, uid in _PLACE.iter_unpack(row[_COUNT.size : end])
    )
    return KeptStory(row[end:], places)


def with_places(waiting: KeptStory | None, kept: KeptStory | None) -> KeptStory | None:
    """One story that waits and is kept already: its words are the newer, its places are known to the index."""
    if waiting is None or kept is None:
        return waiting or kept
    return KeptStory(waiting.story, kept.places)
