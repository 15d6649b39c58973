"""The kit for outsiders, under trial: the reactor is the test's own."""

from __future__ import annotations

import imaplib
import smtplib
import ssl
import time
from email.message import EmailMessage

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from livemail.filters import CONTINUE, Filter, Reject
from livemail.mail.errors import StorageFull
from livemail.testing import TestServer


def letter(subject="hello", text="It works."):
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "ann@example.org", "you@localhost", subject
    message.set_content(text)
    return message


class NoSpam(Filter):
    class Config(Filter.Config, frozen=True):
        word: str = "spam"

    async def message(self, tx, message):
        return Reject("5.7.1", "no spam") if self.config.word in message.text("Subject") else CONTINUE


class Servers(TestCase):
    timeout = 60

    async def made(self, **more):
        server = TestServer(**more)
        await server.start()
        self.addCleanup(server.stop)
        return server

    async def test_a_message_is_sent_waited_for_and_read(self):
        server = await self.made()
        await server.send(letter())
        (message,) = await server.wait_for(subject="hello")
        assert message.text.strip() == "It works."
        assert message.message["Delivered-To"] == "you@localhost"
        assert await server.mail("you@localhost", "Nowhere") == []
        with self.assertRaises(KeyError):
            await server.mail("nobody@localhost")

    async def test_every_service_is_there_on_a_port_of_its_own(self):
        server = await self.made(accounts={"ann@localhost": "pass"})
        places = {
            getattr(server, name)
            for name in ("smtp", "submission", "submissions", "lmtp", "imap", "imaps", "pop3", "pop3s")
        }
        assert len(places) == 8

        def talk():
            context = ssl.create_default_context(cafile=server.ca)
            with imaplib.IMAP4_SSL("localhost", server.imaps[1], ssl_context=context) as client:
                client.login("ann@localhost", "pass")
                return client.select("INBOX")[1]

        await server.send(letter(), login="ann@localhost", recipients=["ann@localhost"])
        await server.wait_for("ann@localhost")
        assert await deferToThread(talk) == [b"1"]

    async def test_filters_come_and_go(self):
        server = await self.made(filters=[NoSpam])
        with self.assertRaises(smtplib.SMTPDataError):
            await server.send(letter("spam"))
        await server.clear_filters()
        await server.add_filter(NoSpam, word="ham", services=frozenset({"lmtp"}))
        await server.send(letter("ham"))
        with self.assertRaises(smtplib.SMTPDataError):
            await server.send(letter("ham"), service="lmtp")

    async def test_faults_happen_as_often_as_they_are_wanted(self):
        server = await self.made()
        server.faults.fail("deliver", StorageFull())
        with self.assertRaises(smtplib.SMTPDataError) as caught:
            await server.send(letter())
        assert caught.exception.smtp_code == 452
        await server.send(letter())
        server.faults.fail("content", times=-1)
        for _ in range(2):
            with self.assertRaises(smtplib.SMTPException):
                await server.send(letter())
        server.faults.clear()
        await server.send(letter())
        assert len(await server.mail()) == 2

    async def test_time_passes_when_the_test_says_so(self):
        server = await self.made()
        client = await deferToThread(smtplib.SMTP, *server.smtp)
        await server.advance(3600)
        code, said = await deferToThread(client.noop)
        assert code == 421, said
        client.close()
        await server.send(letter())
        assert abs(server.store.seconds() - time.time() - 3600) < 30

    async def test_what_never_comes_is_said_with_what_did(self):
        server = await self.made()
        await server.send(letter("other"))
        with self.assertRaisesRegex(TimeoutError, "has 0 of 1 messages 'hello'; all there: 'other'"):
            await server.wait_for(subject="hello", patience=0.1)

    async def test_connections_are_cut(self):
        server = await self.made()
        client = await deferToThread(smtplib.SMTP, *server.smtp)
        assert await server.cut_connections() == 1
        with self.assertRaises((smtplib.SMTPServerDisconnected, OSError)):
            await deferToThread(client.noop)
            await deferToThread(client.noop)
        client.close()

    async def test_it_leaves_the_process_as_it_was(self):
        import gc
        import os
        import sys

        def state():
            umask = os.umask(0o022)
            os.umask(umask)
            return umask, sys.getswitchinterval(), gc.get_threshold(), gc.get_freeze_count()

        before = state()
        server = TestServer()
        await server.start()
        await server.stop()
        await server.stop()
        assert state() == before
