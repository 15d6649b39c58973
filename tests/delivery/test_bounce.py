from __future__ import annotations

import email
import email.policy
import re
from pathlib import Path as File

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from livemail.delivery.bounce import BounceSettings, Original, Outcome, QueueReporter, Reporter, is_wanted
from livemail.delivery.bounce.explain import _TEXTS, explain, spoken_time
from livemail.interfaces.queue import Concerned, QueuedMessage, QueuedRecipient, QueueId
from livemail.interfaces.relay import Reply
from livemail.mail.address import Address, Path
from livemail.mail.envelope import Recipient, ReversePath
from livemail.mail.errors import StorageFull
from livemail.mail.ids import AccountId
from tests.delivery.strict_report import parse
from tests.smtp.rig import Rig, finish

ARRIVED = 1_000_000_000.0
DAY = 86400
VECTORS = File(__file__).parents[1] / "vectors" / "bounce"
POSTMASTER = Address("postmaster", "example.org")
MESSAGE = (
    b"From: Ada <ada@example.org>\r\nTo: bob@example.net\r\nSubject: Figures\r\nMessage-ID: <a1@example.org>\r\n"
    b"\r\nHello Bob\r\n"
)
FULL = Reply(552, "5.2.2", "5.2.2 Over quota", "rcpt")
SILENT = Reply(451, "4.4.1", "connection timed out after 30 s", "connect", is_remote=False)
ADA = ReversePath(Path(Address("ada", "example.org")))


def recipient(text, notify=(), original=""):
    local, _, domain = text.rpartition("@")
    return Recipient(Path(Address(local, domain)), frozenset(notify), original)


def original(octets=MESSAGE, reverse_path=ADA):
    async def read(at, length):
        return octets[at : at + min(length, 7000)]

    return Original("m1", reverse_path, ARRIVED, len(octets), read)


class Reports:
    """A reporter with a clock and tokens that can be foretold."""

    def __init__(self, **chosen):
        self.now = ARRIVED + 5 * DAY
        self.count = 0
        self.reporter = Reporter("mail.example.org", POSTMASTER, lambda: self.now, self.token, BounceSettings(**chosen))

    def token(self):
        self.count += 1
        return f"token{self.count:016d}"

    def __call__(self, *outcomes, about=None):
        return finish(self.reporter.compose(about or original(), outcomes))


def only(reports):
    (report,) = reports
    return report, parse(report.octets)


def failed(who="bob@example.net", reply=FULL, host="mx.example.net", **more):
    return Outcome(recipient(who, **more), "failed", reply, host, ARRIVED + DAY)


# ------------------------------------------------------------------------------------------------------- structure


def test_a_failure_is_told_with_every_field_programs_ask_for():
    about = original(reverse_path=ReversePath(ADA.path, envid="QQ 314", ret="FULL"))
    report, strict = only(Reports()(failed(original="rfc822;Bob+2Bx@example.net"), about=about))
    assert strict.message == {
        "Original-Envelope-Id": "QQ 314",
        "Reporting-MTA": "dns; mail.example.org",
        "Arrival-Date": "Sun, 09 Sep 2001 01:46:40 +0000",
    }
    assert strict.recipients == [
        {
            "Original-Recipient": "rfc822; Bob+x@example.net",
            "Final-Recipient": "rfc822; bob@example.net",
            "Action": "failed",
            "Status": "5.2.2",
            "Remote-MTA": "dns; mx.example.net",
            "Diagnostic-Code": "smtp; 552 5.2.2 Over quota",
            "Last-Attempt-Date": "Mon, 10 Sep 2001 01:46:40 +0000",
        }
    ]
    assert strict.media_types == ["text/plain; charset=us-ascii", "message/delivery-status", "message/rfc822"]
    assert strict.returned == MESSAGE
    assert report.envelope.reverse_path.path.is_null
    assert report.envelope.reverse_path.body == "7BIT"
    assert report.envelope.reverse_path.size == len(report.octets)
    assert [str(each.path) for each in report.envelope.recipients] == ["<ada@example.org>"]


def test_the_header_names_us_answers_the_original_and_says_that_no_person_wrote_it():
    _, strict = only(Reports()(failed()))
    assert strict.header == {
        "Date": "Fri, 14 Sep 2001 01:46:40 +0000",
        "From": "Mail Delivery System <MAILER-DAEMON@mail.example.org>",
        "Reply-To": "<postmaster@example.org>",
        "To": "<ada@example.org>",
        "Subject": "Not delivered: Figures",
        "Message-ID": "<token0000000000000001@mail.example.org>",
        "In-Reply-To": "<a1@example.org>",
        "References": "<a1@example.org>",
        "Auto-Submitted": "auto-replied",
        "MIME-Version": "1.0",
        "Content-Type": 'multipart/report; report-type=delivery-status; boundary="token0000000000000001"',
    }


def test_pythons_email_package_reads_it_without_a_defect():
    report, _ = only(Reports()(failed(), failed("joe@example.net", SILENT, "")))
    message = email.message_from_bytes(report.octets, policy=email.policy.default)
    everything = list(message.walk())
    assert [part.get_content_type() for part in everything] == [
        "multipart/report", "text/plain", "message/delivery-status", "text/plain", "text/plain", "text/plain",
        "message/rfc822", "text/plain",
    ]  # fmt: skip
    assert not any(part.defects for part in everything)
    assert message["auto-submitted"] == "auto-replied"
    groups = message.get_payload(1).get_payload()
    assert [group["Status"] for group in groups] == [None, "5.2.2", "4.4.1"]
    assert message.get_payload(2).get_payload(0)["Subject"] == "Figures"


LATE = Outcome(recipient("bob@example.net"), "delayed", SILENT, "", ARRIVED + 4 * DAY, retry_until=ARRIVED + 7 * DAY)
GOLDEN = {
    "failed": ((failed(original="rfc822;chief@example.net"), failed("joe@example.net", SILENT, "")), original()),
    "delayed": ((LATE,), original()),
    "lost": ((failed("ada@example.org"),), original(reverse_path=ReversePath(Path.null))),
    "international": (
        (failed("用户@例子.example"),),
        original(
            "Subject: Grüße\r\n\r\nHallo\r\n".encode(),
            ReversePath(Path(Address("δοκιμή", "παράδειγμα.example")), smtputf8=True),
        ),
    ),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_whole_reports_are_as_somebody_has_read_them(name):
    outcomes, about = GOLDEN[name]
    report, _ = only(Reports()(*outcomes, about=about))
    assert report.octets.decode().replace("\r\n", "\n") == (VECTORS / f"{name}.eml").read_text("utf-8")


def test_a_delay_says_until_when_we_try_and_returns_the_header_alone():
    about = original(reverse_path=ReversePath(ADA.path, ret="FULL"))
    _, strict = only(Reports()(LATE, about=about))
    (group,) = strict.recipients
    assert group["Action"] == "delayed"
    assert group["Will-Retry-Until"] == "Sun, 16 Sep 2001 01:46:40 +0000"
    assert group["Diagnostic-Code"] == "X-livemail; 451 4.4.1 connection timed out after 30 s"
    assert "Remote-MTA" not in group
    assert strict.media_types[2] == "text/rfc822-headers"
    assert strict.returned == MESSAGE.partition(b"\r\n\r\n")[0] + b"\r\n"
    assert b"you need not do anything" in strict.text
    assert b"will try for 2 days more" in strict.text


@pytest.mark.parametrize(
    ("action", "words"),
    [
        ("delivered", "delivered to the mailbox"),
        ("relayed", "handed to mx.example.net, which does not report"),
        ("expanded", "passed on from there"),
    ],
)
def test_a_success_is_told_when_asked_for(action, words):
    reply = Reply(250, "2.0.0", "2.0.0 Ok", "content")
    outcome = Outcome(recipient("bob@example.net", ["SUCCESS"]), action, reply, "mx.example.net", ARRIVED)
    _, strict = only(Reports()(outcome))
    assert strict.recipients[0]["Action"] == action
    assert strict.recipients[0]["Status"] == "2.0.0"
    assert words in " ".join(strict.text.decode().split())


def test_different_news_of_one_message_come_in_different_reports():
    ok = Outcome(recipient("c@example.net", ["SUCCESS"]), "delivered", Reply(250, "2.1.5", "Ok", "content"))
    late = Outcome(recipient("d@example.net"), "delayed", SILENT)
    reports = Reports()(failed(), ok, late)
    assert [parse(report.octets).recipients[0]["Action"] for report in reports] == ["failed", "delayed", "delivered"]
    assert len({report.id for report in reports}) == 3


# ------------------------------------------------------------------------------------------------------- who wants it


@pytest.mark.parametrize(
    ("notify", "wanted"),
    [
        ([], {"failed", "delayed"}),
        (["NEVER"], set()),
        (["FAILURE"], {"failed"}),
        (["DELAY"], {"delayed"}),
        (["SUCCESS"], {"delivered", "relayed", "expanded"}),
        (["SUCCESS", "FAILURE"], {"failed", "delivered", "relayed", "expanded"}),
    ],
)
def test_notify_decides_what_is_told(notify, wanted):
    actions = {"failed", "delayed", "delivered", "relayed", "expanded"}
    assert {each for each in actions if is_wanted(recipient("a@b.example", notify), each)} == wanted


def test_recipients_who_want_no_report_are_not_in_the_one_of_others():
    _, strict = only(Reports()(failed(), failed("joe@example.net", notify=["NEVER"])))
    assert [each["Final-Recipient"] for each in strict.recipients] == ["rfc822; bob@example.net"]
    assert Reports()(failed(notify=["NEVER"])) == []


def test_a_report_that_fails_goes_to_postmaster_and_a_report_to_postmaster_nowhere():
    about = original(reverse_path=ReversePath(Path.null, ret="FULL"))
    reports = Reports()
    report, strict = only(reports(failed("ada@example.org"), about=about))
    assert report.is_double_bounce
    assert report.envelope.reverse_path.path.is_null
    assert report.envelope.recipients == [Recipient(Path(POSTMASTER))]
    assert strict.header["Auto-Submitted"] == "auto-generated"
    assert strict.header["Subject"] == "Lost report: Figures"
    assert strict.media_types[2] == "text/rfc822-headers"
    assert reports(failed("Postmaster@example.org"), about=about) == []


def test_delays_and_successes_of_a_message_without_sender_are_told_nobody():
    about = original(reverse_path=ReversePath(Path.null))
    late = Outcome(recipient("bob@example.net"), "delayed", SILENT)
    ok = Outcome(recipient("bob@example.net", ["SUCCESS"]), "delivered", Reply(250, "2.0.0", "", "content"))
    assert Reports()(late, ok, about=about) == []


def test_postmaster_hears_of_so_many_lost_reports_an_hour_and_no_more():
    about = original(reverse_path=ReversePath(Path.null))
    reports = Reports(double_bounces_per_hour=3)
    assert sum(len(reports(failed(), about=about)) for _ in range(10)) == 3
    reports.now += 3601
    assert len(reports(failed(), about=about)) == 1


# ------------------------------------------------------------------------------------------------------- what goes back


def test_ret_and_size_decide_whether_the_message_or_its_header_goes_back():
    big = MESSAGE + b"x" * 70 + b"\r\n" * 2000
    hdrs = original(reverse_path=ReversePath(ADA.path, ret="HDRS"))
    binary = original(reverse_path=ReversePath(ADA.path, ret="FULL", body="BINARYMIME"))
    reports = Reports(return_octets=len(MESSAGE))
    assert only(reports(failed()))[1].media_types[2] == "message/rfc822"
    for about in (hdrs, binary, original(big)):
        _, strict = only(reports(failed(), about=about))
        assert strict.media_types[2] == "text/rfc822-headers"
        assert b"Hello" not in strict.returned


def test_a_header_without_end_goes_back_cut_between_lines():
    octets = b"Subject: long\r\n" + b"X-Filler: %s\r\n" % (b"y" * 100) * 1000
    _, strict = only(Reports(return_octets=0)(failed(), about=original(octets)))
    assert 65_000 < len(strict.returned) <= 65_536
    assert strict.returned.endswith(b"y\r\n")


@pytest.mark.parametrize(
    "octets", [b"", b"\r\nbody\r\n", b"Subject: a\nMessage-ID: <b@c>\n\nbare\rlines\0\n", b"no header"]
)
def test_originals_of_any_form_go_back_as_lines(octets):
    _, strict = only(Reports()(failed(), about=original(octets)))
    assert strict.media_types[2] == "message/rfc822"


def test_eight_bit_content_makes_the_report_eight_bit():
    report, strict = only(Reports()(failed(), about=original(MESSAGE + "Grüße\r\n".encode("latin-1"))))
    assert report.envelope.reverse_path.body == "8BITMIME"
    assert not report.envelope.reverse_path.smtputf8
    assert strict.header["Content-Transfer-Encoding"] == "8bit"


# ------------------------------------------------------------------------------------------------------- RFC 6533


def test_an_international_message_is_reported_on_in_the_international_form():
    about = original(
        "Subject: Grüße\r\n\r\nHallo\r\n".encode(),
        ReversePath(Path(Address("δοκιμή", "παράδειγμα.example")), smtputf8=True),
    )
    report, strict = only(Reports()(failed("用户@例子.example", original="utf-8;\\x{7528}@x.example"), about=about))
    assert strict.media_types[1:] == ["message/global-delivery-status", "message/global"]
    assert strict.recipients[0]["Final-Recipient"] == "utf-8; 用户@例子.example"
    assert strict.recipients[0]["Original-Recipient"] == "utf-8; 用@x.example"
    assert strict.header["To"] == "<δοκιμή@παράδειγμα.example>"
    assert report.envelope.reverse_path.smtputf8
    assert report.envelope.reverse_path.body == "8BITMIME"


def test_without_smtputf8_an_international_address_is_written_in_ascii():
    report, strict = only(Reports()(failed("用户@example.net")))
    assert strict.recipients[0]["Final-Recipient"] == "utf-8; \\x{7528}\\x{6237}@example.net"
    assert strict.media_types[1] == "message/delivery-status"
    assert not report.envelope.reverse_path.smtputf8
    text = email.message_from_bytes(report.octets, policy=email.policy.default).get_payload(0).get_content()
    assert "用户@example.net" in text


def test_smtputf8_without_anything_international_is_reported_on_as_ever():
    report, strict = only(Reports()(failed(), about=original(reverse_path=ReversePath(ADA.path, smtputf8=True))))
    assert strict.media_types[1:] == ["message/delivery-status", "message/rfc822"]
    assert not report.envelope.reverse_path.smtputf8


# ------------------------------------------------------------------------------------------------------- hostile input


@pytest.mark.parametrize(
    "subject",
    [
        b"=?utf-8?Q?a=0D=0ABcc:_all@example.org=0D=0A=0D=0Abody?=",
        b"=?utf-8?B?YQ0KQmNjOiB4QGV4YW1wbGUub3JnDQo=?=",
        b"=?utf-8?Q?=E2=80=AEevil=E2=80=A8x?=",
        b"=?no-such-charset?Q?a?=",
        b"=?utf-8?B?A?=",
        b"a\r\n b\r\n\tc",
        b"\xff\xfe",
        b"=?utf-8?Q?" + b"=C3=BC" * 500 + b"?=",
    ],
)
def test_no_subject_becomes_a_field_of_the_report(subject):
    octets = b"Subject: " + subject + b"\r\nMessage-ID: <a@b>\r\n\r\nx\r\n"
    report, strict = only(Reports()(failed(), about=original(octets)))
    assert set(strict.header) == {
        "Date", "From", "Reply-To", "To", "Subject", "Message-ID", "In-Reply-To", "References", "Auto-Submitted",
        "MIME-Version", "Content-Type",
    } | ({"Content-Transfer-Encoding"} if not report.octets.isascii() else set())  # fmt: skip


@pytest.mark.parametrize("message_id", [b"<a@b>\r\n <c@d>", b"a@b", b"<a b@c>", b"<a@b>x", b"<" + b"a" * 600 + b"@b>"])
def test_what_is_no_message_id_is_answered_by_none(message_id):
    octets = b"Message-ID: " + message_id + b"\r\n\r\nx\r\n"
    _, strict = only(Reports()(failed(), about=original(octets)))
    assert "References" not in strict.header
    assert "In-Reply-To" not in strict.header


def test_returned_content_cannot_end_its_part():
    octets = b"Subject: x\r\n\r\n--token0000000000000009--\r\n\r\nContent-Type: text/html\r\n\r\n<b>\r\n"
    _, strict = only(Reports()(failed(), about=original(octets)))
    assert strict.returned == octets


@settings(max_examples=150, deadline=None)
@given(
    st.text(max_size=80),
    st.text(max_size=40),
    st.text(max_size=600),
    st.text(max_size=60),
    st.text(max_size=60),
    st.text(max_size=60),
    st.text(max_size=12),
    st.booleans(),
    st.sampled_from(["failed", "delayed", "relayed"]),
)
def test_whatever_strangers_say_the_report_stays_a_report(
    local, domain, reply, host, orcpt, envid, enhanced, smtputf8, action
):
    about = original(reverse_path=ReversePath(Path(Address(local, domain)), envid=envid, smtputf8=smtputf8))
    outcome = Outcome(
        Recipient(Path(Address(local[::-1], domain)), frozenset({"FAILURE", "DELAY", "SUCCESS"}), orcpt),
        action, Reply(550, enhanced, reply, "rcpt"), host, ARRIVED,
    )  # fmt: skip
    report, strict = only(Reports()(outcome, about=about))
    assert len(strict.recipients) == 1
    message = email.message_from_bytes(report.octets, policy=email.policy.compat32)
    assert message.get_content_type() == "multipart/report"
    assert message["Bcc"] is None


# ------------------------------------------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("enhanced", "text", "words"),
    [
        ("5.1.1", "", "no such address"),
        ("5.2.2", "", "full"),
        ("4.2.2", "", "full"),
        ("5.3.4", "", "too large"),
        ("5.7.1", "", "spam"),
        ("4.4.1", "", "did not answer"),
        ("5.1.10", "", "takes no mail"),
        ("5.0.0", "Mailbox full, sorry", "full"),
        ("5.0.0", "550 User unknown in table", "no such address"),
        ("5.0.0", "message identified as SPAM", "spam"),
        ("5.0.0", "Message size exceeds fixed limit", "too large"),
        ("5.1.99", "", "not accepted"),
        ("9", "", "refused"),
    ],
)
def test_codes_are_explained_in_plain_words(enhanced, text, words):
    assert words in " ".join(explain(enhanced, text))


def test_when_time_ran_out_the_text_says_what_was_in_the_way():
    words = {
        stage: explain("4.4.7", "given up after 5.0 days", stage)[0] for stage in ("connect", "lookup", "auth", "rcpt")
    }
    assert "did not answer" in words["connect"]
    assert "where mail for this domain goes" in words["lookup"]
    assert "log in" in words["auth"]
    assert "in time" in words["rcpt"]
    assert "full" in explain("4.4.7", "given up after 5.0 days; last: mailbox full", "rcpt")[0]


def test_every_explanation_is_two_whole_sentences_in_ascii():
    for what, helps in _TEXTS.values():
        assert re.fullmatch(r"[A-Z][ -~]*\.", what), what
        assert re.fullmatch(r"[A-Z][ -~]*\.", helps), helps


def test_spans_of_time_are_said_as_people_do():
    assert [spoken_time(seconds) for seconds in (5 * DAY, DAY, 4 * 3600, 60, 5)] == [
        "5 days", "1 day", "4 hours", "1 minute", "a moment",
    ]  # fmt: skip


def test_settings_out_of_range_are_named():
    faults = dict(BounceSettings(return_octets=2**30, double_bounces_per_hour=-1).faults())
    assert set(faults) == {"return_octets", "double_bounces_per_hour"}
    assert not list(BounceSettings().faults())


# ------------------------------------------------------------------------------------------------------- the queue's


class Reader:
    """Stored content of the original."""

    def __init__(self, octets):
        self.octets = octets
        self.size = len(octets)
        self.prefix_size = 0

    async def read(self, offset, length):
        return self.octets[offset : offset + length]


def queued(who, reply=FULL):
    return Concerned(
        QueuedRecipient(0, recipient(who), "example.net", "failed", 0.0), "failed", reply, "mx.example.net", ARRIVED
    )


def test_the_queue_gets_reports_as_contents_with_envelopes():
    rig = Rig()
    compose = QueueReporter(Reports().reporter, rig.store)
    message = QueuedMessage(QueueId(31), ADA, (), len(MESSAGE), AccountId(0), "t", 0, ARRIVED, ARRIVED + DAY)
    (report,) = finish(compose(message, Reader(MESSAGE), [queued("bob@example.net"), queued("joe@example.net")]))
    strict = parse(report.content.read(0, report.content.size))
    assert [each["Final-Recipient"] for each in strict.recipients] == [
        "rfc822; bob@example.net",
        "rfc822; joe@example.net",
    ]
    assert report.envelope.reverse_path.path.is_null
    assert report.envelope.reverse_path.size == report.content.size
    report.content.close()


def test_the_queue_gets_no_report_and_no_content_when_the_disk_is_full():
    rig = Rig()

    def full(_):
        raise StorageFull

    rig.store.new_content = full
    message = QueuedMessage(QueueId(31), ADA, (), len(MESSAGE), AccountId(0), "t", 0, ARRIVED, ARRIVED + DAY)
    with pytest.raises(StorageFull):
        finish(QueueReporter(Reports().reporter, rig.store)(message, Reader(MESSAGE), [queued("bob@example.net")]))
