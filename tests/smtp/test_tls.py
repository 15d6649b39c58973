"""STARTTLS and implicit TLS over real sockets and real handshakes.  RFC 3207, RFC 8314."""

from __future__ import annotations

import datetime
import smtplib
import socket
import ssl

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.internet import reactor
from twisted.internet.ssl import PrivateCertificate
from twisted.internet.threads import deferToThread
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.trial.unittest import TestCase

from tests.smtp.rig import Rig
from tests.smtp.test_sockets import Factory


def certificate():
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "mx.localhost")])
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
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return PrivateCertificate.loadPEM(made.public_bytes(serialization.Encoding.PEM) + private)


CONTEXT = ssl.create_default_context()
CONTEXT.check_hostname = False
CONTEXT.verify_mode = ssl.CERT_NONE


class TLSTests(TestCase):
    def setUp(self):
        self.rig = Rig()
        self.options = certificate().options()
        self.ports, self.factories = [], []

    def listen(self, service):
        factory = Factory(self.rig, service)
        factory.tls_options = lambda: self.options
        self.factories.append(factory)
        served = TLSMemoryBIOFactory(self.options, False, factory) if service == "submissions" else factory
        port = reactor.listenTCP(0, served, interface="127.0.0.1")
        self.ports.append(port)
        return port.getHost().port

    async def tearDown(self):
        for port in self.ports:
            await port.stopListening()
        for factory in self.factories:
            for connection in factory.connections:
                if not connection.is_lost:
                    connection.abort()

    async def test_submission_over_starttls(self):
        number = self.listen("submission")

        def submit():
            with smtplib.SMTP("127.0.0.1", number, timeout=10) as client:
                client.ehlo()
                assert not client.has_extn("auth")
                client.starttls(context=CONTEXT)
                client.ehlo()
                assert not client.has_extn("starttls")
                client.login("you@localhost", "secret")
                client.sendmail("you@localhost", ["me@localhost"], "Subject: x\r\n\r\n")

        await deferToThread(submit)
        (message,) = self.rig.mail(account=1)
        assert b" with ESMTPSA id " in message
        assert b" (TLSv1.3 TLS_" in message

    async def test_submission_over_implicit_tls(self):
        number = self.listen("submissions")

        def submit():
            with smtplib.SMTP_SSL("127.0.0.1", number, timeout=10, context=CONTEXT) as client:
                client.login("you@localhost", "secret")
                client.sendmail("you@localhost", ["me@localhost"], "Subject: x\r\n\r\n")

        await deferToThread(submit)
        assert b" with ESMTPSA id " in self.rig.mail(account=1)[0]

    async def test_rows_4_and_6_nothing_said_in_the_clear_is_known_or_answered_inside(self):
        number = self.listen("smtp")

        def talk(injected):
            plain = socket.create_connection(("127.0.0.1", number), timeout=10)
            file = plain.makefile("rb")
            file.readline()
            plain.sendall(b"EHLO clear.example\r\n")
            while not file.readline().startswith(b"250 "):
                pass
            plain.sendall(b"STARTTLS\r\n" + injected)
            try:
                if not file.readline().startswith(b"220"):
                    return b"dropped"
                inside = CONTEXT.wrap_socket(plain)
                inside.sendall(b"MAIL FROM:<a@b.example>\r\n")
                return inside.recv(100)
            except OSError:
                return b"dropped"
            finally:
                plain.close()

        assert await deferToThread(talk, b"EHLO injected\r\n") == b"dropped"
        assert (await deferToThread(talk, b"")).startswith(b"503 5.5.1 Introduce yourself first")
