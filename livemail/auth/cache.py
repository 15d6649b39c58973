"""Verified credentials, remembered for minutes, so that a mail client's reconnects cost microseconds.

What is kept is a keyed hash over the account, its stored password hash and the password; the key is random and dies with the
process.  Nothing needs to be dropped on purpose: the checker reads the account's record at every login, so a changed
password has another stored hash and finds nothing here, and a removed or disabled account does not get this far.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable

from livemail.interfaces.storage import AccountRecord


class VerifiedCache:
    """At most ``capacity`` credentials for ``seconds`` each, the oldest leaving first.

    clock: seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float], *, seconds: float, capacity: int) -> None:
        self._clock = clock
        self._seconds = seconds
        self._capacity = capacity if seconds > 0 else 0
        self._key = os.urandom(32)
        self._expiry: dict[bytes, float] = {}  # in the order of expiry, because every entry lives equally long

    def __len__(self) -> int:
        return len(self._expiry)

    def __contains__(self, credentials: tuple[AccountRecord, str]) -> bool:
        """Whether (record, password) was verified lately, with the record's present password hash."""
        if not self._expiry:
            return False
        expiry = self._expiry.get(self._digest(*credentials))
        return expiry is not None and self._clock() < expiry

    def add(self, record: AccountRecord, password: str) -> None:
        """Remember a password that was just verified against the record's hash."""
        if not self._capacity:
            return
        now = self._clock()
        digest = self._digest(record, password)
        self._expiry.pop(digest, None)
        while self._expiry:
            oldest = next(iter(self._expiry))
            if len(self._expiry) < self._capacity and self._expiry[oldest] > now:
                break
            del self._expiry[oldest]
        self._expiry[digest] = now + self._seconds

    def clear(self) -> None:
        """Forget everything."""
        self._expiry.clear()

    def _digest(self, record: AccountRecord, password: str) -> bytes:
        # The stored hash has no NUL and a fixed alphabet, so the three parts cannot run into each other.
        text = f"{record.id}\0{record.password}\0{password}"
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), key=self._key, digest_size=32).digest()
