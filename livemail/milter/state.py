"""What may be said when on a milter connection: two tables.

The MTA's side, `TABLE`: what the server lets a client say, and where it leads.  States
    NEW        connected, options are not negotiated.
    IDLE       negotiated; no SMTP connection is being told of.
    OPEN       an SMTP connection is; no mail transaction.
    MAIL RCPT  a mail transaction, without and with a recipient.
    CONTENT    DATA (left out before version 4), header fields.
    BODY       the header is over.

End of message and abort lead to OPEN by the one function that ends a transaction, QUIT_NC to IDLE by the one that ends a
connection, so no remnant of one can reach the next.  Macros (D) may come anywhere behind the negotiation and lead nowhere; QUIT
may come anywhere.

The filter's side, `ANSWERS`: which answers a command may get.  Edits come behind the end of the message only, and only those
that were negotiated; in front of any answer, "still busy" any number of times.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from livemail.milter import codes


class State(Enum):
    """Where the dialogue stands."""

    NEW = "new"
    IDLE = "idle"
    OPEN = "open"
    MAIL = "mail"
    RCPT = "rcpt"
    CONTENT = "content"
    BODY = "body"


NEW, IDLE, OPEN, MAIL, RCPT, CONTENT, BODY = State

_IN_CONNECTION: Final = (OPEN, MAIL, RCPT, CONTENT, BODY)

TABLE: Final[dict[bytes, dict[State, State]]] = {
    codes.OPTNEG: {NEW: IDLE},
    codes.CONNECT: {IDLE: OPEN},
    codes.HELO: {OPEN: OPEN},
    codes.MAIL: {OPEN: MAIL},
    codes.RCPT: {MAIL: RCPT, RCPT: RCPT},
    codes.DATA: {RCPT: CONTENT},
    codes.HEADER: {RCPT: CONTENT, CONTENT: CONTENT},
    codes.EOH: {RCPT: BODY, CONTENT: BODY},
    codes.BODY: {BODY: BODY},
    codes.BODYEOB: {BODY: OPEN},
    codes.UNKNOWN: {state: state for state in _IN_CONNECTION},
    codes.ABORT: {IDLE: IDLE, **dict.fromkeys(_IN_CONNECTION, OPEN)},
    codes.QUIT_NC: dict.fromkeys((IDLE, *_IN_CONNECTION), IDLE),
}
"""Command → state it is allowed in → state it leads to."""

_VERDICTS: Final = frozenset({
    codes.CONTINUE, codes.ACCEPT, codes.REJECT, codes.TEMPFAIL, codes.DISCARD, codes.REPLYCODE, codes.SHUTDOWN,
    codes.CONN_FAIL,
})  # fmt: skip

ANSWERS: Final[dict[bytes, frozenset[bytes]]] = {
    codes.CONNECT: _VERDICTS - {codes.DISCARD},
    codes.HELO: _VERDICTS - {codes.DISCARD},
    codes.MAIL: _VERDICTS,
    codes.RCPT: _VERDICTS | {codes.SKIP},
    codes.DATA: _VERDICTS,
    codes.HEADER: _VERDICTS | {codes.SKIP},
    codes.EOH: _VERDICTS,
    codes.BODY: _VERDICTS | {codes.SKIP},
    codes.BODYEOB: _VERDICTS,
}
"""Command → answers that end it."""

EDITS: Final = frozenset(codes.ACTION_OF_EDIT)
"""What a filter may send before its answer to the end of the message."""


def table_text() -> str:
    """Render both tables for the documentation."""
    rows = ["command  " + " ".join(f"{state.value:<7}" for state in State) + "  answers"]
    for command, cells in TABLE.items():
        names = (cells[state].value if state in cells else "-" for state in State)
        answers = b"".join(sorted(ANSWERS.get(command, ()))).decode()
        rows.append(f"{command.decode():<8} " + " ".join(f"{name:<7}" for name in names) + f"  {answers}")
    return "\n".join(row.rstrip() for row in rows) + "\n"
