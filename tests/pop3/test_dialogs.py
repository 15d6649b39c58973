"""The transcripts of tests/dialogs/pop3-*.txt, whole, octet by octet, and with a tail of the next line."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.pop3.rig import Server

DIALOGS = sorted((Path(__file__).parent.parent / "dialogs").glob("pop3-*.txt"))


def turns(path: Path) -> list[tuple[bytes, bytes]]:
    """(what the client sends, what the server answers) in order; the greeting answers nothing sent."""
    found: list[tuple[bytes, bytes]] = [(b"", b"")]
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("C:"):
            found.append((line[2:].removeprefix(" ").encode() + b"\r\n", b""))
        elif line.startswith("S:"):
            text = line[2:].removeprefix(" ").encode()
            sent, answer = found[-1]
            found[-1] = (sent, answer + (b"+ " if text == b"+" else text) + b"\r\n")
    return found


@pytest.mark.parametrize("path", DIALOGS, ids=lambda path: path.stem)
@pytest.mark.parametrize("piece", [0, 1, 2])
def test_turn_by_turn(path, piece):
    (_, greeting), *rest = turns(path)
    client = Server().connect()
    assert client.greeting == greeting
    for sent, answer in rest:
        assert client.send(sent, piece) == answer


@pytest.mark.parametrize("path", DIALOGS, ids=lambda path: path.stem)
def test_all_at_once_with_a_tail(path):
    _, *rest = turns(path)
    client = Server().connect()
    assert client.send(b"".join(sent for sent, _ in rest) + b"NOOP\r\nNO") == b"".join(answer for _, answer in rest)


def test_there_are_dialogs():
    assert len(DIALOGS) >= 2
