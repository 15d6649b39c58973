"""Filters on the running server: their stories survive kill -9, a reload drops no connection, a process of its own is replaced."""

from __future__ import annotations

import json
import time
import tomllib
from pathlib import Path

import tomli_w

from tests.system.mail import deliver, smtp
from tests.system.rig import Server

POLICY = """
import os
from livemail.filters import CONTINUE, Filter, Reject

class Policy(Filter):
    async def message(self, tx, message):
        subject = message.text("Subject")
        if subject == "die":
            os._exit(7)
        if subject == "bad":
            return Reject("5.7.1", "WORD")
        message.add_header("X-Process", str(os.getpid()))
        return CONTINUE
"""


def configured(fresh: Server, *filters: dict[str, object]) -> Path:
    """The local profile with filters whose module is beside the data; returns the module."""
    folder = fresh.data.parent
    module = folder / "system_policy.py"
    module.write_text(POLICY.replace("WORD", "first"))
    fresh.environment["PYTHONPATH"] = str(folder)
    table = tomllib.loads(fresh.livemail("config", "show").stdout)
    file = folder / "filters.toml"
    file.write_text(tomli_w.dumps({**table, "filter": list(filters)}))
    fresh.data.mkdir(mode=0o700)
    fresh.arguments = ["--config", str(file)]
    fresh.facts = {listen["service"]: listen["address"] for listen in table["listen"]}
    return module


def started(fresh: Server) -> None:
    """Without a first run there is no account yet, and the ports are the file's."""
    facts = dict(fresh.facts)
    (fresh.data / "first-run.txt").write_text("".join(f"{key}: {value}\n" for key, value in facts.items()))
    fresh.start()
    command(fresh, "account", "add", "you", "--password-stdin", stdin="secret\n")


def command(fresh: Server, *words: str, status: int = 0, stdin: str | None = None) -> str:
    done = fresh.livemail(*fresh.arguments, *words, stdin=stdin)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def message(subject: str) -> bytes:
    return f"Message-ID: <{subject}@example.org>\r\nSubject: {subject}\r\n\r\nx\r\n".encode()


def test_stories_survive_kill_9_and_are_told_beside_a_server_and_without_one(fresh: Server) -> None:
    configured(fresh, {"use": "system_policy:Policy", "name": "policy"})
    started(fresh)
    client = smtp(fresh)
    client.ehlo("client.example")
    code, said = deliver(client, "you@localhost", message("good"))
    assert code == 250
    transaction = said.split()[-1].decode()
    fresh.kill()
    told = json.loads(command(fresh, "--json", "message", "explain", transaction))[0]
    assert (told["outcome"], told["message_id"]) == ("taken", "<good@example.org>")
    assert [(each["mailbox"], each["uid"], each["is_there"]) for each in told["delivered"]] == [("INBOX", 1, True)]
    assert [(each["filter"], each["verdict"]) for each in told["filters"]] == [("policy", "continue")]
    fresh.start()
    client = smtp(fresh)
    client.ehlo("client.example")
    assert deliver(client, "you@localhost", message("bad"))[0] == 550
    beside = command(fresh, "message", "explain", "bad@example.org")
    assert "refused: 550 5.7.1 first" in beside
    time.sleep(2.5)  # what was refused is kept within about a second; that is real time on a real server
    fresh.kill()
    assert "refused: 550 5.7.1 first" in command(fresh, "message", "explain", "bad@example.org")
    assert "1 good" not in command(fresh, "filter", "replay", "policy", "--since", "1d")


def test_a_reload_drops_no_connection_and_an_error_keeps_the_old(fresh: Server) -> None:
    module = configured(fresh, {"use": "system_policy:Policy", "name": "policy"})
    started(fresh)
    client = smtp(fresh)
    client.ehlo("client.example")
    assert deliver(client, "you@localhost", message("bad"))[1] == b"5.7.1 first"
    module.write_text(POLICY.replace("WORD", "the second"))
    assert "new from now on: policy" in command(fresh, "filter", "reload", "policy")
    assert deliver(client, "you@localhost", message("bad"))[1] == b"5.7.1 the second"
    module.write_text("def broken(:\n")
    assert "system_policy cannot be imported" in command(
        fresh, "filter", "reload", status=78
    )  # the command reads the file itself
    done = fresh.livemail("filter", "reload")  # only the server does
    assert (done.returncode, "the filters stay as they were" in done.stderr) == (65, True), done
    assert deliver(client, "you@localhost", message("bad"))[1] == b"5.7.1 the second"
    assert client.noop()[0] == 250


def test_a_filter_in_a_process_of_its_own_dies_and_is_replaced(fresh: Server) -> None:
    configured(fresh, {"use": "system_policy:Policy", "name": "policy", "isolation": "process"})
    started(fresh)
    client = smtp(fresh)
    client.ehlo("client.example")
    assert deliver(client, "you@localhost", message("good"))[0] == 250
    code, said = deliver(client, "you@localhost", message("die"))
    assert (code, said) == (451, b"4.3.0 The message could not be checked, try again later")
    time.sleep(1.2)  # the next process is started a second later at the earliest
    assert deliver(client, "you@localhost", message("good"))[0] == 250
    assert "filter policy failed at message, system_policy.py:" in fresh.log.read_text()
    assert "FAILED: defer 451 4.3.0" in command(fresh, "message", "explain", "die@example.org")
    assert fresh.stop() == 0
