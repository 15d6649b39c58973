"""``livemail filter list|reload|replay`` on a running server's filters."""

from __future__ import annotations

import sys

import pytest

from livemail.admin.filter_words import listed, replayed
from livemail.admin.filters import FilterOperations
from livemail.admin.operations import Refused
from livemail.config.filters import filter_specs
from livemail.filters import Server
from livemail.filters.filter_set import FilterSet
from livemail.testing.filters import ImpatientClock
from tests.smtp.rig import Rig, finish

MODULE = """
from livemail.filters import CONTINUE, Filter, Reject

class Policy(Filter):
    async def message(self, tx, message):
        if "bad" in message.text("Subject") or tx.recipients[0].path.address.local_part == "third":
            return Reject("5.7.1", "VERSION")
        message.add_header("X-Version", "VERSION")
        return CONTINUE
"""


class Reloading:
    def __init__(self, folder):
        self.file = folder / "reloaded_filters.py"
        self.tables = [{"use": "reloaded_filters:Policy", "name": "policy"}]
        self.write("one")
        self.rig = Rig()
        server = Server(reactor=ImpatientClock())
        self.filters = FilterSet(self.rig.store, self.rig.clock, None, server)
        self.filters.replace(filter_specs(self.tables))
        self.rig.chain = self.filters.chain("smtp")
        self.operations = FilterOperations(self.filters, self.rig.store, server, filter_specs, lambda: self.tables)

    def write(self, version):
        self.file.write_text(MODULE.replace("VERSION", version) + f"# {version}\n" * len(version))

    def do(self, operation, **arguments):
        return finish(getattr(self.operations, operation)(arguments, lambda *_: None))


@pytest.fixture
def reloading(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield Reloading(tmp_path)
    sys.modules.pop("reloaded_filters", None)


def test_a_reload_changes_the_next_transaction_of_a_connection_that_stays(reloading):
    client = reloading.rig.connect()
    assert client.send(b"Subject: bad\r\n\r\n") == "550 5.7.1 one\r\n"
    client.begin("you@localhost")
    reloading.write("second")
    assert reloading.do("reload", name="policy") == {"reloaded": ["policy"]}
    client.say("DATA")
    assert client.feed(b"Subject: bad\r\n\r\n.\r\n") == "550 5.7.1 one\r\n"
    assert client.send(b"Subject: bad\r\n\r\n") == "550 5.7.1 second\r\n"
    assert client.say("NOOP").startswith("250")


@pytest.mark.parametrize("breakage", ["syntax", "name", "table", "gone"])
def test_a_reload_with_an_error_keeps_what_was_there(reloading, breakage):
    if breakage == "syntax":
        reloading.file.write_text("def broken(:\n")
    elif breakage == "name":
        reloading.file.write_text("x = 1\n")
    elif breakage == "gone":
        reloading.file.unlink()
    else:
        reloading.tables[0]["colour"] = "red"
    client = reloading.rig.connect()
    with pytest.raises(Refused, match="the filters stay as they were"):
        reloading.do("reload")
    assert client.send(b"Subject: bad\r\n\r\n") == "550 5.7.1 one\r\n"
    assert sys.modules["reloaded_filters"].Policy is reloading.filters.loaded[0].spec.filter
    with pytest.raises(Refused, match="no filter of this server is named 'x'; there are policy"):
        reloading.do("reload", name="x")


def test_a_reload_takes_filters_in_and_out(reloading):
    reloading.tables.append({"use": "limits", "max_octets": 10})
    assert "limits" in reloading.do("reload")["reloaded"]
    client = reloading.rig.connect()
    assert client.send(b"Subject: hello\r\n\r\n").startswith("552")
    reloading.tables.clear()
    assert reloading.do("reload")["reloaded"] == []
    assert client.send(b"Subject: bad\r\n\r\n").startswith("250")


def test_the_list_says_what_is_asked_when_and_what_shadows_found(reloading):
    reloading.tables.append({"use": "limits", "max_octets": 10, "shadow": True, "services": ["smtp"]})
    reloading.do("reload")
    reloading.rig.connect().send(b"Subject: hello\r\n\r\n")
    told = reloading.do("list")
    text = listed(told)
    assert "policy: reloaded_filters:Policy; at message" in text
    assert "services smtp; shadow, 1 of 1 differ" in text
    assert any(each["name"] == "limits" for each in told["known"])


def test_a_replay_says_what_would_have_been_and_changes_nothing(reloading):
    reloading.tables.clear()
    reloading.do("reload")
    client = reloading.rig.connect()
    client.send(b"Subject: bad\r\n\r\n")
    client.send(b"Subject: good\r\n\r\n", "you@localhost", "me@localhost")
    client.send(b"Subject: good\r\n\r\n", "third@localhost")
    before = [reloading.rig.mail(account=at) for at in range(3)]
    told = reloading.do("replay", name="reloaded_filters:Policy", since=0)
    assert (told["messages"], told["verdicts"], told["failures"]) == (4, {"reject": 2, "continue": 2}, 0)
    assert {(each["account"], each["verdict"], tuple(each["edits"])) for each in told["found"]} == {
        ("you@localhost", "reject", ()),
        ("third@localhost", "reject", ()),
        ("you@localhost", "continue", ("add-header X-Version",)),
        ("me@localhost", "continue", ("add-header X-Version",)),
    }
    assert before == [reloading.rig.mail(account=at) for at in range(3)]
    assert "4 messages, " in replayed(told)
    assert reloading.do("replay", name="reloaded_filters:Policy", since=2e9)["messages"] == 0
    assert reloading.do("replay", name="reloaded_filters:Policy", since=0, accounts=["me@localhost"])["messages"] == 1
    assert reloading.do("replay", name="reloaded_filters:Policy", since=0, limit=2)["messages"] == 2
    assert reloading.do("replay", name="limits", since=0, settings={"max_octets": 1})["verdicts"] == {"reject": 4}
    with pytest.raises(Refused, match='there is no filter "nothing"'):
        reloading.do("replay", name="nothing")
