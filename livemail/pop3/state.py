"""Which command is allowed when, and with how many arguments, as data.  RFC 1939 §3, RFC 2449 §5, RFC 6856 §2, §3.

        greeting
            │
      AUTHORIZATION ──PASS, AUTH, maildrop locked──▶ TRANSACTION ──QUIT──▶ UPDATE ──▶ closed
            │  ▲ STLS (as at the start)                   │
            │  └──┘                                       └── connection lost, timeout, shutdown ──▶ closed
            └──────────────QUIT──▶ closed                     (nothing is removed)

The table is printed for the documentation by a test, so that neither can lie.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec


class State(enum.Enum):
    """The states of RFC 1939 §3; UPDATE lasts for the one command QUIT and needs no value."""

    AUTHORIZATION = "authorization"
    TRANSACTION = "transaction"


class Rule(msgspec.Struct, frozen=True):
    """One row.  states: where the command is allowed.  fewest, most: arguments; most -1: the rest of the line is one."""

    states: frozenset[State]
    fewest: int = 0
    most: int = 0


BEFORE: Final = frozenset({State.AUTHORIZATION})
AFTER: Final = frozenset({State.TRANSACTION})
ANY: Final = BEFORE | AFTER

RULES: Final[dict[str, Rule]] = {
    "CAPA": Rule(ANY),
    "QUIT": Rule(ANY),
    "LANG": Rule(ANY, 0, 1),
    "STLS": Rule(BEFORE),
    "UTF8": Rule(BEFORE),
    "USER": Rule(BEFORE, 1, -1),
    "PASS": Rule(BEFORE, 1, -1),
    "AUTH": Rule(BEFORE, 0, 2),
    "NOOP": Rule(AFTER),
    "STAT": Rule(AFTER),
    "LIST": Rule(AFTER, 0, 1),
    "UIDL": Rule(AFTER, 0, 1),
    "RETR": Rule(AFTER, 1, 1),
    "TOP": Rule(AFTER, 2, 2),
    "DELE": Rule(AFTER, 1, 1),
    "RSET": Rule(AFTER),
}
