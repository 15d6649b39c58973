"""Loop guard: mail that was here before, or that nobody will ever end answering.

``[smtp] max_received`` ends every loop after a hundred hops; this ends one after as many visits as are normal here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from livemail.filters import CONTINUE, Discard, Filter, Message, Reject, Transaction, Verdict


class LoopGuard(Filter):
    """Refuse messages that go in circles."""

    class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
        """max_hops: Received fields; 0 is no limit.  max_visits: of them, those this server wrote, this visit's included; 0 is no limit.

        marker: a header field that means "was here", such as X-Loop with our host name as value; it is added to what passes; "" for none.
        discard_auto_replies: forget answers of machines to machines (Auto-Submitted: auto-replied with a null reverse-path).
        """

        max_hops: int = 50
        max_visits: int = 3
        marker: str = ""
        discard_auto_replies: bool = False

        def faults(self) -> Iterable[tuple[str, str]]:
            """A guard that guards nothing."""
            if not (self.max_hops or self.max_visits or self.marker or self.discard_auto_replies):
                yield (
                    "max_hops",
                    "is 0 and nothing else is looked at; write max_hops, max_visits, marker or discard_auto_replies",
                )

    async def headers(self, tx: Transaction, message: Message) -> Verdict:
        """Count."""
        config = self.config
        received = message.values("Received")
        if config.max_hops and len(received) > config.max_hops:
            return Reject("5.4.6", f"More than {config.max_hops} hops: this message goes in circles", code=554)
        if config.max_visits:
            ours = re.compile(rb"\bby\s+" + re.escape(self.server.hostname.lower().encode()) + rb"[\s;(]")
            visits = sum(bool(ours.search(value.lower())) for value in received)
            if visits > config.max_visits:
                return Reject("5.4.6", f"This message was here {visits - 1} times before: it goes in circles", code=554)
        if config.marker:
            mine = self.server.hostname.lower().encode()
            if any(value.strip().lower() == mine for value in message.values(config.marker)):
                return Reject("5.4.6", f"This message was here before ({config.marker})", code=554)
            message.add_header(config.marker, self.server.hostname)
        if config.discard_auto_replies and tx.reverse_path is not None and tx.reverse_path.path.is_null:
            said = b" ".join(message.values("Auto-Submitted")).strip().lower()
            if said.startswith(b"auto-replied"):
                return Discard("an automatic reply to nobody")
        return CONTINUE
