"""MAIL and RCPT as one peer can take them, and whether the message can go to it at all.

What a peer without an extension gets
    SIZE        nothing.  With SIZE and a message larger than it says: 552 5.3.4 before anything is sent (RFC 1870 §6.1).
    8BITMIME    8-bit bodies are converted to 7-bit (RFC 6152 §3, `livemail.smtp.relay.convert`).
    BINARYMIME  converted too (RFC 3030 §3).
    SMTPUTF8    no message with UTF-8 in its header or in a local part: 5.6.7 (RFC 6531 §3.5).  A domain is said in A-labels
                (§3.2), which is no loss.
    DSN         no RET, ENVID, NOTIFY, ORCPT; the reports are ours then (RFC 3461 §5.2.2).
"""

from __future__ import annotations

from typing import Final

import idna
import msgspec

from livemail.interfaces.relay import Job, Reply
from livemail.mail.address import Address, Path, quote_local_part
from livemail.mail.envelope import BodyType, Recipient
from livemail.smtp.relay.offers import Offers
from livemail.smtp.relay.wire import Unspeakable, command

_NOTIFY_ORDER: Final = ("NEVER", "SUCCESS", "FAILURE", "DELAY")
_PLAIN_XTEXT: Final = frozenset(range(33, 127)) - {0x2B, 0x3D}


class Unfit(Exception):
    """This message, or this recipient, cannot go to this peer: ``reply`` is the answer, for good."""

    def __init__(self, code: int, enhanced: str, text: str, stage: str) -> None:
        super().__init__(text)
        self.reply = Reply(code, enhanced, text, stage, is_remote=False)


class Fit(msgspec.Struct, frozen=True):
    """How a message goes to a peer.  converts: its 8-bit parts are made 7-bit.  size: octets, before any conversion."""

    size: int
    body: BodyType = "7BIT"
    smtputf8: bool = False
    converts: bool = False


def fit(job: Job, offers: Offers) -> Fit:
    """Find how a message can go to a peer.  Raises Unfit."""
    size = job.content.size - job.content_offset
    if offers.size and size > offers.size:
        raise Unfit(552, "5.3.4", f"The message has {size} octets, the next host takes {offers.size}", "mail")
    address = job.reverse_path.path.address
    if not offers.smtputf8:
        if job.has_utf8_header:
            raise Unfit(
                550, "5.6.7", "The header has UTF-8 in it, and the next host takes ASCII only (SMTPUTF8)", "mail"
            )
        if address and not address.local_part.isascii():
            raise Unfit(
                550, "5.6.7", "The sender's address is not ASCII; the next host takes no other (SMTPUTF8)", "mail"
            )
    smtputf8 = offers.smtputf8 and (
        job.has_utf8_header
        or (address is not None and not address.is_ascii)
        or any(each.path.address and not each.path.address.is_ascii for each in job.recipients)
    )
    if job.reverse_path.body == "BINARYMIME":
        if offers.binary:
            return Fit(size, "BINARYMIME", smtputf8)
        return Fit(size, "8BITMIME" if job.has_utf8_header else "7BIT", smtputf8, converts=True)
    if not (job.has_8bit or job.has_utf8_header):
        return Fit(size, "7BIT", smtputf8)
    # RFC 6531 §3.1: who offers SMTPUTF8 takes 8BITMIME.
    if offers.eight_bit or offers.smtputf8:
        return Fit(size, "8BITMIME", smtputf8)
    return Fit(size, "7BIT", smtputf8, converts=True)


def mail_line(job: Job, offers: Offers, how: Fit) -> bytes:
    """Render MAIL.  Raises Unfit."""
    reverse_path = job.reverse_path
    line = f"MAIL FROM:{_path(reverse_path.path, smtputf8=how.smtputf8, stage='mail')}"
    if offers.has_size:
        line += f" SIZE={how.size}"
    if how.body != "7BIT":
        line += f" BODY={how.body}"
    if how.smtputf8:
        line += " SMTPUTF8"
    if offers.dsn:
        if reverse_path.ret:
            line += f" RET={reverse_path.ret}"
        if reverse_path.envid:
            line += f" ENVID={encode_xtext(reverse_path.envid)}"
    return _spoken(line, "mail")


def rcpt_line(recipient: Recipient, offers: Offers, how: Fit) -> bytes:
    """Render RCPT.  Raises Unfit."""
    line = f"RCPT TO:{_path(recipient.path, smtputf8=how.smtputf8, stage='rcpt')}"
    if offers.dsn:
        if recipient.notify:
            line += f" NOTIFY={','.join(word for word in _NOTIFY_ORDER if word in recipient.notify)}"
        if recipient.original:
            line += f" ORCPT={recipient.original}"
    return _spoken(line, "rcpt")


def _spoken(line: str, stage: str) -> bytes:
    try:
        return command(line)
    except Unspeakable:
        raise Unfit(501, "5.1.3", "The address has a character that no command may have", stage) from None


def _path(path: Path, *, smtputf8: bool, stage: str) -> str:
    if path.address is None:
        return "<>"
    return f"<{_ascii(path.address, stage) if not (smtputf8 or path.address.is_ascii) else path.address}>"


def _ascii(address: Address, stage: str) -> str:
    """Say an address to a peer without SMTPUTF8."""
    if not address.local_part.isascii():
        raise Unfit(553, "5.6.7", "The address is not ASCII; the next host takes no other (SMTPUTF8)", stage)
    try:
        domain = idna.encode(address.domain, uts46=True).decode("ascii")
    except idna.IDNAError:
        raise Unfit(
            553, "5.6.7", "The domain has no ASCII form; the next host takes no other (SMTPUTF8)", stage
        ) from None
    return f"{quote_local_part(address.local_part)}@{domain}"


def encode_xtext(text: str) -> str:
    """Encode xtext.  RFC 3461 §4."""
    return "".join(chr(octet) if octet in _PLAIN_XTEXT else f"+{octet:02X}" for octet in text.encode("utf-8"))
