"""swaks: the switch knife's own view of the dialogue."""

from __future__ import annotations

from tests.system.mail import fetch_all, imap
from tests.system.rig import Server, program, run


def _swaks(server: Server, service: str, *more: str) -> tuple[int, str]:
    done = run([program("swaks"), "--server", server.facts[service], "--helo", "client.example", "--from",
                "s@example.org", *more])  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def _auth(server: Server) -> list[str]:
    return ["--auth-user", server.facts["account"], "--auth-password", server.facts["password"]]


def test_swaks_delivers_and_plus_detail_and_postmaster_are_taken(server: Server) -> None:
    for recipient in ("you@localhost", "you+lists@localhost", "postmaster@localhost", "YOU@LOCALHOST"):
        status, talk = _swaks(server, "smtp", "--to", recipient, "--header", f"Subject: swaks to {recipient}")
        assert status == 0, talk
    client = imap(server)
    found = b"".join(fetch_all(client).values())
    client.logout()
    for recipient in (b"you@localhost", b"you+lists@localhost", b"postmaster@localhost"):
        assert b"Subject: swaks to " + recipient in found


def test_swaks_sees_no_relay_and_no_unknown_users(server: Server) -> None:
    status, talk = _swaks(server, "smtp", "--to", "someone@elsewhere.example")
    assert status != 0
    assert " 550 5.7.1" in talk
    status, talk = _swaks(server, "smtp", "--to", "nobody-here@localhost")
    assert status != 0
    assert " 550 5.1.1" in talk


def test_swaks_submits_with_starttls_and_auth_and_outbound_is_captured(server: Server) -> None:
    logged = server.log.stat().st_size
    status, talk = _swaks(
        server, "submission", "--to", "friend@elsewhere.example", "--from", server.facts["account"], "--tls",
        *_auth(server), "--header", "Subject: captured one",
    )  # fmt: skip
    assert status == 0, talk
    client = imap(server)
    found = fetch_all(client, "Outbox (captured)")
    client.logout()
    assert any(b"Subject: captured one" in octets for octets in found.values())
    # Who it was is said once, and nothing claims that what is captured was delivered.
    lines = server.log.read_bytes()[logged:].decode().splitlines()
    told = [line for line in lines if "submission 127.0.0.1: authenticated as" in line]
    assert len(told) == 1, lines
    assert any(f": taken from <{server.facts['account']}> for 1 " in line for line in lines)
    assert not any("delivered" in line for line in lines)


def test_a_submitted_message_is_completed_and_loses_bcc_and_its_author_is_checked(server: Server) -> None:
    you = server.facts["account"]
    data = "Bcc: secret@elsewhere.example\\nFrom: boss@elsewhere.example\\nSubject: mended\\n\\nBcc: in the body\\n"
    status, talk = _swaks(server, "submission", "--to", you, "--from", you, "--tls", *_auth(server), "--data", data)
    assert status == 0, talk
    client = imap(server)
    (octets,) = [octets for octets in fetch_all(client).values() if b"Subject: mended" in octets]
    client.logout()
    header, _, body = octets.partition(b"\r\n\r\n")
    for field in (
        b"\r\nSender: you@localhost\r\n",
        b"\r\nDate: ",
        b"\r\nMessage-ID: <",
        b"\r\nFrom: boss@elsewhere.example",
    ):
        assert header.count(field) == 1, octets
    assert b"secret" not in octets
    assert body.startswith(b"Bcc: in the body\r\n")


def test_swaks_is_refused_without_auth_on_submission(server: Server) -> None:
    status, talk = _swaks(server, "submission", "--to", "you@localhost")
    assert status != 0
    assert " 530 5.7.0" in talk


def test_swaks_speaks_lmtp_with_a_reply_per_recipient(server: Server) -> None:
    status, talk = _swaks(server, "lmtp", "--protocol", "LMTP", "--to", "you@localhost,you+x@localhost")
    assert status == 0, talk
    assert talk.count("<-  250 2.") >= 4, talk


def test_swaks_wrong_password_is_refused(server: Server) -> None:
    status, talk = _swaks(
        server, "submissions", "--tls-on-connect", "--to", "you@localhost", "--auth-user", "you@localhost",
        "--auth-password", "wrong",
    )  # fmt: skip
    assert status != 0
    assert " 535 5.7.8" in talk
