"""What goes on from here: recipients elsewhere with the envelope and trace that forwarding asks for.  RFC 3461 §5.2.7, RFC 5321 §3.9.

Who submits to somebody elsewhere is not forwarded: his envelope goes as it is.  An alias of ours that leads elsewhere is:

* its reverse-path is rewritten (`livemail.delivery.srs`) where the sender's domain is not ours;
* ORCPT names the address that was written to, unless the sender said something else; ENVID and RET stay;
* one place: NOTIFY goes along.  Several: we report "expanded" when SUCCESS is asked for, and SUCCESS goes no further, because
  the sender asked for one report and not for one of every member;
* Delivered-To with the alias stands in front, so that mail that comes back is seen to go in a circle (RFC 9228 §4).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from livemail.delivery.router import Route
from livemail.delivery.srs import Rewriter
from livemail.interfaces.directory import IDirectory
from livemail.mail.address import Address, Path
from livemail.mail.dsn import original_of
from livemail.mail.envelope import Envelope, Recipient, ReversePath

NEVER: Final = frozenset({"NEVER"})
SUCCESS: Final = "SUCCESS"


class Onward(msgspec.Struct, frozen=True):
    """Recipients elsewhere that share reverse-path and trace.  prefix: header fields with CRLF to send in front of the content."""

    reverse_path: ReversePath
    recipients: tuple[Recipient, ...]
    prefix: bytes = b""


def is_forwarded(recipient: Recipient, found: Route) -> bool:
    """Whether a route leads elsewhere by our doing and not by the sender's."""
    return bool(found.remote) and found.remote != (recipient.path.address,) and not found.is_bounce


def is_expanded(found: Route) -> bool:
    """Whether the sender hears "expanded" when he asks for success.  RFC 3461 §5.2.7.2."""
    return len(found.local) + len(found.remote) > 1


def delivered_to(recipient: Recipient) -> bytes:
    """Return the value of Delivered-To that marks what an alias sent on, lower-case as it is compared."""
    return str(recipient.path.address).lower().encode()


def onward(
    envelope: Envelope,
    routes: Iterable[tuple[Recipient, Route]],
    directory: IDirectory,
    rewriter: Rewriter | None,
) -> list[Onward]:
    """Group what goes elsewhere.  rewriter: None where reverse-paths stay as they are."""
    groups: dict[tuple[ReversePath, bytes], dict[Path, Recipient]] = {}
    for recipient, found in routes:
        if not found.remote:
            continue
        reverse_path, prefix = envelope.reverse_path, b""
        if is_forwarded(recipient, found):
            reverse_path = _rewritten(reverse_path, directory, rewriter)
            prefix = b"Delivered-To: %s\r\n" % delivered_to(recipient)
            leaving: Sequence[Recipient] = _forwarded(recipient, found)
        else:
            leaving = [_to(address, recipient) for address in found.remote]
        group = groups.setdefault((reverse_path, prefix), {})
        for each in leaving:
            group.setdefault(each.path, each)
    return [
        Onward(reverse_path, tuple(recipients.values()), prefix)
        for (reverse_path, prefix), recipients in groups.items()
    ]


def _to(address: Address, recipient: Recipient) -> Recipient:
    return recipient if address == recipient.path.address else msgspec.structs.replace(recipient, path=Path(address))


def _forwarded(recipient: Recipient, found: Route) -> list[Recipient]:
    address = recipient.path.address
    assert address is not None
    notify = recipient.notify
    if is_expanded(found) and SUCCESS in notify:
        notify = (notify - {SUCCESS}) or NEVER
    original = recipient.original or (original_of(address) if address.domain else "")
    return [Recipient(Path(place), notify, original) for place in found.remote]


def _rewritten(reverse_path: ReversePath, directory: IDirectory, rewriter: Rewriter | None) -> ReversePath:
    address = reverse_path.path.address
    if rewriter is None or address is None or directory.is_local_domain(address.domain):
        return reverse_path
    return msgspec.structs.replace(reverse_path, path=rewriter.forward(reverse_path.path))
