from __future__ import annotations

import pytest

from livemail.mail.address import Address, Path
from livemail.mail.envelope import Recipient, ReversePath
from livemail.mail.errors import WireError
from livemail.smtp.grammar import decode_xtext, parse_bdat, parse_helo, parse_mail, parse_path, parse_rcpt

GOOD_PATHS = {
    b"<you@localhost>": Address("you", "localhost"),
    b"<Y.O+u@Local.Example>": Address("Y.O+u", "local.example"),
    b"<@a.example,@b.example:you@localhost>": Address("you", "localhost"),
    b'<"a b"@localhost>': Address("a b", "localhost"),
    b'<"a\\"b>"@localhost>': Address('a"b>', "localhost"),
    b'<"user@other"@localhost>': Address("user@other", "localhost"),
    b"<user%other@localhost>": Address("user%other", "localhost"),
    b"<a@[127.0.0.1]>": Address("a", "[127.0.0.1]"),
    b"<a@[IPv6:2001:DB8::1]>": Address("a", "[ipv6:2001:db8::1]"),
    b"<postmaster>": Address("postmaster", ""),
    b"<" + b"a" * 64 + b"@localhost>": Address("a" * 64, "localhost"),
    b"<a@my_host.example>": Address("a", "my_host.example"),
}


@pytest.mark.parametrize("raw", GOOD_PATHS)
def test_a_path_is_read(raw):
    assert parse_rcpt(b"TO:" + raw) == Recipient(Path(GOOD_PATHS[raw]))


def test_a_path_written_is_read_again():
    for address in GOOD_PATHS.values():
        assert parse_path(str(Path(address)).encode(), "5.1.3").address == address


# Security rows 19, 20, 21.
BAD_PATHS = [
    b'<""@localhost>', b"<@>", b"<a@b.>", b"<a@.b>", b"<a@b..c>", b"<a@-b>", b"<a@b->", b"<.a@b>", b"<a.@b>", b"<a..b@c>", b"<a b@c>",
    b"<" + b"a" * 65 + b"@b>", b"<" + b"a" * 400 + b"@b>", b"<a@" + b"b." * 130 + b"c>", b"<a@" + b"b" * 64 + b">", b"<a@[300.1.1.1]>",
    b"<a@[IPv6:zz]>", b"<a@[127.0.0.1>", b"<a@[x:y]>", b"<you>", b"you@localhost", b"<you@localhost", b"<a@b>x", b"<>", b"", b"<",
    b"<@a.example you@localhost>", b"<@a.example:>", b"<@:you@localhost>", b'<"a"b@c>', b'<"a@c>', b'<"a\\"@c>', b"<a@b>>", b"<user@other@local>",
]  # fmt: skip


@pytest.mark.parametrize("raw", BAD_PATHS)
def test_rows_20_and_21_a_wrong_path_is_refused(raw):
    with pytest.raises(WireError) as raised:
        parse_rcpt(b"TO:" + raw)
    assert raised.value.code in {501, 550}
    assert raised.value.enhanced.startswith("5.")


def test_row_19_a_non_ascii_address_needs_smtputf8():
    raw = "TO:<jörg@münchen.example>".encode()
    with pytest.raises(WireError) as raised:
        parse_rcpt(raw)
    assert (raised.value.code, raised.value.enhanced) == (553, "5.6.7")
    assert parse_rcpt(raw, smtputf8=True).path.address == Address("jörg", "münchen.example")


@pytest.mark.parametrize(
    "text", ["a\u2028b@c.example", "a\u0085b@c.example", "a\u200bb@c.example", "a@\u202ec.example", "a@b©.example"]
)
def test_invisible_characters_are_no_part_of_an_address(text):
    with pytest.raises(WireError):
        parse_rcpt(f"TO:<{text}>".encode(), smtputf8=True)


def test_broken_utf_8_is_refused():
    with pytest.raises(WireError):
        parse_rcpt(b"TO:<\xff\xfe@c.example>", smtputf8=True)


def test_mail_takes_its_parameters():
    assert parse_mail(b"FROM:<>") == ReversePath(Path.null)
    assert parse_mail(b"from: <a@b> SIZE=100 body=8bitmime SMTPUTF8 AUTH=e+3Dmc2@example.com") == ReversePath(
        Path(Address("a", "b")), size=100, body="8BITMIME", smtputf8=True, auth="e=mc2@example.com"
    )
    found = parse_mail(b"FROM:<a@b> RET=hdrs ENVID=QQ314159+2B", dsn=True)
    assert (found.ret, found.envid) == ("HDRS", "QQ314159+")


def test_rcpt_takes_dsn_parameters_only_where_they_are_offered():
    argument = b"TO:<a@b> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;Bob@x"
    assert parse_rcpt(argument, dsn=True) == Recipient(
        Path(Address("a", "b")), frozenset({"SUCCESS", "DELAY"}), "rfc822;Bob@x"
    )
    with pytest.raises(WireError) as raised:
        parse_rcpt(argument)
    assert raised.value.code == 555


@pytest.mark.parametrize(
    "parameters",
    [b"SIZE=", b"SIZE=x", b"SIZE=-1", b"SIZE=" + b"9" * 21, b"SIZE", b"BODY=9BIT", b"SMTPUTF8=1", b"SIZE=1 SIZE=2", b"=x", b"A=B=C", b"AUTH=+zz", b"AUTH", b"BODY=BINARYMIME", b"X+Y=1"],
)  # fmt: skip
def test_a_wrong_parameter_is_501(parameters):
    with pytest.raises(WireError) as raised:
        parse_mail(b"FROM:<a@b> " + parameters)
    assert raised.value.code == 501


def test_an_unknown_parameter_is_555():
    for parameters in (b"FOO=BAR", b"RET=FULL", b"ENVID=x", b"SOLICIT"):
        with pytest.raises(WireError) as raised:
            parse_mail(b"FROM:<a@b> " + parameters)
        assert (raised.value.code, raised.value.enhanced) == (555, "5.5.4")


@pytest.mark.parametrize(
    "parameters",
    [
        b"NOTIFY=NEVER,DELAY", b"NOTIFY=", b"NOTIFY", b"NOTIFY=X", b"NOTIFY=,", b"NOTIFY=DELAY,", b"ORCPT=x", b"ORCPT",
        b"NOTIFY=DELAY,DELAY", b"ORCPT=rfc822;a+0D+0Ab", "ORCPT=utf-8;δ@x".encode(), b"ORCPT=rfc822;a+2b",
        b"ORCPT=rfc822;" + b"a" * 500, b"ORCPT=rfc822;a@b ORCPT=rfc822;a@b",
    ],
)  # fmt: skip
def test_a_wrong_dsn_parameter_is_501(parameters):
    with pytest.raises(WireError) as raised:
        parse_rcpt(b"TO:<a@b> " + parameters, dsn=True)
    assert raised.value.code == 501


@pytest.mark.parametrize(
    "parameters",
    [b"RET=ALL", b"RET", b"RET=FULL,HDRS", b"ENVID", b"ENVID=" + b"x" * 101, b"ENVID=a+0D+0Ab", b"ENVID=+"],
)
def test_a_wrong_ret_or_envid_is_501(parameters):
    with pytest.raises(WireError) as raised:
        parse_mail(b"FROM:<a@b> " + parameters, dsn=True)
    assert raised.value.code == 501


def test_an_international_original_recipient_may_stand_as_it_is_with_smtputf8():
    found = parse_rcpt("TO:<δ@x> ORCPT=utf-8;δ@x".encode(), smtputf8=True, dsn=True)
    assert found.original == "utf-8;δ@x"


@pytest.mark.parametrize("argument", [b"", b"x", b"-1", b"5 EXTRA", b"5 LAST x", b"9" * 21, b"+5", b"0x5", b"5 5"])
def test_row_14_a_wrong_bdat_is_fatal(argument):
    with pytest.raises(WireError) as raised:
        parse_bdat(argument)
    assert raised.value.fatal
    assert raised.value.code == 501


def test_bdat_is_read():
    assert parse_bdat(b"86 last") == (86, True)
    assert parse_bdat(b"0") == (0, False)


@pytest.mark.parametrize("name", [b"", b"a b", b"a(b)", b"x\r", b"a\x1b[1m", "ä".encode(), b"a" * 256, b"<a>", b'"'])
def test_row_48_a_helo_name_that_could_harm_a_header_or_a_log_is_refused(name):
    with pytest.raises(WireError):
        parse_helo(name)


def test_usual_helo_names_pass():
    for name in ("mail.example", "[192.0.2.1]", "[IPv6:2001:db8::1]", "DESKTOP_1", "localhost"):
        assert parse_helo(name.encode()) == name


def test_xtext():
    assert decode_xtext(b"a+2Bb+C3+A4") == "a+bä"
    for wrong in (b"a+2", b"a=b", b"+2b", b"a b"):
        with pytest.raises(WireError):
            decode_xtext(wrong)
