"""``livemail message deleted``, ``undelete`` and ``purge``."""

from __future__ import annotations

import pytest

from livemail.admin.operations import EX_NO_ACCOUNT, EX_PROBLEMS, EX_USAGE, Refused
from livemail.admin.undelete import Undeletes
from livemail.mail.ids import UIDSet
from tests.contracts.rig import MemoryRig
from tests.contracts.stores import message

HOUR = 3600.0


class Rig(MemoryRig):
    def do(self, word, **arguments):
        work = Undeletes(self.store, lambda: ["localhost"], self.pump.run_blocking, self.clock).operations()[
            f"message.{word}"
        ]
        return self.wait(work({"account": "ann", **arguments}, lambda *_: None))

    def refused(self, word, **arguments):
        with pytest.raises(Refused) as caught:
            self.do(word, **arguments)
        return caught.value


@pytest.fixture
def rig():
    """Four messages gone: three of INBOX, an hour between them, and a mailbox with one."""
    rig = Rig(quota_warning_percent=0)
    rig.account = rig.new_account("ann@localhost")
    for at, subject in enumerate(("one", "=?utf-8?q?zw=C3=B6lf?=", 'a "quoted" \\ one')):
        octets = message(subject, message_id=f"<m{at}@x>", **{"from": f"N{at} <n{at}@example.org>"})
        rig.append(rig.account, "INBOX", octets)
        rig.wait(rig.account.expunge(rig.info(rig.account).id, UIDSet.all(), only_deleted=False))
        rig.clock.seconds += HOUR
    rig.wait(rig.account.create_mailbox("Work"))
    rig.append(rig.account, "Work", b"\r\nno header\r\n")
    rig.wait(rig.account.delete_mailbox("Work"))
    return rig


def subjects(result):
    return [each["subject"] for each in result["messages"]]


def test_what_is_deleted_is_told_the_latest_first(rig):
    result = rig.do("deleted")
    assert subjects(result) == ["", 'a "quoted" \\ one', "zwölf", "one"]
    assert (result["account"], result["count"]) == ("ann@localhost", 4)
    last = result["messages"][-1]
    assert (last["mailbox"], last["uid"], last["sender"], last["message_id"]) == (
        "INBOX",
        1,
        "N0 <n0@example.org>",
        "<m0@x>",
    )
    assert last["deleted"] == int(rig.clock() - 3 * HOUR)
    limited = rig.do("deleted", limit=2)
    assert (subjects(limited), limited["count"]) == (["", 'a "quoted" \\ one'], 4)


@pytest.mark.parametrize(
    ("choice", "count"),
    [
        ({"ids": ["<m0@x>"]}, 1),
        ({"ids": ["m1@x", "m2@x"]}, 2),
        ({"mailbox": "Work"}, 1),
        ({"mailbox": "INBOX"}, 3),
        ({"since": 1.5 * HOUR}, 2),
        ({"text": "ZWÖLF"}, 1),
        ({"text": "n2@example"}, 1),
        ({"mailbox": "INBOX", "since": 1.5 * HOUR}, 1),
        ({"all": True}, 4),
    ],
)
def test_they_are_chosen_by_what_is_known_of_them(rig, choice, count):
    assert rig.do("deleted", **choice)["count"] == count
    result = rig.do("undelete", **choice)
    assert result["undeleted"] == count
    assert (result["refused"], result["unknown"]) == ([], [])
    assert rig.do("deleted")["count"] == 4 - count


def test_ids_are_short_and_name_one_message(rig):
    ids = [each["id"] for each in rig.do("deleted")["messages"]]
    assert len(set(ids)) == 4
    assert max(map(len, ids)) < 20
    result = rig.do("undelete", ids=[ids[0], "65-1-1", "<nobody@x>"])
    assert result["mailboxes"] == {"Work": 1}
    assert result["unknown"] == ["65-1-1", "<nobody@x>"]


def test_into_another_mailbox(rig):
    assert rig.do("undelete", all=True, into="Found/Again")["mailboxes"] == {"Found/Again": 4}
    assert rig.info(rig.account, "Found/Again").exists == 4


def test_nothing_said_and_nothing_found_are_told(rig):
    error = rig.refused("undelete")
    assert error.status == EX_USAGE
    assert "which of the 4 deleted messages of ann@localhost" in error.text
    error = rig.refused("undelete", ids=["m9@x"])
    assert error.status == EX_PROBLEMS
    assert "[storage] undelete" in error.text
    assert rig.refused("purge").status == EX_USAGE
    assert rig.refused("deleted", account="nobody").status == EX_NO_ACCOUNT


def test_what_fits_no_quota_stays_and_the_rest_comes():
    rig = Rig(account_messages=3, quota_warning_percent=0)
    rig.account = rig.new_account("ann@localhost")
    for _ in range(2):
        rig.append(rig.account, "INBOX", *(message(str(at)) for at in range(3)))
        rig.wait(rig.account.expunge(rig.info(rig.account).id, UIDSet.all(), only_deleted=False))
    result = rig.do("undelete", all=True)
    assert result["undeleted"] == 3
    assert len(result["refused"]) == 3
    assert "Mailbox full" in result["refused"][0]["why"]
    assert rig.do("deleted")["count"] == 3


def test_purging_is_for_good(rig):
    result = rig.do("purge", mailbox="INBOX")
    assert (result["purged"], rig.do("deleted")["count"]) == (3, 1)
    assert result["octets"] > 0
