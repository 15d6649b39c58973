"""Private keys on disk, and the DNS records that publish their other halves.  RFC 6376 §3.6.1, RFC 8463 §4.

    FOLDER/DOMAIN/SELECTOR.pem     PKCS #8, mode 0600, in folders of mode 0700

Domains and selectors become names of files, so they are held to what may stand in a DNS name and nothing else.
"""

from __future__ import annotations

import base64
import os
import re
from pathlib import Path
from typing import Final, Literal

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

Algorithm = Literal["rsa", "ed25519"]

MIN_BITS: Final = 1024
"""RFC 8301 §3.2: keys below are of no use to anybody."""

DEFAULT_BITS: Final = 2048

_LABEL: Final = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?"
_DOMAIN: Final = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(?:\.{_LABEL})*")
_STRING_OCTETS: Final = 255


class DKIMKeyError(Exception):
    """A key cannot be used or made.  The text says which and why."""


class Key(msgspec.Struct, frozen=True):
    """One private key.  material: what dkimpy signs with: PEM (RSA) or base64 (Ed25519).  bits: of the RSA modulus, 256 for Ed25519."""

    domain: str
    selector: str
    algorithm: Algorithm
    bits: int
    material: bytes
    public: bytes

    def __repr__(self) -> str:
        """Without the key: this stands in logs and tracebacks."""
        return f"Key({self.selector}._domainkey.{self.domain}, {self.algorithm}, {self.bits})"

    @property
    def name(self) -> str:
        """Where its record is published."""
        return f"{self.selector}._domainkey.{self.domain}"

    @property
    def record(self) -> str:
        """The TXT record's text."""
        return f"v=DKIM1; k={self.algorithm}; p={base64.b64encode(self.public).decode()}"

    @property
    def strings(self) -> list[str]:
        """The record in strings of at most 255 octets, which is what DNS can hold."""
        text = self.record
        return [text[at : at + _STRING_OCTETS] for at in range(0, len(text), _STRING_OCTETS)]

    @property
    def zone_line(self) -> str:
        """The record for a zone file."""
        strings = " ".join(f'"{each}"' for each in self.strings)
        return f"{self.name}. IN TXT ( {strings} )"


def checked_domain(domain: str) -> str:
    """Return a domain in lower-case A-labels.  Raises DKIMKeyError."""
    name = domain.strip().rstrip(".").lower()
    try:
        name = name if name.isascii() else name.encode("idna").decode()
    except UnicodeError:
        name = ""
    if not _DOMAIN.fullmatch(name):
        raise DKIMKeyError(f'"{domain}" is not a domain; write one such as "example.org"')
    return name


def checked_selector(selector: str) -> str:
    """Return a selector.  Raises DKIMKeyError."""
    name = selector.strip().lower()
    if not _DOMAIN.fullmatch(name):
        raise DKIMKeyError(f'"{selector}" is not a selector; write letters, digits and hyphens, such as "s2026"')
    return name


def make_key(domain: str, selector: str, algorithm: Algorithm, bits: int = DEFAULT_BITS) -> tuple[Key, bytes]:
    """Make a key; return it and its PEM.  Takes a moment for RSA.  Raises DKIMKeyError."""
    private: rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
    if algorithm == "ed25519":
        private = ed25519.Ed25519PrivateKey.generate()
    else:
        if not MIN_BITS <= bits <= 4096:
            raise DKIMKeyError(
                f"RSA keys of {bits} bits are not made; {MIN_BITS} to 4096 are, 2048 is what others can read"
            )
        private = rsa.generate_private_key(65537, bits)
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return read_key(pem, checked_domain(domain), checked_selector(selector)), pem


def read_key(pem: bytes, domain: str, selector: str) -> Key:
    """Read a PEM.  Raises DKIMKeyError, for RSA keys that are too small as well."""
    name = f"{selector}._domainkey.{domain}"
    try:
        private = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise DKIMKeyError(f"the key of {name} cannot be read: {error}") from None
    public = private.public_key()
    if isinstance(private, ed25519.Ed25519PrivateKey):
        seed = private.private_bytes(
            serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
        )
        raw = private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return Key(domain, selector, "ed25519", 256, base64.b64encode(seed), raw)
    if not isinstance(private, rsa.RSAPrivateKey):
        raise DKIMKeyError(f"the key of {name} is neither RSA nor Ed25519")
    if private.key_size < MIN_BITS:
        raise DKIMKeyError(f"the key of {name} has {private.key_size} bits; others refuse less than {MIN_BITS}")
    material = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return Key(domain, selector, "rsa", private.key_size, material, der)


class KeyFolder:
    """All keys of a server.  They are read when the folder's files change, and not before."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[Path, tuple[tuple[int, int, int], Key]] = {}

    def domains(self) -> list[str]:
        """Domains with keys, in order."""
        if not self.folder.is_dir():
            return []
        return sorted(each.name for each in self.folder.iterdir() if each.is_dir() and any(each.glob("*.pem")))

    def keys(self, domain: str) -> list[Key]:
        """The keys of a domain by selector, none where it has none.  Raises DKIMKeyError."""
        name = checked_domain(domain)
        return [self._read(path, name) for path in sorted((self.folder / name).glob("*.pem"))]

    def _read(self, path: Path, domain: str) -> Key:
        try:
            status = path.stat()
            stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
            known = self._known.get(path)
            if known is not None and known[0] == stamp:
                return known[1]
            if status.st_mode & 0o077:
                raise DKIMKeyError(f"{path} can be read by others; chmod 600 {path}")
            key = read_key(path.read_bytes(), domain, checked_selector(path.stem))
        except OSError as error:
            raise DKIMKeyError(f"{path}: {error.strerror}") from None
        self._known[path] = (stamp, key)
        return key

    def path_of(self, domain: str, selector: str) -> Path:
        """Where a key is kept.  Raises DKIMKeyError."""
        return self.folder / checked_domain(domain) / f"{checked_selector(selector)}.pem"

    def create(self, domain: str, selector: str, algorithm: Algorithm, bits: int = DEFAULT_BITS) -> Key:
        """Make a key and keep it; it is on disk when this returns.  Raises DKIMKeyError; FileExistsError where there is one."""
        name, label = checked_domain(domain), checked_selector(selector)
        key, pem = make_key(name, label, algorithm, bits)
        path = self.path_of(name, label)
        try:
            owner = _owner_above(self.folder)
            for folder in (self.folder.parent, self.folder, path.parent):
                if not folder.is_dir():
                    folder.mkdir(0o700)
                    _give(folder, owner)
            fd = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with os.fdopen(fd, "wb") as file:
                file.write(pem)
                file.flush()
                os.fsync(file.fileno())
            _give(path, owner)
        except FileExistsError:
            raise
        except OSError as error:
            raise DKIMKeyError(f"{error.filename or self.folder}: {error.strerror}") from None
        return key


def _owner_above(folder: Path) -> tuple[int, int]:
    """Who owns the nearest folder that exists: the user the server runs as."""
    while not folder.exists():
        folder = folder.parent
    status = folder.stat()
    return status.st_uid, status.st_gid


def _give(path: Path, owner: tuple[int, int]) -> None:
    """A key that root makes is for the server to read."""
    if os.geteuid() == 0:
        os.chown(path, *owner)
