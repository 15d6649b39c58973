"""Password hashes.  RFC 9106, RFC 8265."""

from __future__ import annotations

import pytest
from twisted.internet.defer import CancelledError, Deferred

from livemail.auth.passwords import Passwords, prepare_password
from livemail.auth.settings import AuthSettings
from livemail.interfaces.identity import AuthenticationUnavailable
from tests.auth.rig import CHEAP, Asked, finish, run_inline


def test_a_hash_is_argon2id_in_a_phc_string_with_the_cost_asked_for():
    hashed = finish(Passwords(run_inline, CHEAP).hash("secret"))
    assert hashed.startswith("$argon2id$v=19$m=8,t=1,p=1$")
    assert "secret" not in hashed


def test_two_hashes_of_one_password_differ():
    passwords = Passwords(run_inline, CHEAP)
    assert finish(passwords.hash("secret")) != finish(passwords.hash("secret"))


def test_the_right_password_verifies_and_others_do_not():
    passwords = Passwords(run_inline, CHEAP)
    hashed = finish(passwords.hash("secret"))
    assert finish(passwords.verify(hashed, "secret"))
    for wrong in ("Secret", "secret ", "", "secre", "secret\0"):
        assert not finish(passwords.verify(hashed, wrong))


@pytest.mark.parametrize(("typed", "stored"), [("Ko\u0308nig", "König"), ("a\u00a0b", "a b"), ("\u212b", "Å")])
def test_a_password_typed_on_another_keyboard_is_the_same(typed, stored):
    assert prepare_password(typed) == prepare_password(stored)


@pytest.mark.parametrize(
    "hashed", ["", "x", "$argon2id$", "{PLAIN}secret", "$argon2id$v=19$m=8,t=1,p=1$!!$!!", "$6$ab$c"]
)
def test_what_is_no_hash_lets_nobody_in(hashed):
    assert not finish(Passwords(run_inline, CHEAP).verify(hashed, "secret"))


def test_the_decoy_costs_what_a_hash_costs_and_fits_no_password():
    passwords = Passwords(run_inline, CHEAP)
    hashed = finish(passwords.hash("secret"))
    assert passwords.decoy.rsplit("$", 2)[0] == hashed.rsplit("$", 2)[0]
    assert len(passwords.decoy) == len(hashed)
    assert not passwords.needs_rehash(passwords.decoy)
    assert not finish(passwords.verify(passwords.decoy, ""))


def test_a_hash_of_another_cost_is_made_anew_and_an_unreadable_one_is_not():
    hashed = finish(Passwords(run_inline, CHEAP).hash("secret"))
    dearer = Passwords(run_inline, AuthSettings(argon2_time=2, argon2_memory=8))
    assert dearer.needs_rehash(hashed)
    assert not Passwords(run_inline, CHEAP).needs_rehash(hashed)
    assert not dearer.needs_rehash("")


class Threads:
    """Stands for the thread pool: nothing ends before the test says so."""

    def __init__(self) -> None:
        self.running: list[Deferred[bool]] = []

    def __call__(self, function, /, *args, **kwargs):
        waiting: Deferred[bool] = Deferred(lambda _: None)
        self.running.append(waiting)
        return waiting


def test_only_so_many_hash_at_once_and_one_who_hung_up_keeps_his_turn_until_his_hash_is_done():
    threads = Threads()
    passwords = Passwords(threads, AuthSettings(argon2_time=1, argon2_memory=8, hashing_at_once=2))
    asked = [Asked(passwords.verify(passwords.decoy, "x")) for _ in range(4)]
    assert len(threads.running) == 2
    asked[0].run.cancel()
    assert isinstance(asked[0].error, CancelledError)
    assert len(threads.running) == 2
    asked[2].run.cancel()  # waited for a turn: needs none any more
    threads.running[0].callback(False)
    assert len(threads.running) == 3
    threads.running[2].callback(True)
    assert asked[3].result is True


def test_more_than_the_queue_holds_are_told_to_try_later():
    passwords = Passwords(Threads(), AuthSettings(hashing_at_once=1, hashing_queue=2))
    asked = [Asked(passwords.verify(passwords.decoy, "x")) for _ in range(4)]
    assert [type(a.error) for a in asked] == [type(None)] * 3 + [AuthenticationUnavailable]
