from __future__ import annotations

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livemail.delivery.srs import MAX_AGE_DAYS, NotRewritten, Rewriter, is_rewritten, load_keys
from livemail.mail.address import Address, Path

DAY = 86400
KEY = b"k" * 32
NOW = 1_790_000_000.0


def path(text):
    local, _, domain = text.rpartition("@")
    return Path(Address(local, domain))


class At:
    """A clock and forwarders."""

    def __init__(self, now=NOW):
        self.now = now

    def forwarder(self, domain, *keys):
        return Rewriter(keys or (domain.encode() * 4,), domain, lambda: self.now)


def back(rewriter, there):
    return rewriter.back(there.address)


locals_ = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20) | st.text(
    min_size=1, max_size=5
)
domains = st.sampled_from(["a.example", "sub.a-b.example", "xn--bcher-kva.example", "bücher.example", "[192.0.2.1]"])


@given(locals_, domains)
def test_a_bounce_to_what_was_made_of_an_address_finds_back_to_it(local, domain):
    rewriter = At().forwarder("us.example")
    original = Path(Address(local, domain))
    there = rewriter.forward(original)
    assert there.address.domain == "us.example"
    assert len(there.address.local_part.encode()) <= 64
    assert is_rewritten(there.address)
    if not local.upper().startswith("SRS"):
        assert back(rewriter, there) == original.address


def test_the_form_is_the_one_others_know():
    there = At().forwarder("us.example", KEY).forward(path("alice@a.example"))
    assert str(there) == "<SRS0=ss62ph=hn=a.example=alice@us.example>"
    kind, signature, stamp, domain, local = there.address.local_part.split("=")
    assert (kind, len(signature), len(stamp), domain, local) == ("SRS0", 6, 2, "a.example", "alice")


def test_the_null_path_stays_null():
    assert At().forwarder("us.example").forward(Path.null) == Path.null


def test_an_address_too_long_to_be_rewritten_stays_as_it_is():
    long = path("a" * 40 + "@very-long-name.example")
    assert At().forwarder("us.example").forward(long) == long


def test_any_number_of_forwarders_makes_one_srs1_that_leads_to_the_first():
    at = At()
    first, second, third, fourth = (at.forwarder(f"{name}.example") for name in ("one", "two", "three", "four"))
    one = first.forward(path("alice@a.example"))
    two = second.forward(one)
    three = third.forward(two)
    four = fourth.forward(three)
    assert two.address.local_part.startswith("SRS1=")
    assert len({len(str(each.address.local_part)) for each in (two, three, four)}) == 1
    for forwarder, there in ((second, two), (third, three), (fourth, four)):
        assert back(forwarder, there) == one.address
    assert back(first, one) == path("alice@a.example").address


@pytest.mark.parametrize(
    "foreign", ["SRS0=HHHH=TT=a.example=alice", "SRS0+HHHH=TT=a.example=alice", "srs0-HHH=TT=a.example=b"]
)
def test_what_other_forwarders_made_goes_back_to_them_untouched(foreign):
    rewriter = At().forwarder("us.example")
    there = rewriter.forward(path(f"{foreign}@other.example"))
    assert back(rewriter, there) == Address("SRS0" + foreign[4:], "other.example")


@pytest.mark.parametrize(
    "local", ["SRS0", "SRS0=", "SRS1=x", "srs1-a", "SRS1=h=host", "SRS1=h=host=x", "srsly", "SRS2=a=b"]
)
def test_an_address_that_only_looks_rewritten_is_rewritten_as_any_other(local):
    rewriter = At().forwarder("us.example")
    there = rewriter.forward(path(f"{local}@a.example"))
    assert there.address.local_part.startswith(("SRS0=", "SRS1="))
    if there.address.local_part.startswith("SRS0="):
        assert back(rewriter, there) == Address(local, "a.example")


def test_lost_case_does_not_matter():
    rewriter = At().forwarder("us.example")
    there = rewriter.forward(path("Alice@a.example")).address.local_part
    assert rewriter.back(Address(there.lower(), "us.example")) == Address("alice", "a.example")
    assert rewriter.back(Address(there.upper(), "us.example")) == Address("ALICE", "a.example")


@pytest.mark.parametrize("days", [0, 1, MAX_AGE_DAYS, MAX_AGE_DAYS + 1, 400, 1000])
def test_an_address_is_good_for_three_weeks(days):
    at = At()
    rewriter = at.forwarder("us.example")
    there = rewriter.forward(path("alice@a.example"))
    at.now += days * DAY
    if days <= MAX_AGE_DAYS:
        assert back(rewriter, there) == Address("alice", "a.example")
    else:
        with pytest.raises(NotRewritten, match="expired"):
            back(rewriter, there)


def test_the_day_count_may_wrap_and_a_clock_may_be_a_day_behind():
    at = At(1024 * DAY * 20 - DAY)
    rewriter = at.forwarder("us.example")
    there = rewriter.forward(path("alice@a.example"))
    at.now += 2 * DAY
    assert back(rewriter, there) == Address("alice", "a.example")
    at.now -= 3 * DAY
    assert back(rewriter, there) == Address("alice", "a.example")
    at.now -= DAY
    with pytest.raises(NotRewritten):
        back(rewriter, there)


def test_no_character_of_an_address_can_be_changed():
    rewriter = At().forwarder("us.example")
    local = rewriter.forward(path("alice@a.example")).address.local_part
    for at in range(5, len(local)):
        for other in "x7=":
            forged = local[:at] + other + local[at + 1 :]
            if forged.lower() != local.lower():
                with pytest.raises(NotRewritten):
                    rewriter.back(Address(forged, "us.example"))
    for wrong in ("SRS0=", "SRS0=a", "SRS0=aaaaaa=aa=b=c", "SRS1=aaaaaa=h==x", "SRS0==", "SRS0=\u0131=="):
        with pytest.raises(NotRewritten):
            rewriter.back(Address(wrong, "us.example"))


def test_another_key_accepts_nothing_and_a_new_first_key_keeps_accepting_the_old():
    at = At()
    old, other = at.forwarder("us.example", KEY), at.forwarder("us.example", b"other key" * 4)
    there = old.forward(path("alice@a.example"))
    with pytest.raises(NotRewritten):
        back(other, there)
    both = at.forwarder("us.example", b"new key" * 4, KEY)
    assert back(both, there) == Address("alice", "a.example")
    assert both.forward(path("alice@a.example")) != there


def test_the_key_is_made_once_for_the_owner_alone(tmp_path):
    file = tmp_path / "srs.key"
    keys = load_keys(file)
    assert [len(key) for key in keys] == [32]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert load_keys(file) == keys
    assert [entry.name for entry in tmp_path.iterdir()] == ["srs.key"]
    file.write_text("ab" * 32 + "\n\n" + file.read_text())
    assert load_keys(file) == [b"\xab" * 32, *keys]


@pytest.mark.parametrize("text", ["", "\n", "secret-word\n", "abcd\n", "\xe4"])
def test_a_damaged_key_file_is_named_and_its_content_is_not(tmp_path, text):
    file = tmp_path / "srs.key"
    file.write_text(text, "latin-1")
    with pytest.raises(ValueError, match=r"srs\.key") as raised:
        load_keys(file)
    assert "secret-word" not in str(raised.value)
