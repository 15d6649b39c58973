"""Whose certificate we take, what we ask for, and what we say is wrong."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import pytest
from OpenSSL import SSL

from livemail.interfaces.relay import NextHop
from livemail.net.tls import CertificateError
from livemail.net.tls_client import ClientTLS, UntrustedPeer
from tests.smtp.relay.hostile_peer import Authority

AUTHORITY = Authority()
with tempfile.TemporaryDirectory() as _folder:
    Path(_folder, "ca.pem").write_bytes(AUTHORITY.pem)
    TRUSTING = ClientTLS(f"{_folder}/ca.pem")


def shake(shown, tls, *, host="mx.example", reference="", at_most=None):
    """Run a handshake in memory; the client's side, its connection, and what OpenSSL raised in it."""
    handshake = TRUSTING.handshake(NextHop(host, tls=tls, reference=reference))
    client = handshake.connection()
    if at_most:
        shown.context.set_max_proto_version(at_most)
    server = shown.serverConnectionForTLS(None)
    server.set_accept_state()
    error = None
    for _ in range(6):
        for one, other in ((client, server), (server, client)):
            try:
                with contextlib.suppress(SSL.WantReadError):
                    one.do_handshake()
            except SSL.Error as raised:
                error = error or raised
            with contextlib.suppress(SSL.WantReadError):
                other.bio_write(one.bio_read(65536))
    return handshake, client, error


@pytest.mark.parametrize(
    ("host", "reference", "names", "is_good"),
    [
        ("mx.example", "", ["mx.example"], True),
        ("mx7.hosting.example", "", ["*.hosting.example"], True),
        ("a.mx7.hosting.example", "", ["*.hosting.example"], False),
        ("mx.example", "", ["example"], False),
        ("mx.example", "", ["xmx.example"], False),
        ("mx.example", "peer.example", ["peer.example"], True),
        ("mx.example", "peer.example", ["mx.example"], False),
        ("192.0.2.1", "", ["192.0.2.1"], True),
        ("192.0.2.1", "", ["192.0.2.2"], False),
        ("192.0.2.1", "peer.example", ["peer.example"], True),
    ],
)
def test_a_verified_host_has_a_certificate_for_its_name(host, reference, names, is_good):
    handshake, client, error = shake(AUTHORITY.show(*names), "verify", host=host, reference=reference)
    assert error is None
    if is_good:
        handshake.check(client)
    else:
        with pytest.raises(UntrustedPeer, match=f"not for {reference or host}"):
            handshake.check(client)


@pytest.mark.parametrize(
    ("shown", "problem"),
    [
        (AUTHORITY.show("mx.example", days=-1), "expired"),
        (AUTHORITY.show("mx.example", own=True), "signed by itself"),
        (Authority().show("mx.example"), "signature is not its issuer's"),
    ],
)
def test_what_is_wrong_with_a_chain_is_said_in_words_and_only_where_it_is_verified(shown, problem):
    handshake, _, error = shake(shown, "verify")
    assert error is not None
    assert problem in handshake.problem
    for tls in ("may", "encrypt"):
        handshake, client, error = shake(shown, tls)
        assert error is None
        handshake.check(client)


def test_old_versions_are_not_spoken():
    _, _, error = shake(AUTHORITY.show("mx.example"), "may", at_most=SSL.TLS1_1_VERSION)
    assert error is not None


def test_the_host_is_asked_for_by_name_and_an_address_never():
    for host, reference, asked in (
        ("mx.example", "peer.example", b"mx.example"),
        ("192.0.2.1", "peer.example", b"peer.example"),
        ("192.0.2.1", "", None),
        ("", "", None),
        ("bücher.example", "", None),
    ):
        shown = AUTHORITY.show("mx.example")
        shake(shown, "may", host=host, reference=reference)
        assert shown.asked == [asked], host


def test_a_file_without_certificates_is_an_error(tmp_path):
    (tmp_path / "x.pem").write_text("not a certificate")
    for name in ("x.pem", "missing.pem"):
        with pytest.raises(CertificateError, match=name):
            ClientTLS(str(tmp_path / name))
