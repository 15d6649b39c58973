"""The directory: who an address is, over a memory store."""

from __future__ import annotations

import pytest

from livemail.directory import StoreDirectory
from livemail.directory.settings import Alias, DirectorySettings
from livemail.interfaces.directory import Elsewhere, LocalAccount, Unknown
from livemail.mail.address import Address
from livemail.mail.errors import NoSuchAccount
from livemail.mail.ids import AccountId
from livemail.storage.memory import MemoryStore
from tests.contracts.drive import finish


def made(*accounts, aliases=None, **settings):
    store = MemoryStore(now=lambda: 1_700_000_000)
    finish(store.add_accounts([(name, "") for name in accounts]))
    table = tuple(Alias(address=address, targets=tuple(targets)) for address, targets in (aliases or {}).items())
    return store, StoreDirectory(store, DirectorySettings(aliases=table, **settings))


def resolve(directory, text):
    """What an address resolves to: names with +detail, remote addresses as text, or the answer itself."""
    local, _, domain = text.rpartition("@")
    answer = finish(directory.resolve(Address(local, domain) if local else Address(domain, "")))
    if not isinstance(answer, tuple):
        return answer
    return [
        str(place) if isinstance(place, Address) else place.name + ("+" + place.detail if place.detail else "")
        for place in answer
    ]


ALICE, BOB = "alice@localhost", "bob@localhost"


def test_an_account_is_found_by_its_address_and_others_are_unknown_or_elsewhere():
    _, directory = made(ALICE)
    assert finish(directory.resolve(Address("alice", "localhost"))) == (LocalAccount(AccountId(1), ALICE),)
    assert resolve(directory, "nobody@localhost") == Unknown()
    assert resolve(directory, "alice@example.org") == Elsewhere()
    assert resolve(directory, "alice") == [ALICE]


def test_local_parts_and_domains_are_compared_without_case_and_composition():
    _, directory = made("andré@localhost")
    assert resolve(directory, "ANDRE\N{COMBINING ACUTE ACCENT}@LocalHost") == ["andré@localhost"]
    assert resolve(directory, "andre@localhost") == Unknown()
    assert directory.is_local_domain("LOCALHOST.")


def test_what_follows_the_separator_is_the_detail():
    _, directory = made(ALICE)
    assert resolve(directory, "alice+Lists+x@localhost") == [ALICE + "+lists+x"]
    assert resolve(directory, "alice+@localhost") == [ALICE]
    assert resolve(directory, "+alice@localhost") == Unknown()
    assert resolve(directory, "nobody+alice@localhost") == Unknown()


def test_an_account_with_the_separator_in_its_name_comes_before_a_detail():
    _, directory = made(ALICE, "alice+x@localhost")
    assert resolve(directory, "alice+x@localhost") == ["alice+x@localhost"]


def test_the_separator_can_be_another_or_none():
    _, minus = made(ALICE, plus_separator="-")
    assert resolve(minus, "alice-x@localhost") == [ALICE + "+x"]
    assert resolve(minus, "alice+x@localhost") == Unknown()
    _, none = made(ALICE, plus_separator="")
    assert resolve(none, "alice+x@localhost") == Unknown()


def test_an_alias_leads_to_each_of_its_places_once():
    _, directory = made(
        ALICE,
        BOB,
        aliases={
            "team@localhost": ["alice", "Bob@LOCALHOST", "all@localhost", "x@example.org"],
            "all": ["bob", "alice", "x@Example.org"],
        },
    )
    assert resolve(directory, "Team@localhost") == [ALICE, BOB, "x@example.org"]


def test_an_alias_gives_its_detail_to_local_places_that_have_none():
    _, directory = made(ALICE, BOB, aliases={"team": ["alice", "bob+work", "x@example.org"], "all": ["team"]})
    assert resolve(directory, "team+x@localhost") == [ALICE + "+x", BOB + "+work", "x@example.org"]
    assert resolve(directory, "all+x@localhost") == [ALICE + "+x", BOB + "+work", "x@example.org"]


def test_loops_of_aliases_end():
    _, directory = made(BOB, aliases={"a": ["b"], "b": ["c"], "c": ["a"], "bob": ["bob", "x@example.org"]})
    assert resolve(directory, "a@localhost") == Unknown()
    assert resolve(directory, "bob@localhost") == [BOB, "x@example.org"]


def test_a_chain_of_ten_thousand_aliases_is_followed():
    chain = {f"a{at}": [f"a{at + 1}"] for at in range(10_000)}
    _, directory = made("a10000@localhost", aliases=chain)
    assert resolve(directory, "a0@localhost") == ["a10000@localhost"]


def test_an_alias_into_nothing_is_unknown_and_a_missing_target_does_not_hold_up_the_others():
    _, directory = made(ALICE, aliases={"gone": ["nobody"], "half": ["nobody", "alice"]})
    assert resolve(directory, "gone@localhost") == Unknown()
    assert resolve(directory, "half@localhost") == [ALICE]


def test_postmaster_goes_to_the_first_account_where_nothing_else_is_said():
    store, directory = made("zoe@localhost", ALICE, local_domains=("localhost", "example.org"))
    for address in ("postmaster@localhost", "PostMaster@example.org", "postmaster"):
        assert resolve(directory, address) == ["zoe@localhost"]
    finish(store.remove_account("zoe@localhost"))
    assert resolve(directory, "postmaster") == [ALICE]
    assert resolve(directory, "postmaster@elsewhere.example") == Elsewhere()


def test_postmaster_prefers_alias_then_account_then_the_configured_one_then_the_default_domains():
    names = ("first@localhost", ALICE, BOB)
    domains = ("localhost", "example.org")
    _, alias = made(*names, aliases={"postmaster@example.org": ["bob"]}, postmaster="alice", local_domains=domains)
    assert resolve(alias, "postmaster@example.org") == [BOB]
    assert resolve(alias, "postmaster@localhost") == [ALICE]
    _, account = made(*names, "postmaster@example.org", postmaster="alice", local_domains=domains)
    assert resolve(account, "postmaster@example.org") == ["postmaster@example.org"]
    _, default = made(*names, aliases={"postmaster": ["bob"]}, local_domains=domains)
    assert resolve(default, "postmaster@example.org") == [BOB]
    _, remote = made(*names, postmaster="ops@elsewhere.example")
    assert resolve(remote, "postmaster@localhost") == ["ops@elsewhere.example"]
    _, dangling = made(*names, postmaster="nobody", aliases={"postmaster": ["nobody"]})
    assert resolve(dangling, "postmaster@localhost") == ["first@localhost"]
    _, itself = made(*names, postmaster="postmaster@localhost")
    assert resolve(itself, "postmaster@localhost") == ["first@localhost"]


def test_a_server_without_accounts_has_no_postmaster_to_give():
    assert resolve(made()[1], "postmaster@localhost") == Unknown()


def test_labels_of_both_kinds_are_one_domain_and_sharp_s_is_not_ss():
    for configured in ("bücher.example", "xn--bcher-kva.example", "BÜCHER.example"):
        for name in ("a@bücher.example", "a@xn--bcher-kva.example"):
            _, directory = made(name, local_domains=(configured,))
            assert resolve(directory, "a@bücher.example") == [name]
            assert resolve(directory, "a@XN--BCHER-KVA.example") == [name]
            assert resolve(directory, "a@BU\N{COMBINING DIAERESIS}CHER.example") == [name]
            assert finish(directory.account_for_login("A@bücher.example")).name == name
    _, directory = made(local_domains=("straße.example",))
    assert directory.is_local_domain("xn--strae-oqa.example")
    assert not directory.is_local_domain("strasse.example")


def test_an_address_literal_is_local_only_where_it_is_configured():
    _, without = made(ALICE)
    assert resolve(without, "alice@[127.0.0.1]") == Elsewhere()
    _, directory = made(ALICE, local_domains=("localhost", "[127.0.0.1]", "[IPv6:::1]"))
    assert resolve(directory, "alice@[127.0.0.1]") == [ALICE]
    assert resolve(directory, "alice@[ipv6:0:0:0:0:0:0:0:1]") == [ALICE]
    assert resolve(directory, "postmaster@[127.0.0.1]") == [ALICE]
    assert resolve(directory, "alice@[127.0.0.2]") == Elsewhere()


@pytest.mark.parametrize(
    "domain", ["", "a..b", ".", "..", "[", "[]", "[1.2.3]", "ü" * 300, "a" * 70, "\x00", "xn--\x80", "]", "localhost@x"]
)
def test_no_domain_however_odd_is_an_exception(domain):
    _, directory = made(ALICE)
    assert directory.is_local_domain(domain) == (domain == "")


def test_a_login_is_a_full_address_or_a_local_part_at_the_default_domain():
    _, directory = made(
        "alice@example.org", BOB, local_domains=("localhost", "example.org"), default_domain="example.org"
    )
    assert finish(directory.account_for_login("Alice")).name == "alice@example.org"
    assert finish(directory.account_for_login(" BOB@LOCALHOST ")).name == BOB
    for login in (
        "bob",
        "",
        "@",
        "@localhost",
        "bob@",
        "bob@elsewhere",
        "bob+x@localhost",
        "b" * 600,
        "\x00",
        "\ud800",
    ):
        assert finish(directory.account_for_login(login)) is None


def test_a_disabled_account_gets_mail_and_no_login():
    store, directory = made(ALICE)
    record = finish(store.account_named(ALICE))

    class Disabling:
        async def account_named(self, name):
            return type(record)(record.id, record.name, "", 0, is_enabled=False) if name == ALICE else None

    directory._store = Disabling()
    assert finish(directory.account_for_login("alice")) is None
    assert resolve(directory, ALICE) == [ALICE]


@pytest.mark.parametrize("login", ["alice", " Alice@ ", "ALICE@Example.org", "alice@[192.0.2.1]"])
def test_every_way_to_name_an_account_has_one_canonical_login_whether_it_exists_or_not(login):
    for accounts in ([ALICE], []):
        _, directory = made(*accounts, local_domains=("example.org", "[192.0.2.1]"))
        assert directory.canonical_login(login) == ALICE.replace("localhost", "example.org")


@pytest.mark.parametrize("login", ["alice@elsewhere.example", "@localhost", "a" * 600])
def test_a_login_that_names_none_of_ours_stays_as_it_is(login):
    _, directory = made(ALICE)
    assert directory.canonical_login(f" {login} ") == login


def test_an_account_may_send_as_itself_and_as_the_aliases_that_lead_to_it():
    _, directory = made(ALICE, BOB, aliases={"info": ["team+x"], "team": ["alice", "bob"], "sales": ["bob"]})
    assert [str(each) for each in finish(directory.addresses_of(AccountId(1)))] == [
        ALICE,
        "info@localhost",
        "team@localhost",
    ]
    assert "sales@localhost" in map(str, finish(directory.addresses_of(AccountId(2))))
    with pytest.raises(NoSuchAccount):
        finish(directory.addresses_of(AccountId(3)))


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"local_domains": ()}, "local_domains"),
        ({"local_domains": ("a..b",)}, "local_domains"),
        ({"local_domains": ("localhost", "LOCALHOST")}, "local_domains"),
        ({"local_domains": ("bücher.example", "xn--bcher-kva.example")}, "local_domains"),
        ({"local_domains": ("[127.0.0.1]", "localhost")}, "default_domain"),
        ({"local_domains": ("[300.0.0.1]",)}, "local_domains"),
        ({"default_domain": "example.org"}, "default_domain"),
        ({"plus_separator": "++"}, "plus_separator"),
        ({"plus_separator": "@"}, "plus_separator"),
        ({"postmaster": "a b@localhost"}, "postmaster"),
        ({"aliases": (Alias(address="a@", targets=("b",)),)}, "aliases"),
        ({"aliases": (Alias(address="a", targets=()),)}, "aliases"),
        ({"aliases": (Alias(address="a", targets=("b@a..b",)),)}, "aliases"),
        ({"aliases": (Alias(address="a@elsewhere", targets=("b",)),)}, "aliases"),
        ({"aliases": (Alias(address="a", targets=("b",)), Alias(address="A", targets=("c",)))}, "aliases"),
        ({"aliases": (Alias(address="a", targets=("b",)), Alias(address="a@localhost", targets=("c",)))}, "aliases"),
    ],
)
def test_settings_that_cannot_work_are_named(settings, field):
    assert field in {name for name, _ in DirectorySettings(**settings).faults()}
    with pytest.raises(ValueError, match=field):
        StoreDirectory(MemoryStore(), DirectorySettings(**settings))


def test_settings_as_shipped_have_no_fault():
    assert list(DirectorySettings().faults()) == []
