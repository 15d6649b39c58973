"""A project that only depends on livemail: its tests get the fixtures by name."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import entry_points

import pytest

TESTS = """
import smtplib

import pytest
from livemail.filters import CONTINUE, Filter
from livemail.mail.errors import StorageFull


class Tag(Filter):
    async def message(self, tx, message):
        message.add_header("X-Tag", "1")
        return CONTINUE


def test_a_message_arrives(mail_server):
    with smtplib.SMTP(*mail_server.smtp) as client:
        client.sendmail("a@example.org", ["you@localhost"], b"Subject: one\\r\\n\\r\\nhello\\r\\n")
    (message,) = mail_server.wait_for("you@localhost", subject="one")
    assert message.text.strip() == "hello"


def test_filters_accounts_and_faults(make_mail_server):
    server = make_mail_server(accounts={"ann@example.org": "secret"}, domains=["example.org"])
    server.add_filter(Tag)
    server.add_account("ben@example.org")
    server.send("Subject: two\\n\\nx\\n", recipients=["ann@example.org", "ben@example.org"])
    assert server.mail("ben@example.org")[0].message["X-Tag"] == "1"
    server.faults.fail("deliver", StorageFull())
    with pytest.raises(smtplib.SMTPDataError):
        server.send("Subject: three\\n\\nx\\n", recipients=["ann@example.org"])
    server.clear_filters()
    server.send("Subject: four\\n\\nx\\n", login="ann@example.org", recipients=["ben@example.org"])
    assert [each.subject for each in server.mail("ben@example.org")] == ["two", "four"]


def test_time(mail_server):
    client = smtplib.SMTP(*mail_server.smtp)
    mail_server.advance(3600)
    assert client.noop()[0] == 421
    client.close()
"""


@pytest.mark.skipif(
    not any(each.value == "livemail.testing.pytest_plugin" for each in entry_points(group="pytest11")),
    reason="livemail was installed before it had a pytest plugin; pip install -e . again",
)
def test_the_fixtures_work_in_a_project_of_somebody_else(tmp_path):
    (tmp_path / "test_theirs.py").write_text(TESTS)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_theirs.py"], cwd=tmp_path, capture_output=True,
        text=True, timeout=120, check=False, env=environment,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-2000:]
    assert "3 passed" in ran.stdout
