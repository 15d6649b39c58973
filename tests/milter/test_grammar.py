from __future__ import annotations

import pytest

from livemail.mail.address import Address, Path
from livemail.mail.envelope import Recipient, ReversePath
from livemail.mail.errors import WireError
from livemail.milter import codes, grammar
from livemail.milter.grammar import (
    BodyChunk,
    HeaderChange,
    Options,
    Peer,
    Quarantined,
    RecipientAdded,
    RecipientRemoved,
    ReplyCode,
    ReversePathChanged,
)

ANN = Path(Address("ann", "example.org"))


@pytest.mark.parametrize(
    "options",
    [
        Options(6, 0x1FF, 0x1FFFFF),
        Options(2, 0x3F, 0),
        Options(6, 0x100, 0, {codes.CONNECT: (b"j", b"{client_addr}"), codes.EOH: (b"i",)}),
    ],
)
def test_options_come_back_as_rendered(options):
    assert grammar.parse_options(grammar.render_options(options)) == options


def test_macro_lists_may_be_separated_by_commas_and_unknown_stages_are_passed_over():
    data = grammar.render_options(Options(6, 0, 0)) + b"\0\0\0\2i, {auth_type}\0" + b"\0\0\0\x63x\0"
    assert grammar.parse_options(data).macros == {codes.MAIL: (b"i", b"{auth_type}")}


@pytest.mark.parametrize("rest", [b"\0", b"\0\0\0\1j", b"\0\0\0\1j\0" * 500])
def test_macro_lists_that_are_cut_or_without_end_are_refused(rest):
    with pytest.raises(WireError):
        grammar.parse_options(grammar.render_options(Options(6, 0, 0)) + rest)


@pytest.mark.parametrize("peer", [Peer("[192.0.2.1]", "192.0.2.1", 25), Peer("a.example", "2001:db8::1", 65535)])
def test_a_peer_comes_back_as_rendered(peer):
    assert grammar.parse_connect(grammar.render_connect(peer)) == peer


def test_local_and_unknown_peers_have_no_address():
    assert grammar.parse_connect(grammar.render_connect(Peer("localhost"))) == Peer("localhost")
    assert grammar.parse_connect(b"unknown\0U") == Peer("unknown")
    assert grammar.parse_connect(b"a.example\x006\0\x19IPv6:::1\0") == Peer("a.example", "::1", 25)


@pytest.mark.parametrize("data", [b"", b"a", b"a\0", b"a\0X", b"a\x004", b"a\x004\0\x19192.0.2.1"])
def test_a_malformed_peer_is_refused(data):
    with pytest.raises(WireError):
        grammar.parse_connect(data)


def test_macros_have_a_stage_and_a_lone_last_name_is_empty():
    assert grammar.parse_macros(b"Mi\x00abc\0{auth_type}\0") == (b"M", {b"i": b"abc", b"{auth_type}": b""})
    assert grammar.parse_macros(grammar.render_macros(b"C", {b"j": b"mx"})) == (b"C", {b"j": b"mx"})
    for data in (b"", b"Mi", b"M" + b"a\0" * 1000):
        with pytest.raises(WireError):
            grammar.parse_macros(data)


@pytest.mark.parametrize("leading_space", [True, False])
def test_a_header_value_travels_with_lf_and_comes_back_with_crlf(leading_space):
    value = b" one\r\n\ttwo\r\n   \r\n three"
    sent = grammar.to_milter_value(value, leading_space=leading_space)
    assert b"\r" not in sent
    assert sent.startswith(b" ") is leading_space
    assert grammar.parse_header(b"X-A\0" + sent + b"\0", leading_space=leading_space) == (b"X-A", value)


def test_real_mails_header_is_taken_as_it_is():
    assert grammar.parse_header(b"Subject \0 a\rb \xff\0", leading_space=True) == (b"Subject ", b" a\rb \xff")


@pytest.mark.parametrize(
    "data", [b"A\0a\nB: injected\0", b"A\0a\n\nbody\0", b"\0a\0", b"A:\0a\0", b"A\0a\0b\0", b"A\0"]
)
def test_a_header_that_would_be_more_than_one_field_is_refused(data):
    with pytest.raises(WireError):
        grammar.parse_header(data, leading_space=True)
    with pytest.raises(WireError):
        grammar.parse_edit(codes.ADDHEADER, data, leading_space=True)


@pytest.mark.parametrize("value", [b"a\rb", b"a\n \n", b"a\n \n b", b"a\n"])
def test_an_edit_is_held_to_more_than_real_mail(value):
    if value == b"a\n":  # the last line end is not part of a value
        assert grammar.parse_edit(codes.ADDHEADER, b"A\0" + value + b"\0", leading_space=True).value == b"a"
        return
    with pytest.raises(WireError):
        grammar.parse_edit(codes.ADDHEADER, b"A\0" + value + b"\0", leading_space=True)


@pytest.mark.parametrize(
    ("written", "path"),
    [
        (b"<ann@Example.ORG>", ANN),
        (b"ann@example.org.", ANN),
        (b"<>", Path.null),
        (b"", Path.null),
        (b"<@a,@b:ann@example.org>", ANN),
        (b'<"a \\" b"@example.org>', Path(Address('a " b', "example.org"))),
        (b'<"a@b"@example.org>', Path(Address("a@b", "example.org"))),
        (b"<postmaster>", Path(Address("postmaster", ""))),
        ("<jürg@exämple.org>".encode(), Path(Address("jürg", "exämple.org"))),
    ],
)
def test_a_path_is_read(written, path):
    assert grammar.parse_path(written) == path
    assert grammar.parse_path(grammar.render_path(path)) == path


@pytest.mark.parametrize("written", [b"<ann@example.org", b"<@example.org>", b"<a\r\nb@c>"])
def test_a_path_that_is_none_is_refused(written):
    with pytest.raises(WireError):
        grammar.parse_path(written)


def test_parameters_of_mail_and_rcpt_come_back_as_rendered():
    reverse = ReversePath(ANN, 1000, "8BITMIME", True, "HDRS", "id+1", "a=b@example.org")
    data = grammar.strings(b"<ann@example.org>", *grammar.mail_parameters(reverse))
    assert grammar.parse_mail(data) == reverse
    recipient = Recipient(ANN, frozenset({"DELAY", "FAILURE"}), "rfc822;ann@example.org")
    data = grammar.strings(b"<ann@example.org>", *grammar.rcpt_parameters(recipient))
    assert grammar.parse_rcpt(data) == recipient
    assert grammar.parse_mail(b"<>\0SIZE=junk\0X=y\0") == ReversePath(Path.null)
    for parse in (grammar.parse_mail, grammar.parse_rcpt):
        with pytest.raises(WireError):
            parse(b"")
        with pytest.raises(WireError):
            parse(b"<a@b>\0" + b"X=1\0" * 1000)


@pytest.mark.parametrize(
    "edit",
    [
        HeaderChange("add", b"X-A", b" one\r\n two"),
        HeaderChange("insert", b"X-A", b" one", 3),
        HeaderChange("change", b"X-A", b" one", 2),
        HeaderChange("change", b"X-A", b"", 1),
        BodyChunk(b"a\0b\r\n"),
        RecipientAdded(Recipient(ANN)),
        RecipientAdded(Recipient(ANN, frozenset({"NEVER"}))),
        RecipientRemoved(ANN),
        ReversePathChanged(Path.null),
        Quarantined("smells"),
    ],
)
@pytest.mark.parametrize("leading_space", [True, False])
def test_an_edit_comes_back_as_rendered(edit, leading_space):
    rendered = grammar.render_edit(edit, leading_space=leading_space)
    assert grammar.parse_edit(*rendered, leading_space=leading_space) == edit


def test_edits_that_make_no_sense_are_refused():
    for command, data in [
        (codes.INSHEADER, b"\0\0\0"),
        (codes.CHGHEADER, b"\xff\xff\xff\xffA\0b\0"),
        (codes.DELRCPT, b""),
        (codes.QUARANTINE, b"no end"),
    ]:
        with pytest.raises(WireError):
            grammar.parse_edit(command, data, leading_space=True)


@pytest.mark.parametrize(
    ("data", "reply"),
    [
        (b"550 5.7.1 no\0", ReplyCode(550, "5.7.1", "no")),
        (b"451 later, 100%% sure\0", ReplyCode(451, "", "later, 100% sure")),
        (b"550-5.7.1 one\r\n550-5.7.1 two\r\n550 5.7.1 three\0", ReplyCode(550, "5.7.1", "one two three")),
        (b"421 4.7.0\0", ReplyCode(421, "4.7.0", "")),
        (b"550\0", ReplyCode(550, "", "")),
        (b"550 a\x1b[2Jb\0", ReplyCode(550, "", "a?[2Jb")),
    ],
)
def test_a_reply_is_read(data, reply):
    assert grammar.parse_reply(data) == reply


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"250 ok\0",
        b"55 x\0",
        b"550x\0",
        b"550 5.7.1 no",
        b"550 4.7.1 classes differ\0",
        b"550-one\r\n451 two\0",
        b"550-one\0",
        b"550 one\r\n550 two\0",
        b"550-one\r\n\0",
        b"550-one\r\nMAIL FROM:<x>\r\n550 two\0",
        b"550 a\rb\0",
        b"550 one\x00551 two\0",
    ],
)
def test_no_part_of_a_malformed_reply_is_used(data):
    with pytest.raises(WireError):
        grammar.parse_reply(data)


def test_a_reply_of_ours_has_one_line_and_doubled_percents():
    data = grammar.render_reply(550, "5.7.1", "100% sure\r\n250 ok")
    assert data == b"550 5.7.1 100%% sure??250 ok\0"
    assert grammar.parse_reply(data) == ReplyCode(550, "5.7.1", "100% sure??250 ok")
