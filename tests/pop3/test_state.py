"""The table, as the documentation prints it."""

from __future__ import annotations

from livemail.pop3.state import RULES

TABLE = """
CAPA authorization transaction
QUIT authorization transaction
LANG authorization transaction
STLS authorization
UTF8 authorization
USER authorization
PASS authorization
AUTH authorization
NOOP transaction
STAT transaction
LIST transaction
UIDL transaction
RETR transaction
TOP transaction
DELE transaction
RSET transaction
"""


def test_the_table_is_the_one_of_the_rfcs():
    printed = (f"{keyword} {' '.join(sorted(state.value for state in rule.states))}" for keyword, rule in RULES.items())
    assert "\n".join(printed) == TABLE.strip()
