"""What a reply means, given what it answers: one table.  RFC 5321 §4.2.1, §4.3.2, RFC 3207 §4, RFC 4954 §4.

Stages, in the order a connection goes through them
    greeting  ehlo  helo  starttls  auth  rset  mail  rcpt  data  chunk  content  quit
    chunk is a BDAT that is not the last; content is what CRLF.CRLF or the last BDAT is answered with, in LMTP once for each
    recipient that was accepted (RFC 2033 §4.2).

The first digit tells, as RFC 5321 §4.2.1 asks; a digit that has no meaning at a stage means that the peer answers something else
than we asked, so nothing it says can be believed any more.  421 closes the connection at any stage (§3.8).

What a transaction does with it
    mail      LATER, NEVER: for every recipient.
    rcpt      for this recipient; the others go on.
    data      OK is impossible, GO: send content.  After a group in which no recipient was accepted and yet GO came: "." alone.
    chunk     anything but OK: for all accepted recipients; no more chunks.
    content   for all accepted recipients, in LMTP for its own.
"""

from __future__ import annotations

from enum import Enum
from typing import Final, Literal

Stage = Literal[
    "greeting", "ehlo", "helo", "starttls", "auth", "rset", "mail", "rcpt", "data", "chunk", "content", "quit"
]


class Meaning(Enum):
    """What a reply comes to."""

    OK = "ok"
    GO = "go"  # the peer waits for more: content, or the next step of AUTH
    LATER = "later"
    NEVER = "never"
    CLOSING = "closing"
    WRONG = "wrong"


OK, GO, LATER, NEVER, CLOSING, WRONG = Meaning

_ANSWER: Final = {2: OK, 4: LATER, 5: NEVER}

TABLE: Final[dict[Stage, dict[int, Meaning]]] = {
    "greeting": _ANSWER,
    "ehlo": _ANSWER,
    "helo": _ANSWER,
    "starttls": _ANSWER,
    "auth": {2: OK, 3: GO, 4: LATER, 5: NEVER},
    "rset": _ANSWER,
    "mail": _ANSWER,
    "rcpt": _ANSWER,
    "data": {3: GO, 4: LATER, 5: NEVER},
    "chunk": _ANSWER,
    "content": _ANSWER,
    "quit": _ANSWER,
}
"""Stage → first digit of the code → meaning; what is not there is WRONG."""


def meaning(stage: Stage, code: int) -> Meaning:
    """Return what a code means as the answer at a stage."""
    if code == 421:
        return CLOSING
    return TABLE[stage].get(code // 100, WRONG)


def table_text() -> str:
    """Render the table for the documentation: stages down, first digits across."""
    rows = ["stage     2yz    3yz    4yz    5yz    421"]
    for stage in TABLE:
        cells = (meaning(stage, code).value for code in (250, 354, 450, 550, 421))
        rows.append(f"{stage:<9} " + " ".join(f"{cell:<6}" for cell in cells))
    return "\n".join(row.rstrip() for row in rows) + "\n"
