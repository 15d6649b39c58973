"""The router: who may write to whom."""

from __future__ import annotations

import pytest

from livemail.delivery.local import LocalDelivery
from livemail.delivery.router import NotForSender, RelayDenied, route
from livemail.delivery.settings import DeliverySettings
from livemail.interfaces.delivery import Submitter
from livemail.interfaces.storage import AccountRecord
from livemail.mail.address import Address, Path
from livemail.mail.envelope import ReversePath
from livemail.mail.errors import MailError
from livemail.mail.ids import AccountId
from tests.contracts.drive import finish
from tests.directory.test_book import ANN, BEN, Rig

STRANGER = Submitter("smtp")
USER = Submitter("submission", AccountRecord(AccountId(1), ANN, "", 0))
PROGRAM = Submitter("lmtp")


def sent(rig: Rig, to: str, submitter: Submitter, sender: str = "") -> tuple[list[str], list[str]]:
    path = Path(Address(*sender.rsplit("@", 1))) if sender else Path.null
    found = finish(route(rig.directory, Address(*to.rsplit("@", 1)), submitter, path))
    return [place.name for place in found.local], [str(address) for address in found.remote]


def test_mail_for_a_backup_domain_is_taken_from_everybody_and_sent_on() -> None:
    rig = Rig(ANN, local_domains=("example.org",))
    with pytest.raises(RelayDenied):
        sent(rig, "x@held.test", STRANGER, "y@z.test")
    rig.domain("held.test", "backup")
    assert sent(rig, "x@held.test", STRANGER, "y@z.test") == ([], ["x@held.test"])
    assert sent(rig, "x@held.test", USER, ANN) == ([], ["x@held.test"])
    with pytest.raises(RelayDenied):
        sent(rig, "x@sub.held.test", STRANGER, "y@z.test")


def test_a_restricted_group_takes_mail_from_its_senders_only() -> None:
    rig = Rig(ANN, BEN, local_domains=("example.org",))
    rig.alias("team", "ben", "box@elsewhere.test", senders=("ann", "@friends.test"))
    places = ([BEN], ["box@elsewhere.test"])
    assert sent(rig, "team@example.org", USER, ANN) == places
    assert sent(rig, "team@example.org", PROGRAM, ANN) == places
    assert sent(rig, "team@example.org", STRANGER, "x@friends.test") == places
    for submitter, sender in (
        (STRANGER, ANN),  # anybody can write our addresses
        (USER, BEN),
        (STRANGER, "x@elsewhere.test"),
        (STRANGER, ""),  # reports are for people
    ):
        with pytest.raises(NotForSender):
            sent(rig, "team@example.org", submitter, sender)


def test_a_member_of_a_restricted_group_may_send_as_the_group_as_of_any_alias() -> None:
    rig = Rig(ANN, BEN, local_domains=("example.org",))
    rig.alias("team", "ann", senders=("members",))
    target = LocalDelivery(rig.store, rig.directory, DeliverySettings())
    group = ReversePath(Path(Address("team", "example.org")))
    finish(target.begin(group, USER))
    other = Submitter("submission", AccountRecord(AccountId(2), BEN, "", 0))
    with pytest.raises(MailError, match="is not an address of ben"):
        finish(target.begin(group, other))
