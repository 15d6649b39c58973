from __future__ import annotations

import pytest

from tests.contracts.rig import RIGS


@pytest.fixture(params=["lmdb", "maildir"])
def rig(request):
    made = RIGS[request.param](message_size_limit=4 * 1024 * 1024)
    yield made
    problems = made.wait(made.store.check()).problems
    made.close()
    assert problems == ()


@pytest.fixture
def account(rig):
    return rig.new_account()
