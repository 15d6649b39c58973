"""Certificates: from files, picked by name, picked up again when they are renewed; and our own CA for trying things out.

A `CertificateStore` makes the TLS side of every connection, of implicit TLS and of STARTTLS alike.  The client names the host
it wants (SNI, RFC 6066 §3) and gets the certificate whose subjectAltName covers it, else the first.  Files are looked at
again at most every ten seconds, when a connection begins, and on SIGHUP: a renewed certificate needs no restart.  Files
that cannot be read any more are logged and the certificate in memory stays.

The local CA exists so that a client can be shown a certificate it may verify, on the first run and without a question.  Its
key never leaves the data folder; the server certificate is for loopback names only.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, cast

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.ssl import CertificateOptions, TLSVersion
from twisted.logger import Logger
from zope.interface import implementer

LOOK_AGAIN: Final = 10.0
"""Seconds during which files are not looked at again."""

CA_DAYS: Final = 3650
SERVER_DAYS: Final = 397
RENEW_DAYS: Final = 30


class CertificateError(Exception):
    """A certificate cannot be used; the text says which file and why."""


class Files(msgspec.Struct, frozen=True):
    """Where one certificate (with its chain) and its key are."""

    certificate: str
    key: str


class _Loaded(msgspec.Struct):
    files: Files
    stamp: tuple[int, ...]
    context: Any
    names: frozenset[str]


def load(files: Files, minimum: str = "1.2") -> tuple[Any, frozenset[str]]:
    """Read a certificate; return the OpenSSL context and the lower-case DNS names it is for.

    Raises CertificateError: unreadable, not PEM, the key is another's, expired.
    """
    try:
        chain = x509.load_pem_x509_certificates(Path(files.certificate).read_bytes())
    except OSError as error:
        raise CertificateError(f"{files.certificate}: {error.strerror}") from None
    except ValueError:
        raise CertificateError(f"{files.certificate}: no certificate in PEM form in it") from None
    try:
        key = serialization.load_pem_private_key(Path(files.key).read_bytes(), None)
    except OSError as error:
        raise CertificateError(f"{files.key}: {error.strerror}") from None
    except TypeError:
        raise CertificateError(f"{files.key}: the key is encrypted; write it without a passphrase") from None
    except ValueError:
        raise CertificateError(f"{files.key}: no private key in PEM form in it") from None
    if key.public_key() != chain[0].public_key():
        raise CertificateError(f"{files.key}: this is not the key of {files.certificate}")
    if chain[0].not_valid_after_utc < datetime.datetime.now(datetime.UTC):
        raise CertificateError(f"{files.certificate}: expired on {chain[0].not_valid_after_utc:%Y-%m-%d}; renew it")
    # Twisted's annotations still ask for pyOpenSSL's own classes, which pyOpenSSL deprecates.
    make_options = cast("Callable[..., CertificateOptions]", CertificateOptions)
    options = make_options(
        privateKey=key,
        certificate=chain[0],
        extraCertChain=chain[1:],
        raiseMinimumTo=TLSVersion.TLSv1_3 if minimum == "1.3" else TLSVersion.TLSv1_2,
    )
    return options.getContext(), _dns_names(chain[0])


def _dns_names(certificate: x509.Certificate) -> frozenset[str]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return frozenset()
    return frozenset(name.lower() for name in extension.value.get_values_for_type(x509.DNSName))


def _stamp(files: Files) -> tuple[int, ...]:
    """Changes whenever one of the files is replaced or rewritten."""
    certificate, key = Path(files.certificate).stat(), Path(files.key).stat()
    return (certificate.st_mtime_ns, certificate.st_ino, key.st_mtime_ns, key.st_ino)


@implementer(IOpenSSLServerConnectionCreator)
class CertificateStore:
    """The certificates of a server."""

    log = Logger()

    def __init__(self, files: Sequence[Files], seconds: Callable[[], float], minimum: str = "1.2") -> None:
        """files: at least one; the first is the default.  seconds: a clock that does not go back.

        Raises CertificateError.
        """
        self._seconds = seconds
        self._minimum = minimum
        self._looked = seconds()
        self._loaded = [self._load(each) for each in files]
        self._by_name: dict[str, Any] = {}
        self._index()

    def _load(self, files: Files) -> _Loaded:
        try:
            stamp = _stamp(files)
        except OSError as error:
            raise CertificateError(f"{error.filename}: {error.strerror}") from None
        context, names = load(files, self._minimum)
        context.set_tlsext_servername_callback(self._choose)
        return _Loaded(files, stamp, context, names)

    def _index(self) -> None:
        self._by_name = {name: each.context for each in reversed(self._loaded) for name in each.names}

    def serverConnectionForTLS(self, tlsProtocol: Any) -> SSL.Connection:
        """The TLS state of one new connection."""
        if self._seconds() - self._looked >= LOOK_AGAIN:
            self.reload()
        return SSL.Connection(self._loaded[0].context, None)

    def _choose(self, connection: SSL.Connection) -> None:
        """The client said which host it wants.  Called by OpenSSL in the handshake; must not raise."""
        name = (connection.get_servername() or b"").decode("ascii", "replace").lower()
        context = self._by_name.get(name) or self._by_name.get("*." + name.partition(".")[2])
        if context is not None:
            connection.set_context(context)

    def reload(self) -> list[str]:
        """Read certificates whose files changed; return what went wrong (logged too), and keep the old ones there."""
        self._looked = self._seconds()
        problems = []
        for position, each in enumerate(self._loaded):
            try:
                if _stamp(each.files) == each.stamp:
                    continue
                self._loaded[position] = self._load(each.files)
                self.log.info("{file}: certificate read anew", file=each.files.certificate)
            except (CertificateError, OSError) as error:
                problems.append(str(error))
                self.log.error("the certificate in memory stays in use: {problem}", problem=str(error))  # noqa: TRY400
        self._index()
        return problems


# ------------------------------------------------------------------------------------------------------ the local CA


def write_private(path: Path, octets: bytes) -> None:
    """Write a file that only the owner can read, whole or not at all."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(octets)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _days_left(path: Path, now: datetime.datetime) -> float:
    """Days until the certificate in a file expires; below 0 when there is none."""
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        return -1.0
    return (certificate.not_valid_after_utc - now) / datetime.timedelta(days=1)


def _builder(subject: str, issuer: x509.Name | None, days: int, now: datetime.datetime) -> x509.CertificateBuilder:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer or name)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _make_ca(folder: Path, now: datetime.datetime) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        _builder("livemail local CA", None, CA_DAYS, now)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(is_ca=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    write_private(folder / "ca-key.pem", _pem(key))
    write_private(folder / "ca.pem", certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "ca.pem").chmod(0o644)


def _usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        encipher_only=False,
        decipher_only=False,
    )


def _make_server(folder: Path, now: datetime.datetime) -> None:
    ca_key: Any = serialization.load_pem_private_key((folder / "ca-key.pem").read_bytes(), None)
    ca = x509.load_pem_x509_certificate((folder / "ca.pem").read_bytes())
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName(
        [
            x509.DNSName("localhost"),
            x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
            x509.IPAddress(ipaddress.ip_address("::1")),
        ]
    )
    certificate = (
        _builder("localhost", ca.subject, SERVER_DAYS, now)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(names, critical=False)
        .add_extension(_usage(is_ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA256())
    )
    chain = certificate.public_bytes(serialization.Encoding.PEM) + ca.public_bytes(serialization.Encoding.PEM)
    write_private(folder / "server-key.pem", _pem(key))
    write_private(folder / "server.pem", chain)


def local_ca(folder: Path, now: datetime.datetime | None = None) -> Files:
    """Make what is missing or about to expire of the local CA and its server certificate; return the server's files.

    folder: created with mode 0700 when missing; holds ca.pem (may be shown to clients), ca-key.pem, server.pem and
    server-key.pem (mode 0600).  Raises OSError.
    """
    now = now or datetime.datetime.now(datetime.UTC)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if _days_left(folder / "ca.pem", now) < SERVER_DAYS or not (folder / "ca-key.pem").exists():
        _make_ca(folder, now)
        _make_server(folder, now)
    elif _days_left(folder / "server.pem", now) < RENEW_DAYS or not (folder / "server-key.pem").exists():
        _make_server(folder, now)
    return Files(str(folder / "server.pem"), str(folder / "server-key.pem"))
