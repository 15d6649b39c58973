"""curl: SMTP, submission with TLS, IMAP, IMAPS, POP3, POP3S, as the banner says."""

from __future__ import annotations

from pathlib import Path

from tests.system.rig import Server, program, run

MESSAGE = "From: c@example.org\r\nTo: you@localhost\r\nSubject: by curl {}\r\n\r\nsent by curl {}\r\n"


def _send(server: Server, tmp_path: Path, url: str, word: str, *more: str) -> None:
    file = tmp_path / f"{word}.eml"
    file.write_bytes(MESSAGE.format(word, word).encode())
    done = run([program("curl"), "-sS", "--url", url, "--mail-from", "c@example.org", "--mail-rcpt", "you@localhost",
                "--upload-file", file, *more])  # fmt: skip
    assert done.returncode == 0, done.stderr


def _credentials(server: Server) -> list[str]:
    return ["-u", f"{server.facts['account']}:{server.facts['password']}"]


def test_curl_sends_by_smtp_and_reads_by_imap(server: Server, tmp_path: Path) -> None:
    _send(server, tmp_path, f"smtp://{server.facts['smtp']}/client.example", "plainsmtp")
    url = f"imap://{server.facts['imap']}/INBOX"
    found = run([program("curl"), "-sS", url, *_credentials(server), "-X", "SEARCH SUBJECT plainsmtp"])
    assert found.stdout.startswith("* SEARCH "), found.stdout + found.stderr
    number = found.stdout.split()[2]
    read = run([program("curl"), "-sS", f"{url};MAILINDEX={number}", *_credentials(server)])
    assert "sent by curl plainsmtp" in read.stdout, read.stderr


def test_curl_submits_over_implicit_tls_and_reads_by_imaps_with_the_printed_ca(server: Server, tmp_path: Path) -> None:
    trust = ["--cacert", server.facts["ca"]]
    file = tmp_path / "tls.eml"
    file.write_bytes(MESSAGE.format("overtls", "overtls").encode())
    sent = run([program("curl"), "-sS", "--url", f"smtps://localhost:{server.port('submissions')}", *trust,
                "--resolve", f"localhost:{server.port('submissions')}:127.0.0.1", *_credentials(server),
                "--mail-from", "you@localhost", "--mail-rcpt", "you@localhost", "--upload-file", file])  # fmt: skip
    assert sent.returncode == 0, sent.stderr
    found = run([program("curl"), "-sS", f"imaps://localhost:{server.port('imaps')}/INBOX", *trust,
                 "--resolve", f"localhost:{server.port('imaps')}:127.0.0.1", *_credentials(server),
                 "-X", "SEARCH SUBJECT overtls"])  # fmt: skip
    assert found.stdout.split()[2:], found.stdout + found.stderr


def test_curl_upgrades_submission_and_imap_with_starttls(server: Server, tmp_path: Path) -> None:
    trust = ["--cacert", server.facts["ca"], "--ssl-reqd"]
    file = tmp_path / "starttls.eml"
    file.write_bytes(MESSAGE.format("upgraded", "upgraded").encode())
    sent = run([program("curl"), "-sS", "--url", f"smtp://localhost:{server.port('submission')}", *trust,
                "--resolve", f"localhost:{server.port('submission')}:127.0.0.1", *_credentials(server),
                "--mail-from", "you@localhost", "--mail-rcpt", "you@localhost", "--upload-file", file])  # fmt: skip
    assert sent.returncode == 0, sent.stderr
    found = run([program("curl"), "-sS", f"imap://localhost:{server.port('imap')}/INBOX", *trust,
                 "--resolve", f"localhost:{server.port('imap')}:127.0.0.1", *_credentials(server),
                 "-X", "SEARCH SUBJECT upgraded"])  # fmt: skip
    assert found.stdout.split()[2:], found.stdout + found.stderr


def test_curl_fetches_by_pop3_and_pop3s(server: Server, tmp_path: Path) -> None:
    _send(server, tmp_path, f"smtp://{server.facts['smtp']}/client.example", "forpop")
    listed = run([program("curl"), "-sS", f"pop3://{server.facts['pop3']}/", *_credentials(server)])
    assert listed.returncode == 0, listed.stderr
    last = listed.stdout.strip().splitlines()[-1].split()[0]
    read = run([program("curl"), "-sS", f"pop3s://localhost:{server.port('pop3s')}/{last}", "--cacert",
                server.facts["ca"], "--resolve", f"localhost:{server.port('pop3s')}:127.0.0.1",
                *_credentials(server)])  # fmt: skip
    assert "sent by curl forpop" in read.stdout, read.stderr


def test_curl_refuses_the_certificate_without_the_ca(server: Server) -> None:
    done = run([program("curl"), "-sS", f"imaps://localhost:{server.port('imaps')}/INBOX", *_credentials(server)])
    assert done.returncode == 60, done.stderr


def test_curl_appends_a_message_by_imap(server: Server, tmp_path: Path) -> None:
    file = tmp_path / "append.eml"
    file.write_bytes(MESSAGE.format("appended", "appended").encode())
    url = f"imap://{server.facts['imap']}"
    done = run([program("curl"), "-sS", "-T", file, f"{url}/Drafts", *_credentials(server)])
    assert done.returncode == 0, done.stderr
    read = run([program("curl"), "-sS", f"{url}/Drafts;MAILINDEX=1", *_credentials(server)])
    assert read.stdout.replace("\r", "") == file.read_text().replace("\r", "")
