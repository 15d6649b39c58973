"""The filter chain, and what authors of filters import.

from livemail.filters import CONTINUE, Filter, Message, Reject, Transaction, Verdict

class NoExecutables(Filter):
    async def message(self, tx: Transaction, message: Message) -> Verdict:
        for part in message.parts():
            if part.extension in {".exe", ".scr"}:
                return Reject("5.7.1", f"{part.filename}: executables are not accepted here")
        return CONTINUE
"""

from livemail.filters.author import BODY_CHUNK, Filter, Server, Transaction
from livemail.filters.edits import EditError
from livemail.filters.message import Message, MessagePart
from livemail.filters.plugin import FilterPlugin
from livemail.interfaces.filter import (
    CONTINUE,
    SKIP,
    Accept,
    ConnectionInfo,
    Continue,
    Defer,
    Discard,
    IFilterPlugin,
    Quarantine,
    Record,
    Reject,
    Skip,
    Verdict,
)
from livemail.mail.address import Address, Path
from livemail.mail.envelope import Recipient, ReversePath

__all__ = [
    "BODY_CHUNK",
    "CONTINUE",
    "SKIP",
    "Accept",
    "Address",
    "ConnectionInfo",
    "Continue",
    "Defer",
    "Discard",
    "EditError",
    "Filter",
    "FilterPlugin",
    "IFilterPlugin",
    "Message",
    "MessagePart",
    "Path",
    "Quarantine",
    "Recipient",
    "Record",
    "Reject",
    "ReversePath",
    "Server",
    "Skip",
    "Transaction",
    "Verdict",
]
