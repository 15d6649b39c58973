"""The one door: portal, realm, checker, slowing."""

from __future__ import annotations

import io
import traceback

import pytest
from twisted.cred.checkers import FilePasswordDB, InMemoryUsernamePasswordDatabaseDontUse
from twisted.cred.credentials import IUsernamePassword
from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher, textFileLogObserver
from zope.interface.verify import verifyObject

from livemail.auth.settings import AuthSettings
from livemail.interfaces.filter import ConnectionInfo
from livemail.interfaces.identity import (
    AuthenticationFailed,
    AuthenticationUnavailable,
    IAuthenticator,
    ISASLExchange,
)
from livemail.mail.errors import StorageFailed, WireError
from tests.auth.rig import ALICE, BOB, CHEAP, ELSEWHERE, HERE, NOBODY, PASSWORD, Asked, World, finish


@pytest.fixture
def world() -> World:
    world = World()
    world.add(ALICE)
    world.add(BOB, "other")
    return world


def refused(world: World, name: str, password: str, connection=HERE) -> AuthenticationFailed:
    asked = world.login(name, password, connection)
    world.clock.pump([15] * 4)
    assert isinstance(asked.error, AuthenticationFailed), asked.error
    return asked.error


def test_it_is_what_it_says(world):
    verifyObject(IAuthenticator, world.authenticator)
    verifyObject(ISASLExchange, world.authenticator.start("plain", HERE))
    verifyObject(ISASLExchange, world.authenticator.start("LOGIN", HERE))
    assert world.authenticator.mechanisms() == ("PLAIN", "LOGIN")


@pytest.mark.parametrize("name", [ALICE, "alice", "ALICE@example.org"])
def test_the_right_password_gives_the_account(world, name):
    login = world.login(name, PASSWORD).result
    assert login.record.name == ALICE
    assert login.account.name == ALICE
    login.logout()


def test_every_login_has_a_handle_of_its_own(world):
    assert world.login(ALICE, PASSWORD).result.account is not world.login(ALICE, PASSWORD).result.account


def test_wrong_password_unknown_name_disabled_and_passwordless_are_one_answer_and_one_hash(world):
    world.add("empty@example.org", "")
    world.add("off@example.org")
    world.directory.disabled.add("off@example.org")
    answers = []
    for name in (ALICE, NOBODY, "off@example.org", "empty@example.org", "", "x" * 1000, "a\0b"):
        world.verified.clear()
        error = refused(world, name, "wrong")
        (hashed,) = world.verified
        answers.append((str(error), error.code, error.enhanced, error.condition, hashed.rsplit("$", 2)[0]))
    assert len(set(answers)) == 1


def test_the_right_password_of_a_disabled_account_is_refused(world):
    world.directory.disabled.add(ALICE)
    refused(world, ALICE, PASSWORD)


def test_an_empty_password_is_refused_for_an_account_without_one(world):
    world.add("empty@example.org", "")
    refused(world, "empty@example.org", "")


def test_a_second_login_does_not_hash_until_the_time_is_over(world):
    world.login(ALICE, PASSWORD)
    world.login("alice", PASSWORD, ELSEWHERE)
    assert len(world.verified) == 1
    world.clock.advance(CHEAP.remember_seconds)
    world.login(ALICE, PASSWORD)
    assert len(world.verified) == 2


def test_a_changed_password_a_disabled_and_a_removed_account_are_not_remembered(world):
    assert world.login(ALICE, PASSWORD).result
    finish(world.store.set_password(ALICE, finish(world.passwords.hash("new"))))
    refused(world, ALICE, PASSWORD)
    assert world.login(ALICE, "new").result
    world.directory.disabled.add(ALICE)
    refused(world, ALICE, "new")
    world.directory.disabled.clear()
    finish(world.store.remove_account(ALICE))
    refused(world, ALICE, "new")


def test_a_hash_of_another_cost_is_replaced_at_login():
    world = World(AuthSettings(argon2_time=2, argon2_memory=16))
    before = world.add(ALICE).password
    assert world.login(ALICE, PASSWORD).result
    after = finish(world.store.account_named(ALICE)).password
    assert (before.split("$")[3], after.split("$")[3]) == ("m=8,t=1,p=1", "m=16,t=2,p=1")
    assert world.login(ALICE, PASSWORD, ELSEWHERE).result


def test_a_password_changed_while_the_old_one_is_hashed_anew_stays_changed():
    world = World(AuthSettings(argon2_time=2, argon2_memory=16))
    world.add(ALICE)
    original = world.passwords.hash

    async def hash_slowly(password: str) -> str:
        await world.store.set_password(ALICE, "$argon2id$new")
        return await original(password)

    world.passwords.hash = hash_slowly
    world.login(ALICE, PASSWORD)
    assert finish(world.store.account_named(ALICE)).password == "$argon2id$new"


def test_a_failure_to_hash_anew_does_not_spoil_the_login():
    world = World(AuthSettings(argon2_time=2, argon2_memory=16))
    world.add(ALICE)

    async def set_password(name, password):
        raise StorageFailed

    world.store.set_password = set_password
    assert world.login(ALICE, PASSWORD).result


# ------------------------------------------------------------------------------------------------ slowing


def test_a_failure_is_answered_late_and_later_each_time(world):
    first = world.login(ALICE, "wrong")
    assert not first.is_done
    world.clock.advance(1.0)
    assert first.is_done
    second = world.login(ALICE, "wrong")
    world.clock.pump([0.1] * 18)
    assert not second.is_done
    world.clock.pump([0.1] * 4)
    assert second.is_done


def test_after_failures_a_guess_waits_before_it_is_looked_at(world):
    for _ in range(5):
        refused(world, ALICE, "wrong")
    world.verified.clear()
    guess = world.login(ALICE, PASSWORD, ELSEWHERE)
    world.clock.advance(5)
    assert world.verified == []
    assert not guess.is_done
    world.clock.advance(15)
    assert guess.result.record.name == ALICE


@pytest.mark.parametrize("name", ["alice", "nobody"])
def test_all_names_of_an_account_are_counted_together_whether_it_exists_or_not(name):
    waits = []
    for spellings in ([name] * 4, [name, f"{name}@example.org", f" {name.upper()}@", f"{name}@EXAMPLE.org "]):
        world = World()
        world.add(ALICE)
        for spelling in spellings:
            refused(world, spelling, "wrong", ConnectionInfo("s", "imap", ""))
        waits.append(world.throttle.before(name, "", f"{name}@example.org"))
    assert waits[0] == waits[1] > 4


def test_names_elsewhere_and_other_names_are_counted_for_themselves(world):
    for _ in range(4):
        refused(world, "alice@elsewhere.example", "wrong")
        refused(world, "bobby", "wrong", ELSEWHERE)
    assert world.login(ALICE, PASSWORD, ConnectionInfo("s", "imap", "203.0.113.1")).is_done


def test_an_account_of_ones_own_at_another_domain_is_no_licence_to_guess(world):
    world.throttle.succeeded("alice@example.net", HERE.peer)
    for _ in range(3):
        refused(world, ALICE, "wrong")
    assert world.throttle.before(ALICE, HERE.peer, ALICE) > 1


def test_one_who_waits_makes_nobody_else_wait(world):
    waits = world.login(ALICE, "wrong")
    assert world.login(BOB, "other", ELSEWHERE).result.record.name == BOB
    assert not waits.is_done


def test_one_who_leaves_while_he_is_checked_has_failed():
    gate: list[Deferred[bool]] = []

    def run_blocking(function, /, *args, **kwargs):
        gate.append(Deferred())
        return gate[-1]

    world = World(run_blocking=run_blocking)
    world.add(ALICE)
    asked = world.login(ALICE, "wrong")
    assert len(gate) == 1
    asked.run.cancel()
    assert asked.is_done
    assert world.throttle.before(ALICE, "", ALICE) > 0


def test_one_who_leaves_while_he_waits_leaves_no_timer(world):
    asked = world.login(ALICE, "wrong")
    assert world.clock.getDelayedCalls()
    asked.run.cancel()
    assert asked.is_done
    assert not world.clock.getDelayedCalls()


# ------------------------------------------------------------------------------------------------ SASL


def test_plain_and_login_lead_through_the_portal(world):
    plain = world.authenticator.start("Plain", HERE)
    assert finish(plain.step(f"\0{ALICE}\0{PASSWORD}".encode())).record.name == ALICE
    login = world.authenticator.start("LOGIN", HERE)
    finish(login.step(ALICE.encode()))
    assert finish(login.step(PASSWORD.encode())).record.name == ALICE


@pytest.mark.parametrize("authzid", ["alice", ALICE, ALICE.upper()])
def test_to_act_as_oneself_is_allowed(world, authzid):
    message = f"{authzid}\0alice\0{PASSWORD}".encode()
    assert finish(world.authenticator.start("PLAIN", HERE).step(message)).record.name == ALICE


def test_to_act_as_another_is_refused(world):
    message = f"{BOB}\0{ALICE}\0{PASSWORD}".encode()
    with pytest.raises(AuthenticationFailed) as caught:
        finish(world.authenticator.start("PLAIN", HERE).step(message))
    assert caught.value.condition == "AUTHORIZATIONFAILED"


def test_whether_the_other_exists_is_said_to_nobody_who_has_no_password(world):
    asked = Asked(world.authenticator.start("PLAIN", HERE).step(f"{BOB}\0{ALICE}\0wrong".encode()))
    world.clock.pump([15] * 4)
    assert asked.error.condition == "AUTHENTICATIONFAILED"


@pytest.mark.parametrize("mechanism", ["", "CRAM-MD5", "PLAIN ", "\N{LATIN SMALL LETTER DOTLESS I}"])
def test_an_unknown_mechanism(world, mechanism):
    with pytest.raises(WireError) as caught:
        world.authenticator.start(mechanism, HERE)
    assert (caught.value.code, caught.value.enhanced) == (504, "5.5.4")


# ------------------------------------------------------------------------------------------------ other people's checkers


def test_an_in_memory_checker_of_cred():
    world = World(checker=InMemoryUsernamePasswordDatabaseDontUse(alice=b"theirs", ghost=b"boo"))
    world.add(ALICE)
    assert world.login("alice", "theirs").result.record.name == ALICE
    refused(world, "alice", PASSWORD)
    refused(world, "ghost", "boo")  # proven, but has no account here


def test_a_password_file_of_cred(tmp_path):
    path = tmp_path / "passwords"
    path.write_bytes(b"alice@example.org:from the file\n")
    world = World(checker=FilePasswordDB(str(path)))
    world.add(ALICE)
    assert world.login(ALICE, "from the file").result.record.name == ALICE
    refused(world, ALICE, "wrong")


class BrokenChecker:
    credentialInterfaces = (IUsernamePassword,)

    def __init__(self, error: Exception) -> None:
        self.error = error

    def requestAvatarId(self, credentials):
        raise self.error


def test_a_checker_that_fails_is_unavailable_and_its_text_goes_nowhere():
    world = World(checker=BrokenChecker(RuntimeError("LDAP said: hunter2")))
    with Logged() as log:
        asked = world.login(ALICE, "hunter2")
    assert isinstance(asked.error, AuthenticationUnavailable)
    assert "hunter2" not in log.getvalue()
    assert "RuntimeError" in log.getvalue()


def test_a_refusal_of_storage_stays_what_it_is():
    assert isinstance(World(checker=BrokenChecker(StorageFailed())).login(ALICE, "x").error, StorageFailed)


def test_a_portal_without_a_checker_for_passwords_is_unavailable(world):
    world.authenticator._portal.checkers.clear()
    assert isinstance(world.login(ALICE, PASSWORD).error, AuthenticationUnavailable)


# ------------------------------------------------------------------------------------------------ secrets


class Logged:
    """Everything any logger of Twisted says, as text."""

    def __enter__(self) -> io.StringIO:
        self.out = io.StringIO()
        self.observer = textFileLogObserver(self.out)
        globalLogPublisher.addObserver(self.observer)
        return self.out

    def __exit__(self, *_: object) -> None:
        globalLogPublisher.removeObserver(self.observer)


SECRET = "hunter2 \u00fc"


@pytest.mark.parametrize("name", [ALICE, NOBODY, "evil\r\n2026-01-01 [-] forged\x1b[31m", "\ud800"])
def test_no_secret_in_logs_exceptions_or_reprs_and_no_forged_line(world, name):
    with Logged() as log:
        asked = world.login(name, SECRET)
        exchange = world.authenticator.start("PLAIN", HERE)
        sasl = Asked(exchange.step(b"\0" + name.encode("utf-8", "replace") + b"\0" + SECRET.encode()))
        partly = world.authenticator.start("LOGIN", HERE)
        finish(partly.step(b"someone"))
        world.clock.pump([15] * 4)
    for error in (asked.error, sasl.error):
        assert isinstance(error, AuthenticationFailed)
        shown = "".join(traceback.format_exception(error)) + repr(error.__context__)
        assert "hunter2" not in shown
    assert "hunter2" not in log.getvalue() + repr(exchange) + repr(partly) + repr(vars(exchange))
    assert "\x1b" not in log.getvalue()
    assert not any(line.startswith("2026-01-01") for line in log.getvalue().splitlines())
    assert "authentication failed for" in log.getvalue()


def test_a_password_of_no_encoding_is_refused_like_any_other(world):
    refused(world, ALICE, "\ud800\udfff")
    refused(world, ALICE, "caf\udce9")
