"""What an administrator may decide about IMAP."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from livemail.interfaces.settings import Count, Duration, Settings


class IMAPSettings(Settings, frozen=True, kw_only=True):
    """The `[imap]` section.  Sizes are octets, times are seconds.

    cleartext_login: let passwords cross loopback without TLS; elsewhere they never do.
    hidden_capabilities: names left out of the capability line, against clients that stumble over one.
    append_limit: largest message APPEND takes.  RFC 7889.
    login_timeout: from the greeting to a successful login, however busy the line is kept.
    idle_timeout: without a command after login; RFC 3501 §5.4 asks for at least 1800.
    idle_keep_alive: between ``* OK Still here`` in IDLE, which keep NAT tables warm; 0 for none.
    line_limit, literal_limit: one command's text, and its literals together, after login.
    line_limit_before_login, literal_limit_before_login: the same for strangers.
    sasl_response_limit: one base64 line of AUTHENTICATE.
    max_bad_commands: malformed or unknown commands before the connection is closed.
    max_failed_logins: before the connection is closed.
    max_id_pairs: fields of ID.  RFC 2971 §3.3.
    """

    cleartext_login: bool = False
    hidden_capabilities: tuple[str, ...] = ()
    append_limit: Count = 256 * 1024 * 1024
    login_timeout: Duration = 120.0
    idle_timeout: Duration = 1800.0
    idle_keep_alive: float = 120.0
    line_limit: Annotated[int, Meta(ge=256)] = 64 * 1024
    literal_limit: Annotated[int, Meta(ge=256)] = 64 * 1024
    line_limit_before_login: Annotated[int, Meta(ge=256)] = 8 * 1024
    literal_limit_before_login: Annotated[int, Meta(ge=256)] = 4 * 1024
    sasl_response_limit: Count = 16 * 1024
    max_bad_commands: Count = 20
    max_failed_logins: Count = 5
    max_id_pairs: int = 30
