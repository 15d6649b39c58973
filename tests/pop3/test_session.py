"""POP3 as clients meet it.  RFC 1939, 2449, 2595, 3206, 5034, 6856."""

from __future__ import annotations

from base64 import b64encode

import pytest
from twisted.internet.defer import Deferred
from twisted.logger import globalLogPublisher

from livemail.mail.errors import StorageFailed
from livemail.mail.ids import UIDSet
from livemail.pop3.grammar import parse_command
from livemail.pop3.maildrop import AHEAD_OCTETS, SMALL_OCTETS
from livemail.pop3.state import RULES
from tests.auth.rig import ALICE, NOBODY, PASSWORD, finish
from tests.pop3.rig import MESSAGES, Server

PLAIN = b64encode(f"\0{ALICE}\0{PASSWORD}".encode())


def body(answer: bytes) -> bytes:
    """The message in the answer to RETR, read as a strict client does."""
    status, _, rest = answer.partition(b"\r\n")
    assert status.startswith(b"+OK"), answer
    end = (b"\r\n" + rest).index(b"\r\n.\r\n")
    assert end + 5 == len(rest) + 2, "something stands behind the end"
    return (b"\r\n" + rest[:end]).replace(b"\r\n.", b"\r\n")[2:]


# ------------------------------------------------------------------------------------------------ the maildrop


def test_the_greeting_offers_no_apop():
    greeting = Server().connect().greeting
    assert greeting == b"+OK mail.example.org POP3 server ready\r\n"
    assert b"<" not in greeting


def test_messages_come_back_octet_for_octet_in_whatever_way_the_commands_arrive():
    server = Server()
    for piece in (0, 1, 3):
        client = server.logged_in()
        for number, octets in enumerate(MESSAGES, 1):
            sent = octets if octets.endswith(b"\r\n") else octets + b"\r\n"
            assert body(client.send(b"RETR %d\r\n" % number, piece)) == sent
        assert client.send(b"QUIT\r\n") == b"+OK Bye\r\n"
        assert client.is_closed
        client.drop()


def test_a_burst_of_commands_is_answered_in_order():
    server = Server()
    answers = server.connect().send(
        f"USER {ALICE}\r\nPASS {PASSWORD}\r\nSTAT\r\nDELE 1\r\nSTAT\r\nNOOP\r\nRSET\r\nSTAT\r\nQUIT\r\nNOOP\r\n".encode()
    )
    total = sum(map(len, MESSAGES))
    assert [line.split(b" ")[0] for line in answers.splitlines()] == [b"+OK"] * 9
    assert answers.count(b"+OK 3 %d\r\n" % total) == 2
    assert b"+OK 2 %d\r\n" % (total - len(MESSAGES[0])) in answers


def test_list_and_uidl():
    client = Server().logged_in()
    sizes = b"".join(b"%d %d\r\n" % (n, len(m)) for n, m in enumerate(MESSAGES, 1))
    assert client.send(b"LIST\r\n") == b"+OK 3 messages (%d octets)\r\n%s.\r\n" % (sum(map(len, MESSAGES)), sizes)
    assert client.send(b"LIST 2\r\n") == b"+OK 2 %d\r\n" % len(MESSAGES[1])
    listing = client.send(b"uidl\r\n").splitlines()[1:-1]
    assert len({line.split()[1] for line in listing}) == 3
    assert client.send(b"UIDL 3\r\n") == b"+OK " + listing[2] + b"\r\n"
    client.send(b"DELE 2\r\n")
    assert [line.split()[0] for line in client.send(b"LIST\r\n").splitlines()[1:-1]] == [b"1", b"3"]
    assert [line.split()[0] for line in client.send(b"UIDL\r\n").splitlines()[1:-1]] == [b"1", b"3"]


def test_a_unique_id_stays_with_its_message_when_those_before_it_go():
    server = Server()
    first = server.logged_in()
    before = dict(line.split() for line in first.send(b"UIDL\r\n").splitlines()[1:-1])
    first.send(b"DELE 1\r\nQUIT\r\n")
    first.drop()
    after = dict(line.split() for line in server.logged_in().send(b"UIDL\r\n").splitlines()[1:-1])
    assert [after[b"1"], after[b"2"]] == [before[b"2"], before[b"3"]]


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (b"0", b"Subject: one\r\n\r\n"),
        (b"1", b"Subject: one\r\n\r\nfirst line\r\n"),
        (b"2", MESSAGES[0]),
        (b"9999999999", MESSAGES[0]),
    ],
)
def test_top(lines, expected):
    assert body(Server().logged_in().send(b"TOP 1 " + lines + b"\r\n")) == expected


def test_top_of_a_long_message_counts_lines_across_chunks():
    octets = b"Subject: long\r\n\r\n" + b"".join(b"line %d\r\n" % n for n in range(50_000))
    client = Server((octets,)).logged_in()
    assert body(client.send(b"TOP 1 30000\r\n")) == octets[: octets.index(b"line 30000\r\n")]
    assert body(client.send(b"TOP 1 50000\r\n")) == octets


@pytest.mark.parametrize(
    "command",
    [
        b"RETR 99999999999999999999", b"RETR -1", b"RETR 0", b"RETR 4", b"RETR", b"RETR 1 2", b"RETR x", b"RETR \xb2", b"RETR 1\x00",
        b"TOP 1 -1", b"TOP 1", b"TOP", b"TOP 0 0", b"DELE 0", b"DELE 4", b"LIST 0", b"LIST -1", b"UIDL 9", b"LIST 1 2", b"STAT 1",
        b"XTND XMIT", b"", b" ", b"\xff\xfe", b"RETR\x001", b"USER x", b"PASS x", b"AUTH PLAIN", b"STLS", b"UTF8", b"NOOP x",
        b"LANG xx", b"APOP a b",
    ],
)  # fmt: skip
def test_what_cannot_be_is_one_err_and_the_session_goes_on(command):
    client = Server().logged_in()
    for piece in (0, 1):
        answer = client.send(command + b"\r\n", piece)
        assert answer.startswith(b"-ERR ")
        assert answer.count(b"\r\n") == 1
        assert answer.isascii()
    assert client.send(b"NOOP\r\n").startswith(b"+OK")


@pytest.mark.parametrize("command", [b"STAT", b"LIST", b"RETR 1", b"DELE 1", b"UIDL", b"TOP 1 0", b"RSET", b"NOOP"])
def test_nothing_of_the_maildrop_is_there_before_login(command):
    assert Server().connect().send(command + b"\r\n").startswith(b"-ERR ")


def test_what_is_marked_is_removed_at_quit_only_and_nothing_else_is():
    server = Server()
    client = server.logged_in()
    assert client.send(b"DELE 2\r\n").startswith(b"+OK")
    server.deliver(b"Subject: new\r\n\r\n")
    for command in (b"RETR 2", b"TOP 2 0", b"LIST 2", b"UIDL 2", b"DELE 2"):
        assert client.send(command + b"\r\n").startswith(b"-ERR")
    assert server.inbox.exists == 4
    client.send(b"QUIT\r\n")
    assert list(finish(server.account.select("INBOX", False)).uids) == [1, 3, 4]


@pytest.mark.parametrize("end", ["drop", "timeout", "drain", "rset"])
def test_without_quit_nothing_is_removed(end):
    server = Server()
    client = server.logged_in()
    client.send(b"DELE 1\r\nDELE 2\r\n")
    if end == "timeout":
        server.clock.advance(601)
        assert client.read().startswith(b"-ERR [SYS/TEMP] Timeout")
    elif end == "drain":
        client.connection.drain()
        assert client.read() == b"-ERR [SYS/TEMP] Server is shutting down, nothing was removed\r\n"
    elif end == "rset":
        client.send(b"RSET\r\nQUIT\r\n")
    assert client.is_closed == (end != "drop")
    client.drop()
    assert server.inbox.exists == 3
    assert len(server.locks) == 0


def test_when_storage_refuses_the_removal_quit_says_so_and_the_maildrop_is_free():
    server = Server()
    client = server.logged_in()

    async def refuse(*_: object, **__: object) -> UIDSet:
        raise StorageFailed

    client.connection.session._drop.messages._account.expunge = refuse
    answer = client.send(b"DELE 1\r\nQUIT\r\n")
    assert b"\r\n-ERR [SYS/TEMP] No message was removed" in answer
    assert client.is_closed
    assert server.inbox.exists == 3
    server.logged_in()


def test_reading_changes_no_flag():
    server = Server()
    server.logged_in().send(b"RETR 1\r\nTOP 2 1\r\nQUIT\r\n")
    assert server.inbox.unseen == 3


def test_a_message_another_session_expunged_is_gone_and_the_others_keep_their_numbers():
    server = Server()
    client = server.logged_in()
    finish(server.account.expunge(server.inbox.id, UIDSet.of([2]), only_deleted=False))
    assert client.send(b"RETR 2\r\n") == b"-ERR message 2 is gone: another session removed it\r\n"
    assert body(client.send(b"RETR 3\r\n")) == MESSAGES[2]
    assert client.send(b"DELE 2\r\nQUIT\r\n").endswith(b"+OK Bye\r\n")


# ------------------------------------------------------------------------------------------------ the lock


def test_one_session_at_a_time_and_the_second_may_try_again():
    server = Server()
    first, second = server.logged_in(), server.connect()
    assert second.login() == b"+OK Send PASS\r\n-ERR [IN-USE] Another session has this maildrop\r\n"
    assert not second.is_closed
    first.send(b"QUIT\r\n")
    assert second.login().endswith(b"octets)\r\n")


def test_the_lock_goes_with_the_connection():
    server = Server()
    server.logged_in().drop()
    server.logged_in()


def test_a_maildrop_that_cannot_be_read_is_not_locked():
    server = Server()
    client = server.connect()
    original = type(server.account).mailbox

    async def refuse(self, name):
        raise StorageFailed

    type(server.account).mailbox = refuse
    try:
        assert client.login().endswith(b"-ERR [SYS/TEMP] Storage is not available, try again later\r\n")
    finally:
        type(server.account).mailbox = original
    assert len(server.locks) == 0
    assert client.login().endswith(b"octets)\r\n")


# ------------------------------------------------------------------------------------------------ login


@pytest.mark.parametrize(
    "octets",
    [
        b"AUTH PLAIN " + PLAIN + b"\r\n",
        b"auth plain\r\n" + PLAIN + b"\r\n",
        b"AUTH PLAIN =\r\n",
        b"AUTH LOGIN\r\n" + b64encode(ALICE.encode()) + b"\r\n" + b64encode(PASSWORD.encode()) + b"\r\n",
        b"USER " + ALICE.encode() + b"\r\nPASS " + PASSWORD.encode() + b"\r\n",
        b"USER " + ALICE.encode() + b"\nPASS " + PASSWORD.encode() + b"\n",
    ],
)
@pytest.mark.parametrize("piece", [0, 1])
def test_every_way_in(octets, piece):
    server = Server()
    client = server.connect()
    answer = client.send(octets, piece)
    if octets == b"AUTH PLAIN =\r\n":
        assert answer == b"-ERR Malformed PLAIN response\r\n"
    else:
        assert answer.endswith(b"+OK 3 messages (%d octets)\r\n" % sum(map(len, MESSAGES)))
        assert client.send(b"STAT\r\n").startswith(b"+OK 3 ")


def test_the_challenges_are_base64():
    client = Server().connect()
    assert client.send(b"AUTH PLAIN\r\n") == b"+ \r\n"
    assert client.send(b"*\r\n") == b"-ERR Authentication cancelled\r\n"
    assert client.send(b"AUTH LOGIN\r\n") == b"+ VXNlcm5hbWU6\r\n"


@pytest.mark.parametrize("response", [b"a b", b"!!!!", b"A", b"QUI=\t", b"\xc3\xa4", b"QQ==QQ==", b"x" * 8000])
def test_a_bad_response_ends_the_exchange_and_is_never_a_command(response):
    client = Server().connect()
    client.send(b"AUTH PLAIN\r\n")
    assert client.send(response + b"\r\n").startswith(b"-ERR ")
    assert client.send(b"CAPA\r\n").startswith(b"+OK")


def test_a_response_of_100_kb_closes():
    client = Server().connect()
    client.send(b"AUTH PLAIN\r\n")
    assert client.send(b"x" * 100_000) == b"-ERR Line too long\r\n"
    assert client.is_closed


def test_wrong_passwords_and_unknown_names_are_one_answer_and_the_fifth_closes():
    server = Server()
    answers = set()
    client = server.connect()
    for attempt in range(5):
        name = ALICE if attempt % 2 else NOBODY
        assert client.send(f"USER {name}\r\nPASS wrong\r\n".encode()) == b"+OK Send PASS\r\n"
        server.clock.pump([1] * 6)
        answers.add(client.read())
    assert answers == {b"-ERR [AUTH] Authentication credentials invalid\r\n"}
    assert client.is_closed


def test_user_says_nothing_about_the_name_and_is_needed_anew_for_every_pass():
    client = Server().connect()
    assert client.send(f"USER {NOBODY}\r\n".encode()) == client.send(f"USER {ALICE}\r\n".encode())
    client = Server().connect()
    assert client.send(b"PASS x\r\n") == b"-ERR USER comes first\r\n"


def test_a_password_keeps_its_spaces():
    assert parse_command(b"PASS  a  b ")[2] == [b" a  b "]


def test_passwords_do_not_cross_the_clear():
    for server, peer in ((Server(cleartext_login=False), "127.0.0.1"), (Server(), "192.0.2.7")):
        client = server.connect(peer)
        capabilities = client.send(b"CAPA\r\n")
        assert b"USER\r\n" not in capabilities.replace(b"UTF8 USER", b"")
        assert b"SASL" not in capabilities
        for command in (b"USER a", b"PASS b", b"AUTH", b"AUTH PLAIN", b"AUTH PLAIN " + PLAIN):
            assert client.send(command + b"\r\n") == b"-ERR TLS is required before login\r\n"


def test_no_password_reaches_the_log():
    events = []
    globalLogPublisher.addObserver(events.append)
    try:
        server = Server()
        client = server.connect()
        for octets in (
            b"USER a\r\nPASS hunter2\r\n",
            b"AUTH PLAIN aHVudGVyMg=\tx\r\n",
            b"PASS hunter2\x00\r\n",
            b"hunter2\r\n",
        ):
            client.send(octets)
            server.clock.pump([15] * 4)
        client.drop()
    finally:
        globalLogPublisher.removeObserver(events.append)
    assert events
    assert "hunter2" not in repr(events)
    assert "aHVudGVyMg" not in repr(events)


# ------------------------------------------------------------------------------------------------ CAPA, STLS, LANG


def test_capabilities_are_what_is_true_now():
    server = Server()
    client = server.connect()
    before = client.send(b"CAPA\r\n").splitlines()
    assert before[0].startswith(b"+OK")
    assert before[-1] == b"."
    common = {b"TOP", b"UIDL", b"RESP-CODES", b"AUTH-RESP-CODE", b"PIPELINING", b"EXPIRE NEVER", b"LOGIN-DELAY 0"}
    common |= {b"UTF8 USER", b"LANG"}
    assert set(before[1:-1]) == common | {b"USER", b"SASL PLAIN LOGIN", b"STLS", b"IMPLEMENTATION livemail"}
    client.login()
    assert b"STLS" not in client.send(b"CAPA\r\n")
    assert b"STLS" not in Server(tls=None).connect().send(b"CAPA\r\n")


def test_after_stls_the_session_is_as_at_the_start():
    server = Server(cleartext_login=False)
    server.site.settings = type(server.site.settings)(cleartext_login=True)
    client = server.connect()
    client.send(f"USER {ALICE}\r\n".encode())
    assert client.send(b"STLS\r\n") == b"+OK Begin TLS\r\n"
    assert client.transport.tls_options == "tls"
    client.connection.tls = "TLSv1.3"
    client.connection.secured()
    assert client.send(b"PASS " + PASSWORD.encode() + b"\r\n") == b"-ERR USER comes first\r\n"
    assert b"STLS" not in client.send(b"CAPA\r\n")
    assert client.send(b"STLS\r\n").startswith(b"-ERR")
    assert client.login().endswith(b"octets)\r\n")


def test_octets_behind_stls_are_never_answered():
    client = Server().connect()
    client.send(b"STLS\r\nCAPA\r\n")
    assert client.transport.disconnected or client.transport.disconnecting
    assert client.transport.tls_options is None
    assert b"TOP" not in client.read()


def test_stls_without_certificate():
    assert Server(tls=None).connect().send(b"STLS\r\n") == b"-ERR TLS is not available\r\n"


def test_languages():
    client = Server().connect()
    assert client.send(b"LANG\r\n").splitlines()[1:-1] == [b"i-default Default language", b"en English"]
    assert client.send(b"LANG *\r\n") == b"+OK i-default Default language\r\n"
    assert client.send(b"LANG en-GB\r\n") == b"+OK en English\r\n"
    assert client.send(b"LANG de\r\n").startswith(b"-ERR")


# ------------------------------------------------------------------------------------------------ limits


def test_a_line_over_the_limit_closes_whether_it_ends_or_not():
    for octets in (b"USER " + b"x" * 100_000, b"USER " + b"x" * 600 + b"\r\nQUIT\r\n"):
        for piece in (0, 100):
            client = Server().connect()
            assert client.send(octets, piece) == b"-ERR Line too long\r\n"
            assert client.is_closed


def test_twenty_bad_commands_close():
    client = Server().connect()
    answer = client.send(b"GET / HTTP/1.1\r\n" * 30)
    assert answer.count(b"-ERR Unknown command\r\n") == 20
    assert answer.endswith(b"-ERR Too many errors\r\n")
    assert client.is_closed


def test_a_login_takes_two_minutes_at_most_however_busy_the_line_is():
    server = Server()
    client = server.connect()
    for _ in range(13):
        server.clock.advance(10)
        if not client.is_closed:
            client.send(b"CAPA\r\n")
    assert client.is_closed


def test_after_login_ten_minutes_are_given():
    server = Server()
    client = server.logged_in()
    server.clock.advance(599)
    assert not client.is_closed
    client.send(b"NOOP\r\n")
    server.clock.advance(599)
    assert not client.is_closed
    server.clock.advance(2)
    assert client.is_closed


def test_nothing_more_is_read_from_storage_while_the_client_does_not_read():
    octets = b"Subject: big\r\n\r\n" + b"x" * 998 * 1000 + b"\r\n"
    server = Server((octets,))
    client = server.logged_in()
    client.transport.is_reluctant = True
    part = client.send(b"RETR 1\r\nNOOP\r\n")
    assert 60_000 < len(part) < 140_000
    assert client.read() == b""
    while not part.endswith(b"+OK \r\n"):
        client.connection.resumeProducing()
        more = client.read()
        assert 0 < len(more) < 140_000
        part += more
    assert part.endswith(b".\r\n+OK \r\n")
    assert body(part.removesuffix(b"+OK \r\n")) == octets


def test_when_storage_fails_amid_a_message_the_connection_is_cut_without_the_end():
    server = Server((b"Subject: big\r\n\r\n" + b"x" * 300_000 + b"\r\n",))
    client = server.logged_in()
    drop = client.connection.session._drop.messages
    reader = finish(drop.open(0))
    original = reader.read

    async def read(offset: int, length: int) -> bytes:
        if offset > 100_000:
            raise StorageFailed
        return await original(offset, length)

    class Reader:
        size = reader.size

        def close(self) -> None:
            self.is_closed = True

    broken = Reader()
    broken.read = read

    async def open_broken(position: int) -> Reader:
        return broken

    drop.open = open_broken
    answer = client.send(b"RETR 1\r\n")
    assert not answer.endswith(b".\r\n")
    assert client.transport.disconnecting or client.transport.disconnected
    assert broken.is_closed


def test_a_bug_is_a_temporary_failure_and_the_session_goes_on():
    server = Server()
    client = server.logged_in()

    async def broken(_: object) -> None:
        raise KeyError("private")

    client.connection.session._commands["STAT"] = broken
    assert client.send(b"STAT\r\n") == b"-ERR [SYS/TEMP] Internal error, try again later\r\n"
    assert client.send(b"NOOP\r\n").startswith(b"+OK")


def test_a_client_that_leaves_while_it_is_checked_leaves_nothing():
    server = Server()
    client = server.connect()
    gate: Deferred[None] = Deferred()
    original = server.directory.account_for_login

    async def slow(login: str):
        await gate
        return await original(login)

    server.directory.account_for_login = slow
    client.login()
    client.drop()
    assert len(server.locks) == 0
    assert not server.owner.open


# ------------------------------------------------------------------------------------------------ many messages


def test_small_messages_are_read_together_when_they_are_read_in_order():
    messages = tuple(b"Subject: %d\r\n\r\n" % n + b"x" * 1000 + b"\r\n" for n in range(300))
    server = Server(messages)
    client = server.logged_in()
    account = client.connection.session._drop.messages._account
    calls = []
    original = account.fetch

    def fetch(*arguments):
        calls.append(arguments)
        return original(*arguments)

    account.fetch = fetch
    for number in range(1, 301):
        assert body(client.send(b"RETR %d\r\n" % number)) == messages[number - 1]
        assert sum(map(len, client.connection.session._drop.messages._ahead.values())) <= AHEAD_OCTETS
    assert len(calls) <= 300 * 1020 // AHEAD_OCTETS + 2
    calls.clear()
    assert body(client.send(b"RETR 7\r\n")) == messages[6]
    assert len(calls) == 1
    assert calls[0][1].ranges == ((7, 7),)


def test_messages_around_the_size_that_is_read_ahead():
    messages = tuple(b"S: x\r\n\r\n" + b"y" * (SMALL_OCTETS + d - 10) + b"\r\n" for d in (-1, 0, 1, 5, -3, 2))
    client = Server(messages).logged_in()
    for order in ((1, 2, 3, 4, 5, 6), (6, 1, 1, 2, 5)):
        for number in order:
            assert body(client.send(b"RETR %d\r\n" % number)) == messages[number - 1]


def test_the_table_is_what_the_session_does():
    connection = Server().connect().connection
    assert set(connection.session._commands) == set(RULES)
