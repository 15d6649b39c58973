"""The committer's ledger: what accounts, domains and the store may hold, and what the latter two hold.

The committer is the only one that changes a store, one transaction after the other, so what it decides is exact however many
sessions ask at once.  An account's counters lie in the index.  Those of domains and of the store are sums over accounts:
counted once, with the first transaction, then moved with every commit.  What the transaction under way adds is kept
apart, so that throwing it away is enough.  Without quotas of domains or the store nothing of this is done.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

from livemail.mail.errors import NoSuchAccount
from livemail.storage.lmdb.records import ACCOUNT_COUNTERS, U32, unpack_account
from livemail.storage.lmdb.rows import Transaction
from livemail.storage.lmdb.schema import Tables
from livemail.storage.quota import STORE, Limits, Quotas, whose

if TYPE_CHECKING:
    from livemail.storage.lmdb.operations.group import AccountState


class Due(NamedTuple):
    """An account whose owner is to be told."""

    account: AccountState
    name: str
    limits: Limits


class Ledger:
    """What may be held, for one committer.  notes: (level, text) of the transaction under way, for the log."""

    def __init__(self, quotas: Quotas) -> None:
        self.quotas = quotas
        self.is_idle = quotas.is_idle
        self.has_totals = bool(quotas.totals)
        self.notes: list[tuple[str, str]] = []
        self._txn: Transaction = None
        self._tables: Tables | None = None
        self._is_under_way = False
        self._names: dict[int, str] = {}
        self._totals: dict[str, list[int]] | None = None
        self._moved: dict[str, list[int]] = {}

    # -------------------------------------------------------------------------------------------- transactions

    def begin(self, txn: Transaction, tables: Tables) -> None:
        """A write transaction begins; one that was begun before and not committed was thrown away."""
        if self._is_under_way:
            # An id that was given in vain is given again, to another name.
            self._names.clear()
        self._is_under_way = True
        self._txn, self._tables = txn, tables
        self._moved = {}
        self.notes = []
        if self.has_totals and self._totals is None:
            self._totals = self._counted()

    def commit(self) -> None:
        """The transaction is committed."""
        self._is_under_way = False
        for name, (octets, messages) in self._moved.items():
            assert self._totals is not None
            total = self._totals[name]
            total[0] += octets
            total[1] += messages

    def forget(self) -> None:
        """The counters are changed by something that tells nobody: count again."""
        self._totals = None

    def _counted(self) -> dict[str, list[int]]:
        assert self._tables is not None
        totals = {name: [0, 0] for name in self.quotas.totals}
        for key, row in self._txn.cursor(self._tables.acnt).iternext():
            _, octets, messages, *_ = ACCOUNT_COUNTERS.unpack(row)
            for name in self._totals_of(U32.unpack(key)[0]):
                totals[name][0] += octets
                totals[name][1] += messages
        return totals

    # ------------------------------------------------------------------------------------------------- limits

    def name(self, account: int) -> str:
        """Return an account's login.  Raises NoSuchAccount."""
        name = self._names.get(account)
        if name is None:
            assert self._tables is not None
            row = self._txn.get(U32.pack(account), db=self._tables.acct)
            if row is None:
                raise NoSuchAccount
            name = self._names[account] = unpack_account(row).name
        return name

    def limits(self, account: int) -> Limits:
        """Return an account's limits."""
        quotas = self.quotas
        return quotas.default if quotas.is_uniform else quotas.of_account(self.name(account))

    def _totals_of(self, account: int) -> list[str]:
        """Return whose totals count an account: its domain's and the store's, those that are limited."""
        totals = self.quotas.totals
        found = [STORE] if STORE in totals else []
        if len(totals) > len(found):
            domain = self.name(account).rpartition("@")[2]
            if domain and domain in totals:
                found.append(domain)
        return found

    def _total(self, name: str) -> tuple[int, int]:
        assert self._totals is not None
        octets, messages = self._totals[name]
        more_octets, more_messages = self._moved.get(name, (0, 0))
        return octets + more_octets, messages + more_messages

    def check(self, account: AccountState, octets: int, messages: int) -> None:
        """Raise OverQuota when the account, its domain or the store cannot hold so much more."""
        if self.is_idle:
            return
        quotas = self.quotas
        limits = quotas.default if quotas.is_uniform else quotas.of_account(self.name(account.id))
        if not limits.allow(account.octets + octets, account.messages + messages):
            quotas.refuse(self.name(account.id), limits, (account.octets, account.messages), (octets, messages))
        if self.has_totals:
            for name in self._totals_of(account.id):
                quotas.refuse(whose(name), quotas.totals[name], self._total(name), (octets, messages))

    def move(self, account: int, octets: int, messages: int) -> None:
        """An account holds so much more, or less."""
        for name in self._totals_of(account):
            moved = self._moved.setdefault(name, [0, 0])
            moved[0] += octets
            moved[1] += messages

    # ------------------------------------------------------------------------------------------------ warnings

    def due(self, accounts: Iterable[AccountState]) -> list[Due]:
        """Note which accounts cross the warning's percentage; return those that go up."""
        quotas = self.quotas
        if self.is_idle or not quotas.warning_percent:
            return []
        found = []
        for account in accounts:
            limits = self.limits(account.id)
            if limits.is_none:
                continue
            _, octets, messages, *_ = ACCOUNT_COUNTERS.unpack(account.row)
            if (octets, messages) == (account.octets, account.messages):
                continue
            name = self.name(account.id)
            note = quotas.crossing(name, limits, (octets, messages), (account.octets, account.messages))
            if note is not None:
                self.notes.append(note)
                if note[0] == "warn":
                    found.append(Due(account, name, limits))
        return found

    def note_totals(self) -> None:
        """Note which domains cross it, and whether the store does."""
        for name in self._moved:
            assert self._totals is not None
            octets, messages = self._totals[name]
            note = self.quotas.crossing(whose(name), self.quotas.totals[name], (octets, messages), self._total(name))
            if note is not None:
                self.notes.append(note)
