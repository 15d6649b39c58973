"""What holds for every test."""

import os
from collections.abc import Iterator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """A test that narrows the umask and leaves it so breaks another, an hour later: Postfix cannot enter its folders."""
    before = os.umask(0o022)
    os.umask(before)
    result = yield
    after = os.umask(before)
    assert after == before, f"{item.nodeid} left the umask at {after:03o}; it was {before:03o}"
    return result
