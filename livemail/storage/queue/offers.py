"""New mail on offer: claimed in the commit that brings it, and handed over while its content is still in memory.

The way of mail that is not held up: without this it is written as waiting, looked for, claimed by a second commit and read back
from the disk.  Two commits and a third of the relay's work go away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from zope.interface import implementer

from livemail.interfaces.queue import Attendant, Filing, Outgoing
from livemail.interfaces.storage import IContentReader

IN_HAND_OCTETS: Final = 64 * 1024
"""Octets of a content that is handed on with its claim; the attendant bounds how many there are."""


class Offer:
    """New mail for which the attendant has kept room.

    at: the message's place in its filing.  numbers: of the recipients that are meant.  content: of the message, where it is small.
    """

    __slots__ = ("at", "content", "destination", "numbers")

    def __init__(self, at: int, destination: str, numbers: Sequence[int], content: InHand | None) -> None:
        self.at = at
        self.destination = destination
        self.numbers = numbers
        self.content = content


@implementer(IContentReader)
class InHand:
    """A message that is in memory, its prefix in front."""

    def __init__(self, octets: bytes, prefix_size: int) -> None:
        self.size = len(octets)
        self.prefix_size = prefix_size
        self._octets = octets

    async def read(self, offset: int, length: int) -> bytes:
        """Return the octets [offset, offset+length), fewer at the end."""
        return self._octets[offset : offset + length]

    def close(self) -> None:
        """Nothing is to be given back: the octets go with the last reference."""


def offers_of(filing: Filing, attendant: Attendant) -> list[Offer]:
    """Return what the attendant has kept room for."""
    offers = []
    for at, outgoing in enumerate(filing.outgoing):
        if outgoing.not_before:
            continue
        numbers: dict[str, list[int]] = {}
        for number, one in enumerate(outgoing.recipients):
            numbers.setdefault(one.destination, []).append(number)
        content = None
        for name, mine in numbers.items():
            if attendant.keep_room(name, len(mine)):
                content = content or _in_hand(outgoing)
                offers.append(Offer(at, name, mine, content))
    return offers


def give_back(attendant: Attendant | None, offers: Sequence[Offer]) -> None:
    """Nothing came of them."""
    for offer in offers:
        assert attendant is not None, "who made offers"
        attendant.give_back(offer.destination)


def _in_hand(outgoing: Outgoing) -> InHand | None:
    content, prefix = outgoing.content, outgoing.prefix
    if content.size > IN_HAND_OCTETS:
        return None
    octets = content.read(0, content.size)
    return InHand(prefix + octets if prefix else octets, len(prefix))
