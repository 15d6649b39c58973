import contextlib
import datetime
import shutil
import stat
from pathlib import Path

import pytest
from cryptography import x509
from OpenSSL import SSL

from livemail.net import tls
from livemail.net.tls import CertificateError, CertificateStore, Files, load, local_ca

NOW = datetime.datetime.now(datetime.UTC)


def shake_hands(server: SSL.Connection, name: bytes | None = None, at_most: int | None = None) -> SSL.Connection:
    """Run a handshake between a client and the server's connection, in memory."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    if at_most:
        context.set_max_proto_version(at_most)
    client = SSL.Connection(context, None)
    if name:
        client.set_tlsext_host_name(name)
    client.set_connect_state()
    server.set_accept_state()
    for _ in range(6):
        for one, other in ((client, server), (server, client)):
            with contextlib.suppress(SSL.WantReadError):
                one.do_handshake()
            with contextlib.suppress(SSL.WantReadError):
                other.bio_write(one.bio_read(65536))
    return client


def names_of(client: SSL.Connection) -> set[str]:
    certificate = client.get_peer_certificate(as_cryptography=True)
    assert certificate is not None
    return set(
        certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value.get_values_for_type(
            x509.DNSName
        )
    )


def serial_of(client: SSL.Connection) -> int:
    certificate = client.get_peer_certificate(as_cryptography=True)
    assert certificate is not None
    return certificate.serial_number


def make_for(folder: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> Files:
    with monkeypatch.context() as patch:
        patch.setattr(tls.x509, "DNSName", lambda _: x509.general_name.DNSName(name))
        return local_ca(folder)


def test_the_local_ca_is_made_once_and_kept_private(tmp_path: Path) -> None:
    files = local_ca(tmp_path / "tls")
    before = {path.name: path.read_bytes() for path in (tmp_path / "tls").iterdir()}
    assert local_ca(tmp_path / "tls") == files
    assert {path.name: path.read_bytes() for path in (tmp_path / "tls").iterdir()} == before
    assert set(before) == {"ca.pem", "ca-key.pem", "server.pem", "server-key.pem"}
    for name in ("ca-key.pem", "server-key.pem", "server.pem"):
        assert stat.S_IMODE((tmp_path / "tls" / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "tls").stat().st_mode) == 0o700


def test_the_server_certificate_is_renewed_before_it_expires_and_the_ca_stays(tmp_path: Path) -> None:
    local_ca(tmp_path)
    authority, server = (tmp_path / "ca.pem").read_bytes(), (tmp_path / "server.pem").read_bytes()
    local_ca(tmp_path, NOW + datetime.timedelta(days=tls.SERVER_DAYS - tls.RENEW_DAYS - 1))
    assert (tmp_path / "server.pem").read_bytes() == server
    local_ca(tmp_path, NOW + datetime.timedelta(days=tls.SERVER_DAYS - tls.RENEW_DAYS + 1))
    assert (tmp_path / "server.pem").read_bytes() != server
    assert (tmp_path / "ca.pem").read_bytes() == authority


def test_the_certificate_verifies_against_the_ca(tmp_path: Path) -> None:
    local_ca(tmp_path)
    authority = x509.load_pem_x509_certificate((tmp_path / "ca.pem").read_bytes())
    server = x509.load_pem_x509_certificate((tmp_path / "server.pem").read_bytes())
    verifier = x509.verification.PolicyBuilder().store(x509.verification.Store([authority]))
    verifier.build_server_verifier(x509.DNSName("localhost")).verify(server, [])


def test_the_client_gets_the_certificate_of_the_name_it_asks_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_for(tmp_path / "1", "one.example", monkeypatch)
    second = make_for(tmp_path / "2", "*.two.example", monkeypatch)
    store = CertificateStore([first, second], lambda: 0.0)
    for asked, got in (
        (b"one.example", "one.example"),
        (b"MX.two.example", "*.two.example"),
        (b"other.example", "one.example"),
        (None, "one.example"),
    ):
        assert names_of(shake_hands(store.serverConnectionForTLS(None), asked)) == {got}


def test_old_tls_is_refused(tmp_path: Path) -> None:
    store = CertificateStore([local_ca(tmp_path)], lambda: 0.0)
    with pytest.raises(SSL.Error):
        shake_hands(store.serverConnectionForTLS(None), at_most=SSL.TLS1_1_VERSION)
    assert (
        shake_hands(store.serverConnectionForTLS(None), at_most=SSL.TLS1_2_VERSION).get_protocol_version_name()
        == "TLSv1.2"
    )
    strict = CertificateStore([local_ca(tmp_path)], lambda: 0.0, "1.3")
    with pytest.raises(SSL.Error):
        shake_hands(strict.serverConnectionForTLS(None), at_most=SSL.TLS1_2_VERSION)


def test_a_renewed_certificate_is_served_without_a_restart(tmp_path: Path) -> None:
    files = local_ca(tmp_path / "now")
    local_ca(tmp_path / "later")
    clock = [0.0]
    store = CertificateStore([files], lambda: clock[0])
    before = serial_of(shake_hands(store.serverConnectionForTLS(None)))
    for name in ("server.pem", "server-key.pem"):
        shutil.copy(tmp_path / "later" / name, tmp_path / "now" / name)
    assert serial_of(shake_hands(store.serverConnectionForTLS(None))) == before
    clock[0] = tls.LOOK_AGAIN
    assert serial_of(shake_hands(store.serverConnectionForTLS(None))) != before


def test_files_that_broke_leave_the_certificate_in_memory(tmp_path: Path) -> None:
    files = local_ca(tmp_path)
    store = CertificateStore([files], lambda: 0.0)
    before = serial_of(shake_hands(store.serverConnectionForTLS(None)))
    Path(files.certificate).write_text("half written")
    assert "no certificate in PEM form" in store.reload()[0]
    Path(files.certificate).unlink()
    assert len(store.reload()) == 1
    assert serial_of(shake_hands(store.serverConnectionForTLS(None))) == before


def test_a_certificate_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    files = local_ca(tmp_path)
    for wrong, words in (
        (Files("/nope", files.key), "/nope: No such file"),
        (Files(files.certificate, str(tmp_path / "ca-key.pem")), "not the key of"),
        (Files(files.certificate, files.certificate), "no private key in PEM form"),
        (Files(files.key, files.key), "no certificate in PEM form"),
    ):
        with pytest.raises(CertificateError, match=words):
            load(wrong)
    old = local_ca(tmp_path / "old", NOW - datetime.timedelta(days=tls.SERVER_DAYS + 5))
    with pytest.raises(CertificateError, match="expired on"):
        load(old)
