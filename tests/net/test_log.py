import io
import json
from pathlib import Path

import pytest
from twisted.logger import Logger, LogLevel, formatEvent
from twisted.python.failure import Failure

from livemail.net.log import LineObserver, escape, text_line
from livemail.net.settings import LogSettings


def logged(settings: LogSettings, say) -> str:
    stream = io.StringIO()
    say(Logger(namespace="livemail.test", observer=LineObserver(settings, stream)))
    return stream.getvalue()


EVIL = "a\r\nforged \x1b[31mred\x07\x85\u2028 é"


def test_a_peer_cannot_forge_a_line_or_move_the_cursor() -> None:
    for form in ("text", "json"):
        out = logged(LogSettings(format=form), lambda log: log.info("helo {name}", name=EVIL))
        assert out.count("\n") == 1
        assert len(out.splitlines()) == 1 or form == "json"
        assert "\x1b" not in out
        assert "\r" not in out
        assert "é" in out


def test_json_lines_hold_the_fields() -> None:
    out = json.loads(logged(LogSettings(format="json"), lambda log: log.warn("{session} did {n}", session="s-1", n=3)))
    assert (out["session"], out["n"], out["level"], out["from"], out["text"]) == (
        "s-1",
        3,
        "warn",
        "livemail.test",
        "s-1 did 3",
    )
    assert out["time"].endswith("Z")


@pytest.mark.parametrize("form", ["text", "json"])
def test_of_an_endless_recursion_both_ends_are_told(form) -> None:
    def deeper(level):
        if level % 2:
            return deeper(level + 1) + 1
        return deeper(level + 1) + 2

    def say(log: Logger) -> None:
        try:
            deeper(0)
        except RecursionError:
            log.failure("went wrong", failure=Failure())

    out = logged(LogSettings(format=form), say)
    rows = (json.loads(out)["traceback"] if form == "json" else out).split("\n")
    assert 50 < len(rows) < 70
    assert any("lines left out" in row for row in rows)
    assert any("deeper(0)" in row for row in rows[:10])
    assert "RecursionError" in " ".join(rows[-3:])


def test_a_failure_keeps_its_traceback() -> None:
    def say(log: Logger) -> None:
        try:
            int("inner\x1b")
        except ValueError:
            log.failure("it broke", failure=Failure())

    assert "ValueError" in json.loads(logged(LogSettings(format="json"), say))["traceback"]
    text = logged(LogSettings(), say)
    assert text.split("\n")[1].startswith("    ")
    assert "\x1b" not in text


def test_events_below_the_level_are_not_written() -> None:
    assert logged(LogSettings(level="warn"), lambda log: log.info("x")) == ""
    assert logged(LogSettings(level="debug"), lambda log: log.debug("x")) != ""


def test_what_cannot_be_said_in_json_is_said_as_text() -> None:
    out = json.loads(logged(LogSettings(format="json"), lambda log: log.info("{what}", what={1, 2}, octets=b"\x00a")))
    assert out["octets"] == "b'\\x00a'"


def test_a_renamed_file_is_let_go_on_reopen(tmp_path: Path) -> None:
    path = tmp_path / "log"
    observer = LineObserver(LogSettings(file=str(path)), io.StringIO())
    log = Logger(namespace="livemail.test", observer=observer)
    log.info("one")
    path.rename(tmp_path / "old")
    log.info("two")
    observer.reopen()
    log.info("three")
    assert (tmp_path / "old").read_text().count("\n") == 2
    assert "three" in path.read_text()


def test_a_stream_that_fails_stops_nobody() -> None:
    stream = io.StringIO()
    stream.close()
    observer = LineObserver(LogSettings(), stream)
    observer({"log_level": LogLevel.info, "log_format": "x", "log_time": 0.0})


def test_escape() -> None:
    assert escape("a\tb\x00\x9b") == "a\\tb\\x00\\x9b"
    assert escape("Grüße") == "Grüße"


@pytest.mark.parametrize(
    "log_format", ["plain", "100% {a} of {b}", "{{a}} {a}", "{a!r}", "{a:>5}", "{b()}", "{missing}", "{a.real}", "{"]
)
def test_the_quick_rendering_says_what_twisted_says(log_format: str) -> None:
    event = {"log_format": log_format, "log_level": LogLevel.info, "log_time": 0.0, "a": 7, "b": lambda: "x"}
    assert text_line(event) == f"1970-01-01T00:00:00.000Z info  {escape(formatEvent(event))}\n"
