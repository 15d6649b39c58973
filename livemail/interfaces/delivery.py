"""Delivery is a transaction: begin, add recipients, commit or abort.  A 2xx leaves only after `commit` returned."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from zope.interface import Interface

from livemail.interfaces.storage import AccountRecord
from livemail.mail.content import Content
from livemail.mail.envelope import Envelope, Recipient, ReversePath
from livemail.mail.errors import MailError


class Submitter(msgspec.Struct, frozen=True):
    """Who hands the message in, and what the router may do for him.

    account: of the authenticated user, None for strangers.  service: smtp, submission, submissions or lmtp.
    is_ours: the server itself, whose reports go wherever they must.  transaction: the mail transaction's id in the log.
    """

    service: str
    account: AccountRecord | None = None
    is_ours: bool = False
    transaction: str = ""


class IDeliveryTransaction(Interface):
    """One message on its way to its recipients."""

    async def add_recipient(recipient: Recipient) -> None:
        """Take responsibility for one more recipient, or raise MailError (550 5.1.1, 550 5.7.1 relay denied, 452 …)."""

    async def commit(content: Content, envelope: Envelope, *, junk: bool = False) -> Sequence[MailError | None]:
        """Make the message durable for the envelope's recipients; None or the refusal for each, in their order.

        envelope: as the filters left it; recipients they added are routed now.  junk: quarantined.
        Raises MailError when nothing was taken for anybody.  Does not close the content.
        """

    def abort() -> None:
        """The message is not wanted any more.  Allowed more than once, and after `commit`."""


class IDeliveryTarget(Interface):
    """Where protocols hand messages in."""

    async def begin(reverse_path: ReversePath, submitter: Submitter) -> IDeliveryTransaction:
        """Begin.  Raises MailError when this submitter may not send as this reverse-path."""
