"""The limit of open files follows the connections that are wanted, as far as the system lets it."""

from __future__ import annotations

import resource

import pytest

from livemail.net.files import LEAST_CONNECTIONS, connections_possible

INFINITE = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("soft", "hard", "wanted", "possible", "raised"),
    [
        (1024, 1_048_576, 10_000, 10_000, 15_128),
        (1024, INFINITE, 10_000, 10_000, 15_128),
        (INFINITE, INFINITE, 10_000, 10_000, None),
        (65_536, 65_536, 10_000, 10_000, None),
        (1024, 4096, 10_000, 2645, 4096),
        (1024, 1024, 10_000, 597, None),
        (1024, 1024, 100, 100, None),
        (64, 64, 10_000, LEAST_CONNECTIONS, None),
        (64, 64, 3, 3, None),
    ],
)
def test_the_soft_limit_is_raised_and_connections_are_fewer_where_it_cannot_be(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, wanted: int, possible: int, raised: int | None
) -> None:
    told: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: told.append(limits))
    assert connections_possible(wanted) == possible
    assert told == ([] if raised is None else [(raised, hard)])
