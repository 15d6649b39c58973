"""Every contract test runs on every back end."""

from __future__ import annotations

import pytest

from livemail.storage.lmdb import opening
from tests.contracts.rig import RIGS


@pytest.fixture(autouse=True)
def notes_early(monkeypatch):
    """What opening a mailbox found is noted from a few messages on, so that every test opens by notes."""
    monkeypatch.setattr(opening, "NOTE_FROM", 2)


@pytest.fixture(params=RIGS)
def make_rig(request):
    """Open stores of one back end; closed, and checked for consistency, after the test."""
    rigs = []

    def make(**settings):
        rigs.append(RIGS[request.param](**settings))
        return rigs[-1]

    yield make
    for rig in rigs:
        report = rig.wait(rig.store.check())
        rig.close()
        assert report.problems == ()


@pytest.fixture
def rig(make_rig):
    return make_rig()


@pytest.fixture
def account(rig):
    return rig.new_account()
