"""A report about any octets: a strict reader finds three parts in it, and no field its original could have written."""

from __future__ import annotations

from livemail.delivery.bounce import Original, Outcome, Reporter
from livemail.delivery.bounce.text import header_fields
from livemail.interfaces.relay import Reply
from livemail.mail.address import Address, Path
from livemail.mail.envelope import Recipient, ReversePath
from tests.delivery.strict_report import parse
from tests.smtp.rig import finish

FIELDS = {
    "Date", "From", "Reply-To", "To", "Subject", "Message-ID", "In-Reply-To", "References", "Auto-Submitted", "MIME-Version",
    "Content-Type", "Content-Transfer-Encoding",
}  # fmt: skip
REPORTER = Reporter("mx.example", Address("postmaster", "us.example"), lambda: 1e9, lambda: "token4567890123456")


def fuzz_one(data: bytes) -> None:
    """One original, returned whole and as its header, with and without SMTPUTF8."""
    subject, message_id = header_fields(data)
    assert not set(subject + message_id) & set("\r\n\0\x1b\u2028\u202e")
    assert len(subject) <= 150

    async def read(at: int, length: int) -> bytes:
        return data[at : at + length]

    outcome = Outcome(
        Recipient(Path(Address("b", "c.example"))), "failed", Reply(550, "5.1.1", "no", "rcpt"), "mx.c.example"
    )
    for ret in ("FULL", "HDRS"):
        for smtputf8 in (False, True):
            reverse_path = ReversePath(Path(Address("a", "d.example")), ret=ret, smtputf8=smtputf8)
            (report,) = finish(REPORTER.compose(Original("m", reverse_path, 1e9, len(data), read), [outcome]))
            assert set(parse(report.octets).header) <= FIELDS
