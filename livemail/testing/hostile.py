"""Messages nobody writes and every server gets: a filter must come to a verdict on each of them, in bounded time and memory.

They are made, not kept, because half of them are large and the other half could not stand in a text file.
"""

from __future__ import annotations

import base64
import io
import zipfile
from collections.abc import Iterator
from typing import Final

HEAD: Final = b"From: a@example.org\r\nTo: b@example.org\r\nSubject: hostile\r\nMIME-Version: 1.0\r\n"


def _nested(depth: int) -> bytes:
    head = b"".join(b'Content-Type: multipart/mixed; boundary="b%d"\r\n\r\n--b%d\r\n' % (n, n) for n in range(depth))
    return HEAD + head + b"\r\nx\r\n" + b"".join(b"--b%d--\r\n" % n for n in reversed(range(depth)))


def _parts(count: int, part: bytes) -> bytes:
    return (
        HEAD
        + b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n'
        + (b"--b\r\n" + part + b"\r\n") * count
        + b"--b--\r\n"
    )


def _attachment(name: bytes, octets: bytes) -> bytes:
    body = base64.encodebytes(octets).replace(b"\n", b"\r\n")
    return _parts(
        1,
        b"Content-Type: application/octet-stream\r\nContent-Disposition: attachment; " + name
        + b"\r\nContent-Transfer-Encoding: base64\r\n\r\n" + body,
    )  # fmt: skip


def _zip(levels: int, octets: bytes, name: str = "a.txt") -> bytes:
    for _ in range(levels):
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(name, octets)
        octets, name = out.getvalue(), "inner.zip"
    return octets


def hostile_messages() -> Iterator[tuple[str, bytes]]:
    """Yield (name, octets) of each message."""
    yield "empty", b""
    yield "one-newline", b"\r\n"
    yield "header-only", b"Subject: x\r\n"
    yield "no-header", b"\r\nonly a body\r\n"
    yield "body-without-blank-line", b"not a header at all\r\nnor this\r\n"
    yield "nul-octets", HEAD + b"X-Nul: a\0b\r\n\r\nbody\0body\r\n"
    yield "all-octets", HEAD + b"\r\n" + bytes(set(range(256)) - {10, 13}) * 20 + b"\r\n"
    yield "bare-cr-and-lf", HEAD + b"\r\none\rtwo\nthree\n\r\n"
    yield "colon-first", b": no name\r\nSubject: x\r\n\r\nx\r\n"
    yield "header-with-8-bit", b"From: \xff\xfe <a@b>\r\nSubject: \xe4\xf6\xfc\r\n\r\nx\r\n"
    yield "long-line", HEAD + b"\r\n" + b"x" * 2_000_000 + b"\r\n"
    yield "long-header-line", b"Subject: " + b"y" * 500_000 + b"\r\n\r\nx\r\n"
    yield "ten-thousand-fields", b"X-A: b\r\n" * 10_000 + b"\r\nx\r\n"
    yield "two-megabytes-of-header", (b"X-Filler: " + b"z" * 988 + b"\r\n") * 2000 + b"\r\nx\r\n"
    yield "folding-without-end", b"Subject: a\r\n" + b" \r\n" * 5000 + b"\r\nx\r\n"
    yield "many-froms", b"From: a@example.org\r\n" * 50 + b"Subject: x\r\n\r\nx\r\n"
    yield "encoded-word-broken", b"Subject: =?utf-8?B?!!!?= =?nowhere?Q?=ff?= =?utf-8?Q?=?=\r\n\r\nx\r\n"
    yield "encoded-words-by-thousands", b"Subject: " + b"=?utf-8?q?a?=\r\n " * 5000 + b"end\r\n\r\nx\r\n"
    yield "unknown-charset", HEAD + b"Content-Type: text/plain; charset=x-no-such\r\n\r\n\xff\xfe\r\n"
    yield "unknown-encoding", HEAD + b"Content-Transfer-Encoding: rot13\r\n\r\nuryyb\r\n"
    yield "broken-base64", HEAD + b"Content-Transfer-Encoding: base64\r\n\r\nAAA*A=A\r\n====\r\n"
    yield "broken-quoted-printable", HEAD + b"Content-Transfer-Encoding: quoted-printable\r\n\r\n=ZZ=\r\n=\r\n=4"
    yield "no-boundary", HEAD + b"Content-Type: multipart/mixed\r\n\r\n--\r\nx\r\n----\r\n"
    yield "boundary-that-never-comes", HEAD + b'Content-Type: multipart/mixed; boundary="never"\r\n\r\nx\r\n' * 3
    yield "boundary-that-never-ends", HEAD + b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b\r\n\r\nx'
    yield "empty-boundary", HEAD + b'Content-Type: multipart/mixed; boundary=""\r\n\r\n--\r\n\r\nx\r\n----\r\n'
    yield (
        "boundary-inside-boundary",
        HEAD + b'Content-Type: multipart/mixed; boundary="b"\r\n\r\n--b-b\r\n\r\n--b\r\n\r\n--b--x\r\n',
    )
    yield "two-content-types", HEAD + b"Content-Type: text/plain\r\nContent-Type: text/html\r\n\r\n<b>x</b>\r\n"
    yield "content-type-garbage", HEAD + b'Content-Type: ;;;==";\\"\r\n\r\nx\r\n'
    yield "deeply-nested", _nested(500)
    yield "message-in-message", HEAD + b"Content-Type: message/rfc822\r\n\r\n" * 300 + b"x\r\n"
    yield "ten-thousand-parts", _parts(10_000, b"\r\nx")
    yield "ten-thousand-empty-parts", _parts(10_000, b"")
    yield "file-name-with-path", _attachment(b'filename="../../../etc/passwd"', b"x")
    yield "file-name-right-to-left", _attachment(b"filename*=utf-8''photo%E2%80%AEgpj.exe", b"MZ\x90")
    yield "file-name-with-nul", _attachment(b'filename="a.exe\0.txt"', b"MZ\x90")
    yield "file-name-with-dots", _attachment(b'filename="a.exe. . ."', b"MZ\x90")
    yield "file-name-continued", _attachment(b'filename*0="a.e"; filename*1="xe"', b"MZ\x90")
    yield "file-name-continued-wrong", _attachment(b"filename*0*=utf-8''%ff; filename*2=x; filename*1*=%", b"MZ")
    yield "executable-called-text", _attachment(b'filename="readme.txt"', b"MZ\x90\0" + bytes(60))
    yield "zip-of-executable", _attachment(b'filename="a.zip"', _zip(1, b"MZ\x90\0", "run.exe"))
    yield "zip-in-zip", _attachment(b'filename="a.zip"', _zip(10, b"x"))
    yield "zip-bomb", _attachment(b'filename="bomb.zip"', _zip(1, bytes(20_000_000)))
    yield "zip-broken", _attachment(b'filename="a.zip"', _zip(1, b"x" * 1000)[:-30])
    yield "zip-name-with-path", _attachment(b'filename="a.zip"', _zip(1, b"x", "../../../../tmp/run.exe"))
    yield "received-by-the-hundred", b"Received: from a by b; now\r\n" * 150 + b"Subject: x\r\n\r\nx\r\n"
    yield "addresses-without-end", b"To: " + b"a@example.org, " * 20_000 + b"\r\n\r\nx\r\n"
    yield "comments-without-end", b"From: " + b"(" * 10_000 + b"a@example.org\r\n\r\nx\r\n"
    yield "date-garbage", b"Date: Thu, 99 Foo 99999999 99:99:99 +9999\r\n\r\nx\r\n"
