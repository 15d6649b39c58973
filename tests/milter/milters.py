"""A milter made of a script, and a link to it without sockets."""

from __future__ import annotations

from livemail.milter import codes, grammar
from livemail.milter.client import MilterError
from livemail.milter.grammar import Options
from livemail.milter.wire import Wire, packet


class Script:
    """Answers by a table: command → packets, a function of the data that returns packets, or MilterError to be lost.

    said: what the milter was told, macros beside their command.
    """

    def __init__(self, options=None, **answers):
        self.options = options or Options(6, 0x1FF, 0)
        self.answers = {getattr(codes, name): value for name, value in answers.items()}
        self.said = []
        self.wire = Wire(1 << 20)
        self.queue = []
        self.is_open = True
        self.paused = 0

    # ---------------------------------------------------------------- the Link

    def send(self, octets):
        if not self.is_open:
            return
        self.wire.feed(octets)
        while (event := self.wire.packet()) is not None:
            self.said.append(event)
            self._answer(*event)

    async def drained(self, seconds):
        self.paused += 1

    async def receive(self, seconds):
        if not self.queue:
            self.is_open = False
            raise MilterError("does not answer")
        event = self.queue.pop(0)
        if isinstance(event, Exception):
            self.is_open = False
            raise event
        return event

    def raise_limit(self, octets):
        pass

    def drop(self):
        self.is_open = False

    # ---------------------------------------------------------------- the milter

    def _answer(self, command, data):
        if command == codes.OPTNEG and command not in self.answers:
            self.queue.append((codes.OPTNEG, grammar.render_options(self.options)))
            return
        if command in {codes.MACRO, codes.ABORT, codes.QUIT, codes.QUIT_NC}:
            return
        found = self.answers.get(command)
        if callable(found):
            found = found(data)
        if found is None:
            if not self.options.steps & codes.NOT_ANSWERED.get(command, 0):
                self.queue.append((codes.CONTINUE, b""))
            return
        self.queue += found

    def told(self, command):
        return [data for each, data in self.said if each == command]

    def commands(self):
        return b"".join(command for command, _ in self.said if command != codes.MACRO).decode()


def rendered(*edits):
    return [grammar.render_edit(edit, leading_space=False) for edit in edits]


CONTINUES = [(codes.CONTINUE, b"")]
__all__ = ["CONTINUES", "Script", "packet", "rendered"]
