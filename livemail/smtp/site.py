"""What the composition root hands to every SMTP, submission and LMTP connection of one listener."""

from __future__ import annotations

import time

import msgspec

from livemail.interfaces.delivery import IDeliveryTarget
from livemail.interfaces.filter import IFilterChain
from livemail.interfaces.identity import IAuthenticator
from livemail.interfaces.runtime import Now
from livemail.interfaces.storage import IMailStore
from livemail.smtp.settings import SMTPSettings


class Site(msgspec.Struct, kw_only=True):
    """One listener's surroundings.

    service: smtp, submission, submissions or lmtp.  hostname: in the greeting and in Received.  store: makes content sinks.
    authenticator: None where nobody logs in; AUTH is offered on submission and submissions only.
    dsn: whether ``target`` honours DSN parameters (RFC 3461); they are refused otherwise.
    """

    service: str
    hostname: str
    settings: SMTPSettings
    store: IMailStore
    target: IDeliveryTarget
    chain: IFilterChain
    authenticator: IAuthenticator | None = None
    now: Now = time.time
    dsn: bool = False

    @property
    def is_submission(self) -> bool:
        """Whether clients are mail user agents that must log in.  RFC 6409, RFC 8314."""
        return self.service in {"submission", "submissions"}

    @property
    def is_lmtp(self) -> bool:
        """RFC 2033."""
        return self.service == "lmtp"
