from __future__ import annotations

import pytest

from livemail.config import ConfigError, loads
from livemail.net.tls import local_ca
from livemail.smtp.relay.settings import RelaySettings

CONFIG = 'data = "d"\n[[listen]]\nservice = "smtp"\naddress = "127.0.0.1:25"\n[relay]\n'


def faults(text, folder):
    with pytest.raises(ConfigError) as caught:
        loads(CONFIG + text, str(folder / "c.toml"))
    return [fault.text for fault in caught.value.faults]


def test_the_defaults_are_those_of_rfc_5321():
    settings = RelaySettings()
    assert not list(settings.faults())
    assert (settings.greeting_timeout, settings.mail_timeout, settings.rcpt_timeout) == (300, 300, 300)
    assert (settings.data_timeout, settings.block_timeout, settings.end_timeout) == (120, 180, 600)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("max_connections = 0", "`max_connections` is at least 1"),
        ("connections_per_host = 0", "`connections_per_host` is at least 1"),
        ("recipients_per_transaction = 0", "`recipients_per_transaction` is at least 1"),
        ("end_timeout = 0", "`end_timeout` is more than 0 seconds"),
        ("connect_stagger = -1", "`connect_stagger` cannot be negative"),
        ('hello_name = "a b"', "`hello_name` is a host name"),
        ('hello_name = "a\\r\\nMAIL FROM:<x>"', "`hello_name` is a host name"),
        ('tls_ca = "missing.pem"', "missing.pem: no certificates in PEM form can be read from it"),
    ],
)
def test_what_cannot_work_is_an_error(line, words, tmp_path):
    assert any(words in fault for fault in faults(line, tmp_path)), faults(line, tmp_path)


def test_the_authorities_file_counts_from_the_configurations_folder(tmp_path):
    local_ca(tmp_path / "tls")
    config = loads(CONFIG + 'tls_ca = "tls/ca.pem"\nhello_name = "[192.0.2.1]"', str(tmp_path / "c.toml"))
    assert config.relay.tls_ca == str(tmp_path / "tls" / "ca.pem")
