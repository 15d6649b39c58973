"""What tests of shipped filters need."""

from __future__ import annotations

import io
import zipfile
from base64 import encodebytes

from zope.interface import implementer

from livemail.filters import Server
from livemail.interfaces.directory import IDirectory
from livemail.testing.filters import ImpatientClock


@implementer(IDirectory)
class Ours:
    """example.org is ours."""

    def is_local_domain(self, domain):
        return domain.lower() == "example.org"


def server(**more):
    async def here(function, *arguments):
        return function(*arguments)

    return Server(hostname="mx.example.org", reactor=ImpatientClock(), run_blocking=here, directory=Ours(), **more)


def attached(octets, name='filename="a.bin"', kind=b"application/octet-stream", encoding=b"base64"):
    body = encodebytes(octets).replace(b"\n", b"\r\n") if encoding == b"base64" else octets
    return (
        b'From: a@b.example\r\nSubject: x\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="b"\r\n\r\n'
        b"--b\r\n\r\nhello\r\n--b\r\nContent-Type: " + kind + b"\r\nContent-Disposition: attachment; " + name.encode()
        + b"\r\nContent-Transfer-Encoding: " + encoding + b"\r\n\r\n" + body + b"\r\n--b--\r\n"
    )  # fmt: skip


def zipped(*files, encrypt=False):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, octets in files:
            archive.writestr(name, octets)
    octets = bytearray(out.getvalue())
    if encrypt:  # the flag is what a reader goes by, in the entry's own head and in the directory
        octets[octets.find(b"PK\x03\x04") + 6] |= 1
        octets[octets.find(b"PK\x01\x02") + 8] |= 1
    return bytes(octets)
