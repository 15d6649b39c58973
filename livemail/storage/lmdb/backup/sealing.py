"""Encryption to a recipient: age (age-encryption.org), through pyrage."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import IO, Any

import pyrage

from livemail.interfaces.backup import BackupFailed
from livemail.storage.lmdb.backup.manifest import CHUNK_OCTETS


def _recipient(text: str) -> Any:
    try:
        return (
            pyrage.ssh.Recipient.from_str(text) if text.startswith("ssh-") else pyrage.x25519.Recipient.from_str(text)
        )
    except Exception as error:
        raise BackupFailed(
            f'"{text[:40]}" is no recipient; write an age public key (age1…) or an SSH public key'
        ) from error


def check_recipient(text: str) -> None:
    """Raise BackupFailed for what is no public key."""
    _recipient(text)


def seal(source: IO[bytes], target: IO[bytes], recipient: str) -> None:
    """Copy a stream to its end, encrypted where there is a recipient.  Raises OSError, BackupFailed."""
    if recipient:
        pyrage.encrypt_io(source, target, [_recipient(recipient)])
    else:
        shutil.copyfileobj(source, target, CHUNK_OCTETS)


class Keys:
    """What opens sealed files; without an identity only backups in the clear."""

    def __init__(self, identity: str = "") -> None:
        """identity: file with an age secret key (``age-keygen``) or an SSH private key, "" for none.  Raises BackupFailed."""
        self._identities: list[Any] = []
        if not identity:
            return
        try:
            octets = Path(identity).read_bytes()
            if b"OPENSSH PRIVATE KEY" in octets or b"RSA PRIVATE KEY" in octets:
                self._identities = [pyrage.ssh.Identity.from_buffer(octets)]
            else:
                lines = [line.strip() for line in octets.decode("ascii").splitlines()]
                keys = [line for line in lines if line and not line.startswith("#")]
                self._identities = [pyrage.x25519.Identity.from_str(line) for line in keys]
        except BackupFailed:
            raise
        except Exception as error:
            raise BackupFailed(f"{identity} holds no secret key that can be read: {error}") from error
        if not self._identities:
            raise BackupFailed(f"{identity} holds no secret key")

    @property
    def has_any(self) -> bool:
        """Whether sealed files can be opened."""
        return bool(self._identities)

    def open(self, source: Path, target: Path) -> None:
        """Write a file of a backup in the clear.  Raises OSError, BackupFailed."""
        with source.open("rb") as sealed, target.open("wb") as clear:
            if source.suffix != ".age":
                shutil.copyfileobj(sealed, clear, CHUNK_OCTETS)
                return
            if not self._identities:
                raise BackupFailed(f"{source} is encrypted; name the file with the secret key with --identity FILE")
            try:
                pyrage.decrypt_io(sealed, clear, self._identities)
            except Exception as error:
                raise BackupFailed(f"{source} cannot be decrypted with this key: {error}") from error
