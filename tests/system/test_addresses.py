"""``livemail domain`` and ``livemail alias`` beside a running server and without one; mail goes where they say."""

from __future__ import annotations

import json

from tests.system.mail import deliver, fetch_all, imap, smtp
from tests.system.rig import Server


def test_domains_and_aliases_work_at_once_and_after_a_restart_and_without_a_server(fresh: Server) -> None:
    fresh.start()
    assert fresh.livemail("domain", "add", "example.org").returncode == 0
    assert fresh.livemail("domain", "add", "example.org").returncode == 73
    added = fresh.livemail("account", "add", "ada@example.org", "--password-stdin", stdin="of lovelace\n")
    assert added.returncode == 0, added.stderr
    assert fresh.livemail("alias", "add", "sales@example.org", "ada@example.org", "you").returncode == 0
    with smtp(fresh) as client:
        client.ehlo()
        assert deliver(client, "sales@example.org", b"Subject: to a group\r\n\r\nbody\r\n")[0] == 250
        assert client.docmd("MAIL FROM:<x@elsewhere.test>")[0] == 250
        assert client.docmd("RCPT TO:<nobody@example.org>")[0] == 550
        client.rset()
        assert fresh.livemail("domain", "set", "example.org", "--catch-all", "ada").returncode == 0
        assert deliver(client, "anybody@example.org", b"Subject: caught\r\n\r\nbody\r\n")[0] == 250
    session = imap(fresh, "ada@example.org", "of lovelace")
    assert len(fetch_all(session)) == 2
    session.logout()
    assert fresh.stop() == 0

    told = fresh.livemail("alias", "list", "--json")
    assert [alias["address"] for alias in json.loads(told.stdout)] == ["sales@example.org"]
    refused = fresh.livemail("domain", "remove", "example.org")
    assert (refused.returncode, "1 account and 1 alias" in refused.stderr) == (1, True)
    assert fresh.livemail("alias", "add", "offline@example.org", "ada@example.org").returncode == 0
    assert fresh.livemail("store", "check").returncode == 0

    fresh.start()
    with smtp(fresh) as client:
        client.ehlo()
        assert deliver(client, "offline@example.org", b"Subject: made offline\r\n\r\nbody\r\n")[0] == 250
    session = imap(fresh, "ada@example.org", "of lovelace")
    assert len(fetch_all(session)) == 3
    session.logout()
