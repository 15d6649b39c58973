"""What an administrator may choose about reports."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from livemail.interfaces.settings import Settings

MAX_RETURN_OCTETS: Final = 1024 * 1024


class BounceSettings(Settings, frozen=True, kw_only=True):
    """The ``[bounce]`` section.

    return_octets: up to this size the whole message goes back with a failure report (unless RET=HDRS); of larger ones the
    header does.  double_bounces_per_hour: how many reports that could not be delivered postmaster hears of; those beyond are
    only logged.
    """

    return_octets: int = 100_000
    double_bounces_per_hour: int = 20

    def faults(self) -> Iterator[tuple[str, str]]:
        """Yield (field, what is wrong with it and what to write instead) for every fault."""
        if not 0 <= self.return_octets <= MAX_RETURN_OCTETS:
            yield "return_octets", f"is {self.return_octets}; write 0 to {MAX_RETURN_OCTETS} octets"
        if self.double_bounces_per_hour < 0:
            yield "double_bounces_per_hour", f"is {self.double_bounces_per_hour}; write a number, 0 for none"
