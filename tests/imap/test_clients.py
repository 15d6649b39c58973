"""Clients that others wrote, over real sockets: imaplib and IMAPClient, in the clear and with TLS."""

from __future__ import annotations

import contextlib
import datetime
import imaplib
import socket
import ssl
from collections.abc import Callable
from typing import Any, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from imapclient import IMAPClient
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.internet.ssl import CertificateOptions, PrivateCertificate
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from livemail.imap.protocol import IMAPConnection
from tests.imap.rig import ALICE, PASSWORD, FakeOwner, Rig

T = TypeVar("T")

MESSAGE = b"From: a@example.org\r\nSubject: hello\r\n\r\n" + b"A line of text.\r\n" * 1000


def certificate() -> PrivateCertificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = made.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return PrivateCertificate.loadPEM(pem + secret)


def trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Clients(TestCase):
    """Servers on loopback in this process; clients in threads."""

    timeout = 60

    def setUp(self) -> None:
        self.rig = Rig(cleartext_login=True)
        owner = FakeOwner(reactor)
        options: CertificateOptions = certificate().options()
        owner.tls = options
        site = self.rig.site

        class Connections(Factory):
            noisy = False

            def buildProtocol(self, addr: Any) -> IMAPConnection:
                return IMAPConnection(owner, site)

        self.owner = owner
        plain = reactor.listenTCP(0, Connections(), interface="127.0.0.1")
        tls = reactor.listenSSL(0, Connections(), options, interface="127.0.0.1")
        self.plain, self.tls = plain.getHost().port, tls.getHost().port
        self.addCleanup(tls.stopListening)
        self.addCleanup(plain.stopListening)
        self.addCleanup(self._all_gone)

    async def _all_gone(self) -> None:
        for connection in list(self.owner.connections):
            connection.abort()
        while self.owner.connections:
            await self._turn()

    def _turn(self) -> Deferred[None]:
        done: Deferred[None] = Deferred()
        reactor.callLater(0, done.callback, None)
        return done

    def in_thread(self, function: Callable[..., T], *arguments: Any) -> Deferred[T]:
        return deferToThread(function, *arguments)

    async def test_imaplib(self) -> None:
        def converse() -> None:
            client = imaplib.IMAP4("127.0.0.1", self.plain, timeout=20)
            client.login(ALICE, PASSWORD)
            assert client.enable("CONDSTORE")[0] == "OK"
            assert client.append("INBOX", "(\\Seen)", imaplib.Time2Internaldate(86400), MESSAGE)[0] == "OK"
            assert client.append("nowhere", None, None, MESSAGE)[1][0].startswith(b"[TRYCREATE]")
            assert client.select()[1] == [b"1"]
            assert client.fetch("1", "(BODY.PEEK[])")[1][0][1] == MESSAGE
            assert client.create('"a b"')[0] == "OK"
            assert client.rename('"a b"', "c")[0] == "OK"
            assert client.status("c", "(MESSAGES UIDNEXT)")[1] == [b"c (MESSAGES 0 UIDNEXT 1)"]
            assert client.delete("c")[0] == "OK"
            assert len(client.list()[1]) == 6
            assert client.namespace()[1] == [b'(("" "/")) NIL NIL']
            assert client.search(None, "SUBJECT", "hello")[1] == [b"1"]
            assert client.store("1", "+FLAGS", "(\\Deleted)")[0] == "OK"
            assert client.expunge()[1] == [b"1"]
            assert client.close()[0] == "OK"
            assert client.logout()[0] == "BYE"

        await self.in_thread(converse)

    async def test_imaplib_with_sasl_and_starttls(self) -> None:
        def converse() -> None:
            client = imaplib.IMAP4("127.0.0.1", self.plain, timeout=20)
            assert "STARTTLS" in client.capabilities
            client.starttls(trusting())
            assert "STARTTLS" not in client.capabilities
            client.authenticate("PLAIN", lambda _: b"\0alice@example.org\0secret")
            assert client.select()[0] == "OK"
            assert client.noop()[0] == "OK"
            client.logout()

        await self.in_thread(converse)
        assert self.rig.authenticator.logins == [ALICE]

    async def test_imaplib_over_tls(self) -> None:
        self.rig.site.settings = type(self.rig.settings)(cleartext_login=False)

        def converse() -> None:
            client = imaplib.IMAP4_SSL("127.0.0.1", self.tls, ssl_context=trusting(), timeout=20)
            assert "AUTH=PLAIN" in client.capabilities
            assert "LOGINDISABLED" not in client.capabilities
            client.login(ALICE, PASSWORD)
            big = MESSAGE * 200
            assert client.append("INBOX", None, None, big)[0] == "OK"
            client.select()
            assert client.fetch("1", "(BODY.PEEK[])")[1][0][1] == big
            client.logout()

        await self.in_thread(converse)

    async def test_imapclient(self) -> None:
        def converse() -> None:
            with IMAPClient("127.0.0.1", self.plain, ssl=False, timeout=20) as client:
                client.login(ALICE, PASSWORD)
                assert client.has_capability("IDLE")
                client.id_({"name": "test"})
                client.create_folder("R\u00e9sum\u00e9s & more/2026")
                assert "R\u00e9sum\u00e9s & more/2026" in {name for _, _, name in client.list_folders()}
                assert client.find_special_folder(b"\\Trash") == "Trash"
                client.subscribe_folder("x/y")
                assert "x/y" in {name for _, _, name in client.list_sub_folders()}
                client.select_folder("INBOX")
                client.idle()
                with IMAPClient("127.0.0.1", self.plain, ssl=False, timeout=20) as other:
                    other.login(ALICE, PASSWORD)
                    other.append("INBOX", MESSAGE, flags=[b"\\Seen", b"$Label1"])
                assert (1, b"EXISTS") in client.idle_check(timeout=20)
                client.idle_done()
                assert client.fetch([1], ["FLAGS", "RFC822.SIZE"])[1][b"RFC822.SIZE"] == len(MESSAGE)
                client.logout()

        await self.in_thread(converse)

    async def test_last_words_arrive_though_the_client_is_still_talking(self) -> None:
        def converse(talk: bytes) -> bytes:
            with socket.create_connection(("127.0.0.1", self.plain), timeout=20) as stream:
                stream.recv(1000)
                answer = b""
                with contextlib.suppress(ConnectionError):
                    stream.sendall(talk)
                with contextlib.suppress(ConnectionError):
                    while octets := stream.recv(1000):
                        answer += octets
                return answer

        for talk in (b"a LOGIN {100000+}\r\n" + b"x" * 100_000, b"GET / HTTP/1.1\r\n\r\n", b"x" * 10_000):
            answer = await self.in_thread(converse, talk)
            assert answer.endswith(b"* BYE Protocol error\r\n"), (talk[:20], answer)
