"""Dates of header fields.  RFC 5322 §3.3, §4.3.

Date fields of real mail are written in many ways; one pattern reads those that follow the standard or nearly do, and
`email.utils` what the pattern does not recognise.  Either sees only as many octets as a date can have.
"""

from __future__ import annotations

import email.utils
import re
from functools import lru_cache
from typing import Final

_MAX_OCTETS: Final = 128

_DATE: Final = re.compile(
    rb"\s*(?:[A-Za-z]{1,10},?)?\s*(\d{1,2})[\s-]+([A-Za-z]{3})[A-Za-z]{0,6}[\s-]+(\d{4}|\d{2,3})"
    rb"(?:\s+(\d{1,2})[:.](\d\d)(?:[:.](\d\d)(?:\.\d{1,6})?)?)?\s*(?:([+-])(\d\d):?(\d\d)|([A-Za-z]{1,5}))?",
)
_MONTHS: Final = {
    name: number for number, name in enumerate(b"jan feb mar apr may jun jul aug sep oct nov dec".split(), start=1)
}
_ZONES: Final = {
    b"ut": 0, b"utc": 0, b"gmt": 0, b"z": 0,
    b"edt": -240, b"est": -300, b"cdt": -300, b"cst": -360, b"mdt": -360, b"mst": -420, b"pdt": -420, b"pst": -480,
}  # fmt: skip
"""Zones by name, minutes east.  RFC 5322 §4.3; every other name counts as -0000."""

_DAYS_BEFORE: Final = (0, 0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334)
_DAYS_IN: Final = (0, 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def parse_date(raw: bytes) -> tuple[int, int] | None:
    """Read a Date field's value.

    Returns seconds since the epoch (UTC) and the zone in minutes east as written (0 where there is none), None when
    it is no date.  The date as written is that of ``seconds + 60 * zone``.
    """
    return _parse(raw.strip()[:_MAX_OCTETS])  # The patterns try alternatives on white space: only ever a few.


@lru_cache(maxsize=1024)
def _parse(raw: bytes) -> tuple[int, int] | None:
    """Parse what is short.  Remembered, because what one host sends in one second has one date: 0.1 µs instead of 2.5."""
    match = _DATE.match(raw)
    if match is None:
        return _parse_odd(raw)
    day, month_name, year, hour, minute, second, sign, zone_hours, zone_minutes, zone_name = match.groups()
    month = _MONTHS.get(month_name.lower())
    if month is None:
        return _parse_odd(raw)
    zone = 0
    if sign is not None:
        zone = int(zone_hours) * 60 + int(zone_minutes)
        if sign == b"-":
            zone = -zone
    elif zone_name is not None:
        zone = _ZONES.get(zone_name.lower(), 0)
    full_year = int(year)
    if len(year) < 4:  # RFC 5322 §4.3 obs-year.
        full_year += 2000 if len(year) == 2 and full_year < 50 else 1900
    return _seconds(full_year, month, int(day), int(hour or 0), int(minute or 0), int(second or 0), zone)


def _seconds(year: int, month: int, day: int, hour: int, minute: int, second: int, zone: int) -> tuple[int, int] | None:
    if (
        not (1 <= month <= 12 and 1 <= day <= _DAYS_IN[month] and year >= 1)
        or hour > 23
        or minute > 59
        or second > 60
        or abs(zone) >= 24 * 60
    ):
        return None
    before = year - 1
    days = before * 365 + before // 4 - before // 100 + before // 400 + _DAYS_BEFORE[month] + day - 1
    if month > 2 and (year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)):
        days += 1
    days -= 719_162  # From the first day of year 1 to 1970-01-01.
    return days * 86_400 + hour * 3600 + minute * 60 + second - zone * 60, zone


def _parse_odd(raw: bytes) -> tuple[int, int] | None:
    """Read what only a lenient reader makes sense of (asctime, comments in front, …)."""
    try:
        parsed = email.utils.parsedate_tz(raw.decode("ascii", "replace"))
    except (ValueError, IndexError, TypeError, OverflowError):
        return None
    if parsed is None:
        return None
    year, month, day, hour, minute, second, _, _, _, offset = parsed
    return _seconds(year, month, day, hour, minute, second, (offset or 0) // 60)
