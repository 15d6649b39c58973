"""Dovecot and Postfix, configured privately in the scratch folder, on loopback, with fsync on."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path

from bench.ground import PASSWORD, USER_COUNT, BenchError, Process, wait_for

IMAP_PORT, LMTP_PORT, SMTP_PORT, RELAY_PORT = 11143, 11024, 11025, 11026
DOMAIN = "bench.test"

DOVECOT_CONFIGURATION = """
protocols = imap lmtp
listen = 127.0.0.1
base_dir = {run}
state_dir = {run}/state
log_path = {log}
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain
first_valid_uid = 1
mail_location = maildir:{mail}/%n
mail_fsync = optimized
mailbox_list_index = yes
default_internal_user = dovecot
default_login_user = dovenull
passdb {{
  driver = static
  args = password={password}
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={mail}/%n allow_all_users=yes
}}
service imap-login {{
  inet_listener imap {{
    port = {imap_port}
  }}
  inet_listener imaps {{
    port = 0
  }}
  service_count = 0
}}
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {lmtp_port}
  }}
  process_min_avail = 2
}}
service anvil {{
  client_limit = 2000
}}
service stats {{
  client_limit = 2000
}}
protocol lmtp {{
  auth_username_format = %Ln
}}
"""

POSTFIX_MAIN = """
compatibility_level = 3.6
queue_directory = {queue}
data_directory = {data}
command_directory = /usr/sbin
daemon_directory = /usr/lib/postfix/sbin
mail_owner = postfix
setgid_group = postdrop
myhostname = bench.test
mydestination =
virtual_mailbox_domains = bench.test
virtual_transport = lmtp:inet:127.0.0.1:{lmtp_port}
lmtp_destination_concurrency_limit = 20
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_recipient_restrictions = permit_mynetworks, reject
smtpd_client_connection_rate_limit = 0
smtpd_client_connection_count_limit = 0
alias_maps =
alias_database =
local_recipient_maps =
maillog_file = {log}
maillog_file_prefixes = /
smtp_tls_security_level = none
smtpd_tls_security_level = none
biff = no
"""

POSTFIX_MASTER = """
127.0.0.1:{smtp_port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
smtp unix - - n - - smtp
relay unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
lmtp unix - - n - - lmtp
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


def users() -> list[str]:
    """Logins on the peers; smtp-source makes the same names by numbering its recipient."""
    return [f"u{number}" for number in range(USER_COUNT)]


class Dovecot:
    """Dovecot with LMTP and IMAP over Maildir."""

    def __init__(self, folder: Path) -> None:
        self.imap = ("127.0.0.1", IMAP_PORT)
        run, mail = folder / "dovecot", folder / "dovecot-mail"
        run.mkdir()
        mail.mkdir()
        self.mail = mail
        owner = pwd.getpwnam("nobody")
        self.uid, self.gid = owner.pw_uid, owner.pw_gid
        os.chown(mail, self.uid, self.gid)
        configuration = folder / "bench-dovecot.conf"  # not in base_dir: Dovecot puts a link of its own there
        configuration.write_text(
            DOVECOT_CONFIGURATION.format(
                run=run,
                log=run / "log",
                mail=mail,
                uid=self.uid,
                gid=self.gid,
                password=PASSWORD,
                imap_port=IMAP_PORT,
                lmtp_port=LMTP_PORT,
            )
        )
        self.process = Process(["/usr/sbin/dovecot", "-F", "-c", str(configuration)], run / "output")
        wait_for(self.imap, self.process, "Dovecot")
        wait_for(("127.0.0.1", LMTP_PORT), self.process, "Dovecot's LMTP")

    def stop(self) -> None:
        self.process.stop()


class Postfix:
    """Postfix handing every message of bench.test to Dovecot's LMTP."""

    def __init__(self, folder: Path) -> None:
        self.smtp = ("127.0.0.1", SMTP_PORT)
        self.folder = folder / "postfix"
        self.start(POSTFIX_MAIN, POSTFIX_MASTER)

    def start(self, main: str, master: str) -> None:
        self.folder.mkdir()
        queue, data = self.folder / "queue", self.folder / "data"
        queue.mkdir()
        data.mkdir()
        owner = pwd.getpwnam("postfix")
        os.chown(data, owner.pw_uid, owner.pw_gid)
        log = self.folder / "maillog"
        (self.folder / "main.cf").write_text(main.format(queue=queue, data=data, log=log, lmtp_port=LMTP_PORT))
        (self.folder / "master.cf").write_text(master.format(smtp_port=self.smtp[1]))
        started = subprocess.run(
            ["postfix", "-c", str(self.folder), "start"], check=False, capture_output=True, text=True
        )
        if started.returncode:
            raise BenchError(f"Postfix did not start: {started.stderr}{started.stdout}")
        wait_for(self.smtp, None, "Postfix")
        self.pid = int((queue / "pid" / "master.pid").read_text())

    def stop(self) -> None:
        subprocess.run(
            ["postfix", "-c", str(self.folder), "stop"],
            check=False,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


class RelayingPostfix(Postfix):
    """Postfix that takes mail for anybody and hands it to one next hop; or, with ``sends`` off, only queues it."""

    def __init__(self, folder: Path, port: int, *, tls: bool, sends: bool = True) -> None:
        self.smtp = ("127.0.0.1", RELAY_PORT)
        self.folder = folder / "postfix-relay"
        tls_level = f"smtp_tls_security_level = {'encrypt' if tls else 'none'}"
        main = POSTFIX_MAIN.replace("smtp_tls_security_level = none", tls_level, 1).replace(
            "virtual_mailbox_domains = bench.test\nvirtual_transport = lmtp:inet:127.0.0.1:{lmtp_port}\n", ""
        )
        main += f"relayhost = [127.0.0.1]:{port}\n"
        if tls:
            main += "smtp_tls_connection_reuse = yes\n"
        master = POSTFIX_MASTER
        if tls:
            master += "tlsproxy unix - - n - 0 tlsproxy\n"
        if not sends:
            main += "defer_transports = smtp\n"
        self.start(main, master)

    def queued(self) -> int:
        """Messages in its queue."""
        places = [self.folder / "queue" / name for name in ("incoming", "active", "deferred")]
        return len({path.name for place in places for path in place.rglob("*") if path.is_file()})
