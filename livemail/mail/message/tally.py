"""Counts over a message's octets that ask for no structure: line ends, longest line, NUL, 8-bit."""

from __future__ import annotations


class Tally:
    """What a message's octets are like.

    size: octets.  has_bare_newline: a CR without LF or a LF without CR.  longest_line: octets without its line end.
    line_feeds: how many there are.
    """

    __slots__ = (
        "_open_line",
        "_return",
        "has_8bit",
        "has_bare_newline",
        "has_nul",
        "line_feeds",
        "longest_line",
        "size",
    )

    def __init__(self) -> None:
        self.size = 0
        self.has_bare_newline = False
        self.has_nul = False
        self.has_8bit = False
        self.longest_line = 0
        self.line_feeds = 0
        self._open_line = 0  # Octets of the line that the last batch did not end.
        self._return = b""  # A CR at the end of the last batch: its LF may be first in the next one.

    def add(self, batch: bytes, *, final: bool = False) -> None:
        """Count the next octets."""
        self.size += len(batch)
        if self._return:
            batch = self._return + batch
            self._return = b""
        if not final and batch.endswith(b"\r"):
            self._return = b"\r"
            batch = batch[:-1]
        if not batch:
            return
        if not self.has_8bit and not batch.isascii():
            self.has_8bit = True
        if not self.has_nul and b"\0" in batch:
            self.has_nul = True
        # One C call gives the lines.  What is left of the batch without them is their ends: when those are not two octets
        # each, some are a CR or LF alone.  A split at CRLF costs a half more, and counting its CR and LF as much again.
        lines = batch.splitlines()
        is_ended = batch.endswith((b"\n", b"\r"))
        if len(batch) - len(b"".join(lines)) != 2 * (len(lines) if is_ended else len(lines) - 1):
            self.has_bare_newline = True
            # A CR alone ends no line.
            lines = batch.replace(b"\r\n", b"\n").split(b"\n")
        elif is_ended:
            lines.append(b"")
        self.line_feeds += len(lines) - 1
        # The first line goes on where the last batch ended.
        first = self._open_line + len(lines[0])
        self._open_line = len(lines[-1]) if len(lines) > 1 else first
        longest = max(map(len, lines))
        self.longest_line = max(self.longest_line, longest, first)
