"""The router: local, relay or refused.  RFC 5321 §3.6, §7.9.

The one place that decides about relaying.  A stranger's recipient must be ours; a submitter's may be anybody's.
"""

from __future__ import annotations

import msgspec

from livemail.delivery.srs import BouncesOnly, Rewriter
from livemail.interfaces.delivery import Submitter
from livemail.interfaces.directory import Backup, Elsewhere, IDirectory, LocalAccount, Restricted, Unknown
from livemail.mail.address import Address, Path
from livemail.mail.errors import MailError


class RelayDenied(MailError):
    """Not our domain, and not our user."""

    code, enhanced, default_text = 550, "5.7.1", "Relay access denied"


class UnknownRecipient(MailError):
    """Our domain, nobody's address."""

    code, enhanced, default_text = 550, "5.1.1", "No such recipient here"


class Route(msgspec.Struct, frozen=True):
    """Where one recipient's copies go; each place once.  is_bounce: back to where a forwarded message came from."""

    local: tuple[LocalAccount, ...]
    remote: tuple[Address, ...]
    is_bounce: bool = False


async def route_bounce(
    directory: IDirectory, rewriter: Rewriter, reverse_path: Path, address: Address, submitter: Submitter
) -> Route:
    """Decide about an address that `livemail.delivery.srs` made: bounces go back where the message came from.

    Raises NotRewritten, BouncesOnly, and as `route` when the way back ends at a domain of ours.
    """
    original = rewriter.back(address)
    if not reverse_path.is_null:
        raise BouncesOnly(reason=f"{reverse_path} wrote to {address}")
    if directory.is_local_domain(original.domain):
        return await route(directory, original, submitter)
    return Route((), (original,), is_bounce=True)


class NotForSender(MailError):
    """The alias is not for this sender.  RFC 3463 §3.8."""

    code, enhanced, default_text = 550, "5.7.2", "You are not among those who may write to this address"


def refuse_strangers(directory: IDirectory, found: Restricted, reverse_path: Path, submitter: Submitter) -> None:
    """Raise NotForSender unless the sender may write to every alias on the way.

    An address of ours counts only from who has logged in, or from a program of this machine: everybody can write it.
    """
    sender = reverse_path.address
    is_known = submitter.account is not None or submitter.service == "lmtp" or submitter.is_ours
    if (
        sender is None
        or (directory.is_local_domain(sender.domain) and not is_known)
        or not all(directory.may_write(sender, restriction) for restriction in found.restrictions)
    ):
        raise NotForSender(reason=f"{reverse_path} may not write to {found.restrictions[0].alias}")


async def route(directory: IDirectory, address: Address, submitter: Submitter, reverse_path: Path = Path.null) -> Route:
    """Decide.  Raises RelayDenied, UnknownRecipient, NotForSender.

    An alias of ours may lead elsewhere whoever writes to it: that is forwarding, which its owner asked for, not relaying.
    """
    resolution = await directory.resolve(address)
    if isinstance(resolution, Unknown):
        raise UnknownRecipient
    if isinstance(resolution, Backup):
        return Route((), (address,))
    if isinstance(resolution, Restricted):
        refuse_strangers(directory, resolution, reverse_path, submitter)
        resolution = resolution.places
    if isinstance(resolution, Elsewhere):
        if submitter.account is None and not submitter.is_ours:
            raise RelayDenied(reason=f"stranger asked for {address}")
        return Route((), (address,))
    if len(resolution) == 1 and isinstance(resolution[0], LocalAccount):
        return Route(resolution, ())  # type: ignore[arg-type]  # what was asked of the only one holds for all
    local = tuple(place for place in resolution if isinstance(place, LocalAccount))
    remote = tuple(place for place in resolution if isinstance(place, Address))
    return Route(local, remote)
