"""``dovecot-keywords``: which letter of a file's name stands for which keyword in one folder.

Lines of ``NUMBER NAME``, numbers 0 to 25 for a to z.  Dovecot takes the dotlock ``dovecot-uidlist.lock`` to change it, and so do we.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from livemail.storage.maildir.names import MAX_LETTERS

FILE: Final = "dovecot-keywords"
LOCK: Final = "dovecot-uidlist.lock"
LOCK_SECONDS: Final = 2.0
STALE_SECONDS: Final = 120.0
MAX_FILE_OCTETS: Final = 64 * 1024


class Keywords:
    """Letters and names of one folder."""

    def __init__(self, names: dict[str, str]) -> None:
        """names: by letter."""
        self.names = names
        self.letters = {name.lower(): letter for letter, name in names.items()}

    @classmethod
    def read(cls, folder: Path) -> Keywords:
        """Read a folder's; none when there is no file."""
        try:
            with (folder / FILE).open("rb") as file:
                text = file.read(MAX_FILE_OCTETS).decode("utf-8", "replace")
        except FileNotFoundError:
            return cls({})
        return cls(parse_keywords(text))

    def of_letters(self, letters: str) -> tuple[str, ...]:
        """Return the names of letters; one without a name is not a keyword."""
        return tuple(self.names[letter] for letter in letters if letter in self.names)

    def of_names(self, names: Iterable[str]) -> str:
        """Return the letters of names; one without a letter is kept by the index alone."""
        return "".join(sorted({self.letters[name.lower()] for name in names if name.lower() in self.letters}))


def parse_keywords(text: str) -> dict[str, str]:
    """Return names by letter; lines that are none are left out."""
    names: dict[str, str] = {}
    for line in text.splitlines():
        number, space, name = line.partition(" ")
        if space and name and number.isascii() and number.isdigit() and len(number) < 3 and int(number) < MAX_LETTERS:
            names[chr(ord("a") + int(number))] = name
    return names


def add_keywords(folder: Path, wanted: Iterable[str]) -> Keywords:
    """Give letters to the names that have none, as far as there are letters.  Raises OSError."""
    known = Keywords.read(folder)
    missing = [name for name in wanted if name.lower() not in known.letters]
    if not missing or len(known.names) >= MAX_LETTERS:
        return known
    with dotlock(folder / LOCK):
        names = dict(Keywords.read(folder).names)
        free = [letter for letter in map(chr, range(ord("a"), ord("z") + 1)) if letter not in names]
        taken = {name.lower() for name in names.values()}
        for name in missing:
            if free and name.lower() not in taken:
                names[free.pop(0)] = name
                taken.add(name.lower())
        lines = "".join(f"{ord(letter) - ord('a')} {name}\n" for letter, name in sorted(names.items()))
        replace_file(folder / FILE, lines.encode())
    return Keywords(names)


def replace_file(path: Path, octets: bytes) -> None:
    """Write a file whole or not at all; on disk when this returns.  Raises OSError."""
    new = path.with_name(f"{path.name}.livemail-new")
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(octets)
            file.flush()
            os.fdatasync(fd)
        new.rename(path)
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    # Without this the name may still mean the old file after a power failure, while the index counts on the new one.
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


@contextlib.contextmanager
def dotlock(path: Path) -> Iterator[None]:
    """Hold a lock file; one that is older than two minutes belongs to nobody.  Raises TimeoutError after two seconds."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            break
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > STALE_SECONDS:
                    path.unlink()
                    continue
            if time.monotonic() >= deadline:
                raise TimeoutError(f"{path} is held by another program") from None
            time.sleep(0.02)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
