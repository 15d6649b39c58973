"""Password hashes: argon2id in PHC strings.  RFC 9106, RFC 8265 §4.2.

A hash costs tens of milliseconds and megabytes on purpose, so it runs where blocking is allowed, few at a time: a flood
of logins is bounded in memory (`AuthSettings.hashing_at_once`) and in waiting (`AuthSettings.hashing_queue`).

The cost is the defence against whoever steals the store, and nothing else; guessing on line is slowed by
`livemail.auth.throttle`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from typing import TypeVar, cast

from argon2 import PasswordHasher, Type
from argon2.exceptions import Argon2Error, InvalidHashError, VerifyMismatchError
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.python.failure import Failure

from livemail.auth.settings import AuthSettings
from livemail.interfaces.identity import AuthenticationUnavailable
from livemail.interfaces.runtime import RunBlocking

T = TypeVar("T")


def prepare_password(password: str) -> bytes:
    """Return the octets that are hashed: NFC, every space U+0020, UTF-8.  RFC 8265 §4.2.2 (OpaqueString).

    A password typed on another keyboard is then the same password.
    """
    spaced = (
        "".join(" " if unicodedata.category(c) == "Zs" else c for c in password) if not password.isascii() else password
    )
    return unicodedata.normalize("NFC", spaced).encode("utf-8", "surrogatepass")


class Passwords:
    """Makes and checks hashes.

    run_blocking: where hashing happens.  `decoy` is the hash of an unguessable password at the current cost: checking
    against it is as slow as against an account's, so that an unknown account cannot be told by the time.
    """

    def __init__(self, run_blocking: RunBlocking, settings: AuthSettings | None = None) -> None:
        settings = settings or AuthSettings()
        self._run_blocking = run_blocking
        self._hasher = PasswordHasher(
            time_cost=settings.argon2_time,
            memory_cost=settings.argon2_memory,
            parallelism=settings.argon2_lanes,
            hash_len=32,
            salt_len=16,
            type=Type.ID,
        )
        self._turns = DeferredSemaphore(max(1, settings.hashing_at_once))
        self._queue = settings.hashing_queue
        # No password has this hash: it is put together, not computed, so that starting costs nothing.
        self.decoy = (
            f"$argon2id$v=19$m={settings.argon2_memory},t={settings.argon2_time},p={settings.argon2_lanes}"
            f"${'A' * 22}${'A' * 43}"
        )

    async def hash(self, password: str) -> str:
        """Return a PHC string with a fresh salt.  Raises AuthenticationUnavailable when too many wait."""
        octets = prepare_password(password)
        return await self._in_turn(lambda: self._hasher.hash(octets))

    async def verify(self, hashed: str, password: str) -> bool:
        """Whether the password is the one hashed; False for a hash that cannot be read.

        Raises AuthenticationUnavailable when too many wait, or there is no memory to hash in.
        """
        octets = prepare_password(password)
        return await self._in_turn(lambda: self._verify(hashed, octets))

    def needs_rehash(self, hashed: str) -> bool:
        """Whether the hash was made at another cost than new ones are."""
        try:
            return self._hasher.check_needs_rehash(hashed)
        except InvalidHashError:
            return False

    def _verify(self, hashed: str, octets: bytes) -> bool:
        try:
            return self._hasher.verify(hashed, octets)
        except (VerifyMismatchError, InvalidHashError):
            return False
        except Argon2Error as error:
            # A hash that says it is argon2 and cannot be decoded lets nobody in; without memory nothing is known.
            if "emory" not in str(error):
                return False
            raise AuthenticationUnavailable(reason="argon2 got no memory") from None

    async def _in_turn(self, function: Callable[[], T]) -> T:
        if len(self._turns.waiting) >= self._queue:
            raise AuthenticationUnavailable(reason="too many password checks are waiting")
        # A thread cannot be interrupted: when the asker leaves, the turn stays taken until its hash is computed, so that
        # hanging up does not make more hashes run at once.
        answer: Deferred[T] = Deferred()

        def answered(result: T | Failure) -> None:
            if not answer.called:
                answer.callback(cast(T, result))

        Deferred.fromCoroutine(self._hold_turn(function, answer)).addBoth(answered)
        return await answer

    async def _hold_turn(self, function: Callable[[], T], answer: Deferred[T]) -> T:
        await self._turns.acquire()
        try:
            if answer.called:
                raise CancelledError
            return await self._run_blocking(function)
        finally:
            self._turns.release()
