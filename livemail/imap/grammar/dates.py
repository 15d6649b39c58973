"""IMAP's dates.  RFC 3501 §9 date, date-time."""

from __future__ import annotations

import calendar
import datetime
import re
from typing import Final

from livemail.mail.errors import WireError

_MONTHS: Final = {
    month: number
    for number, month in enumerate(
        (b"jan", b"feb", b"mar", b"apr", b"may", b"jun", b"jul", b"aug", b"sep", b"oct", b"nov", b"dec"), 1
    )
}
_DATE: Final = re.compile(rb"(\d\d?)-([A-Za-z]{3})-(\d{4})", re.ASCII)
_DATE_TIME: Final = re.compile(rb"([ \d]\d)-([A-Za-z]{3})-(\d{4}) (\d\d):(\d\d):(\d\d) ([+-])(\d\d)([0-5]\d)", re.ASCII)


def parse_date(text: bytes) -> datetime.date:
    """Parse ``1-Feb-1994``.  Raises WireError."""
    match = _DATE.fullmatch(text)
    if match is None:
        raise WireError("Expected a date like 1-Feb-1994")
    return _date(match[1], match[2], match[3])


def parse_date_time(text: bytes) -> tuple[int, int]:
    """Parse `` 1-Feb-1994 21:52:25 -0800`` (26 octets without quotes).

    Returns seconds since the epoch (UTC, below 0 before 1970) and the zone in minutes east.  Raises WireError.
    """
    match = _DATE_TIME.fullmatch(text)
    if match is None:
        raise WireError('Expected a date-time like " 1-Feb-1994 21:52:25 -0800"')
    day = _date(match[1].lstrip(), match[2], match[3])
    hour, minute, second = int(match[4]), int(match[5]), int(match[6])
    if hour > 23 or minute > 59 or second > 60:  # 60: a leap second
        raise WireError("Not a time of day")
    zone = int(match[8]) * 60 + int(match[9])
    if zone >= 24 * 60:
        raise WireError("Not a time zone")
    if match[7] == b"-":
        zone = -zone
    return calendar.timegm((day.year, day.month, day.day, hour, minute, second, 0, 1, 0)) - zone * 60, zone


def _date(day: bytes, month: bytes, year: bytes) -> datetime.date:
    try:
        return datetime.date(int(year), _MONTHS[month.lower()], int(day))
    except (KeyError, ValueError):
        raise WireError("Not a date of the calendar") from None
