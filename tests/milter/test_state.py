from __future__ import annotations

from livemail.milter import codes
from livemail.milter.state import ANSWERS, EDITS, TABLE, State, table_text

TABLE_TEXT = """\
command  new     idle    open    mail    rcpt    content body     answers
O        idle    -       -       -       -       -       -
C        -       open    -       -       -       -       -        4acfrty
H        -       -       open    -       -       -       -        4acfrty
M        -       -       mail    -       -       -       -        4acdfrty
R        -       -       -       rcpt    rcpt    -       -        4acdfrsty
T        -       -       -       -       content -       -        4acdfrty
L        -       -       -       -       content content -        4acdfrsty
N        -       -       -       -       body    body    -        4acdfrty
B        -       -       -       -       -       -       body     4acdfrsty
E        -       -       -       -       -       -       open     4acdfrty
U        -       -       open    mail    rcpt    content body
A        -       idle    open    open    open    open    open
K        -       idle    idle    idle    idle    idle    idle
"""


def test_the_tables_are_what_the_documentation_says():
    assert table_text() == TABLE_TEXT


def test_every_stage_with_an_answer_can_be_told_and_no_answer_is_an_edit():
    assert set(ANSWERS) <= set(TABLE)
    assert not EDITS & frozenset.union(*ANSWERS.values())
    assert all(state in State for cells in TABLE.values() for state in cells)
    assert codes.QUIT not in TABLE
