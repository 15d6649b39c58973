"""DNS that says what a test wants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zope.interface import implementer

from livemail.interfaces.relay import Answer, IResolver
from livemail.mail.errors import MailError


@implementer(IResolver)
class TestResolver:
    """Answers from tables; a name nobody wrote down does not exist.

        resolver.set("example.org", mx=[(10, "mx.example.org")], txt=[b"v=spf1 -all"])
        resolver.set("mx.example.org", addresses=["192.0.2.1"])
        resolver.fail("slow.example.org")

    asked: (kind, name) of every question, in order.
    """

    __test__ = False

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self._names: dict[str, dict[str, tuple[Any, ...]]] = {}
        self._failing: set[str] = set()

    def set(self, name: str, **records: Sequence[Any]) -> None:
        """Say what a name has; kinds: mx, addresses, txt, ptr (name: an address), tlsa."""
        known = self._names.setdefault(name.lower(), {})
        for kind, values in records.items():
            if kind not in {"mx", "addresses", "txt", "ptr", "tlsa"}:
                raise TypeError(f"{kind} is no kind of record; there are mx, addresses, txt, ptr, tlsa")
            known[kind] = tuple(values)

    def fail(self, name: str) -> None:
        """Let no server answer for a name (451 4.4.3)."""
        self._failing.add(name.lower())

    def reload(self) -> None:
        """There is no file to read again."""

    def _answer(self, kind: str, name: str) -> Answer:
        self.asked.append((kind, name))
        if name.lower() in self._failing:
            raise MailError("Name servers do not answer", code=451, enhanced="4.4.3", reason=f"{kind} of {name}")
        known = self._names.get(name.lower())
        return Answer((known or {}).get(kind, ()), exists=known is not None, canonical=name)

    async def mx(self, name: str) -> Answer:
        """See `IResolver.mx`."""
        return self._answer("mx", name)

    async def addresses(self, name: str, families: Sequence[int] = (6, 4)) -> Answer:
        """See `IResolver.addresses`."""
        found = self._answer("addresses", name)
        wanted = [each for family in families for each in found.records if (":" in str(each)) == (family == 6)]
        return Answer(tuple(wanted), exists=found.exists, canonical=name)

    async def txt(self, name: str) -> Answer:
        """See `IResolver.txt`."""
        return self._answer("txt", name)

    async def ptr(self, address: str) -> Answer:
        """See `IResolver.ptr`."""
        return self._answer("ptr", address)

    async def tlsa(self, name: str) -> Answer:
        """See `IResolver.tlsa`."""
        return self._answer("tlsa", name)
