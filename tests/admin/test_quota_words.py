"""``livemail account quota``, and what ``livemail account show`` says of quotas."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable

import pytest

from livemail.admin import command
from livemail.admin.operations import EX_NO_ACCOUNT, Operations, Refused
from livemail.interfaces.storage import AppendItem
from livemail.storage.memory import MemoryStore
from livemail.storage.placement import PlacementSettings
from livemail.storage.quota import Quotas
from livemail.storage.settings import StorageSettings
from tests.contracts.drive import finish
from tests.contracts.stores import content

Run = Callable[..., int]


async def plain(password: str) -> str:
    return password


@pytest.fixture
def run() -> Run:
    """Run ``livemail account …`` on a store with two accounts, 1,500 octets in one of them."""
    domain = PlacementSettings(name="example.org", quota=2000, mailboxes=9, quota_total=3000)
    store = MemoryStore(quotas=Quotas.of(StorageSettings(store_messages=50), (domain,)))
    operations = Operations(store, lambda: ["example.org", "example.net"], plain)
    records = finish(store.add_accounts([("ann@example.org", "x"), ("ben@example.net", "x")]))
    account = finish(store.account(records[0].id))
    finish(account.append("Sent", [AppendItem(finish(content(store, b"x" * 1500)))]))
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", action="store_true")
    command.add_words(parser.add_subparsers())

    def run(*words: str) -> int:
        arguments = parser.parse_args(words)
        return arguments.verb(
            arguments, lambda name, given, progress: finish(operations.perform(name, given, progress))
        )

    return run


def test_every_account_domain_and_the_store_has_a_line(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("account", "quota") == 0
    assert capsys.readouterr().out == (
        "account ann@example.org  1,500 of 2,000 octets        1 messages       6 of 9 mailboxes      75 %\n"
        "account ben@example.net               0 octets        0 messages  6 of 10,000 mailboxes  no limit\n"
        "domain example.org       1,500 of 3,000 octets        1 messages            6 mailboxes      50 %\n"
        "domain example.net                    0 octets        0 messages            6 mailboxes  no limit\n"
        "the store                         1,500 octets  1 of 50 messages           12 mailboxes       2 %\n"
    )


def test_one_account_is_shown_with_what_it_is_in(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("account", "quota", "ann") == 0
    assert [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()] == [
        "account ann@example.org",
        "domain example.org",
        "the store",
    ]
    assert run("account", "show", "ann") == 0
    assert "  account ann@example.org  1,500 of 2,000 octets" in capsys.readouterr().out
    with pytest.raises(Refused, match=r"no account eve@example\.org") as caught:
        run("account", "quota", "eve")
    assert caught.value.status == EX_NO_ACCOUNT


def test_programs_get_the_numbers(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run("--json", "account", "quota", "ann")
    told = json.loads(capsys.readouterr().out)
    assert told[0] == {
        "kind": "account",
        "name": "ann@example.org",
        "octets": 1500,
        "messages": 1,
        "mailboxes": 6,
        "octets_limit": 2000,
        "messages_limit": 0,
        "mailboxes_limit": 9,
        "percent": 75,
    }
    run("--json", "account", "show", "ann")
    assert json.loads(capsys.readouterr().out)["quota"] == told
