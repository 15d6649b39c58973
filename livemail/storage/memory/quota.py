"""Quotas of the memory back end: every call is one transaction, so what is asked here is exact."""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.logger import Logger, LogLevel

from livemail.interfaces.runtime import Now
from livemail.mail.message.scanner import Scanner
from livemail.mail.names import INBOX
from livemail.storage.memory.content import Body
from livemail.storage.quota import STORE, Limits, Quotas, quota_warning, whose

if TYPE_CHECKING:
    from livemail.storage.memory.state import AccountState

log = Logger(namespace="livemail.storage.memory")


class MemoryLedger:
    """What may be held, and what domains and the store hold."""

    def __init__(self, quotas: Quotas, key: bytes, now: Now) -> None:
        """key: of the digests."""
        self.quotas = quotas
        self._is_idle = quotas.is_idle
        self._key = key
        self._now = now
        self._totals = dict.fromkeys(quotas.totals, (0, 0))

    def limits(self, account: AccountState) -> Limits:
        """Return an account's limits."""
        return self.quotas.of_account(account.record.name)

    def _totals_of(self, account: AccountState) -> list[str]:
        domain = account.record.name.rpartition("@")[2]
        return [name for name in dict.fromkeys((domain, STORE)) if name in self._totals]

    def check(self, account: AccountState, octets: int, messages: int) -> None:
        """Raise OverQuota when the account, its domain or the store cannot hold so much more."""
        if self._is_idle:
            return
        quotas = self.quotas
        quotas.refuse(account.record.name, self.limits(account), account.usage(), (octets, messages))
        for name in self._totals_of(account):
            quotas.refuse(whose(name), quotas.totals[name], self._totals[name], (octets, messages))

    def settle(self, account: AccountState) -> None:
        """A command is done: take its part into the totals, and warn where one got nearly full."""
        if self._is_idle:
            return
        before, after = account.settled, account.usage()
        if before == after:
            return
        account.settled = after
        quotas = self.quotas
        for name in self._totals_of(account):
            was = self._totals[name]
            total = self._totals[name] = (was[0] + after[0] - before[0], was[1] + after[1] - before[1])
            self._note(quotas.crossing(whose(name), quotas.totals[name], was, total))
        if account.is_removed:
            return
        note = quotas.crossing(account.record.name, self.limits(account), before, after)
        self._note(note)
        if note is not None and note[0] == "warn":
            self._warn(account, after)

    def _note(self, note: tuple[str, str] | None) -> None:
        if note is not None:
            log.emit(LogLevel.lookupByName(note[0]), "{text}", text=note[1])

    def _warn(self, account: AccountState, used: tuple[int, int]) -> None:
        """File the message past the quota: it makes the account fuller, so it is no reason for another."""
        now, record = int(self._now()), account.record
        octets = quota_warning(self.quotas, (record.name, record.id), self.limits(account), used, now, account.modseq)
        scanner = Scanner()
        scanner.feed(octets)
        body = Body.made(octets, self._key, scanner.finish())
        account.add_delivered(INBOX, [], body, b"", 0, now, now)
