"""mutt in a terminal: the index, a message, a flag, a deletion."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.mail import deliver, imap, smtp
from tests.system.rig import Server, program, run


class Terminal:
    """A tmux session of our own with mutt in it."""

    def __init__(self, socket: Path, command: str) -> None:
        self.base = [program("tmux"), "-S", str(socket), "-f", "/dev/null"]
        done = run([*self.base, "new-session", "-d", "-s", "mutt", "-x", "120", "-y", "40", command])
        assert done.returncode == 0, done.stderr

    def screen(self) -> str:
        return run([*self.base, "capture-pane", "-p", "-t", "mutt"]).stdout

    def keys(self, *keys: str) -> None:
        run([*self.base, "send-keys", "-t", "mutt", *keys])

    def wait(self, text: str, seconds: float = 20) -> str:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            shown = self.screen()
            if text in shown:
                return shown
            time.sleep(0.1)
        raise AssertionError(f"{text!r} never appeared:\n{self.screen()}")

    def close(self) -> None:
        run([*self.base, "kill-server"])


@pytest.fixture
def terminal(server: Server, tmp_path: Path) -> Iterator[Terminal]:
    with smtp(server) as client:
        client.ehlo()
        for word in ("aardvark", "bumblebee"):
            code, text = deliver(
                client, "you@localhost", f"From: m@example.org\r\nSubject: {word}\r\n\r\nabout {word}\r\n".encode()
            )
            assert code == 250, text
    configuration = tmp_path / "muttrc"
    user = server.facts["account"].replace("@", "%40")
    configuration.write_text(
        f'set folder="imap://{user}@127.0.0.1:{server.port("imap")}/"\n'
        f'set imap_pass="{server.facts["password"]}"\nset spoolfile="+INBOX"\nset ssl_starttls=no\n'
        "set ssl_force_tls=no\nset header_cache=\nset confirmappend=no\nset delete=yes\nset quit=yes\nset sort=date\n"
        "set mail_check=1\nset timeout=1\nset imap_idle=yes\n"
    )
    shown = Terminal(tmp_path / "tmux", f"HOME={tmp_path} TERM=screen {program('mutt')} -n -F {configuration}")
    yield shown
    shown.close()


def test_mutt_lists_reads_flags_and_deletes(server: Server, terminal: Terminal) -> None:
    terminal.wait("bumblebee")
    terminal.keys("/", "aardvark", "Enter", "Enter")
    terminal.wait("about aardvark")
    terminal.keys("i")
    terminal.wait("bumblebee")
    terminal.keys("/", "bumblebee", "Enter", "F")
    terminal.keys("/", "aardvark", "Enter", "d", "$")
    session = imap(server)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        session.select("INBOX", readonly=True)
        gone = session.search(None, "SUBJECT", "aardvark")[1] == [b""]
        flagged = session.search(None, "SUBJECT", "bumblebee", "FLAGGED")[1] != [b""]
        if gone and flagged:
            break
        time.sleep(0.2)
    session.logout()
    assert gone, terminal.screen()
    assert flagged, terminal.screen()


def test_mutt_shows_new_mail_while_it_waits(server: Server, terminal: Terminal) -> None:
    terminal.wait("bumblebee")
    with smtp(server) as client:
        client.ehlo()
        assert deliver(client, "you@localhost", b"Subject: chinchilla\r\n\r\nlive\r\n")[0] == 250
    terminal.wait("chinchilla")
