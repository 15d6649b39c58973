"""What an administrator may choose about sending to other hosts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from livemail.delivery.settings import RoutingSettings

_NAME: Final = re.compile(r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*|\[[0-9A-Za-z:.]+\]")
_AT_LEAST_ONE: Final = (
    "max_connections", "connections_per_host", "messages_per_connection", "recipients_per_transaction", "max_addresses",
    "max_sessions",
)  # fmt: skip


class RelaySettings(RoutingSettings, frozen=True, kw_only=True):
    """The section ``[relay]``; where mail goes is `RoutingSettings`.

    hello_name: what we call ourselves in EHLO, HELO and LHLO; "" for the server's hostname.  Must resolve to our address, or
    many hosts refuse us (RFC 5321 §4.1.1.1).
    tls_ca: PEM file of the authorities that vouch for verified hosts; "" for the system's.
    allow_cleartext_auth: say a smarthost's password without TLS.  Loopback is always allowed to hear it.

    max_connections: open at a time, idle ones included, to all hosts.  connections_per_host: to one.
    messages_per_connection: sent before a connection is closed.  connection_idle_timeout: seconds it may rest between messages.
    recipients_per_transaction: RCPT commands of one; RFC 5321 §4.5.3.1.8 has every host take 100.
    max_addresses: addresses tried in one attempt.  max_sessions: of them, those that answered and refused for now.

    connect_timeout: seconds for TCP to be established; the next address is tried beside it after connect_stagger seconds
    (RFC 8305 §5).  tls_timeout: for the handshake.
    greeting_timeout … end_timeout: seconds a host has for one reply, RFC 5321 §4.5.3.2.1 to §4.5.3.2.6: the greeting;
    EHLO, STARTTLS, AUTH and RSET; MAIL; RCPT; DATA; taking a block of content; the answer to the content.
    quit_timeout: to say goodbye.  attempt_timeout: for one message on one connection, everything included.
    """

    hello_name: str = ""
    tls_ca: str = ""
    allow_cleartext_auth: bool = False
    max_connections: int = 500
    connections_per_host: int = 20
    messages_per_connection: int = 100
    connection_idle_timeout: float = 5.0
    recipients_per_transaction: int = 100
    max_addresses: int = 6
    max_sessions: int = 2
    connect_timeout: float = 30.0
    connect_stagger: float = 0.25
    tls_timeout: float = 60.0
    greeting_timeout: float = 300.0
    command_timeout: float = 300.0
    mail_timeout: float = 300.0
    rcpt_timeout: float = 300.0
    data_timeout: float = 120.0
    block_timeout: float = 180.0
    end_timeout: float = 600.0
    quit_timeout: float = 5.0
    attempt_timeout: float = 7200.0

    def faults(self) -> Iterator[tuple[str, str]]:
        """Yield (key, what is wrong with it)."""
        yield from super().faults()
        for name in _AT_LEAST_ONE:
            if getattr(self, name) < 1:
                yield name, "is at least 1"
        for name in self.__struct_fields__:
            if name.endswith("_timeout") and getattr(self, name) <= 0:
                yield name, "is more than 0 seconds"
        if self.connect_stagger < 0:
            yield "connect_stagger", "is 0 seconds or more"
        if self.hello_name and not _NAME.fullmatch(self.hello_name):
            yield (
                "hello_name",
                'is a host name such as "mail.example.org", or an address in brackets such as "[192.0.2.1]"',
            )
