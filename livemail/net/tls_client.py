"""Our side of TLS where we are the client: the name we ask for, and whether the certificate is the host's.

Opportunistic TLS (``may``) and ``encrypt`` take any certificate: whoever could forge one could as well have left STARTTLS out
of the host's reply, or answered the MX query himself (RFC 7435).  ``verify`` wants one that chains to a trusted authority and is for
the name, and no other (RFC 9525 §6).  Versions before TLS 1.2 are not spoken (RFC 8996).
"""

from __future__ import annotations

import ipaddress
from typing import Any, Final

import service_identity
from OpenSSL import SSL
from service_identity.pyopenssl import verify_hostname, verify_ip_address

from livemail.interfaces.relay import NextHop
from livemail.net.tls import CertificateError

_PROBLEMS: Final = {
    7: "the certificate's signature is not its issuer's",
    9: "the certificate is not valid yet",
    10: "the certificate has expired",
    18: "the certificate is signed by itself",
    19: "the certificate chain ends in an authority that is not trusted",
    20: "the certificate's issuer is not known here",
    21: "the certificate's issuer is not known here",
    23: "the certificate was revoked",
}
"""X509_V_ERR_… → words."""


class UntrustedPeer(Exception):
    """The certificate is not the host's; the text says why."""


class ClientTLS:
    """What all connections share.  Thread-safe once made."""

    def __init__(self, authorities: str = "") -> None:
        """authorities: PEM file of those that are trusted, "" for the system's.  Raises CertificateError."""
        self._any = _context()
        self._verified = _context()
        self._verified.set_verify(SSL.VERIFY_PEER)
        if authorities:
            try:
                self._verified.load_verify_locations(authorities)
            except SSL.Error:
                raise CertificateError(f"{authorities}: no certificates in PEM form can be read from it") from None
        else:
            self._verified.set_default_verify_paths()

    def handshake(self, hop: NextHop) -> Handshake:
        """Begin with one connection."""
        is_verified = hop.tls == "verify"
        return Handshake(self._verified if is_verified else self._any, hop, is_verified=is_verified)


def _context() -> SSL.Context:
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION)
    context.set_mode(SSL.MODE_RELEASE_BUFFERS)
    return context


class Handshake:
    """One connection's handshake.  problem: what was found wrong with the certificate, "" for nothing."""

    def __init__(self, context: SSL.Context, hop: NextHop, *, is_verified: bool) -> None:
        self.problem = ""
        self._context = context
        self._is_verified = is_verified
        self._name = hop.reference or hop.host
        host = hop.host if hop.host and not _is_address(hop.host) else hop.reference
        self._asked = host if host.isascii() and not _is_address(host) else ""

    def connection(self) -> SSL.Connection:
        """Make OpenSSL's side, for `livemail.net.tls_stream`."""
        connection = SSL.Connection(self._context, None)
        connection.set_connect_state()
        if self._is_verified:
            connection.set_verify(SSL.VERIFY_PEER, self._note)
        if self._asked:
            connection.set_tlsext_host_name(self._asked.encode("ascii"))
        return connection

    def _note(self, _connection: Any, _certificate: Any, error: int, _depth: int, is_good: int) -> bool:
        """Called by OpenSSL for each certificate of the chain; must not raise."""
        if not is_good and not self.problem:
            self.problem = _PROBLEMS.get(error, f"the certificate cannot be verified (X.509 error {error})")
        return bool(is_good)

    def check(self, connection: SSL.Connection) -> None:
        """The handshake is complete: see whose certificate it was.  Raises UntrustedPeer."""
        if not self._is_verified:
            return
        try:
            if _is_address(self._name):
                verify_ip_address(connection, self._name)
            else:
                verify_hostname(connection, self._name)
        except (service_identity.VerificationError, service_identity.CertificateError):
            raise UntrustedPeer(f"the certificate is not for {self._name}") from None


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
