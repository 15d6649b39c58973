"""``use = "dkim-sign"``: mail of our own is signed when it is submitted, once with each key of its domain.

The domain is that of the From field, or the nearest above it that has keys.  An authenticated submitter's mail is signed only when the
From address is one he may speak for: in his own domain, or his by the directory.  Everybody else's is not signed at all, so put
this filter where mail is submitted: ``services = ["submission", "submissions"]``.

Keys are in the folder ``dkim`` of the filters' data; ``livemail dkim create`` makes them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from email.utils import getaddresses
from pathlib import Path
from typing import Any, Final

import msgspec
from twisted.logger import Logger

from livemail.filters.author import Filter, Transaction
from livemail.filters.dkim import streamed
from livemail.filters.dkim.keys import DKIMKeyError, Key, KeyFolder, checked_domain
from livemail.filters.dkim.verify import body_hashes
from livemail.filters.message import Message
from livemail.interfaces.directory import LocalAccount, places_of
from livemail.interfaces.filter import CONTINUE, Verdict
from livemail.mail.address import Address
from livemail.mail.content import Content

SIGNED: Final = (
    b"from", b"sender", b"reply-to", b"subject", b"date", b"message-id", b"to", b"cc", b"mime-version", b"content-type",
    b"content-transfer-encoding", b"content-id", b"content-description", b"in-reply-to", b"references", b"list-id",
    b"list-help", b"list-unsubscribe", b"list-unsubscribe-post", b"list-subscribe", b"list-post", b"list-owner",
    b"list-archive", b"autocrypt",
)  # fmt: skip
"""Fields worth signing.  RFC 6376 §5.4.1."""

FOLDER: Final = "dkim"


class DKIMSign(Filter):
    """Signs submitted mail."""

    class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
        """How mail is signed.

        oversign: fields signed once more than they occur, so that none can be added behind the signature; From always is.
        signing_domains: signed for, of those that have keys; empty is all of them.  check_author: see the module's text.
        """

        oversign: tuple[str, ...] = ("from", "sender", "reply-to", "subject", "date", "to", "cc")
        signing_domains: tuple[str, ...] = ()
        check_author: bool = True

        def faults(self) -> Iterator[tuple[str, str]]:
            """What the types cannot say."""
            for name in self.oversign:
                if name.lower().encode("utf-8") not in SIGNED:
                    yield (
                        "oversign",
                        f'has "{name}", which is not signed; allowed are {", ".join(map(bytes.decode, SIGNED))}',
                    )
            for domain in self.signing_domains:
                try:
                    checked_domain(domain)
                except DKIMKeyError as error:
                    yield "signing_domains", f"has a fault: {error}"

    log = Logger()

    @classmethod
    def start(cls, config: Any, server: Any) -> KeyFolder:  # noqa: ARG003
        """The keys, which all objects share."""
        if not server.folder:
            raise RuntimeError("dkim-sign needs a data folder for its keys")
        return KeyFolder(Path(server.folder) / FOLDER)

    async def message(self, tx: Transaction, message: Message) -> Verdict:
        """See `Filter.message`."""
        author = author_of(message)
        if author is None or not tx.connection.authcid:
            return CONTINUE
        keys = self._keys(author.domain)
        if not keys:
            return CONTINUE
        if self.config.check_author and not await self._speaks_for(tx.connection.authcid, author):
            self.log.warn(
                "{session} not signed: {login} does not own {author}",
                session=tx.connection.session,
                login=tx.connection.authcid,
                author=str(author),
            )
            return CONTINUE
        run = self.server.run_blocking
        names = names_to_sign(message.fields, self.config.oversign)
        now = self.server.now()
        arguments = (message.content, message.fields, keys, names, now)
        for value in await run(_signatures, *arguments) if run is not None else _signatures(*arguments):
            message.insert_header("DKIM-Signature", value)
        return CONTINUE

    def _keys(self, domain: str) -> list[Key]:
        """Those of the domain, or of the nearest above it that has any.  Raises DKIMKeyError: a broken key defers."""
        folder: KeyFolder = self.shared
        allowed = {checked_domain(each) for each in self.config.signing_domains}
        try:
            name = checked_domain(domain)
        except DKIMKeyError:
            return []
        while name:
            if not allowed or name in allowed:
                keys = folder.keys(name)
                if keys:
                    return keys
            name = name.partition(".")[2]
        return []

    async def _speaks_for(self, authcid: str, author: Address) -> bool:
        if author.domain.lower() == authcid.rpartition("@")[2].lower():
            return True
        if self.server.directory is None:
            return False
        found = places_of(await self.server.directory.resolve(author))
        return any(isinstance(place, LocalAccount) and place.name.lower() == authcid.lower() for place in found)


def author_of(message: Message) -> Address | None:
    """The From field's only address; None when there is none, or more than one of either."""
    values = message.values("From")
    if len(values) != 1 or len(values[0]) > 10_000:
        return None
    found = getaddresses([values[0].decode("utf-8", "replace")])
    local, at, domain = found[0][1].rpartition("@") if len(found) == 1 else ("", "", "")
    return Address(local, domain.lower()) if at and local and domain else None


def names_to_sign(fields: list[tuple[bytes, bytes]], oversign: tuple[str, ...]) -> list[bytes]:
    """Names for h=: each as often as it occurs, up to a limit, and those of ``oversign`` and From once more."""
    occurs = Counter(name.lower() for name, _ in fields if name.lower() in SIGNED)
    more = {name.lower().encode() for name in oversign} | {b"from"}
    names: list[bytes] = []
    for name in SIGNED:
        names += [name] * (min(occurs[name], 5) + (1 if name in more else 0))
    return names


def _signatures(
    content: Content, fields: list[tuple[bytes, bytes]], keys: list[Key], names: list[bytes], now: float
) -> list[bytes]:
    """In a thread: hash the body once, sign the header with each key."""
    body, _ = body_hashes(content, {"relaxed"})["relaxed"]
    return [streamed.sign(fields, body, key, names, now) for key in keys]
