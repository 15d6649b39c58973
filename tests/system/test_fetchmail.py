"""fetchmail: POP3 and IMAP polled, handed on by SMTP to a second account of the same server."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.system.mail import deliver, fetch_all, imap, smtp
from tests.system.rig import Server, program, run


@pytest.mark.parametrize("protocol", ["pop3", "imap"])
def test_fetchmail_moves_mail_from_one_account_to_another(server: Server, tmp_path: Path, protocol: str) -> None:
    source, target = f"from-{protocol}@localhost", f"to-{protocol}@localhost"
    server.add_account(source, "fetch me")
    server.add_account(target, "to here")
    with smtp(server) as client:
        client.ehlo()
        for number in range(5):
            assert deliver(client, source, b"Subject: fetched %d\r\n\r\n.dot\r\nbody\r\n" % number)[0] == 250
    host, port = server.address("smtp")
    configuration = tmp_path / "fetchmailrc"
    configuration.write_text(
        f"poll 127.0.0.1 protocol {protocol} port {server.port(protocol)} auth password no dns\n"
        f'  user "{source}" password "fetch me" is "{target}" here\n'
        f'  sslproto "" smtphost "{host}/{port}" smtpname "{target}" no rewrite fetchall no keep\n'
    )
    configuration.chmod(0o600)
    done = run(
        [program("fetchmail"), "-f", configuration, "--nodetach", "--nosyslog", "--pidfile", tmp_path / "pid"],
        env={**os.environ, "HOME": str(tmp_path), "FETCHMAILHOME": str(tmp_path)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    session = imap(server, source, "fetch me")
    assert fetch_all(session) == {}
    session.logout()
    session = imap(server, target, "to here")
    found = fetch_all(session)
    session.logout()
    assert len(found) == 5
    assert all(octets.endswith(b"\r\n.dot\r\nbody\r\n") for octets in found.values())
