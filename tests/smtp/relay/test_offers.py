from livemail.smtp.relay.offers import NOTHING, Offers, parse_offers
from livemail.smtp.relay.wire import Said


def offers(*lines):
    return parse_offers(Said(250, [b"peer.example PIPELINING", *lines]))


def test_extensions_are_read_in_any_case_and_the_first_line_is_a_name():
    assert offers() == NOTHING
    assert offers(b"pipelining", b"Size 1000", b"8BITMIME", b"smtputf8", b"CHUNKING", b"BINARYMIME", b"DSN", b"STARTTLS") == Offers(
        starttls=True, pipelining=True, has_size=True, size=1000, eight_bit=True, smtputf8=True, chunking=True, binary=True, dsn=True,
    )  # fmt: skip


def test_size_without_a_number_is_size_without_a_limit():
    for line in (b"SIZE", b"SIZE 0", b"SIZE x", b"SIZE -1", b"SIZE 99999999999999999999999"):
        assert offers(line) == Offers(has_size=True), line


def test_mechanisms_are_read_from_both_spellings():
    assert offers(b"AUTH PLAIN login", b"AUTH=CRAM-MD5 PLAIN").auth == {"PLAIN", "LOGIN", "CRAM-MD5"}


def test_binarymime_without_chunking_is_not_offered():
    assert not offers(b"BINARYMIME").binary


def test_limits_are_read_and_nonsense_in_them_is_not():
    assert offers(b"LIMITS RCPTMAX=20 MAILMAX=3 RCPTDOMAINMAX=1").rcpt_max == 20
    assert offers(b"LIMITS MAILMAX=3").mail_max == 3
    assert offers(b"LIMITS RCPTMAX=0 MAILMAX=x") == NOTHING


def test_what_is_not_understood_is_not_offered():
    assert offers(b"", b" ", b"\xff\xfe", b"XPIPELINING", b"PIPELININGX") == NOTHING
