"""Rates: how many messages, and recipients, one account or one network may hand in within a time.

The counts are a sliding window of two halves: what was counted in the period before counts as much as it still overlaps.  They live
in the server's memory; a restart forgets them.  Nobody's count grows without bound, and of the many the longest quiet go first.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any, Literal

import msgspec

from livemail.filters import CONTINUE, Defer, Filter, Recipient, Reject, ReversePath, Server, Transaction, Verdict


class Window:
    """Counts by key over a sliding period."""

    def __init__(self, period: float, entries: int) -> None:
        self._period = period
        self._entries = entries
        self._counts: dict[str, tuple[float, int, int]] = {}

    def count(self, key: str, now: float) -> float:
        """What was counted within the last period, nearly."""
        began, current, before = self._counts.get(key, (now, 0, 0))
        passed = now - began
        if passed >= 2 * self._period:
            return 0.0
        if passed >= self._period:
            return current * (2 - passed / self._period)
        return current + before * (1 - passed / self._period)

    def add(self, key: str, now: float) -> None:
        """Count one more."""
        began, current, before = self._counts.pop(key, (now, 0, 0))
        passed = now - began
        if passed >= 2 * self._period:
            began, current, before = now, 0, 0
        elif passed >= self._period:
            began, current, before = began + self._period, 0, current
        self._counts[key] = (began, current + 1, before)
        while len(self._counts) > self._entries:
            del self._counts[next(iter(self._counts))]


class Rates(Filter):
    """Refuse for now what is more than allowed."""

    class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
        """by: whose count: the account that logged in, the peer's network (an IPv4 address, an IPv6 /64), or the reverse-path.

        max_messages, max_recipients: within period seconds; 0 is no limit.  exempt: accounts, networks or addresses that are
        not counted.  action: "defer" says try later, "reject" refuses for good.  entries: keys that are remembered.
        """

        by: Literal["account", "peer", "sender"] = "account"
        max_messages: int = 0
        max_recipients: int = 0
        period: float = 3600.0
        exempt: frozenset[str] = frozenset()
        action: Literal["defer", "reject"] = "defer"
        entries: int = 100_000

        def faults(self) -> Iterable[tuple[str, str]]:
            """Limits that are none."""
            if not self.max_messages and not self.max_recipients:
                yield "max_messages", "is 0 and so is `max_recipients`; write at least one"
            if self.period <= 0:
                yield "period", 'must be longer than 0; write a time such as "1 h"'
            if self.entries < 1:
                yield "entries", "must be 1 or more"
            if self.by == "peer":
                for each in self.exempt:
                    try:
                        ipaddress.ip_network(each, strict=False)
                    except ValueError:
                        yield "exempt", f'names "{each}", which is no network; write one such as "192.0.2.0/24"'

    @classmethod
    def start(cls, config: Any, server: Server) -> tuple[Window, Window]:  # noqa: ARG003
        """Windows of messages and of recipients, shared by all services."""
        return Window(config.period, config.entries), Window(config.period, config.entries)

    def _key(self, tx: Transaction) -> str:
        """Whose count it is, "" for nobody's."""
        config = self.config
        if config.by == "account":
            key = tx.connection.authcid.lower()
        elif config.by == "sender":
            address = tx.reverse_path.path.address if tx.reverse_path is not None else None
            key = str(address).lower() if address is not None else ""
        else:
            return self._network(tx.connection.peer)
        return "" if key in config.exempt else key

    def _network(self, peer: str) -> str:
        try:
            address = ipaddress.ip_address(peer)
        except ValueError:
            return ""
        if any(address in network for network in self._exempt_networks()):
            return ""
        return str(ipaddress.ip_network(f"{peer}/64", strict=False)) if address.version == 6 else peer

    def _exempt_networks(self) -> Iterable[Any]:
        for each in self.config.exempt:
            network = ipaddress.ip_network(each, strict=False)
            yield network

    def _refusal(self, what: str, limit: int) -> Verdict:
        text = f"More than {limit} {what} in {self.config.period:g} s"
        if self.config.action == "reject":
            return Reject("5.7.1", text)
        return Defer("4.7.1", f"{text}, try again later", code=450)

    async def mail(self, tx: Transaction, reverse_path: ReversePath) -> Verdict:
        """One message more is too many."""
        limit = self.config.max_messages
        key = self._key(tx) if limit else ""
        if key and self.shared[0].count(key, self._now()) + 1 > limit:
            return self._refusal("messages", limit)
        return CONTINUE

    async def rcpt(self, tx: Transaction, recipient: Recipient) -> Verdict:
        """One recipient more is too many; each is counted when it is named."""
        limit = self.config.max_recipients
        key = self._key(tx) if limit else ""
        if not key:
            return CONTINUE
        now = self._now()
        if self.shared[1].count(key, now) + 1 > limit:
            return self._refusal("recipients", limit)
        self.shared[1].add(key, now)
        return CONTINUE

    async def data(self, tx: Transaction) -> Verdict:
        """The message is coming: it counts."""
        key = self._key(tx) if self.config.max_messages else ""
        if key:
            self.shared[0].add(key, self._now())
        return CONTINUE

    def _now(self) -> float:
        reactor = self.server.reactor
        return float(reactor.seconds()) if reactor is not None else self.server.now()
