import random
import struct

import dns.flags
import dns.message
import dns.rdatatype
import pytest

from livemail.net.resolver.message import (
    BADVERS,
    CIRCLE,
    MX,
    NXDOMAIN,
    PTR,
    REFUSED,
    SERVFAIL,
    TLSA,
    TXT,
    A,
    Garbage,
    Query,
    Question,
    Reply,
    as_name,
    follow,
    make_query,
    read,
)
from tests.net.resolver.wire import SOA, reply_to


def query(name: str = "a.test", kind: int = MX, seed: int = 1, *, has_edns: bool = True) -> Query:
    return make_query(Question(name, kind), 4711, random.Random(seed).getrandbits, has_edns=has_edns)


def understood(asked: Query, octets: bytes) -> Reply:
    reply = read(asked, octets)
    assert reply is not None
    return reply


def test_a_query_is_what_a_server_expects() -> None:
    asked = query("mail.example.test")
    message = dns.message.from_wire(asked.wire)
    assert message.id == 4711
    assert message.flags == dns.flags.RD | dns.flags.AD
    assert message.payload == 1232
    assert (message.question[0].rdtype, len(message.question)) == (dns.rdatatype.MX, 1)
    assert message.question[0].name == dns.name.from_text("mail.example.test")
    assert dns.message.from_wire(query(has_edns=False).wire).edns == -1


def test_the_letters_of_the_name_are_in_random_case_and_nothing_else_is_touched() -> None:
    sections = {query("mail-1.example.test", seed=seed).section for seed in range(30)}
    assert len(sections) == 30
    assert {section.lower() for section in sections} == {b"\x06mail-1\x07example\x04test\0\0\x0f\0\x01"}


def test_records_of_each_type_are_what_the_interface_says() -> None:
    for kind, line, value in [
        (MX, "MX 10 Mail.A.test.", (10, "mail.a.test")),
        (MX, "MX 0 .", (0, "")),
        (A, "A 192.0.2.1", "192.0.2.1"),
        (28, "AAAA 2001:DB8::1", "2001:db8::1"),
        (TXT, 'TXT "v=spf1 " "-all"', b"v=spf1 -all"),
        (PTR, "PTR Host.a.test.", "host.a.test"),
        (TLSA, "TLSA 3 1 1 " + "ab" * 32, (3, 1, 1, b"\xab" * 32)),
    ]:
        asked = query(kind=kind)
        reply = understood(asked, reply_to(asked, f"a.test. 300 IN {line}"))
        assert follow(asked.question, reply).records == (value,)


def test_what_answers_something_else_is_no_answer() -> None:
    asked = query()
    good = reply_to(asked, "a.test. 300 IN MX 10 x.test.")
    assert read(asked, good)
    other = make_query(Question("b.test", MX), 4711, random.Random(1).getrandbits)
    kind = make_query(Question("a.test", A), 4711, random.Random(1).getrandbits)
    assert read(asked, struct.pack("!H", 4712) + good[2:]) is None
    assert read(asked, reply_to(other, "b.test. 300 IN MX 10 x.test.")) is None
    assert read(asked, reply_to(kind, "a.test. 300 IN A 192.0.2.1")) is None
    assert read(asked, asked.wire) is None  # a query, not an answer
    assert read(asked, good[:2] + bytes([good[2] | 0x28]) + good[3:]) is None  # another opcode
    for length in range(12):
        assert read(asked, good[:length]) is None
    two = good[:4] + struct.pack("!H", 2) + good[6:]
    assert read(asked, two) is None


def test_an_answer_in_other_case_is_told_from_one_in_ours() -> None:
    asked = query("example.test", has_edns=False)
    folded = Query(asked.question, asked.id, asked.wire[:12] + asked.section.lower(), asked.section.lower(), False)
    octets = reply_to(folded, "example.test. 300 IN MX 10 x.test.")
    assert not understood(asked, octets).has_case
    assert understood(folded, octets).has_case


def test_a_truncated_answer_is_read_no_further() -> None:
    asked = query()
    good = reply_to(asked, "a.test. 300 IN MX 10 x.test.", flags=dns.flags.QR | dns.flags.TC)
    for length in range(12 + len(asked.section), len(good)):
        assert understood(asked, good[:length]).is_truncated


def test_every_cut_of_an_answer_is_garbage_or_no_answer() -> None:
    asked = query()
    good = reply_to(asked, "a.test. 300 IN MX 10 x.test.", "a.test. 300 IN MX 20 y.test.")
    for length in range(12 + len(asked.section), len(good) - 11):  # the last 11 octets are the OPT record
        with pytest.raises(Garbage):
            read(asked, good[:length])


def test_an_error_need_not_repeat_the_question() -> None:
    asked = query()
    for rcode in (SERVFAIL, REFUSED, 1, 4):
        assert understood(asked, struct.pack("!HHHHHH", 4711, 0x8000 | rcode, 0, 0, 0, 0)).rcode == rcode
    assert read(asked, struct.pack("!HHHHHH", 4711, 0x8000 | NXDOMAIN, 0, 0, 0, 0)) is None


def test_there_is_none_is_told_from_there_is_no_such_name() -> None:
    asked = query()
    nothing = follow(asked.question, understood(asked, reply_to(asked, authority=(SOA,))))
    assert (nothing.records, nothing.exists, nothing.ttl) == ((), True, 60)
    nobody = follow(asked.question, understood(asked, reply_to(asked, authority=(SOA,), rcode=NXDOMAIN)))
    assert (nobody.exists, nobody.ttl) == (False, 60)
    assert follow(asked.question, understood(asked, reply_to(asked, rcode=NXDOMAIN))).ttl is None


def test_a_referral_is_not_taken_for_an_answer() -> None:
    asked = query()
    to_others = ("a.test. 300 IN NS ns.elsewhere.test.",)
    assert understood(asked, reply_to(asked, authority=to_others)).is_referral
    assert understood(asked, reply_to(asked, flags=dns.flags.QR)).is_referral
    assert not understood(asked, reply_to(asked, flags=dns.flags.QR | dns.flags.AA)).is_referral
    assert not understood(asked, reply_to(asked, authority=(*to_others, SOA))).is_referral


def test_aliases_in_an_answer_are_followed_and_the_shortest_time_holds() -> None:
    asked = query()
    reply = understood(
        asked,
        reply_to(
            asked,
            "b.test. 50 IN CNAME C.test.",
            "a.test. 90 IN CNAME b.test.",
            "c.test. 300 IN MX 10 x.test.",
            "d.test. 1 IN MX 10 wrong.test.",
        ),
    )
    found = follow(asked.question, reply)
    assert (found.records, found.ttl, found.canonical, found.aliases) == (((10, "x.test"),), 50, "c.test", 2)


def test_an_alias_that_leaves_the_answer_names_what_to_ask_next() -> None:
    asked = query()
    found = follow(asked.question, understood(asked, reply_to(asked, "a.test. 90 IN CNAME b.test.")))
    assert (found.next, found.ttl) == ("b.test", 90)
    none = follow(asked.question, understood(asked, reply_to(asked, "a.test. 90 IN CNAME b.test.", authority=(SOA,))))
    assert (none.next, none.exists, none.ttl, none.canonical) == ("", True, 60, "b.test")
    gone = reply_to(asked, "a.test. 90 IN CNAME b.test.", rcode=NXDOMAIN)
    assert follow(asked.question, understood(asked, gone)).exists is False


def test_aliases_in_a_circle_or_on_and_on_are_garbage() -> None:
    asked = query()
    circle = ("a.test. 90 IN CNAME b.test.", "b.test. 90 IN CNAME a.test.")
    chain = tuple(f"{chr(97 + n)}.test. 90 IN CNAME {chr(98 + n)}.test." for n in range(20))
    for lines in (circle, chain, ("a.test. 90 IN CNAME a.test.",)):
        with pytest.raises(Garbage, match=CIRCLE):
            follow(asked.question, understood(asked, reply_to(asked, *lines)))


def test_octets_no_host_name_has_are_escaped() -> None:
    asked = query()
    reply = understood(asked, reply_to(asked, "a.test. 300 IN MX 10 x\\032\\010y\\.z\\255.test."))
    assert follow(asked.question, reply).records == ((10, "x\\032\\010y\\.z\\255.test"),)


def test_the_verdict_of_dnssec_is_the_ad_bit() -> None:
    asked = query()
    line = "a.test. 300 IN MX 10 x.test."
    assert understood(asked, reply_to(asked, line, flags=dns.flags.QR | dns.flags.RA | dns.flags.AD)).is_authentic
    assert not understood(asked, reply_to(asked, line)).is_authentic


def test_a_tlsa_record_of_the_wrong_length_is_shown_as_it_is() -> None:
    asked = query(kind=TLSA)
    octets = reply_to(asked, "a.test. 300 IN TLSA 3 1 0 aabb", "a.test. 300 IN TLSA 3 1 1 " + "ab" * 32)
    wrong = octets.replace(b"\x03\x01\x00\xaa\xbb", b"\x03\x01\x02\xaa\xbb")
    assert (3, 1, 2, b"\xaa\xbb") in follow(asked.question, understood(asked, wrong)).records


def test_records_of_other_types_and_classes_are_stepped_over_whatever_is_in_them() -> None:
    asked = query()
    good = "a.test. 300 IN MX 10 x.test."
    octets = reply_to(asked, "a.test. 300 IN TYPE65333 \\# 3 010203", "a.test. 300 CH MX 5 y.test.", good)
    assert follow(asked.question, understood(asked, octets)).records == ((10, "x.test"),)


def test_a_time_with_its_highest_bit_set_counts_as_none() -> None:
    asked = query()
    octets = reply_to(asked, "a.test. 2147483647 IN MX 10 x.test.")
    assert follow(asked.question, understood(asked, octets)).ttl == 0x7FFFFFFF
    high = octets.replace(b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff")
    assert follow(asked.question, understood(asked, high)).ttl == 0


def test_an_answer_with_very_many_records_is_not_read() -> None:
    asked = query()
    header = struct.pack("!HHHHHH", 4711, 0x8080, 1, 2001, 0, 0)
    with pytest.raises(Garbage):
        read(asked, header + asked.section + b"\0\0\0\0\1\0\0\0\0\0\0" * 2001)


def test_an_answer_of_very_many_labels_is_not_read() -> None:
    asked = query()
    at = 12 + len(asked.section)
    long = b"\1a" * 115 + b"\xc0\x0c"
    pointer = struct.pack("!H", 0xC000 | at)
    for kind, klass in ((MX, 1), (MX, 3), (65333, 1)):
        record = struct.pack("!HHIH", kind, klass, 300, 4) + b"\0\1" + pointer
        for count in (20, 1000):
            header = struct.pack("!HHHHHH", 4711, 0x8480, 1, count, 0, 0)
            octets = header + asked.section + long + record + (pointer + record) * (count - 1)
            if count == 20:
                assert understood(asked, octets).rcode == 0
            else:
                with pytest.raises(Garbage):
                    read(asked, octets)


def test_the_extended_part_of_an_error_is_read() -> None:
    asked = query()
    assert understood(asked, reply_to(asked, rcode=BADVERS)).rcode == BADVERS


def test_what_cannot_be_a_name_is_not_one() -> None:
    for text in ("", ".", "a..b", "a" * 64 + ".test", ".".join(["a" * 60] * 5)):
        assert as_name(text) is None, text
    assert as_name("_25._tcp.mail.example.test") is not None
