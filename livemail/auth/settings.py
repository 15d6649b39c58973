"""What an administrator may decide about authentication."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final

from msgspec import Meta

from livemail.interfaces.settings import Count, Duration, Settings

LEAST_MEMORY: Final = 8
"""KiB for each lane.  RFC 9106 §3.1."""


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

    argon2_time: Annotated[int, Meta(ge=1, le=1000)] = 2
    argon2_memory: Annotated[int, Meta(ge=LEAST_MEMORY, le=16 * 1024 * 1024)] = 19 * 1024
    argon2_lanes: Annotated[int, Meta(ge=1, le=255)] = 1
    hashing_at_once: Count = 2
    hashing_queue: Count = 200
    remember_seconds: float = 300.0
    remember_entries: Count = 50_000
    failure_delay: float = 1.0
    failure_delay_max: float = 15.0
    failure_half_life: Duration = 600.0
    network_allowance: int = 10
    failure_entries: Count = 10_000

    def faults(self) -> Iterator[tuple[str, str]]:
        """Yield (field, what is wrong with it and what to write instead) for every fault."""
        least = LEAST_MEMORY * self.argon2_lanes
        if self.argon2_memory < least:
            yield (
                "argon2_memory",
                f"cannot be {self.argon2_memory} with {self.argon2_lanes} lanes; write {least} or more",
            )
