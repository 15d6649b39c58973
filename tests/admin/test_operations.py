import json
import os
import socket
import stat
import threading
from pathlib import Path

import pytest

from livemail.admin import control, first_run
from livemail.admin.command import read_batch
from livemail.admin.operations import (
    EX_DATA,
    EX_EXISTS,
    EX_NO_ACCOUNT,
    EX_UNAVAILABLE,
    Operations,
    Refused,
    canonical_login,
)
from livemail.storage.memory import MemoryStore
from tests.contracts.drive import finish


def quiet(done: int, total: int, what: str) -> None:
    pass


async def plain(password: str) -> str:
    return f"hash of {password}"


def operations(store: MemoryStore | None = None) -> Operations:
    return Operations(store or MemoryStore(), lambda: ["example.org", "example.net"], plain)


def do(target: Operations, operation: str, **arguments: object):
    return finish(target.perform(operation, arguments, quiet))


def test_a_name_is_completed_folded_and_checked() -> None:
    assert canonical_login(" Ann ", ["example.org"]) == "ann@example.org"
    assert canonical_login("JOSE\u0301@Example.Org", ["example.org"]) == "jos\u00e9@example.org"
    for wrong in (
        "",
        "@example.org",
        "a b",
        'a"b',
        "a+b",
        ".a",
        "a..b",
        "a@b@example.org",
        "x" * 65,
        "a\x00",
        "a@elsewhere",
    ):
        with pytest.raises(Refused) as caught:
            canonical_login(wrong, ["example.org"])
        assert caught.value.status == EX_DATA


def test_accounts_are_added_listed_shown_and_removed() -> None:
    store = MemoryStore()
    target = operations(store)
    assert do(target, "account.add", accounts=[["ann", "x"], ["ben@example.net", "y"]])["added"] == [
        "ann@example.org",
        "ben@example.net",
    ]
    assert [each["name"] for each in do(target, "account.list")] == ["ann@example.org", "ben@example.net"]
    shown = do(target, "account.show", name="ANN")
    assert "INBOX" in [box["name"] for box in shown["mailboxes"]]
    assert "hash of" not in json.dumps(shown)
    do(target, "account.password", name="ann", password="z")
    record = finish(store.account_named("ann@example.org"))
    assert record is not None
    assert record.password == "hash of z"
    do(target, "account.remove", name="ann")
    with pytest.raises(Refused, match="no account ann@") as caught:
        do(target, "account.show", name="ann")
    assert caught.value.status == EX_NO_ACCOUNT


def test_a_batch_with_one_bad_line_adds_nothing_and_names_every_one() -> None:
    target = operations()
    result = do(target, "account.add", accounts=[["ann", "x"], ["b b", "x"], ["cleo", ""], ["ANN", "x"], ["d", "a\nb"]])
    assert [bool(fault) for fault in result["faults"]] == [False, True, True, True, True]
    assert do(target, "account.list") == []
    assert do(target, "account.add", accounts=[["ann", "x"]], only_check=True) == {
        "added": [],
        "faults": [""],
        "exists": [],
    }
    assert do(target, "account.list") == []


def test_accounts_that_exist_are_left_alone_and_the_others_added() -> None:
    target = operations()
    do(target, "account.add", accounts=[["ann", "x"]])
    result = do(target, "account.add", accounts=[[f"user{n}", "p"] for n in range(150)] + [["ann", "other"]])
    assert (len(result["added"]), result["exists"]) == (150, ["ann@example.org"])


def test_an_operation_of_another_version_is_refused() -> None:
    with pytest.raises(Refused) as caught:
        do(operations(), "account.fly")
    assert caught.value.status == EX_UNAVAILABLE


def test_the_store_is_checked() -> None:
    report = do(operations(), "store.check")
    assert report["problems"] in ([], ())


def test_batch_files_are_read_with_their_line_numbers(tmp_path: Path) -> None:
    path = tmp_path / "batch"
    path.write_bytes("# names\r\nann\tpass word\r\n\r\nben\njosé\tp\n".encode())
    numbers, accounts, faults = read_batch(str(path))
    assert accounts == [("ann", "pass word"), ("josé", "p")]
    assert (numbers, [number for number, _ in faults]) == ([2, 5], [4])
    with pytest.raises(Refused, match="cannot be read"):
        read_batch(str(tmp_path / "none"))
    path.write_bytes(b"\xff\tp\n")
    with pytest.raises(Refused, match="not UTF-8"):
        read_batch(str(path))


# ------------------------------------------------------------------------------------------------ the first run

PLACES = {
    "smtp": "127.0.0.1:2525",
    "submission": "127.0.0.1:2587",
    "submissions": "127.0.0.1:2465",
    "lmtp": "127.0.0.1:2424",
}
PLACES |= {
    "imap": "127.0.0.1:2143",
    "imaps": "127.0.0.1:2993",
    "pop3": "127.0.0.1:2110",
    "pop3s": "127.0.0.1:2995",
    "ca": "/ca.pem",
}


def prepare(folder: Path, store: MemoryStore, **changed: str):
    return finish(first_run.prepare(folder, {**PLACES, **changed}, store, "localhost", plain, "livemail"))


def inbox(store: MemoryStore) -> int:
    [record] = finish(store.accounts())
    return finish(finish(store.account(record.id)).mailbox("INBOX")).exists


def test_the_first_run_makes_an_account_with_three_messages_and_a_private_file(tmp_path: Path) -> None:
    store = MemoryStore()
    values, is_new = prepare(tmp_path, store)
    assert is_new
    assert stat.S_IMODE((tmp_path / "first-run.txt").stat().st_mode) == 0o600
    assert set(values) == {*PLACES, "account", "password", "data"}
    assert first_run.read_file(tmp_path) == values
    [record] = finish(store.accounts())
    assert (record.name, record.password) == ("you@localhost", f"hash of {values['password']}")
    assert inbox(store) == 3


def test_the_second_run_changes_nothing_but_places(tmp_path: Path) -> None:
    store = MemoryStore()
    first, _ = prepare(tmp_path, store)
    second, is_new = prepare(tmp_path, store, imap="127.0.0.1:3143")
    assert not is_new
    assert {**first, "imap": "127.0.0.1:3143"} == second == first_run.read_file(tmp_path)
    assert inbox(store) == 3
    assert first["password"] not in first_run.banner(second, False, "livemail")
    assert first["password"] in first_run.banner(first, True, "livemail")


def test_a_first_run_that_was_cut_off_goes_on_with_the_same_password(tmp_path: Path) -> None:
    before, _ = prepare(tmp_path, MemoryStore())
    store = MemoryStore()
    after, is_new = prepare(tmp_path, store)
    assert is_new
    assert before == after
    assert inbox(store) == 3


def test_a_store_with_accounts_of_its_own_gets_none(tmp_path: Path) -> None:
    store = MemoryStore()
    finish(store.add_accounts([("ann@localhost", "h")]))
    values, is_new = prepare(tmp_path, store)
    assert not is_new
    assert "password" not in values
    assert "ann@localhost" in first_run.banner(values, False, "livemail", ["ann@localhost"])


def test_passwords_are_long_and_never_the_same() -> None:
    made = {first_run.make_password() for _ in range(100)}
    assert len(made) == 100
    assert all(len(password) >= 16 for password in made)


# ------------------------------------------------------------------------------------------------ the client of the socket


class Server(threading.Thread):
    """Answers one control connection with what it is told."""

    def __init__(self, folder: Path, answer: bytes) -> None:
        super().__init__(daemon=True)
        self.answer = answer
        self.asked = b""
        self.listening = socket.socket(socket.AF_UNIX)
        descriptor = os.open(folder, os.O_PATH)
        self.listening.bind(f"/proc/self/fd/{descriptor}/{control.SOCKET}")
        self.listening.listen(1)
        self.start()

    def run(self) -> None:
        connection, _ = self.listening.accept()
        with connection, connection.makefile("rb") as lines:
            self.asked = lines.readline()
            connection.sendall(self.answer)


def test_the_client_gives_progress_and_the_result(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 120)
    deep.mkdir()
    server = Server(deep, b'{"progress": [1, 2, "accounts"]}\n{"result": {"added": ["ann"]}}\n')
    seen: list = []
    result = control.ask(deep, "account.add", {"accounts": [["ann", "p"]]}, lambda *args: seen.append(args))
    assert result == {"added": ["ann"]}
    assert seen == [(1, 2, "accounts")]
    assert json.loads(server.asked) == {"do": "account.add", "with": {"accounts": [["ann", "p"]]}}


def test_the_client_raises_what_the_server_refuses_and_notices_its_end(tmp_path: Path) -> None:
    Server(tmp_path, b'{"error": "exists", "status": 73}\n')
    with pytest.raises(Refused) as caught:
        control.ask(tmp_path, "ping", {}, quiet)
    assert (caught.value.text, caught.value.status) == ("exists", EX_EXISTS)
    (tmp_path / control.SOCKET).unlink()
    Server(tmp_path, b"")
    with pytest.raises(Refused, match="without an answer"):
        control.ask(tmp_path, "ping", {}, quiet)
    with pytest.raises(FileNotFoundError):
        control.ask(tmp_path / "none", "ping", {}, quiet)
