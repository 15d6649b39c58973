"""The filter chain, and what authors of filters import.

from livemail.filters import CONTINUE, Filter, Message, Reject, Transaction, Verdict

class NoExecutables(Filter):
    async def message(self, tx: Transaction, message: Message) -> Verdict:
        for part in message.parts():
            if part.extension in {".exe", ".scr"}:
                return Reject("5.7.1", f"{part.filename}: executables are not accepted here")
        return CONTINUE
"""

from livemail.filters.author import Filter, Record, Transaction
from livemail.filters.message import Message, MessagePart
from livemail.interfaces.filter import (
    CONTINUE,
    Accept,
    ConnectionInfo,
    Continue,
    Defer,
    Discard,
    Quarantine,
    Reject,
    Verdict,
)

__all__ = [
    "CONTINUE",
    "Accept",
    "ConnectionInfo",
    "Continue",
    "Defer",
    "Discard",
    "Filter",
    "Message",
    "MessagePart",
    "Quarantine",
    "Record",
    "Reject",
    "Transaction",
    "Verdict",
]
