"""Numbers and letters of the milter protocol, version 6, named as in Sendmail's ``mfdef.h`` without the prefix."""

from __future__ import annotations

from typing import Final

VERSION: Final = 6
OLDEST: Final = 2

# ---------------------------------------------------------------------------------------------- MTA → filter

ABORT: Final = b"A"
BODY: Final = b"B"
CONNECT: Final = b"C"
MACRO: Final = b"D"
BODYEOB: Final = b"E"
HELO: Final = b"H"
QUIT_NC: Final = b"K"
HEADER: Final = b"L"
MAIL: Final = b"M"
EOH: Final = b"N"
OPTNEG: Final = b"O"
QUIT: Final = b"Q"
RCPT: Final = b"R"
DATA: Final = b"T"
UNKNOWN: Final = b"U"

# ---------------------------------------------------------------------------------------------- filter → MTA

ADDRCPT: Final = b"+"
DELRCPT: Final = b"-"
ADDRCPT_PAR: Final = b"2"
SHUTDOWN: Final = b"4"
ACCEPT: Final = b"a"
REPLBODY: Final = b"b"
CONTINUE: Final = b"c"
DISCARD: Final = b"d"
CHGFROM: Final = b"e"
CONN_FAIL: Final = b"f"
ADDHEADER: Final = b"h"
INSHEADER: Final = b"i"
CHGHEADER: Final = b"m"
PROGRESS: Final = b"p"
QUARANTINE: Final = b"q"
REJECT: Final = b"r"
SKIP: Final = b"s"
TEMPFAIL: Final = b"t"
REPLYCODE: Final = b"y"

# ---------------------------------------------------------------------------------------------- actions

ACT_ADDHDRS: Final = 0x01
ACT_CHGBODY: Final = 0x02
ACT_ADDRCPT: Final = 0x04
ACT_DELRCPT: Final = 0x08
ACT_CHGHDRS: Final = 0x10
ACT_QUARANTINE: Final = 0x20
ACT_CHGFROM: Final = 0x40
ACT_ADDRCPT_PAR: Final = 0x80
ACT_SETSYMLIST: Final = 0x100

ACTIONS: Final = {2: 0x3F, 3: 0x3F, 4: 0x3F, 5: 0x3F, 6: 0x1FF}
"""What a filter may be allowed to do, by version."""

# ---------------------------------------------------------------------------------------------- steps

NO_CONNECT: Final = 0x01
NO_HELO: Final = 0x02
NO_MAIL: Final = 0x04
NO_RCPT: Final = 0x08
NO_BODY: Final = 0x10
NO_HDRS: Final = 0x20
NO_EOH: Final = 0x40
NR_HDR: Final = 0x80
NO_UNKNOWN: Final = 0x100
NO_DATA: Final = 0x200
CAN_SKIP: Final = 0x400
RCPT_REJECTED: Final = 0x800
NR_CONN: Final = 0x1000
NR_HELO: Final = 0x2000
NR_MAIL: Final = 0x4000
NR_RCPT: Final = 0x8000
NR_DATA: Final = 0x10000
NR_UNKNOWN: Final = 0x20000
NR_EOH: Final = 0x40000
NR_BODY: Final = 0x80000
HDR_LEADSPC: Final = 0x100000
MDS_256K: Final = 0x10000000
MDS_1M: Final = 0x20000000

STEPS: Final = {2: 0x7F, 3: 0x17F, 4: 0x3FF, 5: 0x3FF, 6: 0x1FFFFF}
"""What may be left out of the dialogue or added to it, by version."""

NOT_WANTED: Final = {
    CONNECT: NO_CONNECT, HELO: NO_HELO, MAIL: NO_MAIL, RCPT: NO_RCPT, DATA: NO_DATA, HEADER: NO_HDRS, EOH: NO_EOH,
    BODY: NO_BODY, UNKNOWN: NO_UNKNOWN,
}  # fmt: skip
"""Command → the step with which a filter asks not to get it."""

NOT_ANSWERED: Final = {
    CONNECT: NR_CONN, HELO: NR_HELO, MAIL: NR_MAIL, RCPT: NR_RCPT, DATA: NR_DATA, HEADER: NR_HDR, EOH: NR_EOH,
    BODY: NR_BODY, UNKNOWN: NR_UNKNOWN,
}  # fmt: skip
"""Command → the step with which a filter says that it will not answer it."""

MACRO_STAGES: Final = {0: CONNECT, 1: HELO, 2: MAIL, 3: RCPT, 4: DATA, 5: BODYEOB, 6: EOH}
"""Numbers of the stages for which a filter may choose its macros, as commands."""

ACTION_OF_EDIT: Final = {
    ADDHEADER: ACT_ADDHDRS, INSHEADER: ACT_ADDHDRS, CHGHEADER: ACT_CHGHDRS, REPLBODY: ACT_CHGBODY,
    ADDRCPT: ACT_ADDRCPT, ADDRCPT_PAR: ACT_ADDRCPT_PAR, DELRCPT: ACT_DELRCPT, CHGFROM: ACT_CHGFROM,
    QUARANTINE: ACT_QUARANTINE,
}  # fmt: skip
"""Edit → the action that must have been negotiated for it."""
