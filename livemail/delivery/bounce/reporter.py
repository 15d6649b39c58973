"""From outcomes to reports: who is told what, in which message.

One report for each kind of news: what failed, what is delayed, what succeeded (delivered, relayed, expanded), each with all
the recipients it concerns.  What the report says is `livemail.delivery.bounce.render`'s.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from twisted.logger import Logger

from livemail.delivery.bounce.notice import Original, Outcome, Report, is_wanted
from livemail.delivery.bounce.render import Returned, render
from livemail.delivery.bounce.settings import BounceSettings
from livemail.interfaces.runtime import Now
from livemail.mail.address import Address, Path
from livemail.mail.envelope import Envelope, Recipient, ReversePath

MAX_HEADER_OCTETS: Final = 64 * 1024
"""How much of the original's header goes back, and is searched for its subject."""

_KINDS: Final = (("failed",), ("delayed",), ("delivered", "relayed", "expanded"))


class Reporter:
    """Composes the reports of one server."""

    log = Logger()

    def __init__(
        self,
        hostname: str,
        postmaster: Address,
        now: Now,
        new_token: Callable[[], str],
        settings: BounceSettings | None = None,
    ) -> None:
        """hostname: ours, in Reporting-MTA.  postmaster: a local address, who hears of double bounces and gets answers to reports.

        new_token: at least 16 characters, letters and digits, never the same twice and not to be guessed: it keeps returned
        content from ending its part of the report.
        """
        self.hostname = hostname
        self.postmaster = postmaster
        self.settings = settings if settings is not None else BounceSettings()
        self.now = now
        self._new_token = new_token
        self._double_bounces: deque[float] = deque()

    async def compose(self, original: Original, outcomes: Sequence[Outcome]) -> list[Report]:
        """Return the reports that somebody is to get, none when nobody is.  Raises what reading the original raises."""
        reports = []
        for actions in _KINDS:
            concerned = [outcome for outcome in outcomes if outcome.action in actions]
            if not concerned:
                continue
            if not original.reverse_path.path.is_null:
                wanted = tuple(each for each in concerned if is_wanted(each.recipient, each.action))
                if wanted:
                    reports.append(await self._report(original, wanted, original.reverse_path.path))
            elif actions == ("failed",):
                wanted = tuple(each for each in concerned if self._may_tell_postmaster(original, each))
                if wanted:
                    reports.append(await self._report(original, wanted, Path(self.postmaster), is_double_bounce=True))
        return reports

    def may_bother_postmaster(self, recipients: Sequence[Recipient]) -> bool:
        """Whether postmaster is to hear that mail without a sender failed for these; counts it when so.

        Not of mail for himself: that is how a chain of bounces ends.  Not of more than the settings say within an hour.
        """
        return self._why_not(recipients) == ""

    def _why_not(self, recipients: Sequence[Recipient]) -> str:
        addresses = [each.path.address for each in recipients if each.path.address is not None]
        if any(_is_same(address, self.postmaster) for address in addresses):
            return "it was for postmaster himself"
        now, times = self.now(), self._double_bounces
        while times and times[0] <= now - 3600:
            times.popleft()
        if len(times) >= self.settings.double_bounces_per_hour:
            return "postmaster has heard of enough within the hour"
        times.append(now)
        return ""

    def _may_tell_postmaster(self, original: Original, outcome: Outcome) -> bool:
        why = self._why_not([outcome.recipient])
        if why:
            self._drop(original, outcome, why)
        return not why

    def _drop(self, original: Original, outcome: Outcome, why: str) -> None:
        self.log.warn(
            "{message}: a report to {recipient} is lost: {why}; {code} {text}",
            message=original.id,
            recipient=outcome.recipient.path,
            why=why,
            code=outcome.reply.code,
            text=outcome.reply.text,
        )

    async def _report(
        self, original: Original, outcomes: tuple[Outcome, ...], to: Path, *, is_double_bounce: bool = False
    ) -> Report:
        returned = await self._returned(original, outcomes, is_double_bounce=is_double_bounce)
        token = self._new_token()
        octets, is_global = render(
            original,
            outcomes,
            returned,
            to=to,
            hostname=self.hostname,
            postmaster=self.postmaster,
            token=token,
            now=self.now(),
            is_double_bounce=is_double_bounce,
        )
        assert to.address is not None
        reverse_path = ReversePath(
            Path.null,
            size=len(octets),
            body="7BIT" if octets.isascii() else "8BITMIME",
            smtputf8=is_global or not to.address.is_ascii,
        )
        return Report(token, Envelope(reverse_path, [Recipient(to)]), octets, outcomes, is_double_bounce)

    async def _returned(self, original: Original, outcomes: tuple[Outcome, ...], *, is_double_bounce: bool) -> Returned:
        """Read what goes back: the message where RET and its size allow and it failed, else the header.  RFC 3461 §4.3."""
        reverse_path = original.reverse_path
        is_whole = (
            outcomes[0].action == "failed"
            and not is_double_bounce
            and reverse_path.ret != "HDRS"
            and reverse_path.body != "BINARYMIME"
            and original.size <= self.settings.return_octets
        )
        octets = await _read(original, original.size if is_whole else min(original.size, MAX_HEADER_OCTETS))
        end = _end_of_header(octets)
        header = octets[: end if end >= 0 else len(octets)][:MAX_HEADER_OCTETS]
        if end < 0 and not is_whole and original.size > len(octets):
            # Cut where a field's line ends.
            header = header[: header.rfind(b"\n") + 1]
        return Returned(header, octets if is_whole else None)


async def _read(original: Original, size: int) -> bytes:
    pieces = []
    at = 0
    while at < size:
        piece = await original.read(at, size - at)
        if not piece:
            break
        pieces.append(piece)
        at += len(piece)
    return b"".join(pieces)


def _end_of_header(octets: bytes) -> int:
    """Return the number of octets before the blank line, -1 when there is none."""
    if octets.startswith((b"\r\n", b"\n")):
        return 0
    ends = [at + 1 for mark in (b"\n\r\n", b"\n\n") if (at := octets.find(mark)) >= 0]
    return min(ends, default=-1)


def _is_same(one: Address, other: Address) -> bool:
    return one.local_part.lower() == other.local_part.lower() and one.domain in {"", other.domain}
