"""What `livemail.app` hands to every POP3 connection of one listener."""

from __future__ import annotations

import msgspec

from livemail.interfaces.identity import IAuthenticator
from livemail.pop3.locks import MaildropLocks
from livemail.pop3.settings import POP3Settings


class Site(msgspec.Struct):
    """hostname: our name in the greeting.  authenticator: the one door.  locks: one for all POP3 listeners.

    service: the word for this listener in logs, pop3 or pop3s.
    """

    settings: POP3Settings
    hostname: str
    authenticator: IAuthenticator
    locks: MaildropLocks
    service: str = "pop3"
