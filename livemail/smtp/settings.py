"""What an administrator may choose about SMTP, submission and LMTP."""

from __future__ import annotations

from livemail.interfaces.settings import Count, Duration, Settings


class SMTPSettings(Settings, frozen=True, kw_only=True):
    """One listener's settings.

    max_message_octets: largest message taken, SIZE's value (RFC 1870).
    max_recipients: recipients of one mail transaction; RFC 5321 §4.5.3.1.8 asks for 100 at least.
    max_errors: commands that made no sense before the connection is closed with 421.
    max_junk_commands: NOOP, RSET, VRFY, HELP and EHLO between two messages before the same.
    max_refusals: permanent refusals (unknown recipients, relaying) before the same: against harvesting addresses.
    max_auth_failures: failed authentications before the same.
    max_received: Received fields at which a message is taken to go in circles (RFC 5321 §6.3).
    idle_timeout: seconds without a command, or without 64 KiB of content (RFC 5321 §4.5.3.2.7 asks for 300).
    greet_delay: seconds before the greeting, in which a client that talks first gives itself away.
    allow_cleartext_auth: offer AUTH without TLS.  Only for a server nobody but this machine can reach.
    refuse_bare_newlines: refuse content sent by DATA in which CR or LF stands alone (550 5.6.0).
    forbid_early_talk: close on clients that talk before the greeting, or send content before 354.
    """

    max_message_octets: Count = 256 * 1024 * 1024
    max_recipients: Count = 1000
    max_errors: Count = 15
    max_junk_commands: Count = 100
    max_refusals: Count = 100
    max_auth_failures: Count = 3
    max_received: Count = 100
    idle_timeout: Duration = 300.0
    greet_delay: float = 0.0
    allow_cleartext_auth: bool = False
    refuse_bare_newlines: bool = True
    forbid_early_talk: bool = True
