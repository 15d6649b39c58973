"""What an administrator may decide about POP3."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from livemail.interfaces.settings import Count, Duration, Settings


class POP3Settings(Settings, frozen=True):
    """The `[pop3]` section.  Sizes are octets, times are seconds.

    cleartext_login: let passwords cross loopback without TLS; elsewhere they never do.
    login_timeout: from the greeting to a successful login, however busy the line is kept.
    idle_timeout: without a command after login; RFC 1939 §3 asks for at least 600.
    line_limit: one command; RFC 2449 §4 asks for 255.  sasl_response_limit: one base64 line of AUTH.
    max_bad_commands: malformed, unknown or misplaced commands before the connection is closed.
    max_failed_logins: before the connection is closed.
    """

    cleartext_login: bool = False
    login_timeout: Duration = 120.0
    idle_timeout: Duration = 600.0
    line_limit: Annotated[int, Meta(ge=255)] = 512
    sasl_response_limit: Count = 8192
    max_bad_commands: Count = 20
    max_failed_logins: Count = 5
