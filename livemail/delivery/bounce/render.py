"""One report as the octets of a message.  RFC 6522 (multipart/report), RFC 3464 (delivery-status), RFC 6533 (with UTF-8).

    multipart/report; report-type=delivery-status
      text/plain                         what happened, to whom, what helps: for people
      message/delivery-status            the same for programs
      message/rfc822 | text/rfc822-headers    what it is about

Once the original came with SMTPUTF8 and something of it is not ASCII, the last two are message/global-delivery-status and
message/global or message/global-headers; then the report needs SMTPUTF8 as its original did.
"""

from __future__ import annotations

import textwrap

import msgspec

from livemail.delivery.bounce.explain import ENHANCED, explain, spoken_time
from livemail.delivery.bounce.notice import Original, Outcome
from livemail.delivery.bounce.text import (
    ascii_visible,
    crlf,
    date_time,
    field,
    fold,
    header_fields,
    host_name,
    quoted_printable,
    visible,
)
from livemail.interfaces.relay import Reply
from livemail.mail.address import Address, Path
from livemail.mail.dsn import escape_utf8_address, parse_original
from livemail.mail.errors import WireError


class Returned(msgspec.Struct, frozen=True):
    """What goes back of the original: its header without the blank line, and all of it where that is wanted."""

    header: bytes
    whole: bytes | None = None


def render(
    original: Original,
    outcomes: tuple[Outcome, ...],
    returned: Returned,
    *,
    to: Path,
    hostname: str,
    postmaster: Address,
    token: str,
    now: float,
    is_double_bounce: bool = False,
) -> tuple[bytes, bool]:
    """Return the message with CRLF line ends, and whether it uses RFC 6533's forms.

    outcomes: not empty, of one kind.  token: makes boundary and Message-ID.  now: seconds since the epoch.
    """
    is_global = original.reverse_path.smtputf8 and not (
        all(str(outcome.recipient.path).isascii() for outcome in outcomes)
        and all(outcome.recipient.original.isascii() for outcome in outcomes)
        and returned.header.isascii()
    )
    hostname = host_name(hostname)
    subject, message_id = header_fields(returned.header)
    text = _human_text(original, outcomes, subject, hostname, now, is_double_bounce=is_double_bounce)
    parts = [
        _text_part(text),
        _status_part(original, outcomes, hostname, is_global=is_global),
        _returned_part(returned, is_global=is_global),
    ]
    body = b"".join(b"--%s\r\n%s\r\n" % (token.encode("ascii"), part) for part in parts)
    body += b"--%s--\r\n" % token.encode("ascii")
    title = _title(outcomes[0], is_double_bounce=is_double_bounce)
    head = [
        field("Date", date_time(now)),
        f"From: Mail Delivery System <MAILER-DAEMON@{hostname}>\r\n".encode("ascii"),
        f"Reply-To: <{visible(str(postmaster))}>\r\n".encode(),
        f"To: <{visible(str(to.address))}>\r\n".encode(),
        field("Subject", f"{title}: {subject}" if subject else title),
        f"Message-ID: <{token}@{hostname}>\r\n".encode("ascii"),
    ]
    if message_id:
        head += [f"{name}: {message_id}\r\n".encode("ascii") for name in ("In-Reply-To", "References")]
    head += [
        # RFC 3834 §5: what answers a message is auto-replied; a double bounce answers nothing its reader sent.
        b"Auto-Submitted: auto-%s\r\n" % (b"generated" if is_double_bounce else b"replied"),
        b"MIME-Version: 1.0\r\n",
        b'Content-Type: multipart/report; report-type=delivery-status;\r\n boundary="%s"\r\n' % token.encode("ascii"),
    ]
    if not body.isascii():
        head.append(b"Content-Transfer-Encoding: 8bit\r\n")
    return b"".join(head) + b"\r\n" + body, is_global


# ------------------------------------------------------------------------------------------------------- for people


def _title(outcome: Outcome, *, is_double_bounce: bool) -> str:
    if is_double_bounce:
        return "Lost report"
    return {
        "failed": "Not delivered",
        "delayed": "Delayed, still trying",
        "delivered": "Delivered",
        "relayed": "Sent on",
        "expanded": "Delivered",
    }[outcome.action]


def _human_text(
    original: Original,
    outcomes: tuple[Outcome, ...],
    subject: str,
    hostname: str,
    now: float,
    *,
    is_double_bounce: bool,
) -> str:
    """Write the first part; CRLF line ends."""
    action = outcomes[0].action
    what = f'"{subject}"' if subject else "without a subject"
    plural = len(outcomes) > 1
    if is_double_bounce:
        opening = (
            f"Dear postmaster, a message that nobody can be told about, because it has no sender (most likely a report "
            f"on another message, {what}), could not be delivered. It is gone; its header is attached."
        )
    elif action == "failed":
        opening = f"Your message {what} could NOT be delivered to " + (
            f"the following {len(outcomes)} recipients." if plural else "the following recipient."
        )
    elif action == "delayed":
        opening = (
            f"Your message {what} has not been delivered yet. This server keeps trying; you need not do anything. "
            "If it does not succeed, you will be told."
        )
    else:
        opening = f"You asked to be told: this is what became of your message {what}."
    lines = [*_wrapped(opening, ""), ""]
    for outcome in outcomes:
        lines += [*_about(original, outcome, now, is_double_bounce=is_double_bounce), ""]
    if action in {"failed", "delayed"} and not is_double_bounce:
        lines += [*_wrapped("The rest of this message is for mail programs and administrators: the details as data, "
                            "and " + ("your message or its header." if action == "failed" else "its header."), "")]  # fmt: skip
        lines.append("")
    lines += ["--", f"The mail server {hostname}", ""]
    return "\r\n".join(lines)


def _about(original: Original, outcome: Outcome, now: float, *, is_double_bounce: bool) -> list[str]:
    """What the text says about one recipient."""
    recipient = outcome.recipient
    lines = [f"  {visible(str(recipient.path.address))}"]
    named = _named(outcome)
    if named and named.lower() != str(recipient.path.address).lower():
        lines.append(f"  (you wrote to {visible(named)})")
    what, helps = explain(_status(outcome), outcome.reply.text, outcome.reply.stage)
    if outcome.action == "failed":
        if outcome.reply.code < 500:
            lines += _wrapped(
                f"This server tried for {spoken_time(now - original.arrived)} and has now given up. The last problem was: "
                f"{what}"
            )
        else:
            lines += _wrapped(what)
        if not is_double_bounce:
            lines += _wrapped(f"What you can do: {helps}")
    elif outcome.action == "delayed":
        lines += _wrapped(f"The last problem was: {what}")
        if outcome.retry_until > now:
            lines += _wrapped(f"This server will try for {spoken_time(outcome.retry_until - now)} more.")
    else:
        lines += _wrapped(
            {
                "delivered": "It was delivered to the mailbox.",
                "relayed": f"It was handed to {host_name(outcome.host) or 'the next server'}, which does not report "
                "on delivery: you will hear nothing more unless it fails.",
                "expanded": "It was delivered to the address and passed on from there to further recipients.",
            }[outcome.action]
        )
    if outcome.action in {"failed", "delayed"}:
        lines += _answer(outcome)
    return lines


def _answer(outcome: Outcome) -> list[str]:
    """Quote who refused."""
    reply = outcome.reply
    said = f"{reply.code} {visible(reply.text)}"
    if not reply.is_remote:
        return _wrapped(f"(This server: {said})")
    return [*_wrapped(f"The answer of {host_name(outcome.host) or 'the other server'} was:"), *_wrapped(said, "      ")]


def _wrapped(text: str, indent: str = "    ") -> list[str]:
    return textwrap.wrap(
        text, 74, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    ) or [indent.rstrip()]


def _text_part(text: str) -> bytes:
    if text.isascii() and max(map(len, text.split("\r\n"))) <= 998:
        return b"Content-Type: text/plain; charset=us-ascii\r\n\r\n" + text.encode("ascii")
    return (
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
        + quoted_printable(text)
    )


# ------------------------------------------------------------------------------------------------------- for programs


def _status_part(original: Original, outcomes: tuple[Outcome, ...], hostname: str, *, is_global: bool) -> bytes:
    """RFC 3464 §2: fields of the message, then a group for each recipient; RFC 6533 §4 for the global form."""
    groups = ["".join(_message_fields(original, hostname))]
    groups += ["".join(_recipient_fields(outcome, is_global=is_global)) for outcome in outcomes]
    octets = "\r\n".join(groups).encode()
    head = b"Content-Type: message/%sdelivery-status\r\n" % (b"global-" if is_global else b"")
    if not octets.isascii():
        head += b"Content-Transfer-Encoding: 8bit\r\n"
    return head + b"\r\n" + octets


def _message_fields(original: Original, hostname: str) -> list[str]:
    fields = []
    if original.reverse_path.envid:
        fields.append(_line("Original-Envelope-Id", ascii_visible(original.reverse_path.envid)))
    fields.append(_line("Reporting-MTA", f"dns; {hostname}"))
    fields.append(_line("Arrival-Date", date_time(original.arrived)))
    return fields


def _recipient_fields(outcome: Outcome, *, is_global: bool) -> list[str]:
    recipient, reply = outcome.recipient, outcome.reply
    fields = []
    if recipient.original:
        fields.append(_line("Original-Recipient", _original_recipient(recipient.original, is_global=is_global)))
    fields.append(_line("Final-Recipient", _typed(str(recipient.path.address), is_global=is_global)))
    fields.append(_line("Action", outcome.action))
    fields.append(_line("Status", _status(outcome)))
    if outcome.host and reply.is_remote:
        fields.append(_line("Remote-MTA", f"dns; {host_name(outcome.host)}"))
    if outcome.action in {"failed", "delayed", "relayed"}:
        # RFC 3464 §2.3.6: what the peer said as it said it; what we say ourselves is of a type of our own.
        kind = "smtp" if reply.is_remote else "X-livemail"
        fields.append(_line("Diagnostic-Code", f"{kind}; {_diagnostic(reply)}", is_text=True))
    if outcome.attempted:
        fields.append(_line("Last-Attempt-Date", date_time(outcome.attempted)))
    if outcome.action == "delayed" and outcome.retry_until:
        fields.append(_line("Will-Retry-Until", date_time(outcome.retry_until)))
    return fields


def _line(name: str, value: str, *, is_text: bool = False) -> str:
    return f"{name}: {fold(value, len(name) + 2) if is_text else value}\r\n"


def _diagnostic(reply: Reply) -> str:
    text = ascii_visible(reply.text)
    if ENHANCED.fullmatch(reply.enhanced) and not text.startswith(reply.enhanced):
        return f"{reply.code} {reply.enhanced} {text}".rstrip()
    return f"{reply.code} {text}".rstrip()


def _status(outcome: Outcome) -> str:
    """Return the Status: the reply's where it is one and fits the action, else one made of the reply code.

    A recipient that failed because its time ran out keeps the 4.y.z of the last attempt.  RFC 3464 §2.3.4.
    """
    enhanced, action = outcome.reply.enhanced, outcome.action
    allowed = {"failed": "54", "delayed": "4"}.get(action, "2")
    if ENHANCED.fullmatch(enhanced):
        return enhanced if enhanced[0] in allowed else allowed[0] + enhanced[1:]
    first = str(outcome.reply.code)[0]
    return f"{first if first in allowed else allowed[0]}.0.0"


def _typed(address: str, *, is_global: bool) -> str:
    """Return an address with its type.  RFC 3464 §2.1.2, RFC 6533 §3."""
    if address.isascii():
        return f"rfc822; {ascii_visible(address)}"
    return f"utf-8; {visible(address) if is_global else escape_utf8_address(address, ascii_only=True)}"


def _original_recipient(value: str, *, is_global: bool) -> str:
    """Return ORCPT's value decoded; one that cannot be decoded stays as it came, without what does not show."""
    try:
        parsed = parse_original(value.encode())
    except (WireError, UnicodeEncodeError):
        return ascii_visible(value)
    if parsed.type == "utf-8":
        escaped = escape_utf8_address(parsed.address, ascii_only=not is_global)
        return f"utf-8; {visible(escaped)}"
    return f"{parsed.type}; {ascii_visible(parsed.address)}"


def _named(outcome: Outcome) -> str:
    """Return the address the sender wrote to, "" when ORCPT does not say."""
    if not outcome.recipient.original:
        return ""
    try:
        parsed = parse_original(outcome.recipient.original.encode())
    except (WireError, UnicodeEncodeError):
        return ""
    return parsed.address if parsed.type in {"rfc822", "utf-8"} else ""


# ------------------------------------------------------------------------------------------------------- what it is about


def _returned_part(returned: Returned, *, is_global: bool) -> bytes:
    if returned.whole is None:
        octets = crlf(returned.header)
        if octets and not octets.endswith(b"\r\n"):
            octets += b"\r\n"
        kind = b"message/global-headers" if is_global else b"text/rfc822-headers"
    else:
        octets = crlf(returned.whole)
        kind = b"message/global" if is_global else b"message/rfc822"
    head = b"Content-Type: %s\r\n" % kind
    if not octets.isascii():
        head += b"Content-Transfer-Encoding: 8bit\r\n"
    return head + b"\r\n" + octets
