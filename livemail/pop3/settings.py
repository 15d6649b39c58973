"""What an administrator may decide about POP3."""

from __future__ import annotations

from livemail.interfaces.settings import Settings


class POP3Settings(Settings, frozen=True):
    """The `[pop3]` section.  Sizes are octets, times are seconds.

    cleartext_login: let passwords cross loopback without TLS; elsewhere they never do.
    login_timeout: from the greeting to a successful login, however busy the line is kept.
    idle_timeout: without a command after login; RFC 1939 §3 asks for at least 600.
    line_limit: one command.  sasl_response_limit: one base64 line of AUTH.
    max_bad_commands: malformed, unknown or misplaced commands before the connection is closed.
    max_failed_logins: before the connection is closed.
    """

    cleartext_login: bool = False
    login_timeout: float = 120.0
    idle_timeout: float = 600.0
    line_limit: int = 512
    sasl_response_limit: int = 8192
    max_bad_commands: int = 20
    max_failed_logins: int = 5
