from __future__ import annotations

import json

import pytest

from livemail.__main__ import main
from livemail.filters.dkim.keys import KeyFolder


@pytest.fixture
def command(tmp_path, capsys):
    data = tmp_path / "data"
    data.mkdir()

    def run(*words):
        status = main(["--data", str(data), *words])
        said = capsys.readouterr()
        return status, said.out, said.err

    run.data = data
    return run


def test_a_key_is_made_and_its_record_is_printed_and_shown_again(command):
    status, out, _ = command("dkim", "create", "example.org", "--selector", "s1")
    assert status == 0
    assert 's1._domainkey.example.org. IN TXT ( "v=DKIM1; k=rsa; p=MIIB' in out
    file = command.data / "filters" / "dkim" / "example.org" / "s1.pem"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.stat().st_uid == command.data.stat().st_uid
    assert command("dkim", "show", "example.org")[1].strip() in out
    (key,) = KeyFolder(command.data / "filters" / "dkim").keys("example.org")
    assert key.record.replace("p=", "p=") in out.replace('" "', "")


def test_json_tells_all_of_it(command):
    status, out, _ = command("--json", "dkim", "create", "Example.org", "--algorithm", "ed25519")
    told = json.loads(out)
    assert status == 0
    assert (told["domain"], told["algorithm"], told["bits"], told["type"]) == ("example.org", "ed25519", 256, "TXT")
    assert told["selector"].startswith("ed25519")
    assert "".join(told["strings"]) == told["value"]
    assert json.loads(command("--json", "dkim", "show", "example.org")[1]) == [told]
    assert json.loads(command("--json", "dkim", "list")[1]) == [told]
    assert json.loads(command("--json", "dkim", "show", "example.org", "--selector", told["selector"])[1]) == [told]


def test_list_is_by_domain(command):
    assert command("dkim", "list") == (0, "", "")
    for domain in ("b.example", "a.example"):
        command("dkim", "create", domain, "--selector", "s", "--algorithm", "ed25519")
    assert command("dkim", "list")[1].splitlines() == ["a.example  s  ed25519 256", "b.example  s  ed25519 256"]


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (("create", "../x"), 65, "is not a domain"),
        (("create", "example.org", "--selector", "a/b"), 65, "is not a selector"),
        (("create", "example.org", "--bits", "512"), 65, "1024 to 4096"),
        (("create", "taken.example", "--selector", "s"), 73, "exists already"),
        (("show", "nowhere.example"), 1, "livemail dkim create nowhere.example"),
        (("show", "taken.example", "--selector", "other"), 1, "selector other"),
    ],
)
def test_what_cannot_be_done_says_what_to_do(command, words, status, text):
    command("dkim", "create", "taken.example", "--selector", "s", "--algorithm", "ed25519")
    got, _, err = command("dkim", *words)
    assert got == status
    assert text in err


def test_without_a_data_folder_no_key_is_made(command):
    command.data.rmdir()
    status, _, err = command("dkim", "create", "example.org")
    assert status == 66
    assert "install -d -m 700" in err
