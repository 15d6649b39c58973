"""``livemail queue``: the operations over a store's queue, and its words."""

from __future__ import annotations

import argparse
import json
from typing import Any

import pytest

from livemail.admin import queue_words
from livemail.admin.operations import EX_DATA, EX_PROBLEMS, EX_USAGE, Refused
from livemail.admin.queue import QueueOperations
from livemail.queue_wiring import path_of
from tests.contracts.drive import finish
from tests.delivery.queue.test_runner import scripted
from tests.delivery.queue.world import NO_CONNECTION, World


@pytest.fixture
def world():
    made = World(jitter=0.0)
    for name in ("a.example", "b.example"):
        scripted(made, name, down=NO_CONNECTION)
    made.accept("ann@a.example", "ben@b.example", octets=b"Subject: \x1b[31mred\r\n\r\ntext\r\n")
    made.accept("cid@a.example")
    made.runner.start()
    made.run(2)
    return made


class Target:
    """Performs operations as the control socket does, through JSON."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.told: list[tuple[int, int, str]] = []
        self.table = QueueOperations(
            world.queue, world.now, path_of, runner=world.runner, sleep=self.sleep
        ).operations()

    async def sleep(self, seconds: float) -> None:
        self.world.run(seconds)

    def progress(self, *told: Any) -> None:
        self.told.append(told)

    def __call__(self, operation: str, arguments: Any, progress: Any) -> Any:
        arguments = json.loads(json.dumps(arguments))

        def both(*told: Any) -> None:
            self.told.append(told)
            progress(*told)

        return json.loads(json.dumps(finish(self.table[operation](arguments, both))))


@pytest.fixture
def target(world):
    return Target(world)


def run(target: Target, *words: str, as_json: bool = False) -> int:
    parser = argparse.ArgumentParser()
    queue_words.add_words(parser.add_subparsers())
    arguments = parser.parse_args(["queue", *words])
    arguments.json = as_json
    return int(arguments.verb(arguments, target))


def states(world: World) -> dict[str, str]:
    from livemail.interfaces.queue import Choice

    page = finish(world.queue.find(Choice()))
    return {str(one.recipient.path.address): one.state for each in page.messages for one in each.recipients}


def test_list_shows_what_is_chosen(target, capsys):
    assert run(target, "list", "--domain", "b.*") == 0
    shown = capsys.readouterr().out
    assert "ben@b.example" in shown
    assert "connection timed out" in shown
    assert "cid@" not in shown
    run(target, "list", "--older", "1h", as_json=True)
    assert json.loads(capsys.readouterr().out) == {"messages": [], "more": False}
    run(target, "list", "Q1", "--limit", "1", as_json=True)
    (message,) = json.loads(capsys.readouterr().out)["messages"]
    assert [one["recipient"] for one in message["recipients"]] == ["ann@a.example", "ben@b.example"]


def test_a_list_that_is_cut_says_so(target, capsys):
    run(target, "list", "--limit", "1")
    assert "and more" in capsys.readouterr().out


def test_show_tells_every_attempt_and_lets_no_header_drive_the_terminal(target, capsys):
    assert run(target, "show", "q1") == 0
    shown = capsys.readouterr().out
    assert "192.0.2.1" in shown
    assert "421 4.4.1 connection timed out" in shown
    assert "Subject: ?[31mred" in shown
    with pytest.raises(Refused) as refused:
        run(target, "show", "Q99")
    assert refused.value.status == EX_PROBLEMS
    with pytest.raises(Refused) as refused:
        run(target, "show", "99")
    assert refused.value.status == EX_DATA


def test_stats_count_and_tell_of_destinations_that_are_down(target, capsys):
    run(target, "stats")
    shown = capsys.readouterr().out
    assert shown.startswith("2 messages, ")
    assert "a.example: 2 wait" in shown
    assert "down 1 times in a row" in shown


def test_hold_release_and_retry(target, world, capsys):
    assert run(target, "hold", "--recipient", "ann@*", "--reason", "asked") == 0
    assert states(world)["ann@a.example"] == "held"
    run(target, "list", "--state", "held")
    assert "(asked)" in capsys.readouterr().out
    assert run(target, "release", "--all") == 0
    assert states(world)["ann@a.example"] == "deferred" or world.host("a.example").active
    world.run(2)
    before = world.host("b.example").attempts
    run(target, "retry", "--domain", "b.example")
    world.run(2)
    assert world.host("b.example").attempts == before + 1


def test_a_change_of_everything_has_to_be_said(target, world):
    with pytest.raises(Refused) as refused:
        run(target, "hold")
    assert refused.value.status == EX_USAGE
    assert "held" not in states(world).values()


def test_drop_asks_and_with_bounce_reports(target, world, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", type("Pipe", (), {"isatty": staticmethod(lambda: False)}))
    with pytest.raises(Refused) as refused:
        run(target, "drop", "Q2")
    assert refused.value.status == EX_USAGE
    assert run(target, "drop", "Q2", "--yes") == 0
    assert set(states(world)) == {"ann@a.example", "ben@b.example"}
    assert run(target, "drop", "Q1", "--bounce", "--reason", "No such project", "--recipient", "ben@*", "--yes") == 0
    world.run(1)
    assert world.reports() == ["failed 1 <ben@b.example>"]
    with pytest.raises(Refused):
        run(target, "drop", "Q1", "--bounce", "--yes", "--reason", "two\nlines")
    capsys.readouterr()


def test_edit_rewrites(target, world):
    assert run(target, "edit", "Q2", "--new-recipient", "dan@ok.example", "--priority", "5", "--expires", "2d") == 0
    world.run(3)
    assert [each for each in world.relay.delivered if "dan@ok.example" in each] or states(world)["dan@ok.example"]
    for words in (
        ["edit", "Q1"],
        ["edit", "Q1", "--new-recipient", "nobody"],
        ["edit", "Q1", "--new-sender", "@"],
        ["edit", "Q1", "--priority", "99"],
    ):
        with pytest.raises(Refused):
            run(target, *words)


def test_edit_of_the_sender_keeps_the_parameters_of_mail(target, world):
    from livemail.interfaces.queue import QueueId

    assert run(target, "edit", "Q1", "--new-sender", "<>") == 0
    assert finish(world.queue.message(QueueId(1))).reverse_path.path.is_null


def test_flush_tries_everything_and_shows_how_it_goes(target, world, capsys):
    before = world.host("a.example").attempts
    assert run(target, "flush") == 0
    assert "3 recipients due now; 3 tried" in capsys.readouterr().out
    assert world.host("a.example").attempts > before
    assert target.told[-1] == (3, 3, "recipients tried")


def test_without_a_server_flush_says_when_it_will_happen(world, capsys):
    target = Target(world)
    target.table = QueueOperations(world.queue, world.now, path_of).operations()
    run(target, "flush")
    assert "no server runs" in capsys.readouterr().out
    run(target, "stats")
    assert "nothing is sent until it is started" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("5m", 300), ("4h", 14400), ("2d", 172800), ("1.5h", 5400)]
)
def test_times_are_written_short(text, seconds):
    assert queue_words.duration(text) == seconds


@pytest.mark.parametrize("text", ["", "h", "-5m", "5 parsecs", "1e9"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError):
        queue_words.duration(text)
