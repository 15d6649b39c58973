"""Internal dates on the wire: ``"17-Jul-1996 02:44:25 -0700"``.  RFC 9051 §9 date-time."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Final

MONTHS: Final = (b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec")

_DAY: Final = 86_400
_EPOCH: Final = date(1970, 1, 1)
_MINUTES: Final = tuple(b"%02d:%02d:" % divmod(minute, 60) for minute in range(24 * 60))
_SECONDS: Final = tuple(b"%02d" % second for second in range(60))
_FIRST_DAY: Final = (date(1, 1, 1) - _EPOCH).days
_LAST_DAY: Final = (date(9999, 12, 31) - _EPOCH).days
_CACHED: Final = 4096


class InternalDates(dict[tuple[int, int], bytes]):
    """Texts by (seconds since the epoch UTC, zone in minutes east), quotes included.

    Seconds differ from message to message but days do not: the calendar is worked out once per day and zone, and the
    dict itself, which answers a whole column from C, never keeps more than `_CACHED` texts.
    """

    def __init__(self) -> None:
        super().__init__()
        self._days: dict[tuple[int, int], tuple[bytes, bytes]] = {}

    def __missing__(self, key: tuple[int, int]) -> bytes:
        seconds, zone = key
        day, second = divmod(seconds + zone * 60, _DAY)
        ends = self._days.get((day, zone))
        if ends is None:
            ends = self._day(day, zone)
        minute, second = divmod(second, 60)
        if len(self) >= _CACHED:
            self.clear()
        text = self[key] = ends[0] + _MINUTES[minute] + _SECONDS[second] + ends[1]
        return text

    def _day(self, day: int, zone: int) -> tuple[bytes, bytes]:
        # A date outside the calendar can only be a damaged row; the nearest day is still a date a client can read.
        when = _EPOCH + timedelta(days=min(max(day, _FIRST_DAY), _LAST_DAY))
        hours, minutes = divmod(abs(zone), 60)
        if len(self._days) >= _CACHED:
            self._days.clear()
        ends = self._days[day, zone] = (
            b'"%2d-%b-%04d ' % (when.day, MONTHS[when.month - 1], when.year),
            b' %c%02d%02d"' % (b"-" if zone < 0 else b"+", hours, minutes),
        )
        return ends
