"""Verified credentials, remembered."""

from __future__ import annotations

from livemail.auth.cache import VerifiedCache
from livemail.interfaces.storage import AccountRecord
from livemail.mail.ids import AccountId

RECORD = AccountRecord(AccountId(1), "alice@example.org", "$argon2id$one", 0)


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def make(seconds: float = 60, capacity: int = 10) -> tuple[VerifiedCache, Time]:
    time = Time()
    return VerifiedCache(time, seconds=seconds, capacity=capacity), time


def test_what_was_verified_is_known_for_its_time_and_not_longer():
    cache, time = make()
    cache.add(RECORD, "secret")
    assert (RECORD, "secret") in cache
    assert (RECORD, "Secret") not in cache
    time.now += 59.9
    assert (RECORD, "secret") in cache
    time.now += 0.1
    assert (RECORD, "secret") not in cache


def test_another_stored_hash_or_another_account_finds_nothing():
    cache, _ = make()
    cache.add(RECORD, "secret")
    assert (AccountRecord(AccountId(1), RECORD.name, "$argon2id$two", 0), "secret") not in cache
    assert (AccountRecord(AccountId(2), RECORD.name, RECORD.password, 0), "secret") not in cache


def test_it_holds_no_more_than_its_capacity_and_the_oldest_leave_first():
    cache, _ = make(capacity=3)
    for password in "abcd":
        cache.add(RECORD, password)
    assert len(cache) == 3
    assert [(RECORD, p) in cache for p in "abcd"] == [False, True, True, True]


def test_the_expired_are_dropped_when_something_is_added():
    cache, time = make()
    for password in "abc":
        cache.add(RECORD, password)
    time.now += 61
    cache.add(RECORD, "d")
    assert len(cache) == 1


def test_no_time_means_nothing_is_kept():
    cache, _ = make(seconds=0)
    cache.add(RECORD, "secret")
    assert len(cache) == 0


def test_neither_password_nor_hash_is_kept():
    cache, _ = make()
    cache.add(RECORD, "secret")
    assert "secret" not in repr(vars(cache))
    assert "argon2id" not in repr(vars(cache))
