"""What `twisted.mail`'s IMAP interfaces say, in our words: calls, refusals, flags, dates, and a message's octets.

A foreign message is either a file (`IMessageIMAPFile`) or a tree of parts with headers in a dict.  Of a tree the octets are
made here, the same ones every time: names in title case, in the dict's order; a header that occurs twice is there
once, because the dict has it once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from email.utils import mktime_tz, parsedate_tz
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.mail import imap4
from twisted.mail.interfaces import IMessageIMAPFile
from twisted.python.failure import Failure

from livemail.mail.errors import (
    MailboxExists,
    MailError,
    NoSuchMailbox,
    NotPermitted,
    StorageFailed,
    WireError,
)
from livemail.mail.flags import MAX_KEYWORD_OCTETS, flag_names, system_flag

_log = Logger()
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_BOUNDARY: Final = re.compile(r'boundary\s*=\s*(?:"([^"]{1,200})"|([^\s;"]{1,200}))', re.IGNORECASE)
_OUR_BOUNDARY: Final = "=_livemail_part_%d"
_KEYWORD: Final = re.compile(r'[^\x00-\x20\x7f-\U0010ffff(){%*"\\\]]+')
_MAX_DEPTH: Final = 100


async def ask(function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
    """Call foreign code that answers now or with a Deferred.  Raises MailError, whatever it raised."""
    try:
        result = function(*args, **kwargs)
        return await result if isinstance(result, Deferred) else result
    except Exception as error:
        raise refusal(error) from error


def refusal(error: Exception) -> MailError:
    """Translate what a foreign mailbox raised; what is no refusal is logged and a temporary failure."""
    if isinstance(error, MailError):
        return error
    if isinstance(error, imap4.NoSuchMailbox):
        return NoSuchMailbox()
    if isinstance(error, imap4.MailboxCollision):
        return MailboxExists()
    if isinstance(error, imap4.ReadOnlyMailbox):
        return NotPermitted("The mailbox is read-only")
    if isinstance(error, imap4.MailboxException):
        return NotPermitted(" ".join(str(error).split())[:200])
    if isinstance(error, NotImplementedError):
        return NotPermitted("Not available for this account")
    _log.failure("A foreign IMAP account failed", Failure(error))
    return StorageFailed()


# ---------------------------------------------------------------------------------------------------- flags and dates


def text_of(octets: bytes | str) -> str:
    """Return text, whichever of the two the foreign side uses."""
    return octets.decode("utf-8", "replace") if isinstance(octets, bytes) else octets


def read_flags(names: Iterable[bytes | str]) -> tuple[int, tuple[str, ...], bool]:
    """Return system bits, keywords in order, and whether \\Recent is among them; what is no flag is left out."""
    bits = 0
    keywords: list[str] = []
    is_recent = False
    for each in names:
        name = text_of(each)
        if name.lower() == "\\recent":
            is_recent = True
        elif name.startswith("\\"):
            try:
                bits |= system_flag(name)
            except WireError:
                continue
        elif _KEYWORD.fullmatch(name) and len(name) <= MAX_KEYWORD_OCTETS:
            keywords.append(name)
    return bits, tuple(keywords), is_recent


def write_flags(bits: int, keywords: Iterable[str]) -> list[str]:
    """Return flag names for the foreign side."""
    return [*flag_names(bits), *keywords]


def read_date(date: bytes | str | None) -> tuple[int, int]:
    """Return seconds since the epoch and minutes east of UTC; (0, 0) for what is no date.  RFC 5322 §3.3, RFC 9051 §9."""
    try:
        parsed = parsedate_tz(text_of(date or "").strip('"'))
        if parsed is None:
            return 0, 0
        zone = (parsed[9] or 0) // 60
        return max(0, int(mktime_tz(parsed))), zone if abs(zone) < 24 * 60 else 0
    except (ValueError, OverflowError, TypeError):
        return 0, 0


# ---------------------------------------------------------------------------------------------------- octets


async def read_message(message: Any) -> bytes:
    """Return a whole foreign message with CRLF line ends.  It is in memory.  Raises MailError."""
    as_file = IMessageIMAPFile(message, None)
    if as_file is not None:
        return _crlf(_read_file(await ask(as_file.open)))
    try:
        return b"".join(_render(message, 0))
    except Exception as error:
        raise refusal(error) from error


def _crlf(octets: bytes) -> bytes:
    return _BARE_LF.sub(b"\r\n", octets)


def _read_file(file: Any) -> bytes:
    try:
        octets: bytes | str = file.read()
    except Exception as error:
        raise refusal(error) from error
    finally:
        file.close()
    return octets.encode("utf-8", "surrogateescape") if isinstance(octets, str) else octets


def _render(part: Any, depth: int) -> Iterator[bytes]:
    """Yield a part's header, a blank line, and its body; the body of a multipart is its parts."""
    if depth > _MAX_DEPTH:
        raise StorageFailed(reason="a foreign message has parts inside parts without end")
    headers = {text_of(name).lower(): text_of(value) for name, value in part.getHeaders(True).items()}
    is_multipart = bool(part.isMultipart())
    boundary = ""
    if is_multipart:
        content_type = headers.get("content-type", "multipart/mixed")
        found = _BOUNDARY.search(content_type)
        boundary = (found[1] or found[2]) if found else _OUR_BOUNDARY % depth
        headers["content-type"] = content_type if found else f'{content_type.rstrip("; ")}; boundary="{boundary}"'
    yield b"".join(_field(name, value) for name, value in headers.items()) + b"\r\n"
    if not is_multipart:
        yield _crlf(_read_file(part.getBodyFile()))
        return
    mark = boundary.encode("utf-8", "surrogateescape")
    for each in _parts(part):
        yield b"\r\n--%b\r\n" % mark
        yield from _render(each, depth + 1)
    yield b"\r\n--%b--\r\n" % mark


def _field(name: str, value: str) -> bytes:
    lines = value.strip("\r\n").splitlines() or [""]
    folded = [lines[0], *(line if line[:1] in {" ", "\t"} else "\t" + line for line in lines[1:] if line.strip())]
    return f"{name.title()}: ".encode() + "\r\n".join(folded).encode("utf-8", "surrogateescape") + b"\r\n"


def _parts(part: Any) -> Iterator[Any]:
    number = 0
    while True:
        try:
            yield part.getSubPart(number)
        except IndexError:
            return
        number += 1
