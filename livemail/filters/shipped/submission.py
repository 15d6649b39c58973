"""What a submission server owes the messages of its users.  RFC 6409 §8, RFC 5322 §3.6.

* Who wrote it: every address in From is one of the account that logged in.  If not, the message is refused, or Sender says
  whose account it was.
* What is missing is added: From, Date, Message-ID, behind our own Received, so that the header as written stays together.
* Bcc is taken out: whom the envelope names gets the message, and nobody is told of the others.

A message with nothing to mend passes octet for octet.  The filter belongs into the chains of submission services only:
mail of others is never mended (RFC 6409 §5.1).
"""

from __future__ import annotations

import secrets
from email.utils import formatdate
from typing import Literal

import msgspec

from livemail.filters import CONTINUE, Address, Filter, Message, Reject, Transaction, Verdict
from livemail.interfaces.directory import IDirectory, LocalAccount, places_of
from livemail.mail.message.addresses import parse_addresses

MAX_AUTHORS = 50
"""Addresses of From that are looked at; a message with more is nobody's own."""

CheckFrom = Literal["off", "flag", "refuse"]


class Submission(Filter):
    """Check who wrote a submitted message, and complete its header."""

    class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
        """check_from: what an author who is somebody else means.  repair: add what is missing, take out Bcc."""

        check_from: CheckFrom = "flag"
        repair: bool = True

    @staticmethod
    def new_token() -> str:
        """Make the left side of a Message-ID: letters and digits, never the same twice."""
        return secrets.token_hex(16)

    async def headers(self, tx: Transaction, message: Message) -> Verdict:
        """All of it happens here."""
        config, directory = self.config, self.server.directory
        assert directory is not None
        account = tx.connection.authcid
        if not account:
            return CONTINUE
        names = [name.lower() for name, _ in message.fields]
        if config.check_from != "off" and b"from" in names:
            authors = message.values("From")
            if not (len(authors) == 1 and await _are_own(directory, account, authors[0])):
                if config.check_from == "refuse":
                    return Reject("5.7.1", f"From is not an address of {account}", "the author is somebody else")
                await _flag(directory, account, message, names)
        if config.repair:
            self._repair(account, message, names)
        return CONTINUE

    def _repair(self, account: str, message: Message, names: list[bytes]) -> None:
        server, place = self.server, _place(names)
        if b"message-id" not in names:
            message.insert_header("Message-ID", f"<{self.new_token()}@{server.hostname}>".encode("ascii"), place)
        if b"date" not in names:
            message.insert_header("Date", f"{formatdate(server.now())[:-5]}+0000".encode("ascii"), place)
        if b"from" not in names:
            message.insert_header("From", _mailbox(account), place)
        for name in ("Bcc", "Resent-Bcc"):
            for _ in range(names.count(name.lower().encode())):
                message.remove_header(name)


async def _are_own(directory: IDirectory, account: str, value: bytes) -> bool:
    """Whether all addresses of a field, at least one, are the account's."""
    found = parse_addresses(value, MAX_AUTHORS + 1)
    # A group names nobody in particular.
    if not found or len(found) > MAX_AUTHORS or any(domain is None for _, _, domain in found):
        return False
    for _, local, domain in found:
        address = Address((local or b"").decode("utf-8", "replace"), (domain or b"").decode("utf-8", "replace").lower())
        places = places_of(await directory.resolve(address))
        if not any(isinstance(place, LocalAccount) and place.name == account for place in places):
            return False
    return True


async def _flag(directory: IDirectory, account: str, message: Message, names: list[bytes]) -> None:
    """Say in Sender whose account it was, unless the header says so already.  RFC 6409 §8.1, RFC 5322 §3.6.2."""
    for present in (b"sender", b"resent-from"):
        values = message.values(present)
        if len(values) == 1 and await _are_own(directory, account, values[0]):
            return
    for _ in range(names.count(b"sender")):
        message.remove_header("Sender")
    message.insert_header("Sender", _mailbox(account), _place(names))


def _place(names: list[bytes]) -> int:
    """Behind the trace field we have put in front."""
    return 1 if names[:1] == [b"received"] else 0


def _mailbox(account: str) -> bytes:
    """Write an account's name as an address.  UTF-8 where it is not ASCII: RFC 6532."""
    local, _, domain = account.rpartition("@")
    return str(Address(local, domain)).encode()
