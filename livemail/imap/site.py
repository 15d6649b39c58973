"""What `livemail.app` hands to every IMAP connection of one listener."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from livemail.imap.settings import IMAPSettings
from livemail.interfaces.identity import IAuthenticator
from livemail.interfaces.storage import IMailStore


class Site(msgspec.Struct):
    """hostname: our name in the greeting.  authenticator: the one door.  store: where mail is.

    now: monotonic seconds by which a long SEARCH sees that others are due.
    """

    settings: IMAPSettings
    hostname: str
    store: IMailStore
    authenticator: IAuthenticator
    now: Callable[[], float] = time.monotonic
