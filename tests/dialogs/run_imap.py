"""Runs ``imap-*.txt``: dialogues with the real session over the memory store.

    # RFC …            the first line names what is shown
    C: text            the client sends a line
    S: text            the server's next line; ``…`` stands for any text
    2C: text, 2S: text a second client, connected when it is first named

Everything the server says must be in the file, in its order.  Accounts are those of `tests.imap.rig`.
"""

from __future__ import annotations

import re
from pathlib import Path

from tests.imap.rig import Client, Rig

FOLDER = Path(__file__).parent
_LINE = re.compile(r"(\d?)([CS]):(?: (.*))?")


class Speaker:
    """One client of the dialogue and what it has heard."""

    def __init__(self, client: Client, *, dripped: bool) -> None:
        self._client = client
        self._send = client.drip if dripped else client.send
        self._heard = b""

    def say(self, text: str) -> None:
        self._heard += self._client.take() + self._send(text.encode() + b"\r\n")

    def hear(self) -> str | None:
        """The next line; None when the server has said no more."""
        self._heard += self._client.take()
        line, end, self._heard = self._heard.partition(b"\r\n")
        return line.decode() if end else None


def matches(expected: str, line: str | None) -> bool:
    if line is None:
        return False
    return re.fullmatch(".*".join(re.escape(part) for part in expected.split("…")), line, re.DOTALL) is not None


def run(path: Path, *, dripped: bool = False) -> None:
    """Play a dialogue.  Raises AssertionError at the first line that differs."""
    title, *lines = path.read_text().splitlines()
    assert title.startswith("# RFC "), f"{path.name}: the first line names the RFC"
    rig = Rig()
    speakers: dict[str, Speaker] = {}
    for number, text in enumerate(lines, 2):
        if not text or text.startswith("#"):
            continue
        match = _LINE.fullmatch(text)
        assert match, f"{path.name}:{number}: not a line of a dialogue: {text}"
        who, side, said = match[1], match[2], match[3] or ""
        if who not in speakers:
            speakers[who] = Speaker(rig.connect(), dripped=dripped)
        if side == "C":
            speakers[who].say(said)
        else:
            line = speakers[who].hear()
            assert matches(said, line), f"{path.name}:{number}: expected {said!r}, heard {line!r}"
    for who, speaker in speakers.items():
        line = speaker.hear()
        assert line is None, f"{path.name}: nobody expected that {who or 1} heard {line!r}"
