"""Failed logins make later ones wait."""

from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from livemail.auth.settings import AuthSettings
from livemail.auth.throttle import Throttle, network_of


def make(**settings) -> tuple[Throttle, Clock]:
    clock = Clock()
    return Throttle(clock.seconds, AuthSettings(**settings)), clock


@pytest.mark.parametrize(
    ("peer", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::ffff", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("", ""),
    ],
)
def test_failures_count_for_an_ipv4_address_and_an_ipv6_64(peer, network):
    assert network_of(peer) == network


def test_the_wait_doubles_up_to_its_maximum():
    throttle, _ = make(failure_half_life=0.0 + 1e9)
    waits = [throttle.failed("alice", "192.0.2.7") for _ in range(6)]
    assert waits == pytest.approx([1, 2, 4, 8, 15, 15])
    assert throttle.before("alice", "198.51.100.1") == pytest.approx(15)
    assert throttle.before("bob", "198.51.100.1") == 0


def test_a_name_counts_without_case():
    throttle, _ = make()
    throttle.failed("Alice@Example.org", "192.0.2.7")
    assert throttle.before("alice@example.ORG", "") > 0


def test_failures_are_forgiven_with_time():
    throttle, clock = make(failure_half_life=100)
    for _ in range(4):
        throttle.failed("alice", "192.0.2.7")
    clock.advance(200)  # level 4 → 1
    assert throttle.before("alice", "") == pytest.approx(1)
    clock.advance(200)
    assert throttle.before("alice", "") == 0


def test_a_network_that_tries_many_names_waits_for_all_of_them():
    throttle, _ = make(network_allowance=3)
    for number in range(3):
        throttle.failed(f"user{number}", "2001:db8::1")
    assert throttle.before("other", "2001:db8::2") == 0
    throttle.failed("user3", "2001:db8::1")
    assert throttle.before("other", "2001:db8::2") == pytest.approx(1)
    assert throttle.before("other", "2001:db8:0:1::2") == 0


def test_guessing_at_an_account_does_not_lock_its_owner_out():
    throttle, _ = make()
    throttle.succeeded("alice", "192.0.2.7")
    for _ in range(50):
        throttle.failed("alice", "198.51.100.1")
    assert throttle.before("alice", "198.51.100.1") == 15
    assert throttle.before("alice", "192.0.2.7") == 0


def test_trust_is_used_up_by_failures_and_does_not_shorten_the_answer_to_one():
    throttle, _ = make()
    throttle.succeeded("alice", "192.0.2.7")
    for _ in range(9):
        assert throttle.failed("alice", "192.0.2.7") > 0
        assert throttle.before("alice", "192.0.2.7") == 0
    throttle.failed("alice", "192.0.2.7")
    assert throttle.before("alice", "192.0.2.7") > 0


def test_success_does_not_forgive_what_others_did():
    throttle, _ = make()
    throttle.failed("alice", "198.51.100.1")
    throttle.succeeded("alice", "192.0.2.7")
    assert throttle.before("alice", "198.51.100.1") > 0


def test_memory_is_bounded_whatever_is_tried():
    throttle, _ = make(failure_entries=100)
    for number in range(1000):
        throttle.failed(f"user{number}", f"2001:db8:0:{number:x}::1")
        throttle.succeeded(f"user{number}", f"2001:db8:0:{number:x}::1")
    assert [len(table) for table in (throttle._accounts, throttle._networks, throttle._trusted)] == [100, 100, 100]


def test_no_delay_means_no_slowing():
    throttle, _ = make(failure_delay=0)
    assert throttle.failed("alice", "192.0.2.7") == 0
    assert throttle.before("alice", "192.0.2.7") == 0


def test_a_unix_socket_counts_for_the_account_only():
    throttle, _ = make(network_allowance=0)
    throttle.failed("alice", "")
    assert throttle.before("bob", "") == 0
