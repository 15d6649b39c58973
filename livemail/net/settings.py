"""Settings of the network: names, certificates, limits, the log."""

from __future__ import annotations

from typing import Literal

from livemail.interfaces.settings import Count, Settings


class CertificateFiles(Settings, frozen=True):
    """One certificate.

    certificate: PEM file with the certificate and the chain behind it.  key: PEM file with its private key, not encrypted.
    """

    certificate: str
    key: str


class TLSSettings(Settings, frozen=True):
    """Certificates; the server chooses among them by the name the client asks for (SNI, RFC 6066 §3).

    certificate, key: the files of the default certificate, both or neither.  more: further certificates.
    minimum: the oldest version of TLS that is spoken.  local_ca: make a certificate authority in the data folder and a
    certificate for ``localhost`` with it; for trying things out, no other machine will trust it.
    """

    certificate: str = ""
    key: str = ""
    more: tuple[CertificateFiles, ...] = ()
    minimum: Literal["1.2", "1.3"] = "1.2"
    local_ca: bool = False


class NetSettings(Settings, frozen=True):
    """Limits that hold for all listeners.

    max_connections: open connections of all services together.  max_connections_per_address: of one client (an IPv4 address,
    an IPv6 /64), all services together; loopback and Unix sockets are not counted against it.
    backlog: connections the kernel keeps while we are busy.  blocking_threads: threads for work that must not stop the
    server (password hashes, checks).  drain_time: seconds open connections get to finish when the server stops.
    stall_time: seconds after which a turn of the event loop is logged with its stack; 0 turns that off.
    """

    max_connections: Count = 10_000
    max_connections_per_address: Count = 100
    backlog: Count = 512
    blocking_threads: Count = 4
    drain_time: float = 12.0
    stall_time: float = 0.1


class LogSettings(Settings, frozen=True):
    """The log: one line per event.

    format: ``text`` for people, ``json`` for programs.  level: the least that is written.  file: appended to, reopened on
    SIGHUP (rename it, then send the signal); "" is standard error.
    """

    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warn", "error", "critical"] = "info"
    file: str = ""
