"""Whom a filter is asked for, filters beside filters, filters replaced, and what is recorded of them."""

from __future__ import annotations

import pytest
from twisted.logger import formatEvent, globalLogPublisher

from livemail.filters import CONTINUE, Filter, Reject, Server
from livemail.filters.chain import FilterSpec
from livemail.filters.filter_set import CannotLoad, FilterSet
from livemail.interfaces.directory import LocalAccount
from tests.filters.test_chain import MAIL, at_message, rig

# ------------------------------------------------------------------------------------------------------------------ scope


def scoped(**scope):
    asked = []

    class Witness(Filter):
        async def mail(self, tx, reverse_path):
            asked.append("mail")
            return CONTINUE

        async def rcpt(self, tx, recipient):
            asked.append(str(recipient.path))
            return CONTINUE

        async def message(self, tx, message):
            asked.append("message")
            return CONTINUE

    return FilterSpec("scoped", Witness, **scope), asked


def test_a_domain_is_a_recipients_or_the_submitters():
    spec, asked = scoped(domains=frozenset({"local.example"}))
    made = rig(spec)
    made.connect().send(MAIL, "you@localhost", "me@local.example")
    assert asked == ["<me@local.example>", "message"]
    asked.clear()
    made.connect().send(MAIL, "you@localhost")
    assert asked == []
    spec, asked = scoped(domains=frozenset({"localhost"}))
    rig(spec).submit().send(MAIL, "me@local.example", sender="you@localhost")
    assert asked == ["mail", "<me@local.example>", "message"]


def test_an_account_is_met_through_its_aliases_too():
    spec, asked = scoped(accounts=frozenset({"me@localhost"}))
    made = rig(spec)
    made.directory.aliases["sales"] = made.directory.aliases["both"] = (
        LocalAccount(made.records[1].id, "me@localhost"),
    )
    made.chain.server = Server(directory=made.directory)
    made.connect().send(MAIL, "you@localhost", "sales@localhost")
    assert asked == ["<sales@localhost>", "message"]
    asked.clear()
    made.connect().send(MAIL, "you@localhost")
    assert asked == []


# ------------------------------------------------------------------------------------------------------- shadow, reload


def test_a_shadow_sees_what_the_live_one_sees_and_never_acts():
    events = []

    class Live(Filter):
        async def message(self, tx, message):
            message.add_header("X-Live", str(len(message.values("X-Shadow"))))
            return CONTINUE

    class Shadow(Filter):
        async def rcpt(self, tx, recipient):
            return Reject("5.7.1", "never said") if "me@" in str(recipient.path) else CONTINUE

        async def message(self, tx, message):
            message.add_header("X-Shadow", str(len(message.values("X-Live"))))
            if message.text("subject") == "bang":
                raise ValueError
            return CONTINUE

    made = rig(
        at_message(lambda tx, message: message.add_header("X-First", "1")),
        FilterSpec("policy", Live),
        FilterSpec("policy", Shadow, shadow=True),
    )
    globalLogPublisher.addObserver(events.append)
    try:
        client = made.connect()
        assert client.send(MAIL).startswith("250")
        assert client.send(MAIL, "me@localhost").startswith("250")
        assert client.send(b"Subject: bang\r\n\r\n").startswith("250")
        client.say("QUIT")
    finally:
        globalLogPublisher.removeObserver(events.append)
    assert b"X-Live: 0" in made.mail()[0]
    assert b"X-Shadow" not in made.mail()[0]
    texts = [text for event in events if "differs" in (text := formatEvent(event) or "")]
    assert "live add X-Live [0] 0; shadow add X-Shadow [0] 0" in texts[0]
    assert "shadow rcpt: Reject 550 5.7.1 never said" in texts[1]
    assert "shadow message: failed, ValueError" in texts[2]
    shadow = next(loaded for loaded in made.chain.plan.filters if loaded.spec.shadow)
    assert (shadow.compared, shadow.differed) == (3, 3)


def test_a_shadow_that_agrees_is_not_reported():
    live = at_message(lambda tx, message: message.add_header("X", "1"))
    made = rig(FilterSpec("p", live), FilterSpec("p", live, shadow=True), FilterSpec("q", Filter, shadow=True))
    assert made.connect().send(MAIL).startswith("250")
    assert next((each.compared, each.differed) for each in made.chain.plan.filters if each.spec.shadow) == (1, 0)
    assert made.mail()[0].count(b"X: 1") == 1


def test_filters_are_replaced_between_transactions_and_what_they_share_ends_with_the_last():
    log = []

    class Old(Filter):
        @classmethod
        def start(cls, config, server):
            log.append("start old")
            return ["old"]

        @classmethod
        def stop(cls, shared):
            log.append(f"stop {shared[0]}")

        async def rcpt(self, tx, recipient):
            self.shared.append(1)
            return CONTINUE

        async def message(self, tx, message):
            log.append(f"old {len(self.shared)}")
            return CONTINUE

    class New(Filter):
        async def message(self, tx, message):
            log.append("new")
            return CONTINUE

    class Broken(Filter):
        @classmethod
        def start(cls, config, server):
            raise OSError("no such table")

    made = rig()
    filters = FilterSet(made.store, made.clock, None, Server())
    assert filters.replace([FilterSpec("f", Old), FilterSpec("g", Filter)]) == ["f", "g"]
    made.chain = filters.chain("smtp")
    client = made.connect()
    client.begin("you@localhost")
    assert filters.replace([FilterSpec("f", New), FilterSpec("g", Filter)]) == ["f"]
    client.say("DATA")
    assert client.feed(MAIL + b".\r\n").startswith("250")
    assert log == ["start old", "old 2"]
    assert client.send(MAIL).startswith("250")
    assert log == ["start old", "old 2", "stop old", "new"]
    with pytest.raises(CannotLoad, match="filter b cannot start: OSError: no such table"):
        filters.replace([FilterSpec("b", Broken)])
    assert client.send(MAIL).startswith("250")
    assert log[-1] == "new"


def test_records_tell_verdict_time_and_edits_and_many_recipients_are_one():
    class Judge(Filter):
        async def rcpt(self, tx, recipient):
            return CONTINUE

        async def message(self, tx, message):
            message.add_header("X-One", "1")
            kept.extend(tx.records)
            return CONTINUE

    kept = []
    made = rig(FilterSpec("judge", Judge), FilterSpec("after", at_message(lambda tx, m: kept.extend(tx.records))))
    made.connect().send(MAIL, "you@localhost", "me@localhost", "third@localhost")
    assert [(each.filter, each.stage, each.count) for each in kept[:1]] == [("judge", "rcpt", 3)]
    assert kept[-1].edits == ("add-header X-One",)
    assert all(each.seconds > 0 for each in kept)
