"""Failed logins make later ones wait.

Failures are counted per account (existing or not, under every name that may mean it) and per network (an IPv4 address, an
IPv6 /64), in levels that decay by half every half-life.  The wait doubles with the level up to a maximum.

    before the check    wait for the higher of the two levels.  A guesser who hangs up as soon as no quick success comes
                        gains nothing: he had to wait before his guess was looked at.
    after a failure     wait for what the failure raised the level to, minus what was waited already.

Nobody can lock an account's owner out by guessing at it: a pair of account and network that has succeeded is trusted and
does not wait before the check, until it has failed `_TRUST` times in a row.  Trust goes by the name as it was typed: names that are
counted together need not be one account, and an account of one's own must not open the way to guessing at another.

Every table is bounded; the entry that was quiet longest leaves first.  The counts live in one process.
"""

from __future__ import annotations

import ipaddress
import unicodedata
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

from livemail.auth.settings import AuthSettings

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_TRUST: Final = 10
_FORGIVEN: Final = 0.5


class _Recent(Generic[K, V]):
    """A mapping that keeps the entries set last."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._entries: dict[K, V] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        return self._entries.get(key)

    def set(self, key: K, value: V) -> None:
        self._entries.pop(key, None)
        while len(self._entries) >= self._capacity:
            del self._entries[next(iter(self._entries))]
        self._entries[key] = value

    def drop(self, key: K) -> None:
        self._entries.pop(key, None)


def network_of(peer: str) -> str:
    """Return what failures of a peer are counted under: the IPv4 address, the IPv6 /64, "" for a Unix socket."""
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return peer[:64]
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.IPv6Network((address, 64), strict=False))
    return str(address)


def _account_key(authcid: str) -> str:
    return unicodedata.normalize("NFC", authcid[:320]).casefold()


class Throttle:
    """Counts failures and says how long to wait.  clock: seconds that never go back."""

    def __init__(self, clock: Callable[[], float], settings: AuthSettings | None = None) -> None:
        settings = settings or AuthSettings()
        self._clock = clock
        self._first = settings.failure_delay
        self._most = settings.failure_delay_max
        self._half_life = settings.failure_half_life
        self._allowance = settings.network_allowance
        capacity = max(1, settings.failure_entries)
        self._accounts: _Recent[str, tuple[float, float]] = _Recent(capacity)
        self._networks: _Recent[str, tuple[float, float]] = _Recent(capacity)
        self._trusted: _Recent[tuple[str, str], int] = _Recent(capacity)

    def before(self, authcid: str, peer: str, counted_as: str = "") -> float:
        """Seconds to wait before these credentials are looked at.  counted_as: see `failed`."""
        typed, network = _account_key(authcid), network_of(peer)
        if self._trusted.get((typed, network)) is not None:
            return 0.0
        return self._delay(_account_key(counted_as) or typed, network)

    def failed(self, authcid: str, peer: str, counted_as: str = "") -> float:
        """Count a failure; return the seconds from its beginning to its answer.

        counted_as: one name for all the ways to name an account, "" when there is only ``authcid``.
        """
        typed, network = _account_key(authcid), network_of(peer)
        account = _account_key(counted_as) or typed
        now = self._clock()
        self._accounts.set(account, (self._level(self._accounts.get(account), now) + 1, now))
        if network:
            self._networks.set(network, (self._level(self._networks.get(network), now) + 1, now))
        left = self._trusted.get((typed, network))
        if left is not None:
            if left > 1:
                self._trusted.set((typed, network), left - 1)
            else:
                self._trusted.drop((typed, network))
        return self._delay(account, network)

    def succeeded(self, authcid: str, peer: str) -> None:
        """Trust this pair of name and network.  The counts stay: somebody else may be guessing."""
        self._trusted.set((_account_key(authcid), network_of(peer)), _TRUST)

    def _level(self, entry: tuple[float, float] | None, now: float) -> float:
        if entry is None:
            return 0.0
        level, since = entry
        return float(level * 0.5 ** ((now - since) / self._half_life)) if self._half_life > 0 else 0.0

    def _delay(self, account: str, network: str) -> float:
        now = self._clock()
        level = self._level(self._accounts.get(account), now)
        level = max(level, self._level(self._networks.get(network), now) - self._allowance)
        if level < _FORGIVEN or self._first <= 0:
            return 0.0
        return float(min(self._most, self._first * 2 ** min(level - 1, 60)))
