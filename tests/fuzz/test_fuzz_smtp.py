from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from livemail.smtp import replies
from tests.fuzz import fuzz_smtp_grammar, fuzz_smtp_wire
from tests.smtp.rig import Rig

WIRE_WORDS = [
    b"\r\n",
    b"\r",
    b"\n",
    b".",
    b"\0",
    b"DATA\r\n",
    b"BDAT\r\n",
    b"RSET\r\n",
    b"x",
    b"\r\n.\r\n",
    b"AUTH ",
    b"\xff",
    b"y" * 3000,
]
PATH_WORDS = [b"<", b">", b"@", b'"', b"\\", b".", b"[", b"]", b":", b"IPv6:", b"a", b"bc", b"-", b" ", b"SIZE=1", b"NOTIFY=", b"NEVER", b"ORCPT=rfc822;",
              b"+2B", b"=", b"SMTPUTF8", "ä".encode(), b"\xff", b"a@b", b"<a@b>", b"postmaster", b"1.2.3.4", b"%", b"!", b",", "\u2028".encode()]  # fmt: skip
DIALOG_WORDS = [b"EHLO x\r\n", b"HELO x\r\n", b"LHLO x\r\n", b"MAIL FROM:<a@b.example>", b"RCPT TO:<you@localhost>", b"RCPT TO:<x@y>", b"DATA\r\n", b"BDAT 5\r\n",
                b"BDAT 3 LAST\r\n", b"BDAT 0 LAST\r\n", b"RSET\r\n", b"AUTH PLAIN ", b"AHlvdUBsb2NhbGhvc3QAc2VjcmV0", b"AUTH LOGIN\r\n", b"*\r\n", b"\r\n", b".\r\n", b"\n", b"\r",
                b"\r\n.\r\n", b"SIZE=9", b" ", b"NOOP\r\n", b"\0", b"\xff", b"abc", b"VRFY x\r\n", b"MAIL FROM:<you@localhost>\r\n", b"STARTTLS\r\n"]  # fmt: skip


def words(choices):
    return st.lists(st.sampled_from(choices), max_size=14).map(b"".join)


@settings(max_examples=400, deadline=None)
@given(words(WIRE_WORDS) | st.binary(max_size=60))
def test_the_wire(data):
    fuzz_smtp_wire.fuzz_one(data)


@settings(max_examples=800, deadline=None)
@given(words(PATH_WORDS) | st.binary(max_size=60))
def test_the_grammar(data):
    fuzz_smtp_grammar.fuzz_one(data)


def test_a_whole_session_under_random_words_never_fails_by_a_bug(monkeypatch):
    """Every reply is well-formed, none is the one for bugs, and the answers do not depend on the pieces."""
    source = random.Random(11)
    for round_ in range(250):
        service = ("smtp", "submission", "lmtp")[round_ % 3]
        stream = b"".join(source.choice(DIALOG_WORDS) for _ in range(40))
        said = []
        for piece in (1, 0):
            client = Rig(allow_cleartext_auth=True, forbid_early_talk=False).connect(service)
            client.connection.session_id = client.connection.session.link.session_id = "s"
            said.append(client.feed(stream, piece))
            assert replies.BUG.decode() not in said[-1]
            for line in said[-1].splitlines():
                assert line[:3].isdigit(), line
                assert line[3] in " -", line
            client.transport.lose()
            assert client.connection.session.transaction is None
        assert said[0] == said[1]
