"""Attachment policy by what a file really is: its first octets, its name, and what lies in it when it is a ZIP archive.

A name decides as well as the octets, because it is the name that the recipient's system goes by: ``a.exe. .`` and a name turned
round by U+202E mean what they open as.  Archives are looked into to a bound; what is beyond it is of the kind ``unexamined``.
"""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from typing import Final, Literal

import msgspec

from livemail.filters import CONTINUE, Filter, Message, MessagePart, Quarantine, Reject, Transaction, Verdict

KINDS: Final[dict[str, frozenset[str]]] = {
    "executable": frozenset(
        [
            "exe",
            "scr",
            "com",
            "pif",
            "cpl",
            "dll",
            "msi",
            "msp",
            "mst",
            "sys",
            "ocx",
            "gadget",
            "application",
            "appx",
            "msix",
            "apk",
            "deb",
            "rpm",
            "elf",
            "dmg",
            "pkg",
        ]
    ),
    "script": frozenset(
        [
            "js",
            "jse",
            "vbs",
            "vbe",
            "wsf",
            "wsh",
            "wsc",
            "hta",
            "ps1",
            "ps1xml",
            "psm1",
            "bat",
            "cmd",
            "sh",
            "jar",
            "py",
            "pl",
            "reg",
            "inf",
            "scf",
            "sct",
            "msc",
            "chm",
            "xll",
            "ade",
            "adp",
        ]
    ),
    "shortcut": frozenset(
        ["lnk", "url", "website", "desktop", "library-ms", "search-ms", "settingcontent-ms", "appref-ms"]
    ),
    "macro": frozenset(["docm", "dotm", "xlsm", "xltm", "xlam", "pptm", "potm", "ppam", "ppsm", "sldm"]),
    "disk-image": frozenset(["iso", "img", "vhd", "vhdx", "udf"]),
    "archive": frozenset(["zip", "rar", "7z", "gz", "bz2", "xz", "tar", "tgz", "cab", "arj", "lzh", "ace", "z"]),
    "html": frozenset(["htm", "html", "shtml", "xhtml", "svg", "mht", "mhtml"]),
}
"""Kinds by extension; ``encrypted`` and ``unexamined`` are kinds of archives by content alone."""

_MAGIC: Final = [
    (0, b"MZ", "executable"), (0, b"\x7fELF", "executable"), (0, b"\xca\xfe\xba\xbe", "executable"),
    (0, b"\xcf\xfa\xed\xfe", "executable"), (0, b"\xce\xfa\xed\xfe", "executable"), (0, b"\xfe\xed\xfa\xce", "executable"),
    (0, b"!<arch>", "executable"), (0, b"\xed\xab\xee\xdb", "executable"), (0, b"#!", "script"),
    (0, b"L\0\0\0\x01\x14\x02\0", "shortcut"), (0, b"[InternetShortcut]", "shortcut"), (0, b"[{000214A0", "shortcut"),
    (0, b"ITSF", "script"), (0x8001, b"CD001", "disk-image"), (0, b"vhdxfile", "disk-image"), (0, b"conectix", "disk-image"),
    (0, b"PK\x03\x04", "archive"), (0, b"PK\x05\x06", "archive"), (0, b"Rar!\x1a\x07", "archive"), (0, b"7z\xbc\xaf\x27\x1c", "archive"),
    (0, b"\x1f\x8b", "archive"), (0, b"BZh", "archive"), (0, b"\xfd7zXZ\0", "archive"), (0, b"MSCF", "archive"),
    (257, b"ustar", "archive"),
]  # fmt: skip
_HEAD_OCTETS: Final = 0x8001 + 5
_OLE: Final = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_HTML: Final = re.compile(rb"\A\s*(?:<!--.*?-->\s*)?<(?:!doctype\s+html|html|script|svg)\b", re.IGNORECASE | re.DOTALL)
_INVISIBLE: Final = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\x00-\x1f\x7f]")
_BAD_ZIP: Final = (
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    RuntimeError,
    OSError,
    EOFError,
    ValueError,
    UnicodeError,
)


def clean_name(name: str) -> str:
    """A file name as a system opens it: no path, nothing invisible, no dots and spaces at its end, lower-case."""
    return _INVISIBLE.sub("", name).replace("\\", "/").rpartition("/")[2].rstrip(". \t").lower()


def kinds_of_name(name: str) -> set[str]:
    """The kinds a name means."""
    stem, dot, extension = clean_name(name).rpartition(".")
    extension = extension.strip()
    return {kind for kind, known in KINDS.items() if extension in known} if dot and stem is not None else set()


def kinds_of_octets(head: bytes) -> set[str]:
    """The kinds a file's first octets mean; `_HEAD_OCTETS` of them are enough."""
    found = {kind for offset, magic, kind in _MAGIC if head.startswith(magic, offset)}
    if head.startswith(_OLE) and (b"_\0V\0B\0A\0" in head or b"V\0B\0A\0" in head or b"M\0a\0c\0r\0o\0s\0" in head):
        found.add("macro")
    if _HTML.match(head[:4096]):
        found.add("html")
    return found


class Bounds(msgspec.Struct):
    """What is left of the work one message may make."""

    entries: int
    octets: int


def look_inside(octets: bytes, depth: int, bounds: Bounds) -> Iterator[tuple[str, str]]:
    """Yield (name, kind) of what lies in a ZIP archive, to a bound, where (name, "unexamined") says that there is more."""
    try:
        with zipfile.ZipFile(io.BytesIO(octets)) as archive:
            for entry in archive.infolist():
                bounds.entries -= 1
                if bounds.entries < 0:
                    yield entry.filename, "unexamined"
                    return
                if entry.is_dir():
                    continue
                yield from _look_at(archive, entry, depth, bounds)
    except _BAD_ZIP:
        yield "", "unexamined"


def _look_at(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, depth: int, bounds: Bounds) -> Iterator[tuple[str, str]]:
    name = entry.filename
    for kind in kinds_of_name(name):
        yield name, kind
    if clean_name(name) == "vbaproject.bin":
        yield name, "macro"
    if entry.flag_bits & 0x1:
        yield name, "encrypted"
        return
    try:
        with archive.open(entry) as file:
            head = file.read(_HEAD_OCTETS)
            bounds.octets -= len(head)
            found = kinds_of_octets(head)
            for kind in found:
                yield name, kind
            if "archive" not in found or not head.startswith(b"PK"):
                return
            if depth <= 1 or bounds.octets <= 0:
                yield name, "unexamined"
                return
            inner = head + file.read(bounds.octets + 1)
            bounds.octets -= len(inner) - len(head)
    except _BAD_ZIP:
        yield name, "unexamined"
        return
    if bounds.octets < 0:
        yield name, "unexamined"
        return
    for below, kind in look_inside(inner, depth - 1, bounds):
        yield f"{name}/{below}", kind


class Attachments(Filter):
    """Refuse, quarantine or mark messages by the kinds of their attachments."""

    blocking = True

    class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
        """refuse: kinds (executable, script, shortcut, macro, disk-image, archive, html, encrypted, unexamined) and extensions such as ".pub".

        allow: file names that are never refused.  action: what happens; "mark" adds the header field X-Attachment-Policy.
        max_depth, max_entries: archives in archives, and files in all of them, that are looked at.  max_archive_octets: of an archive
        as it was sent, and of all that is unpacked.
        """

        refuse: frozenset[str] = frozenset({"executable", "script", "shortcut"})
        allow: frozenset[str] = frozenset()
        action: Literal["reject", "quarantine", "mark"] = "reject"
        max_depth: int = 3
        max_entries: int = 1000
        max_archive_octets: int = 32 * 1024 * 1024

        def faults(self) -> Iterable[tuple[str, str]]:
            """Words that mean nothing."""
            for word in sorted(self.refuse):
                if not word.startswith(".") and word not in {*KINDS, "encrypted", "unexamined"}:
                    known = ", ".join([*KINDS, "encrypted", "unexamined"])
                    yield (
                        "refuse",
                        f'names "{word}"; write kinds ({known}) or extensions with their dot, such as ".{word}"',
                    )

    async def message(self, tx: Transaction, message: Message) -> Verdict:
        """Look at every leaf."""
        config = self.config
        bounds = Bounds(config.max_entries, config.max_archive_octets)
        allowed = {clean_name(name) for name in config.allow}
        for part in message.parts():
            if clean_name(part.filename) in allowed and part.filename:
                continue
            for name, kind in self._kinds(part, bounds):
                if kind in config.refuse:
                    return self._act(message, name or part.filename or part.media_type, kind)
        return CONTINUE

    def _kinds(self, part: MessagePart, bounds: Bounds) -> Iterator[tuple[str, str]]:
        name = part.filename
        extension = clean_name(name).rpartition(".")[2]
        if name and f".{extension}" in self.config.refuse:
            yield name, f".{extension}"
        for kind in kinds_of_name(name):
            yield name, kind
        # A text that a reader shows is no attachment, whatever it begins with.
        is_shown = not name and part.media_type.startswith("text/")
        found = set() if is_shown else kinds_of_octets(part.decoded(_HEAD_OCTETS))
        for kind in found:
            yield name, kind
        if "archive" not in found:
            return
        if part.size > 2 * self.config.max_archive_octets:
            yield name, "unexamined"
            return
        octets = part.decoded()
        if octets.startswith(b"PK"):
            for below, kind in look_inside(octets, self.config.max_depth, bounds):
                yield f"{name}/{below}" if name else below, kind
        else:
            yield name, "unexamined"

    def _act(self, message: Message, name: str, kind: str) -> Verdict:
        shown = "".join(character if character.isprintable() else "?" for character in name)[:100]
        text = f"{shown}: attachments of this kind ({kind}) are not accepted here"
        if self.config.action == "reject":
            return Reject("5.7.1", text)
        if self.config.action == "quarantine":
            return Quarantine(text)
        message.add_header("X-Attachment-Policy", f"{kind}; {shown}")
        return CONTINUE
