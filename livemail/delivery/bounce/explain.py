"""What an enhanced status code means to somebody who has never heard of one, and what he can do.  RFC 3463, RFC 5248.

Two sentences for each: what happened, what helps.  ``{host}`` is who refused.  A code that is not in the table is
explained by its subject (the digit in the middle), whatever its class.
"""

from __future__ import annotations

import re
from typing import Final

ENHANCED: Final = re.compile(r"[245]\.[0-9]{1,3}\.[0-9]{1,3}")

_ASK: Final = "Ask the recipient in another way, for example by telephone."

_TEXTS: Final[dict[str, tuple[str, str]]] = {
    "1.1": ("There is no such address.", "Check the spelling of the part before the @, then send the message again."),
    "1.2": (
        "The domain behind the @ does not exist or takes no mail.",
        "Check the spelling of the part behind the @, then send the message again.",
    ),
    "1.3": ("The address is not written as an address is.", "Check its spelling, then send the message again."),
    "1.4": ("The address means more than one recipient.", "Ask the recipient for an exact address."),
    "1.6": ("The recipient has moved and left no new address.", _ASK),
    "1.7": (
        "The server of the recipient does not accept your own address as a sender.",
        "Check the sender address your mail program uses, or ask your provider.",
    ),
    "1.8": (
        "The server of the recipient could not find the domain of your own address.",
        "Check the sender address your mail program uses, or ask your provider.",
    ),
    "1.10": (
        "The domain behind the @ says that it takes no mail at all.",
        "Check the spelling of the part behind the @, or ask the recipient for another address.",
    ),
    "2.1": ("The mailbox is switched off and takes no mail.", _ASK),
    "2.2": (
        "The mailbox of the recipient is full.",
        "Tell the recipient to make room, then send the message again.",
    ),
    "2.3": (
        "The message is larger than this recipient may get.",
        "Send less at once, for example fewer attachments, or share large files in another way.",
    ),
    "2.4": ("The mailing list could not be expanded.", "Ask whoever keeps the list."),
    "3.1": ("The server of the recipient has no room left.", "Send the message again later."),
    "3.2": ("The server of the recipient takes no mail at the moment.", "Send the message again later."),
    "3.3": ("The server of the recipient cannot do what this message needs.", _ASK),
    "3.4": (
        "The message is too large for the server of the recipient.",
        "Send less at once, for example fewer attachments, or share large files in another way.",
    ),
    "4.1": (
        "The server of the recipient did not answer.",
        "Send the message again later; if that fails too, the recipient's provider may be out of order.",
    ),
    "4.2": ("The connection to the server of the recipient broke down.", "Send the message again later."),
    "4.3": (
        "It could not be found out where mail for this domain goes.",
        "Check the spelling of the part behind the @; if it is right, send the message again later.",
    ),
    "4.4": (
        "Mail for this domain leads nowhere.",
        "Check the spelling of the part behind the @, then send the message again.",
    ),
    "4.5": ("The server of the recipient is too busy.", "Send the message again later."),
    "4.6": (
        "The message went round in circles.",
        "The recipient's mail is forwarded to where it came from: tell the recipient, or the recipient's provider.",
    ),
    "4.7": ("The server of the recipient did not take the message in time.", "Send the message again later."),
    "6.0": (
        "The server of the recipient cannot handle the form of this message.",
        "Send the message again as plain text, or with other attachments.",
    ),
    "6.7": (
        "The address has characters that the server of the recipient does not know.",
        "Ask the recipient for an address of plain letters and digits.",
    ),
    "7.0": (
        "The server of the recipient refused the message for reasons of its own.",
        "The answer below may say more. " + _ASK,
    ),
    "7.1": (
        "The server of the recipient does not accept this message: it may take it for spam, or not know you as a sender.",
        "The answer below may say more. If your message is wanted, ask the recipient to allow your address.",
    ),
    "7.2": ("You are not allowed to write to this mailing list.", "Ask whoever keeps the list."),
    "7.4": (
        "The server of the recipient cannot be reached in the secure way this message needs.",
        "Ask your provider.",
    ),
    "7.5": ("The encryption between the servers failed.", "Send the message again later, or ask your provider."),
    "7.8": ("This server could not log in at the next one.", "Tell your provider: its settings need attention."),
    "7.20": (
        "The message has no valid signature of the domain it comes from.",
        "Tell your provider: without it, others cannot know that the message is yours.",
    ),
    "7.23": (
        "The server of the recipient does not accept mail of your domain from this server.",
        "Tell your provider: the domain's SPF record does not name this server.",
    ),
    "7.25": (
        "The server of the recipient does not trust the name of this server.",
        "Tell your provider: the reverse DNS of this server needs attention.",
    ),
    "7.26": (
        "The message could not be shown to come from the domain it names.",
        "Tell your provider: SPF or DKIM of your domain needs attention.",
    ),
    "7.28": ("Too many messages were sent in a short time.", "Send the message again later."),
}  # fmt: skip

_SUBJECTS: Final[dict[str, tuple[str, str]]] = {
    "1": ("The address was not accepted.", "Check its spelling, then send the message again."),
    "2": ("The mailbox of the recipient did not take the message.", _ASK),
    "3": ("The server of the recipient could not take the message.", "Send the message again later."),
    "4": ("The message could not be brought to the server of the recipient.", "Send the message again later."),
    "5": (
        "The two servers did not understand each other.",
        "Send the message again later; if it fails again, tell your provider.",
    ),
    "6": _TEXTS["6.0"],
    "7": _TEXTS["7.0"],
}

_OTHERWISE: Final = ("The server of the recipient refused the message.", "The answer below may say more. " + _ASK)

# What peers say so often with a bare code, or with one that says less than their words.
_WORDS: Final = (
    (re.compile(r"(?:over|exceed\w*|out of) (?:the |his |its |storage |disk )*quota|quota exceeded|"
                r"(?:mailbox|inbox)(?: is)? full", re.IGNORECASE), "2.2"),
    (re.compile(r"\b(?:spam|junk|blacklist\w*|blocklist\w*|blocked|reputation|rbl|dnsbl)\b", re.IGNORECASE), "7.1"),
    (re.compile(r"(?:user|recipient|mailbox|address|account)\b[^.]{0,60}\b(?:unknown|not found|does not exist|"
                r"doesn't exist|rejected: undeliverable)|no such (?:user|recipient|mailbox|address)|"
                r"unknown (?:user|recipient|mailbox|address)", re.IGNORECASE), "1.1"),
    (re.compile(r"(?:message|size)\b[^.]{0,40}\b(?:too (?:big|large)|exceeds)", re.IGNORECASE), "3.4"),
)  # fmt: skip


# Time ran out (4.4.7): what was in the way until then.
_STAGES: Final = {"connect": "4.1", "greeting": "4.1", "lookup": "4.3", "tls": "7.5", "starttls": "7.5", "auth": "7.8"}


def explain(enhanced: str, text: str = "", stage: str = "") -> tuple[str, str]:
    """Say what happened and what helps, in that order; plain ASCII sentences.

    enhanced: ``5.1.1``; text: the peer's words, which decide where the code says nothing in particular (``5.0.0``); stage:
    `Reply.stage`, which decides where it only says that time ran out.
    """
    detail = enhanced.partition(".")[2]
    if detail == "4.7" and stage in _STAGES:
        return _TEXTS[_STAGES[stage]]
    if detail in {"0.0", "", "5.0", "7.0", "4.7", "3.0", "2.0", "1.0"}:
        for pattern, meant in _WORDS:
            if pattern.search(text[:512]):
                return _TEXTS[meant]
    return _TEXTS.get(detail) or _SUBJECTS.get(detail.partition(".")[0], _OTHERWISE)


def spoken_time(seconds: float) -> str:
    """Say a span of time as people do: ``5 days``, ``4 hours``, ``1 minute``."""
    for size, name in ((86400, "day"), (3600, "hour"), (60, "minute")):
        count = round(seconds / size)
        if seconds >= 0.95 * size:
            return f"{count} {name}{'s' * (count != 1)}"
    return "a moment"
