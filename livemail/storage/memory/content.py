"""Content in memory: the sink that collects a message, the Content it makes, and the Body that a store keeps.

One Body serves every copy of a message in every account; a store finds it again by its keyed digest.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

from zope.interface import implementer

from livemail.interfaces.storage import IContentReader, IContentSink
from livemail.mail.content import Content, chunks
from livemail.mail.errors import TooBig
from livemail.mail.message.outline import Outlined
from livemail.mail.message.scanner import Scanner
from livemail.mail.message.summary import Summary

DIGEST_OCTETS: Final = 16


class Body:
    """The octets of a message as stored, shared by all its copies."""

    __slots__ = ("__weakref__", "digest", "octets", "summary")

    def __init__(self, octets: bytes, digest: bytes, summary: Summary) -> None:
        self.octets: Final = octets
        self.digest: Final = digest
        self.summary: Final = summary

    @classmethod
    def of(cls, content: Content) -> Body:
        """Take the octets of any content; those of a `MemoryContent` are not copied."""
        if isinstance(content, MemoryContent):
            return cls(content.read(0, content.size), content.digest, content.summary)
        return cls(b"".join(chunks(content)), content.digest, content.summary)

    @classmethod
    def made(cls, octets: bytes, key: bytes, summary: Summary) -> Body:
        """Take octets the store wrote itself.  key: of the digest."""
        return cls(octets, blake2b(octets, key=key, digest_size=DIGEST_OCTETS).digest(), summary)


class MemoryContent:
    """Complete content whose octets are one bytes object."""

    __slots__ = ("_octets", "digest", "size", "summary")

    def __init__(self, octets: bytes, digest: bytes, summary: Summary) -> None:
        self._octets = octets
        self.size = len(octets)
        self.digest = digest
        self.summary = summary

    @property
    def outline(self) -> Outlined:
        """See `livemail.mail.content.Content.outline`."""
        return self.summary

    def read(self, offset: int, length: int) -> bytes:
        """Return the octets [offset, offset+length), fewer at the end; the same object when that is all of them."""
        return self._octets[offset : offset + length]

    def close(self) -> None:
        """Give back the memory, unless a store keeps the octets."""
        self._octets = b""


@implementer(IContentSink)
class MemorySink:
    """Collects one message's octets; hashed and scanned while they come."""

    def __init__(self, key: bytes, limit: int) -> None:
        """key: of the digest, at most 64 octets.  limit: octets of the largest content taken."""
        self.size = 0
        self._limit = limit
        self._chunks: list[bytes] = []
        self._hash = blake2b(key=key, digest_size=DIGEST_OCTETS)
        self._scanner = Scanner()
        self._is_open = True

    def write(self, chunk: bytes) -> None:
        """Take the next octets.  Raises TooBig over the limit; what came before is kept until `abort`."""
        if not self._is_open:
            raise RuntimeError("write to a finished or aborted content")
        if self.size + len(chunk) > self._limit:
            raise TooBig
        self.size += len(chunk)
        self._chunks.append(chunk)
        self._hash.update(chunk)
        self._scanner.feed(chunk)

    async def finish(self) -> Content:
        """Return the content."""
        if not self._is_open:
            raise RuntimeError("finish of a finished or aborted content")
        self._is_open = False
        octets = b"".join(self._chunks)
        self._chunks = []
        return MemoryContent(octets, self._hash.digest(), self._scanner.finish())

    def abort(self) -> None:
        """Forget everything."""
        self._is_open = False
        self._chunks = []


@implementer(IContentReader)
class BodyReader:
    """Reads one message; holds its body, so that an expunge does not matter."""

    def __init__(self, prefix: bytes, body: Body) -> None:
        self.size = len(prefix) + len(body.octets)
        self.prefix_size = len(prefix)
        self._prefix = prefix
        self._octets = body.octets

    async def read(self, offset: int, length: int) -> bytes:
        """Return the octets [offset, offset+length) of prefix + content, fewer at the end."""
        start = offset - self.prefix_size
        if start >= 0:
            return self._octets[start : start + length]
        return self._prefix[offset : offset + length] + self._octets[: max(0, start + length)]

    def close(self) -> None:
        """Give back the octets."""
        self._prefix = self._octets = b""
