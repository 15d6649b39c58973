"""Domains and aliases of the store: what may be kept, and what it changes at once."""

from __future__ import annotations

from typing import Any

import pytest

from livemail.directory import AddressBook, StoreDirectory
from livemail.directory.book import MAX_TARGETS, AlreadyThere, NotPossible, NotThere, StillUsed
from livemail.directory.settings import Alias, DirectorySettings
from livemail.interfaces.directory import Backup, Elsewhere, LocalAccount, Restricted, Unknown
from livemail.mail.address import Address
from livemail.mail.ids import AccountId
from livemail.storage.memory import MemoryStore
from tests.contracts.drive import finish
from tests.directory.test_directory import resolve


class Rig:
    def __init__(self, *accounts: str, store: MemoryStore | None = None, **settings: Any) -> None:
        self.store = store or MemoryStore(now=lambda: 1_700_000_000)
        finish(self.store.add_accounts([(name, "") for name in accounts]))
        self.settings = DirectorySettings(**settings)
        self.directory = StoreDirectory(self.store, self.settings)
        finish(self.directory.load())
        self.book = AddressBook(self.store, self.directory, lambda: 1_700_000_000.5)

    def domain(self, name: str, role: Any = "local", catch_all: str = "", postmaster: str = "") -> Any:
        return finish(self.book.add_domain(name, role, catch_all, postmaster))

    def set_domain(self, name: str, **changes: Any) -> Any:
        return finish(self.book.set_domain(name, **({"role": None, "catch_all": None, "postmaster": None} | changes)))

    def alias(self, address: str, *targets: str, senders: Any = (), keep_copy: bool = False) -> Any:
        return finish(self.book.add_alias(address, targets, senders, keep_copy=keep_copy))

    def set_alias(self, address: str, **changes: Any) -> Any:
        settings = {"add": (), "drop": (), "senders": None, "keep_copy": None} | changes
        return finish(self.book.set_alias(address, **settings))

    def resolve(self, address: str) -> Any:
        """As the running directory says, and as one that has just started."""
        now = resolve(self.directory, address)
        fresh = StoreDirectory(self.store, self.settings)
        finish(fresh.load())
        assert resolve(fresh, address) == now
        return now


ANN, BEN = "ann@example.org", "ben@example.org"


def test_a_domain_is_local_from_the_moment_it_is_added_until_it_is_removed() -> None:
    rig = Rig("you@localhost")
    assert rig.resolve("postmaster@example.org") == Elsewhere()
    record = rig.domain("Example.ORG.")
    assert (record.name, record.created) == ("example.org", 1_700_000_000)
    assert rig.resolve("postmaster@example.org") == ["you@localhost"]
    assert rig.resolve("ann@example.org") == Unknown()
    finish(rig.store.add_accounts([(ANN, "")]))
    assert rig.resolve("ann+x@EXAMPLE.org") == [ANN + "+x"]
    assert rig.directory.canonical_login("ANN@Example.org") == ANN
    with pytest.raises(StillUsed, match=r"has 1 account; .*remove them first"):
        finish(rig.book.remove_domain("example.org"))
    finish(rig.store.remove_account(ANN))
    finish(rig.book.remove_domain("example.org"))
    assert rig.resolve("ann@example.org") == Elsewhere()
    assert rig.directory.local_domains() == ["localhost"]


def test_a_domain_in_other_letters_is_one_domain() -> None:
    rig = Rig()
    rig.domain("München.test")
    assert rig.directory.local_domains() == ["localhost", "xn--mnchen-3ya.test"]
    finish(rig.store.add_accounts([("ann@xn--mnchen-3ya.test", "")]))
    assert rig.resolve("ann@münchen.test") == ["ann@xn--mnchen-3ya.test"]
    with pytest.raises(AlreadyThere):
        rig.domain("xn--mnchen-3ya.test")


def test_a_domain_is_not_added_twice_nor_one_of_the_configuration() -> None:
    rig = Rig()
    rig.domain("example.org")
    with pytest.raises(AlreadyThere, match="domain set"):
        rig.domain("example.ORG")
    with pytest.raises(AlreadyThere, match="configuration file"):
        rig.domain("localhost")
    for text in ("a..b", "[192.0.2.1]", "", "x" * 64 + ".test"):
        with pytest.raises(NotPossible):
            rig.domain(text)
    with pytest.raises(NotThere):
        finish(rig.book.remove_domain("example.com"))
    with pytest.raises(NotPossible, match="configuration file"):
        finish(rig.book.remove_domain("localhost"))


def test_a_backup_domain_is_taken_and_not_ours() -> None:
    rig = Rig(backup_domains=("file.test",))
    rig.domain("held.test", "backup")
    assert rig.resolve("anybody@HELD.test") == rig.resolve("anybody@file.test") == Backup()
    assert not rig.directory.is_local_domain("held.test")
    with pytest.raises(NotPossible, match="backup domain"):
        rig.set_domain("held.test", catch_all="x@y.test")
    rig.set_domain("held.test", role="local")
    assert rig.resolve("anybody@held.test") == Unknown()
    finish(rig.store.add_accounts([("ann@held.test", "")]))
    with pytest.raises(StillUsed, match="1 account; remove"):
        rig.set_domain("held.test", role="backup")
    with pytest.raises(NotPossible, match="change it there"):
        rig.set_domain("file.test", role="local")


def test_a_catch_all_gets_what_nobody_has_and_nothing_else() -> None:
    rig = Rig(ANN, BEN)
    rig.domain("example.org")
    rig.alias("sales@example.org", BEN)
    assert rig.set_domain("example.org", catch_all="ann").catch_all == ANN
    assert rig.resolve("anything@example.org") == [ANN]
    assert rig.resolve("any+thing@example.org") == [ANN]
    assert rig.resolve("ben@example.org") == rig.resolve("sales@example.org") == [BEN]
    assert rig.resolve("postmaster@example.org") == [ANN]
    assert rig.resolve("anything@localhost") == Unknown()
    rig.set_domain("example.org", catch_all="box@elsewhere.test")
    assert rig.resolve("anything@example.org") == ["box@elsewhere.test"]
    rig.set_domain("example.org", catch_all="")
    assert rig.resolve("anything@example.org") == Unknown()


def test_a_catch_all_that_nobody_has_is_refused_and_one_that_goes_later_is_no_loop() -> None:
    rig = Rig(ANN)
    rig.domain("example.org")
    with pytest.raises(NotPossible, match=r"no account or alias nobody@example\.org"):
        rig.set_domain("example.org", catch_all="nobody@example.org")
    rig.set_domain("example.org", catch_all=ANN)
    finish(rig.store.remove_account(ANN))
    assert rig.resolve("anything@example.org") == Unknown()


def test_domains_of_the_configuration_can_have_a_catch_all_too() -> None:
    rig = Rig("you@localhost")
    rig.set_domain("localhost", catch_all="you", postmaster="root@elsewhere.test")
    assert rig.resolve("anything@localhost") == ["you@localhost"]
    assert rig.resolve("postmaster@localhost") == ["root@elsewhere.test"]
    assert rig.directory.domains()["localhost"][1]


def test_an_alias_works_at_once_and_is_changed_and_removed() -> None:
    rig = Rig("you@localhost", ANN, BEN)
    rig.domain("example.org")
    assert rig.alias("Sales@Example.org", ANN, "You", "Box@elsewhere.test", ANN).targets == (
        ANN, "you@localhost", "Box@elsewhere.test",
    )  # fmt: skip
    assert rig.resolve("sales@example.org") == [ANN, "you@localhost", "Box@elsewhere.test"]
    rig.set_alias("sales@example.org", add=[BEN], drop=["you"])
    assert rig.resolve("sales@example.org") == [ANN, "Box@elsewhere.test", BEN]
    with pytest.raises(NotPossible, match="does not lead to you@localhost"):
        rig.set_alias("sales@example.org", drop=["you"])
    finish(rig.book.remove_alias("sales@example.org"))
    assert rig.resolve("sales@example.org") == Unknown()
    with pytest.raises(NotThere):
        finish(rig.book.remove_alias("sales@example.org"))


def test_an_alias_made_after_its_address_was_asked_for_is_seen() -> None:
    rig = Rig(ANN, BEN, local_domains=("example.org",))
    assert rig.resolve("ann@example.org") == [ANN]
    rig.alias("ann@example.org", BEN)
    assert rig.resolve("ann@example.org") == [BEN]


def test_aliases_may_lead_in_circles_and_mail_still_arrives_once() -> None:
    rig = Rig(ANN, local_domains=("example.org",))
    rig.alias("a@example.org", "b@example.org", ANN)
    rig.alias("b@example.org", "c@example.org")
    rig.alias("c@example.org", "a@example.org")
    assert rig.resolve("b@example.org") == [ANN]


def test_forwarding_may_keep_a_copy() -> None:
    rig = Rig(ANN, local_domains=("example.org",))
    rig.alias("ann@example.org", "box@elsewhere.test", keep_copy=True)
    assert sorted(rig.resolve("ann@example.org")) == [ANN, "box@elsewhere.test"]
    rig.set_alias("ann@example.org", keep_copy=False)
    assert rig.resolve("ann@example.org") == ["box@elsewhere.test"]
    with pytest.raises(NotPossible, match=r"no account ben@example\.org.*add the account first"):
        rig.alias("ben@example.org", "box@elsewhere.test", keep_copy=True)
    with pytest.raises(NotPossible, match=r"no account eve@example\.org"):
        rig.alias("eve@example.org", "eve@example.org")


def test_a_group_of_thousands_is_kept_and_one_of_too_many_refused() -> None:
    rig = Rig(local_domains=("example.org",))
    members = [f"member-{n}@elsewhere.test" for n in range(5000)]
    rig.alias("all@example.org", *members)
    assert rig.resolve("all@example.org") == members
    with pytest.raises(NotPossible, match="are the most"):
        rig.alias("more@example.org", *(f"{n}@elsewhere.test" for n in range(MAX_TARGETS + 1)))


def test_what_cannot_be_an_alias_is_refused_and_nothing_changes() -> None:
    rig = Rig(ANN, local_domains=("example.org",), aliases=(Alias(address="fixed", targets=("ann",)),))
    for address, targets, told in (
        ("x@nowhere.test", [ANN], "livemail domain add nowhere.test"),
        ("x@example.org", [], "lead nowhere"),
        ("x@example.org", ["a b@c.test"], "not an address"),
        ("x y@example.org", [ANN], "not an address"),
        ("fixed@example.org", [ANN], "configuration file"),
    ):
        with pytest.raises(NotPossible, match=told):
            rig.alias(address, *targets)
    with pytest.raises(NotPossible, match="change it there"):
        finish(rig.book.remove_alias("fixed"))
    rig.alias("x", ANN)
    with pytest.raises(AlreadyThere, match="--add TARGET"):
        rig.alias("x", ANN)
    assert [alias.address for alias in finish(rig.store.addresses.aliases())] == ["x@example.org"]


def test_the_configuration_wins_where_both_name_an_alias() -> None:
    rig = Rig(ANN, BEN, local_domains=("example.org",))
    rig.alias("sales", ANN)
    later = Rig(store=rig.store, local_domains=("example.org",), aliases=(Alias(address="sales", targets=("ben",)),))
    assert later.resolve("sales@example.org") == [BEN]


def test_an_alias_whose_domain_left_the_configuration_waits_for_it() -> None:
    rig = Rig(ANN, local_domains=("example.org",))
    rig.alias("sales", ANN)
    without = Rig(store=rig.store)
    assert without.resolve("sales@example.org") == Elsewhere()
    without.domain("example.org")
    assert without.resolve("sales@example.org") == [ANN]


def allowed(rig: Rig, address: str, *senders: str) -> list[bool]:
    local, _, domain = address.rpartition("@")
    answer = finish(rig.directory.resolve(Address(local, domain)))
    assert isinstance(answer, Restricted), answer
    return [
        all(rig.directory.may_write(Address(*sender.rsplit("@", 1)), each) for each in answer.restrictions)
        for sender in senders
    ]


def test_a_group_may_be_for_members_addresses_and_domains_only() -> None:
    rig = Rig(ANN, BEN, local_domains=("example.org", "example.net"))
    rig.alias("team", "ann", "Box@elsewhere.test", senders=("members", "@Friends.test", "Boss@example.net"))
    assert (
        allowed(
            rig,
            "team@example.org",
            "ANN@example.org",
            "ann+lists@example.org",
            "box@ELSEWHERE.test",
            "anybody@friends.test",
            "boss@example.net",
        )
        == [True] * 5
    )
    assert (
        allowed(rig, "team@example.org", BEN, "x@sub.friends.test", "ann@example.net", "boss@example.org")
        == [False] * 4
    )
    rig.set_alias("team", senders=[])
    assert rig.resolve("team@example.org") == [ANN, "Box@elsewhere.test"]


def test_where_an_alias_leads_follows_the_domains_that_come_and_go() -> None:
    rig = Rig(local_domains=("example.org",))
    rig.alias("sales", "ann@later.test")
    assert rig.resolve("sales@example.org") == ["ann@later.test"]
    rig.domain("later.test")
    assert rig.resolve("sales@example.org") == Unknown()
    finish(rig.store.add_accounts([("ann@later.test", "")]))
    assert finish(rig.directory.resolve(Address("sales", "example.org"))) == (
        LocalAccount(AccountId(1), "ann@later.test"),
    )


def test_a_restriction_holds_on_every_way_to_the_group() -> None:
    rig = Rig(ANN, BEN, local_domains=("example.org",))
    rig.alias("team", "ann", senders=("ben",))
    rig.alias("open", "team", "ben")
    assert allowed(rig, "open@example.org", BEN, ANN) == [True, False]
    assert allowed(rig, "team+x@example.org", BEN, ANN) == [True, False]
    rig.set_domain("example.org", catch_all="team")
    assert allowed(rig, "anything@example.org", BEN, ANN) == [True, False]
