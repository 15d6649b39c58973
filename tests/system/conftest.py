"""One server for the tests of a module that only talk to it; a fresh one where a test stops, kills or fills it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.rig import Server


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = str(Path(__file__).parent)
    for item in items:
        if str(item.path).startswith(here):
            item.add_marker(pytest.mark.system)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A running server with its first-run account, shared by the module."""
    running = Server(tmp_path_factory.mktemp("livemail") / "data")
    try:
        running.start()
        yield running
    finally:
        running.kill()


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Server]:
    """A server that is not started yet, and its own data folder."""
    made = Server(tmp_path / "data")
    try:
        yield made
    finally:
        made.kill()
