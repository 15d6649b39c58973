"""What `livemail.app` hands to every IMAP connection of one listener."""

from __future__ import annotations

import msgspec

from livemail.imap.settings import IMAPSettings
from livemail.interfaces.identity import IAuthenticator
from livemail.interfaces.storage import IMailStore


class Site(msgspec.Struct):
    """hostname: our name in the greeting.  authenticator: the one door.  store: where mail is."""

    settings: IMAPSettings
    hostname: str
    store: IMailStore
    authenticator: IAuthenticator
