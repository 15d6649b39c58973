"""Size and recipient policy: what one message may weigh, and how many it may go to.

The listener's own limits (``[smtp] max_message_octets``, ``max_recipients``) are said in EHLO and hold for everybody; these are for some:
a domain, an account, a service.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from livemail.filters import CONTINUE, Filter, Message, Recipient, Reject, ReversePath, Transaction, Verdict


class Limits(Filter):
    """Refuse what is too large or goes to too many."""

    class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
        """0 is no limit.

        max_octets: of the whole message; what is announced by SIZE is refused at MAIL.  max_recipients: of one message.
        max_parts: leaves of its MIME tree.  max_line_octets: of its longest line, CRLF not counted (RFC 5322 §2.1.1: 998).
        """

        max_octets: int = 0
        max_recipients: int = 0
        max_parts: int = 0
        max_line_octets: int = 0

        def faults(self) -> Iterable[tuple[str, str]]:
            """A filter without any limit does nothing."""
            if not any((self.max_octets, self.max_recipients, self.max_parts, self.max_line_octets)):
                yield (
                    "max_octets",
                    "is 0 and so is every other limit; write max_octets, max_recipients, max_parts or max_line_octets",
                )

    async def mail(self, tx: Transaction, reverse_path: ReversePath) -> Verdict:
        """SIZE tells before the octets come.  RFC 1870 §6.1."""
        limit = self.config.max_octets
        return self._too_large(reverse_path.size) if limit and reverse_path.size > limit else CONTINUE

    async def rcpt(self, tx: Transaction, recipient: Recipient) -> Verdict:
        """Those beyond the limit are refused for good: policy, not a lack of room (RFC 5321 §4.5.3.1.10)."""
        limit = self.config.max_recipients
        if limit and len(tx.recipients) >= limit:
            return Reject("5.5.3", f"At most {limit} recipients for one message", code=550)
        return CONTINUE

    async def headers(self, tx: Transaction, message: Message) -> Verdict:
        """What came, whatever was announced."""
        config = self.config
        if config.max_octets and message.size > config.max_octets:
            return self._too_large(message.size)
        if config.max_line_octets and message.summary.longest_line > config.max_line_octets:
            return Reject("5.6.0", f"A line is longer than {config.max_line_octets} octets", code=554)
        if config.max_parts:
            count = 0
            for count, _ in enumerate(message.parts(), 1):
                if count > config.max_parts:
                    return Reject("5.6.0", f"More than {config.max_parts} parts", code=554)
        return CONTINUE

    def _too_large(self, octets: int) -> Verdict:
        return Reject("5.3.4", f"Message over {self.config.max_octets} octets", f"{octets} octets", code=552)
