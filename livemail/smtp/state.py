"""What a client may say when: one table.  RFC 5321 §4.1.4, RFC 3030 §2, RFC 3207 §4, RFC 4954 §4.

States
    START     connected, or TLS has just begun: nobody has introduced himself.
    READY     introduced; no mail transaction.
    MAIL      a mail transaction with a reverse-path and no recipient.
    RCPT      with at least one recipient.
    CHUNKS    at least one BDAT was taken, the last is still to come.

The table says which commands are allowed in which state, and which state a command leads to when it succeeds; a
command that is refused leaves the state as it was.  Content itself is not a state of the dialogue: from 354 (or a BDAT
command) to its last octet nothing the client sends is a command.  End of content, whatever came of it, leads to READY
by the one function that ends a transaction (`Session.reset`), so no remnant of one can reach the next.
"""

from __future__ import annotations

from enum import Enum
from typing import Final


class State(Enum):
    """Where a session stands."""

    START = "start"
    READY = "ready"
    MAIL = "mail"
    RCPT = "rcpt"
    CHUNKS = "chunks"


START, READY, MAIL, RCPT, CHUNKS = State

_ANYWHERE: Final = {state: state for state in State}
_INTRODUCTION: Final = dict.fromkeys(State, READY)

TABLE: Final[dict[str, dict[State, State]]] = {
    "EHLO": _INTRODUCTION,
    "HELO": _INTRODUCTION,
    "LHLO": _INTRODUCTION,
    "MAIL": {READY: MAIL},
    "RCPT": {MAIL: RCPT, RCPT: RCPT},
    "DATA": {RCPT: READY},
    "BDAT": {RCPT: CHUNKS, CHUNKS: CHUNKS},
    "RSET": {START: START, READY: READY, MAIL: READY, RCPT: READY, CHUNKS: READY},
    "STARTTLS": {START: START, READY: START},
    "AUTH": {READY: READY},
    "NOOP": _ANYWHERE,
    "VRFY": _ANYWHERE,
    "EXPN": _ANYWHERE,
    "HELP": _ANYWHERE,
    "QUIT": _ANYWHERE,
}
"""Command → state it is allowed in → state after success."""

_REFUSALS: Final[dict[str, dict[State, str]]] = {
    "MAIL": {START: "Introduce yourself first", CHUNKS: "Finish the message with BDAT LAST first"},
    "RCPT": {START: "Introduce yourself first", CHUNKS: "Finish the message with BDAT LAST first"},
    "DATA": {MAIL: "No recipient was accepted", CHUNKS: "DATA and BDAT do not mix"},
    "BDAT": {MAIL: "No recipient was accepted"},
    "AUTH": {START: "Introduce yourself first"},
}
_DEFAULTS: Final = {
    "MAIL": "One mail transaction at a time",
    "RCPT": "MAIL comes first",
    "DATA": "MAIL and RCPT come first",
    "BDAT": "MAIL and RCPT come first",
    "AUTH": "Not during a mail transaction",
    "STARTTLS": "Not during a mail transaction",
}


def refusal_text(command: str, state: State) -> str:
    """Return the text of the 503 for a command that `TABLE` does not allow in this state."""
    return _REFUSALS.get(command, {}).get(state) or _DEFAULTS[command]


def table_text() -> str:
    """Render the table for the documentation: commands down, states across, the next state or 503 in the cells."""
    rows = ["command   " + " ".join(f"{state.value:<7}" for state in State)]
    for command, cells in TABLE.items():
        names = (cells[state].value if state in cells else "503" for state in State)
        rows.append(f"{command:<9} " + " ".join(f"{name:<7}" for name in names))
    return "\n".join(row.rstrip() for row in rows) + "\n"
