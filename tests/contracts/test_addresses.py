"""`IAddressBook`: domains and aliases, on every back end."""

from __future__ import annotations

from typing import Any

import pytest

from livemail.interfaces.addresses import AliasRecord, DomainRecord
from livemail.mail.errors import AliasExists, DomainExists, DomainInUse, NoSuchAlias, NoSuchDomain
from tests.contracts.rig import DURABLE, RIGS, Rig

EXAMPLE = DomainRecord("example.org", "local", "ann@example.org", "root@example.net", created=7)
SALES = AliasRecord(
    "sales", "example.org", ("ann@example.org", "x@elsewhere.test"), keep_copy=True, senders=("members",)
)


def put(rig: Rig, *records: Any, is_new: bool = True) -> None:
    book = rig.store.addresses
    for record in records:
        put_one = book.put_domain if isinstance(record, DomainRecord) else book.put_alias
        rig.wait(put_one(record, is_new=is_new))


def test_domains_and_aliases_come_back_as_they_were_put_in_order(rig: Rig) -> None:
    other, first = DomainRecord("zeta.test", "backup"), AliasRecord("ärger", "example.org", ("b@c.test",))
    put(rig, other, EXAMPLE, SALES, first, AliasRecord("zz", "aaa.test", ("b@c.test",)))
    assert list(rig.wait(rig.store.addresses.domains())) == [EXAMPLE, other]
    assert [alias.address for alias in rig.wait(rig.store.addresses.aliases())] == [
        "zz@aaa.test", "sales@example.org", "ärger@example.org",
    ]  # fmt: skip
    assert rig.wait(rig.store.addresses.alias("sales", "example.org")) == SALES
    assert rig.wait(rig.store.addresses.alias("sales", "example.com")) is None


def test_nothing_is_there_twice_and_only_what_is_there_is_changed(rig: Rig) -> None:
    for record, exists, missing in ((EXAMPLE, DomainExists, NoSuchDomain), (SALES, AliasExists, NoSuchAlias)):
        with pytest.raises(missing):
            put(rig, record, is_new=False)
        put(rig, record)
        with pytest.raises(exists):
            put(rig, record)
    put(rig, DomainRecord("example.org", "backup"), AliasRecord("sales", "example.org", ("z@z.test",)), is_new=False)
    assert list(rig.wait(rig.store.addresses.domains())) == [DomainRecord("example.org", "backup")]
    assert [alias.targets for alias in rig.wait(rig.store.addresses.aliases())] == [("z@z.test",)]


def test_a_domain_stays_while_something_of_it_is_left(rig: Rig) -> None:
    put(rig, EXAMPLE, DomainRecord("ample.org"), SALES)
    rig.wait(rig.store.add_accounts([("ann@example.org", ""), ("bob@sub.example.org", "")]))
    with pytest.raises(DomainInUse, match=r"example\.org has 1 account and 1 alias"):
        rig.wait(rig.store.addresses.remove_domain("example.org"))
    rig.wait(rig.store.addresses.remove_domain("ample.org"))  # a name that others end with
    rig.wait(rig.store.remove_account("ann@example.org"))
    with pytest.raises(DomainInUse, match=r"has 1 alias$"):
        rig.wait(rig.store.addresses.remove_domain("example.org"))
    rig.wait(rig.store.addresses.remove_alias("sales", "example.org"))
    rig.wait(rig.store.addresses.remove_domain("example.org"))
    assert list(rig.wait(rig.store.addresses.domains())) == []


def test_what_is_not_there_cannot_be_removed(rig: Rig) -> None:
    with pytest.raises(NoSuchDomain):
        rig.wait(rig.store.addresses.remove_domain("example.org"))
    with pytest.raises(NoSuchAlias):
        rig.wait(rig.store.addresses.remove_alias("sales", "example.org"))


def test_a_group_may_have_thousands_of_targets(rig: Rig) -> None:
    group = AliasRecord("all", "example.org", tuple(f"member-{n}@example.org" for n in range(20_000)))
    put(rig, group)
    assert list(rig.wait(rig.store.addresses.aliases())) == [group]


@pytest.mark.parametrize("kind", DURABLE)
def test_domains_and_aliases_survive_the_store(kind: str) -> None:
    rig = RIGS[kind]()
    try:
        put(rig, EXAMPLE, SALES)
        rig.reopen()
        assert list(rig.wait(rig.store.addresses.domains())) == [EXAMPLE]
        assert list(rig.wait(rig.store.addresses.aliases())) == [SALES]
    finally:
        rig.close()
