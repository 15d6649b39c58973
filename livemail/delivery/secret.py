"""A password kept in a file of its own."""

from __future__ import annotations

from pathlib import Path


class SecretError(Exception):
    """The file cannot be used; the text says why and what to do."""


def read_secret(path: str) -> str:
    """Return a file's first line without its end.  Raises SecretError, whose text names the file and never what is in it."""
    try:
        line = Path(path).read_text("utf-8").partition("\n")[0].removesuffix("\r")
    except OSError as error:
        raise SecretError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise SecretError(f"{path} is not UTF-8 (octet {error.start})") from None
    if not line:
        raise SecretError(f"{path} is empty; write the password on its first line")
    return line
