"""What an administrator may choose about delivery."""

from __future__ import annotations

from livemail.interfaces.settings import Settings


class DeliverySettings(Settings, frozen=True, kw_only=True):
    """Delivery's settings.

    capture_outbound: file what goes to other domains in the sender's own mailbox ``outbox`` instead of sending it.
    outbox: that mailbox's name.
    check_sender: a submitter's reverse-path must be an address of his account (RFC 6409 §6.1), or null.
    """

    capture_outbound: bool = False
    outbox: str = "Outbox (captured)"
    check_sender: bool = True
