from __future__ import annotations

from livemail.smtp.state import TABLE, State, refusal_text, table_text

EXPECTED = """\
command   start   ready   mail    rcpt    chunks
EHLO      ready   ready   ready   ready   ready
HELO      ready   ready   ready   ready   ready
LHLO      ready   ready   ready   ready   ready
MAIL      503     mail    503     503     503
RCPT      503     503     rcpt    rcpt    503
DATA      503     503     503     ready   503
BDAT      503     503     503     chunks  chunks
RSET      start   ready   ready   ready   ready
STARTTLS  start   start   503     503     503
AUTH      503     ready   503     503     503
NOOP      start   ready   mail    rcpt    chunks
VRFY      start   ready   mail    rcpt    chunks
EXPN      start   ready   mail    rcpt    chunks
HELP      start   ready   mail    rcpt    chunks
QUIT      start   ready   mail    rcpt    chunks
"""


def test_the_table_reads_as_documented():
    assert table_text() == EXPECTED


def test_every_refused_command_has_a_text():
    for command, cells in TABLE.items():
        for state in State:
            if state not in cells:
                assert refusal_text(command, state)
