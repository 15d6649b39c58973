"""What an administrator may decide about authentication."""

from __future__ import annotations

from livemail.interfaces.settings import Settings


class AuthSettings(Settings, frozen=True):
    """The `[auth]` section.

    argon2_time, argon2_memory, argon2_lanes: cost of a new hash: passes, KiB, lanes.  RFC 9106 §3.1.  A login whose hash
    has another cost is hashed anew.
    hashing_at_once: hashes computed at the same time; the peak memory is this many times ``argon2_memory``.
    hashing_queue: logins that may wait for their turn; more are told to try later.
    remember_seconds: how long a verified password is recognised without hashing; 0 never.
    remember_entries: how many of them.
    failure_delay: seconds the first failure takes at least; each further one doubles it; 0 turns slowing off.
    failure_delay_max: seconds it grows to.
    failure_half_life: seconds until half of the counted failures are forgiven.
    network_allowance: failures from one IPv4 address or IPv6 /64, for whatever account, before they count there.
    failure_entries: accounts, and networks, whose failures are remembered; the longest quiet ones go first.
    """

    argon2_time: int = 2
    argon2_memory: int = 19 * 1024
    argon2_lanes: int = 1
    hashing_at_once: int = 2
    hashing_queue: int = 200
    remember_seconds: float = 300.0
    remember_entries: int = 50_000
    failure_delay: float = 1.0
    failure_delay_max: float = 15.0
    failure_half_life: float = 600.0
    network_allowance: int = 10
    failure_entries: int = 10_000
