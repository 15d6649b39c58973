"""Which command is allowed when, as data.  RFC 3501 §3, §6.

             greeting
                │
       NOT_AUTHENTICATED ──LOGIN, AUTHENTICATE──▶ AUTHENTICATED ──SELECT, EXAMINE──▶ SELECTED
                │  ▲ STARTTLS (as at the start)        │      ◀──CLOSE, UNSELECT, ────    │
                │  └──┘                                │          failed SELECT           │
                └────────────────LOGOUT, BYE───────────┴───────────────────────────────────┘
                                       ▼
                                    LOGOUT

`RULES` says, for every command word, in which states it may come, whether it has a UID form, and whether untagged
EXPUNGE may be sent before its tagged reply.  EXPUNGE moves sequence numbers, so it is held back where the client may
have further commands with sequence numbers on the way: FETCH, STORE and SEARCH without UID (RFC 9051 §7.5.1).
The table is printed for the documentation by a test, so that neither can lie.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec


class State(enum.Enum):
    """The four states of RFC 3501 §3."""

    NOT_AUTHENTICATED = "not authenticated"
    AUTHENTICATED = "authenticated"
    SELECTED = "selected"
    LOGOUT = "logout"


class Rule(msgspec.Struct, frozen=True):
    """One row.  states: where the command is allowed.  uid: ``UID word`` exists.

    expunge_allowed: untagged EXPUNGE may precede the tagged reply of the plain form; the UID form always allows it.
    """

    states: frozenset[State]
    uid: bool = False
    expunge_allowed: bool = True


ANY: Final = frozenset({State.NOT_AUTHENTICATED, State.AUTHENTICATED, State.SELECTED})
BEFORE_LOGIN: Final = frozenset({State.NOT_AUTHENTICATED})
AFTER_LOGIN: Final = frozenset({State.AUTHENTICATED, State.SELECTED})
SELECTED: Final = frozenset({State.SELECTED})

RULES: Final[dict[str, Rule]] = {
    "CAPABILITY": Rule(ANY),
    "NOOP": Rule(ANY),
    "LOGOUT": Rule(ANY),
    "ID": Rule(ANY),
    "STARTTLS": Rule(BEFORE_LOGIN),
    "AUTHENTICATE": Rule(BEFORE_LOGIN),
    "LOGIN": Rule(BEFORE_LOGIN),
    "ENABLE": Rule(AFTER_LOGIN),
    "SELECT": Rule(AFTER_LOGIN),
    "EXAMINE": Rule(AFTER_LOGIN),
    "CREATE": Rule(AFTER_LOGIN),
    "DELETE": Rule(AFTER_LOGIN),
    "RENAME": Rule(AFTER_LOGIN),
    "SUBSCRIBE": Rule(AFTER_LOGIN),
    "UNSUBSCRIBE": Rule(AFTER_LOGIN),
    "LIST": Rule(AFTER_LOGIN),
    "LSUB": Rule(AFTER_LOGIN),
    "NAMESPACE": Rule(AFTER_LOGIN),
    "STATUS": Rule(AFTER_LOGIN),
    "APPEND": Rule(AFTER_LOGIN),
    "IDLE": Rule(AFTER_LOGIN),
    "CHECK": Rule(SELECTED),
    "CLOSE": Rule(SELECTED),
    "UNSELECT": Rule(SELECTED),
    "EXPUNGE": Rule(SELECTED, uid=True),
    "SEARCH": Rule(SELECTED, uid=True, expunge_allowed=False),
    "FETCH": Rule(SELECTED, uid=True, expunge_allowed=False),
    "STORE": Rule(SELECTED, uid=True, expunge_allowed=False),
    "COPY": Rule(SELECTED, uid=True),
    "MOVE": Rule(SELECTED, uid=True),
}
