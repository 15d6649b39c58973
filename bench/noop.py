"""Filters for the measure ``filters``."""

from __future__ import annotations

from livemail.filters import CONTINUE, Filter


class NoOp(Filter):
    """Overrides nothing."""


class Willing(Filter):
    """Is asked at one stage and says nothing."""

    async def message(self, tx, message):
        return CONTINUE


class Everywhere(Filter):
    """Is asked at every stage and says nothing."""

    async def mail(self, tx, reverse_path):
        return CONTINUE

    async def rcpt(self, tx, recipient):
        return CONTINUE

    async def data(self, tx):
        return CONTINUE

    async def headers(self, tx, message):
        return CONTINUE

    async def body(self, tx, chunk):
        return CONTINUE

    async def message(self, tx, message):
        return CONTINUE


class Sums(Filter):
    """Reads a whole body."""

    seen = 0

    async def body(self, tx, chunk):
        self.seen += len(chunk)
        return CONTINUE
