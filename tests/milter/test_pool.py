from __future__ import annotations

import pytest
from twisted.internet.task import Clock

from livemail.milter import codes
from livemail.milter.client import MilterError, Times
from livemail.milter.grammar import Options
from livemail.milter.pool import Pool
from tests.milter.milters import Script
from tests.smtp.rig import finish


class Milters:
    def __init__(self, options=None, **settings):
        self.clock, self.made, self.options = Clock(), [], options
        values = {"max_idle": 3, "idle_seconds": 60.0} | settings
        self.pool = Pool(self.open, self.clock, times=Times(), max_body=1, **values)

    async def open(self):
        self.made.append(Script(self.options))
        return self.made[-1]

    def take(self, session):
        return finish(self.pool.take(session))


def test_the_same_connection_gets_its_dialogue_back():
    milters = Milters()
    held = milters.take("a")
    milters.pool.park(held)
    assert milters.take("a") is held
    assert len(milters.made) == 1


def test_another_connection_gets_one_of_its_own():
    milters = Milters()
    for name in "abc":
        milters.pool.park(milters.take(name))
    assert [script.commands() for script in milters.made] == ["O", "O", "O"]


def test_another_connection_gets_one_that_was_made_to_forget_where_that_is_allowed():
    milters = Milters(reuse=True)
    helds = [milters.take(name) for name in "ab"]
    for held in helds:
        held.client.is_connected = True
        held.is_settled = True
        milters.pool.park(held)
    other = milters.take("c")
    assert other.client is helds[0].client
    assert (other.session, other.is_settled, other.told_connect) == ("c", False, None)
    assert milters.made[0].commands() == "OK"
    assert len(milters.made) == 2


def test_a_milter_that_cannot_forget_gets_a_connection_for_each():
    milters = Milters(Options(4, 0, 0), reuse=True)
    for name in "abc":
        milters.pool.park(milters.take(name))
    assert len(milters.made) == 3


def test_what_is_lost_is_not_given_out():
    milters = Milters()
    held = milters.take("a")
    milters.pool.park(held)
    milters.made[0].drop()
    assert milters.take("a") is not held
    held.client.link.drop()
    milters.pool.park(held)
    assert milters.pool.idle == 0


def test_no_more_than_so_many_are_kept_for_no_longer_than_so_long():
    milters = Milters()
    for held in [milters.take(name) for name in "abcde"]:
        milters.pool.park(held)
        milters.clock.advance(1)
    assert milters.pool.idle == 3
    assert [script.commands() for script in milters.made] == ["OQ", "OQ", "O", "O", "O"]
    milters.clock.advance(57)
    assert milters.pool.idle == 2
    milters.clock.advance(60)
    assert milters.pool.idle == 0
    assert not milters.clock.getDelayedCalls()


def test_closing_says_goodbye_now_and_to_those_in_use_later():
    milters = Milters()
    one, two = milters.take("a"), milters.take("b")
    milters.pool.park(one)
    milters.pool.close()
    milters.pool.park(two)
    assert [script.commands() for script in milters.made] == ["OQ", "OQ"]
    assert not milters.clock.getDelayedCalls()


def test_a_failed_negotiation_leaves_nothing_open():
    milters = Milters(Options(9, 0, 0))
    with pytest.raises(MilterError):
        milters.take("a")
    assert not milters.made[0].is_open
    assert milters.made[0].commands() == "O"
    assert codes.VERSION == 6
