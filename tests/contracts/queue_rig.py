"""Short ways to fill a queue and to say what became of claims."""

from __future__ import annotations

from typing import Any

from livemail.interfaces.queue import (
    Addressed,
    Choice,
    Claimed,
    ClaimLimits,
    Filing,
    Outcome,
    Outgoing,
    QueueId,
    Settlement,
)
from livemail.interfaces.relay import Reply
from livemail.mail.address import Address, Path
from livemail.mail.envelope import Recipient, ReversePath

SENDER = ReversePath(Path(Address("ann", "example.org")))
OK = Reply(250, "2.0.0", "OK", "content")
NOT_NOW = Reply(451, "4.3.0", "not now", "rcpt")
NEVER = Reply(550, "5.1.1", "no such user", "rcpt")
REFUSED = Reply(421, "4.4.1", "connection refused", "connect", is_remote=False)
LEASE = 600.0


def recipient(address: str) -> Recipient:
    local, _, domain = address.rpartition("@")
    return Recipient(Path(Address(local, domain)))


def addressed(address: str, destination: str = "") -> Addressed:
    return Addressed(recipient(address), destination or address.rpartition("@")[2])


def address_of(one: Any) -> str:
    return str(one.recipient.path.address)


class QueueDriver:
    """A queue of a rig, driven synchronously."""

    def __init__(self, rig: Any) -> None:
        self.rig = rig

    @property
    def queue(self) -> Any:
        return self.rig.store.queue

    def outgoing(self, *addresses: str, octets: bytes | None = None, **fields: Any) -> Outgoing:
        fields = {"reverse_path": SENDER} | fields
        return Outgoing(self.rig.content(octets), recipients=tuple(map(addressed, addresses)), **fields)

    def accept(self, *addresses: str, **fields: Any) -> QueueId:
        (id_,) = self.rig.wait(self.queue.accept(Filing((), (self.outgoing(*addresses, **fields),)))).queued
        return id_

    def claims(self, jobs: int = 100, **limits: Any) -> Any:
        return self.rig.wait(self.queue.claim(ClaimLimits(jobs, **({"room": 100} | limits)), LEASE))

    def claim(self, jobs: int = 100, **limits: Any) -> tuple[Claimed, ...]:
        return self.claims(jobs, **limits).jobs

    def settle(self, claimed: Claimed, fate: str, *, news: Any = (), report: Any = None, **fields: Any) -> Any:
        """One fate for all recipients of a claim."""
        reply = {"delivered": OK, "deferred": NOT_NOW, "failed": NEVER, "moved": None}[fate]
        if fate == "deferred":
            fields.setdefault("next_attempt", self.rig.clock.seconds + 300)
        fields.setdefault("reply", reply)
        outcomes = tuple(Outcome(one.number, fate, **fields) for one in claimed.message.recipients)
        (settled,) = self.rig.wait(
            self.queue.settle([Settlement(claimed.message.id, outcomes, (), report)], list(news))
        )
        return settled

    def change(self, change: Any, **choice: Any) -> Any:
        return self.rig.wait(self.queue.change(Choice(**choice), change))

    def message(self, id_: QueueId) -> Any:
        return self.rig.wait(self.queue.message(id_))

    def state(self, id_: QueueId, number: int = 0) -> str:
        return self.message(id_).recipients[number].state

    def stats(self) -> Any:
        return self.rig.wait(self.queue.stats())

    def counts(self) -> dict[str, int]:
        """Recipients by state, those there are none of left out."""
        return {state: count for state, count in self.stats().recipients.items() if count}

    def find(self, **choice: Any) -> list[str]:
        """Addresses of the chosen recipients."""
        page = self.rig.wait(self.queue.find(Choice(**choice)))
        return [address_of(one) for message in page.messages for one in message.recipients]

    def destination(self, name: str) -> Any:
        found = [each for each in self.rig.wait(self.queue.destinations()) if each.destination == name]
        return found[0] if found else None

    def read(self, id_: QueueId) -> bytes | None:
        async def whole() -> bytes | None:
            reader = await self.queue.open_content(id_)
            if reader is None:
                return None
            try:
                return await reader.read(0, reader.size)
            finally:
                reader.close()

        return self.rig.wait(whole())


def addresses(claims: tuple[Claimed, ...]) -> list[list[str]]:
    """The recipients of each claim."""
    return [[address_of(one) for one in claimed.message.recipients] for claimed in claims]


class Attending:
    """An attendant with room for so many jobs of each destination."""

    def __init__(self, **rooms: int) -> None:
        self.rooms = rooms
        self.woken: list[float] = []
        self.begun: list[Claimed] = []

    def wake(self, when: float) -> None:
        self.woken.append(when)

    def keep_room(self, destination: str, recipients: int) -> bool:
        room = self.rooms.get(destination, 0)
        self.rooms[destination] = max(0, room - 1)
        return room > 0

    def begin(self, claimed: Claimed) -> None:
        self.begun.append(claimed)

    def give_back(self, destination: str) -> None:
        self.rooms[destination] += 1
