"""The capability line, computed from what is true now.  RFC 3501 §6.1.1, §7.2.1.

A name stands here when the connection's state, the configuration and the store allow it, and nowhere else: nothing is
advertised that is not there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from livemail.imap.session import Session

_ALWAYS: Final = ("IMAP4rev1", "LITERAL+", "ID", "ENABLE", "IDLE")
_AFTER_LOGIN: Final = ("NAMESPACE", "CHILDREN", "UNSELECT", "UIDPLUS", "MOVE", "SPECIAL-USE", "STATUS=SIZE")


def capabilities(session: Session) -> list[str]:
    """Return the names in the order in which they are told."""
    site = session.site
    names = list(_ALWAYS)
    if session.login is None:
        names.append("SASL-IR")
        if session.can_start_tls:
            names.append("STARTTLS")
        if session.may_login:
            names.extend(f"AUTH={mechanism}" for mechanism in site.authenticator.mechanisms())
        else:
            names.append("LOGINDISABLED")
    else:
        names.extend(_AFTER_LOGIN)
        if "condstore" in site.store.capabilities:
            names.append("CONDSTORE")
        names.append(f"APPENDLIMIT={site.settings.append_limit}")
    hidden = {name.upper() for name in site.settings.hidden_capabilities}
    return [name for name in names if name.upper() not in hidden]


def capability_code(session: Session) -> bytes:
    """Return ``CAPABILITY …`` for an untagged response or a response code."""
    return b"CAPABILITY " + " ".join(capabilities(session)).encode("ascii")
