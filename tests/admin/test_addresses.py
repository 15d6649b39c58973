"""Domains and aliases as operations, and the words for them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from livemail.__main__ import parser
from livemail.admin import addresses
from livemail.admin.operations import Operations, Refused
from livemail.directory import AddressBook, StoreDirectory
from livemail.directory.settings import Alias, DirectorySettings
from livemail.storage.memory import MemoryStore
from tests.contracts.drive import finish


class Here:
    """The command over operations on a memory store, as it is over the control socket."""

    def __init__(self, **settings: Any) -> None:
        store = MemoryStore(now=lambda: 1_700_000_000)
        directory = StoreDirectory(store, DirectorySettings(**settings))

        async def plain(password: str) -> str:
            return password

        self.operations = Operations(store, directory.local_domains, plain)
        addresses.add_to(self.operations, AddressBook(store, directory, lambda: 1_700_000_000), directory)

    def __call__(self, operation: str, arguments: Mapping[str, Any], progress: Any) -> Any:
        crossed = json.loads(json.dumps(arguments))
        return json.loads(json.dumps(finish(self.operations.perform(operation, crossed, progress))))

    def say(self, *words: str) -> int:
        arguments = parser().parse_args(words)
        return int(arguments.verb(arguments, self))

    def status(self, *words: str) -> int:
        with pytest.raises(Refused) as caught:
            self.say(*words)
        return caught.value.status


def test_the_words_tell_what_happened(capsys: pytest.CaptureFixture[str]) -> None:
    here = Here(aliases=(Alias(address="fixed", targets=("you",)),))
    for words, told in [
        (
            ["domain", "add", "example.org", "--catch-all", "ann"],
            "added example.org  local  catch-all ann@example.org\n",
        ),
        (["domain", "add", "held.test", "--backup"], "added held.test  backup\n"),
        (
            ["domain", "list"],
            "localhost  local  (configuration file)\nexample.org  local  catch-all ann@example.org\nheld.test  backup\n",
        ),
        (["domain", "set", "example.org", "--catch-all", ""], "example.org  local\n"),
        (["domain", "show", "example.org"], "example.org  local\n  0 accounts, 0 aliases\n"),
        (
            ["alias", "add", "sales@example.org", "x@elsewhere.test", "ann@example.org", "--senders", "members"],
            (
                "added sales@example.org → x@elsewhere.test, ann@example.org  from members only"
                "  (nobody has ann@example.org yet)\n"
            ),
        ),
        (
            ["alias", "list"],
            (
                "fixed@localhost → you  (configuration file)\n"
                "sales@example.org → x@elsewhere.test, ann@example.org  from members only\n"
            ),
        ),
        (
            ["alias", "list", "example.org"],
            "sales@example.org → x@elsewhere.test, ann@example.org  from members only\n",
        ),
        (
            ["alias", "set", "sales@example.org", "--drop", "ann@example.org", "--senders", ""],
            "sales@example.org → x@elsewhere.test\n",
        ),
        (["alias", "show", "SALES@example.org"], "sales@example.org → x@elsewhere.test\n"),
        (["alias", "show", "fixed"], "fixed@localhost → you  (configuration file)\n"),
        (["domain", "show", "example.org"], "example.org  local\n  0 accounts, 1 alias\n"),
        (["alias", "remove", "sales@example.org"], "removed sales@example.org\n"),
        (["domain", "remove", "example.org"], "removed example.org\n"),
    ]:
        assert here.say(*words) == 0
        assert capsys.readouterr().out == told, words


def test_json_has_the_whole_record(capsys: pytest.CaptureFixture[str]) -> None:
    here = Here()
    here.say("--json", "domain", "add", "example.org")
    assert json.loads(capsys.readouterr().out) == {
        "name": "example.org", "role": "local", "catch_all": "", "postmaster": "", "configured": False, "created": 1_700_000_000,
    }  # fmt: skip
    here.say("alias", "add", "a@example.org", "b@c.test", "--json")
    assert json.loads(capsys.readouterr().out) == {
        "address": "a@example.org", "targets": ["b@c.test"], "target_count": 1, "keep_copy": False, "senders": [],
        "configured": False, "created": 1_700_000_000, "missing": [],
    }  # fmt: skip
    here.say("alias", "list", "--json")
    assert [alias["address"] for alias in json.loads(capsys.readouterr().out)] == ["a@example.org"]


def test_each_refusal_has_its_exit_status() -> None:
    here = Here()
    here.say("domain", "add", "example.org")
    here.say("alias", "add", "a@example.org", "b@c.test")
    assert here.status("domain", "add", "example.org") == 73
    assert here.status("domain", "add", "localhost") == 73
    assert here.status("domain", "add", "a..b") == 65
    assert here.status("domain", "show", "example.com") == 67
    assert here.status("domain", "set", "example.com", "--catch-all", "x@y.test") == 67
    assert here.status("domain", "set", "example.org") == 64
    assert here.status("domain", "remove", "example.com") == 67
    assert here.status("domain", "remove", "example.org") == 1
    assert here.status("alias", "add", "a@example.org", "b@c.test") == 73
    assert here.status("alias", "add", "x@example.com", "b@c.test") == 65
    assert here.status("alias", "add", "x@example.org") == 64
    assert here.status("alias", "add", "x@example.org", "not an address") == 65
    assert here.status("alias", "show", "x@example.org") == 67
    assert here.status("alias", "set", "x@example.org", "--add", "b@c.test") == 67
    assert here.status("alias", "set", "a@example.org") == 64
    assert here.status("alias", "remove", "x@example.org") == 67


def test_accounts_can_be_added_in_domains_added_this_way() -> None:
    here = Here()
    account = {"accounts": [["ann@München.test", "secret"]]}
    refused = here("account.add", account, None)
    assert "livemail domain add münchen.test" in refused["faults"][0]
    here.say("domain", "add", "münchen.test")
    assert here("account.add", account, lambda *_: None)["added"] == ["ann@xn--mnchen-3ya.test"]


def test_a_group_is_read_from_a_file_and_told_in_short(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = Here()
    members = tmp_path / "members"
    members.write_text("# all of us\n\n" + "".join(f"m{n}@elsewhere.test\n" for n in range(3000)))
    here.say("alias", "add", "all", "first@elsewhere.test", "--targets-file", str(members))
    out = capsys.readouterr().out
    assert out.startswith("added all@localhost → first@elsewhere.test, m0@elsewhere.test, ")
    assert out.endswith(", … 2,981 more\n")
    here.say("alias", "show", "all")
    lines = capsys.readouterr().out.splitlines()
    assert (lines[0], len(lines), lines[-1]) == ("all@localhost: 3,001 targets", 3002, "  m2999@elsewhere.test")
    assert here.status("alias", "set", "all", "--targets-file", str(tmp_path / "none")) == 65
    members.write_bytes(b"\xff@elsewhere.test\n")
    assert here.status("alias", "set", "all", "--targets-file", str(members)) == 65
