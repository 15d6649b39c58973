"""What accounts, domains and the store may hold, and the words about it: what every back end has in common.

The limits of an account are its own table's, else its domain's, else [storage]'s.  A domain as a whole and the store have limits
of their own on top.  A limit of 0 is none.

Crossing the warning's percentage is a fact of one commit: below before, at or above it after, or the other way round.  Nothing
is remembered for it, so a restart neither forgets nor repeats a warning.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from typing import Final, Self

import msgspec

from livemail.interfaces.quota import QuotaUse
from livemail.mail.domains import domain_key
from livemail.mail.errors import OverQuota
from livemail.storage.placement import PlacementSettings
from livemail.storage.settings import StorageSettings

STORE: Final = ""
"""What the store is called among domains."""


class Limits(msgspec.Struct, frozen=True):
    """Octets, messages and mailboxes at most; 0 for no limit."""

    octets: int = 0
    messages: int = 0
    mailboxes: int = 0

    @property
    def is_none(self) -> bool:
        """Whether any number of octets and messages fits."""
        return not self.octets and not self.messages

    def allow(self, octets: int, messages: int) -> bool:
        """Whether so much fits."""
        return not ((self.octets and octets > self.octets) or (self.messages and messages > self.messages))

    def is_reached(self, percent: int, octets: int, messages: int) -> bool:
        """Whether so much is the warning's percentage of a limit, or more."""
        return bool(self.octets and octets * 100 >= percent * self.octets) or bool(
            self.messages and messages * 100 >= percent * self.messages
        )

    def percent(self, octets: int, messages: int) -> int:
        """Return how full it is, by what is fuller: whole percents, rounded down."""
        return max(
            octets * 100 // self.octets if self.octets else 0, messages * 100 // self.messages if self.messages else 0
        )


class Quotas(msgspec.Struct, frozen=True):
    """Every limit of a configuration.

    default: of accounts.  domains, accounts: of the accounts of a domain, and of single ones, complete.  totals: of domains
    as a whole, and of the store under `STORE`; those without a limit are left out.  warning_percent: 0 for no warnings.
    is_temporary: what is over quota is refused for now.
    """

    default: Limits = Limits()
    domains: Mapping[str, Limits] = {}
    accounts: Mapping[str, Limits] = {}
    totals: Mapping[str, Limits] = {}
    warning_percent: int = 90
    is_temporary: bool = False

    @classmethod
    def of(
        cls,
        settings: StorageSettings,
        domains: tuple[PlacementSettings, ...] = (),
        accounts: tuple[PlacementSettings, ...] = (),
    ) -> Self:
        """Read the settings."""
        default = Limits(settings.account_quota, settings.account_messages, settings.max_mailboxes)
        by_domain = {table.name.lower(): _over(default, table) for table in domains}
        totals = {table.name.lower(): Limits(table.quota_total, table.messages_total) for table in domains}
        totals[STORE] = Limits(settings.store_quota, settings.store_messages)
        by_account = {
            table.name.lower(): _over(by_domain.get(table.name.lower().rpartition("@")[2], default), table)
            for table in accounts
        }
        return cls(
            default,
            by_domain,
            by_account,
            {name: limits for name, limits in totals.items() if not limits.is_none},
            settings.quota_warning_percent,
            settings.over_quota == "try_later",
        )

    @property
    def is_uniform(self) -> bool:
        """Whether an account's name makes no difference."""
        return not self.domains and not self.accounts

    @property
    def is_idle(self) -> bool:
        """Whether octets and messages are limited nowhere."""
        every = (self.default, *self.domains.values(), *self.accounts.values())
        return not self.totals and all(limits.is_none for limits in every)

    def of_account(self, name: str) -> Limits:
        """Return an account's limits.  name: canonical login."""
        return self.accounts.get(name) or self.domains.get(name.rpartition("@")[2]) or self.default

    def refuse(self, what: str, limits: Limits, used: tuple[int, int], more: tuple[int, int]) -> None:
        """Raise OverQuota when there is no room.  what: for the log.  used, more: octets and messages."""
        if limits.allow(used[0] + more[0], used[1] + more[1]):
            return
        reason = f"{what} has {_of(used[0], limits.octets, 'octets')}, {_of(used[1], limits.messages, 'messages')}"
        reason += f"; {more[0]:,} octets, {more[1]:,} messages more were asked for"
        if self.is_temporary:
            raise OverQuota(reason=reason, code=452, enhanced="4.2.2")
        raise OverQuota(reason=reason)

    def crossing(
        self, what: str, limits: Limits, before: tuple[int, int], after: tuple[int, int]
    ) -> tuple[str, str] | None:
        """Return (level, text) for the log when the warning's percentage lies between; None when it does not."""
        percent = self.warning_percent
        if not percent or limits.is_none:
            return None
        was, is_now = limits.is_reached(percent, *before), limits.is_reached(percent, *after)
        if was == is_now:
            return None
        used = f"{_of(after[0], limits.octets, 'octets')}, {_of(after[1], limits.messages, 'messages')}"
        if is_now:
            return "warn", f"{what} has reached {percent} % of its quota: {used}"
        return "info", f"{what} is below {percent} % of its quota again: {used}"


def _over(limits: Limits, table: PlacementSettings) -> Limits:
    return Limits(
        limits.octets if table.quota is None else table.quota,
        limits.messages if table.messages is None else table.messages,
        limits.mailboxes if table.mailboxes is None else table.mailboxes,
    )


def _of(used: int, limit: int, word: str) -> str:
    return f"{used:,} of {limit:,} {word}" if limit else f"{used:,} {word}"


def whose(domain: str) -> str:
    """Name a domain as a whole, or the store, in a sentence."""
    return f"the domain {domain}" if domain else "the store"


def quota_uses(
    quotas: Quotas, accounts: Mapping[str, tuple[int, int, int]], name: str, *, is_one: bool
) -> list[QuotaUse]:
    """Return what accounts, their domains and the store use of what they may.

    accounts: octets, messages and mailboxes of every account.  is_one: only of the account ``name`` and what it is in.
    """
    wanted = [name] if is_one else sorted(accounts)
    sums: dict[str, list[int]] = {}
    for each, used in accounts.items():
        for total in (each.rpartition("@")[2], STORE):
            numbers = sums.setdefault(total, [0, 0, 0])
            for at, number in enumerate(used):
                numbers[at] += number
    uses = [_use("account", each, accounts[each], quotas.of_account(each)) for each in wanted]
    uses += [
        _use("domain", domain, sums[domain], quotas.totals.get(domain, Limits()))
        for domain in dict.fromkeys(each.rpartition("@")[2] for each in wanted)
    ]
    uses.append(_use("store", "", sums.get(STORE, (0, 0, 0)), quotas.totals.get(STORE, Limits())))
    return uses


def _use(kind: str, name: str, used: Sequence[int], limits: Limits) -> QuotaUse:
    return QuotaUse(
        kind,
        name,
        used[0],
        used[1],
        used[2],
        limits.octets,
        limits.messages,
        limits.mailboxes,
        limits.percent(used[0], used[1]),
    )


# ------------------------------------------------------------------------------------------------------ the warning


def quota_warning(
    quotas: Quotas, account: tuple[str, int], limits: Limits, used: tuple[int, int], now: int, unique: int
) -> bytes:
    """Write the message that tells an account's owner, CRLF line endings.

    account: login and id.  now: seconds since the epoch.  unique: differs between two warnings of an account.

    Nobody answers it: it says that a program wrote it (RFC 3834 §5), and it goes into the mailbox past filters and aliases.
    """
    name, id_ = account
    domain = name.rpartition("@")[2]
    with contextlib.suppress(ValueError):
        domain = domain_key(domain)
    if not domain.isascii() or not domain:
        domain = "localhost"
    to = f"<{name}>" if name.isascii() else "undisclosed-recipients:;"
    full = limits.percent(*used)
    lines = [
        f"From: Postmaster <postmaster@{domain}>",
        f"To: {to}",
        f"Subject: Your mailbox is {full} % full",
        f"Date: {_date(now)}",
        f"Message-ID: <quota.{id_}.{unique}.{now}@{domain}>",
        "Auto-Submitted: auto-generated",
        "MIME-Version: 1.0",
        "Content-Type: text/plain; charset=us-ascii",
        "",
        f"Your mailbox is {full} % full:",
        "",
    ]
    if limits.octets:
        lines.append(f"    {_size(used[0])} of {_size(limits.octets)} are used")
    if limits.messages:
        lines.append(f"    {used[1]:,} of {limits.messages:,} messages are there")
    happens = "is held back by the sender's server and returned if there is no room in time"
    if not quotas.is_temporary:
        happens = "is returned to its sender"
    lines += [
        "",
        f"When it is full, new mail for you {happens}, and you",
        "can no longer save messages on the server.  Nothing you have is removed.",
        "",
        "To make room, delete messages you no longer need, large ones first, and",
        "empty the trash: what lies there counts too.  If you need more room, ask",
        f"postmaster@{domain}.",
        "",
        f"This is said once, when {quotas.warning_percent} % are reached, and again only if you had made",
        "room in between.",
        "",
    ]
    return "\r\n".join(lines).encode("ascii")


def _size(octets: int) -> str:
    for unit, word in ((1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if octets >= unit:
            return f"{octets / unit:.1f} {word}"
    return f"{octets} octets"


def _date(now: int) -> str:
    """Write a date-time in UTC.  RFC 5322 §3.3."""
    day = time.gmtime(now)
    weekday = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")[day.tm_wday]
    months = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
    clock = f"{day.tm_hour:02}:{day.tm_min:02}:{day.tm_sec:02}"
    return f"{weekday}, {day.tm_mday} {months[day.tm_mon - 1]} {day.tm_year} {clock} +0000"
