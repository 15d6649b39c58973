"""External-sender tag: mail from outside says so, where its readers see it.

Outside is what nobody logged in to send and whose author's domain is not ours, or claims to be ours.  What an earlier hop wrote into our
header field is taken out first, whoever the message is from, so the field is ours alone.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from livemail.filters import CONTINUE, Filter, Message, Transaction, Verdict


class ExternalTag(Filter):
    """Mark messages from outside by a header field and in their subject."""

    class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
        """field: name of the header field, "" for none.  prefix: put before the subject, "" for nothing.

        trusted: domains whose mail is not marked, when it comes with a matching reverse-path.
        """

        field: str = "X-External-Sender"
        prefix: str = "[External] "
        trusted: frozenset[str] = frozenset()

        def faults(self) -> Iterable[tuple[str, str]]:
            """A tag nobody sees."""
            if not self.field and not self.prefix:
                yield "field", 'is "" and so is `prefix`; write at least one'
            if self.field and (not self.field.isascii() or any(c <= " " or c == ":" for c in self.field)):
                yield "field", "is no name of a header field; write one such as X-External-Sender"

    async def headers(self, tx: Transaction, message: Message) -> Verdict:
        """Mark it."""
        config = self.config
        if config.field:
            for _ in message.values(config.field):
                message.remove_header(config.field)
        if tx.connection.authcid or tx.connection.service in {"submission", "submissions"}:
            return CONTINUE
        if self._is_trusted(tx, message):
            return CONTINUE
        if config.field:
            message.add_header(config.field, "yes")
        if config.prefix:
            subject = message.text("Subject")
            if config.prefix.strip() not in subject:
                message.change_header("Subject", config.prefix + subject)
        return CONTINUE

    def _is_trusted(self, tx: Transaction, message: Message) -> bool:
        address = tx.reverse_path.path.address if tx.reverse_path is not None else None
        domain = address.domain.lower() if address is not None else ""
        authors = {each.rpartition("@")[2].lower() for each in message.addresses("From")}
        return domain in self.config.trusted and authors <= self.config.trusted
