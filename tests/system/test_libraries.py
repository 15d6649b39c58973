"""Python's own clients, IMAPClient, and Twisted's clients."""

from __future__ import annotations

import email.message
import io
import poplib
import smtplib
import ssl

import imapclient
import pytest
from twisted.internet import protocol, reactor
from twisted.internet.defer import Deferred
from twisted.internet.ssl import Certificate, optionsForClientTLS
from twisted.mail import imap4, pop3
from twisted.mail.smtp import ESMTPSenderFactory
from twisted.trial.unittest import TestCase

from tests.system.mail import deliver, imap, smtp
from tests.system.rig import Server


def _context(server: Server) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=server.facts["ca"])


def test_smtplib_submits_after_starttls(server: Server) -> None:
    message = email.message.EmailMessage()
    message["From"], message["To"], message["Subject"] = "you@localhost", "you@localhost", "by smtplib"
    message.set_content("Grüße")
    with smtplib.SMTP("localhost", server.port("submission"), timeout=30) as client:
        client.starttls(context=_context(server))
        client.login(server.facts["account"], server.facts["password"])
        assert client.send_message(message) == {}
    with imapclient.IMAPClient("localhost", server.port("imaps"), ssl=True, ssl_context=_context(server)) as session:
        session.login(server.facts["account"], server.facts["password"])
        session.select_folder("INBOX")
        assert session.search(["SUBJECT", "by smtplib"])


def test_poplib_reads_over_tls_and_deletes_only_at_quit(server: Server) -> None:
    server.add_account("poplib@localhost", "secret pop")
    with smtp(server) as client:
        client.ehlo()
        for number in range(3):
            assert deliver(client, "poplib@localhost", b"Subject: p%d\r\n\r\n..two dots\r\n.one\r\n" % number)[0] == 250

    def connect() -> poplib.POP3_SSL:
        made = poplib.POP3_SSL("localhost", server.port("pop3s"), context=_context(server), timeout=30)
        made.user("poplib@localhost")
        made.pass_("secret pop")
        return made

    session = connect()
    assert session.stat()[0] == 3
    ids = [line.split()[1] for line in session.uidl()[1]]
    assert session.retr(1)[1][-2:] == [b"..two dots", b".one"]
    assert session.top(2, 0)[1][-1] == b""
    session.dele(1)
    session.close()  # no QUIT: nothing is deleted
    session = connect()
    assert session.stat()[0] == 3
    session.dele(1)
    session.quit()
    session = connect()
    assert [line.split()[1] for line in session.uidl()[1]] == ids[1:]
    session.quit()


def test_imapclient_sees_idle_push_condstore_and_move(server: Server) -> None:
    with imapclient.IMAPClient("127.0.0.1", server.port("imap"), ssl=False) as session:
        session.login(server.facts["account"], server.facts["password"])
        for word in (
            b"IDLE",
            b"UIDPLUS",
            b"MOVE",
            b"CONDSTORE",
            b"SPECIAL-USE",
            b"NAMESPACE",
            b"LITERAL+",
            b"UNSELECT",
        ):
            assert word in session.capabilities(), word
        assert session.find_special_folder(b"\\Sent") == "Sent"
        session.select_folder("INBOX")
        session.idle()
        with smtp(server) as client:
            client.ehlo()
            assert deliver(client, "you@localhost", b"Subject: pushed\r\n\r\nx\r\n")[0] == 250
        pushed = session.idle_check(timeout=10)
        assert any(len(item) > 1 and item[1] == b"EXISTS" for item in pushed), pushed
        session.idle_done()
        (uid,) = session.search(["SUBJECT", "pushed"])
        assert b"MODSEQ" in session.fetch([uid], ["MODSEQ"])[uid]
        session.create_folder("Gr\u00fc\u00dfe/Archiv")
        session.move([uid], "Gr\u00fc\u00dfe/Archiv")
        assert session.search(["SUBJECT", "pushed"]) == []
        assert session.folder_status("Gr\u00fc\u00dfe/Archiv", ["MESSAGES"]) == {b"MESSAGES": 1}


def test_imaplib_stores_searches_and_expunges(server: Server) -> None:
    session = imap(server)
    session.create("libtest")
    session.append("libtest", "(\\Flagged $Label1)", None, b"Subject: one\r\n\r\n1\r\n")
    session.append("libtest", None, None, b"Subject: two\r\n\r\n2\r\n")
    assert session.select("libtest")[1] == [b"2"]
    assert session.search(None, "KEYWORD", "$Label1")[1] == [b"1"]
    session.store("1", "+FLAGS", "\\Deleted")
    assert session.expunge()[1] == [b"1"]
    assert session.search(None, "ALL")[1] == [b"1"]
    session.close()
    session.logout()


@pytest.fixture(scope="class")
def on_class(request: pytest.FixtureRequest, server: Server) -> None:
    """Trial's cases take no fixtures as arguments."""
    request.cls.server = server


@pytest.mark.usefixtures("on_class")
class TestTwistedClients(TestCase):
    """Twisted's own clients against the server of the module."""

    server: Server

    async def test_esmtp_client_submits(self) -> None:
        server = self.server
        sent: Deferred[object] = Deferred()
        host, port = server.address("submission")
        authority = Certificate.loadPEM(server.authority())
        trust = optionsForClientTLS("localhost", trustRoot=authority)
        factory = ESMTPSenderFactory(
            server.facts["account"].encode(), server.facts["password"].encode(), "you@localhost", "you@localhost",
            io.BytesIO(b"Subject: by twisted\n\nhello\n"), sent, requireTransportSecurity=False,
            hostname="localhost", contextFactory=trust, heloFallback=False,
        )  # fmt: skip
        gone: Deferred[None] = Deferred()
        factory.clientConnectionLost = lambda *_: gone.callback(None)  # type: ignore[method-assign]
        connector = reactor.connectTCP(host, port, factory)  # type: ignore[attr-defined]
        result = await sent
        connector.disconnect()
        await gone
        assert result[0] == 1  # type: ignore[index]

    async def test_imap4_client_lists_and_fetches(self) -> None:
        server = self.server
        client = await protocol.ClientCreator(reactor, imap4.IMAP4Client).connectTCP(*server.address("imap"))
        await client.login(server.facts["account"].encode(), server.facts["password"].encode())
        names = [name for _, _, name in await client.list("", "*")]
        assert "INBOX" in names
        state = await client.select("INBOX")
        assert int(state["EXISTS"]) >= 3
        found = await client.fetchHeaders("1:3")
        assert len(found) == 3
        await client.logout()

    async def test_pop3_client_lists(self) -> None:
        server = self.server
        client = await protocol.ClientCreator(reactor, pop3.AdvancedPOP3Client).connectTCP(*server.address("pop3"))
        client.allowInsecureLogin = True
        await client.login(server.facts["account"].encode(), server.facts["password"].encode())
        sizes = await client.listSize()
        assert len(sizes) >= 3
        await client.quit()
