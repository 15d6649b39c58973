"""An SMTP sink that writes down what it has said 250 to, before it says so.

Arguments: port, log file.  A line of the log: the message's mark (its Subject) and a recipient.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading


def serve(connection: socket.socket, log: int) -> None:
    with connection, connection.makefile("rb") as lines:
        connection.sendall(b"220 sink.example ESMTP\r\n")
        recipients: list[bytes] = []
        for line in lines:
            verb = line[:4].upper()
            if verb in {b"EHLO", b"HELO"}:
                answer = b"250-sink.example\r\n250 PIPELINING\r\n"
            elif verb == b"RCPT":
                recipients.append(line.partition(b"<")[2].partition(b">")[0])
                answer = b"250 2.1.5 OK\r\n"
            elif verb == b"DATA":
                connection.sendall(b"354 go on\r\n")
                mark = b"-"
                for content in lines:
                    if content == b".\r\n":
                        break
                    if content.startswith(b"Subject: "):
                        mark = content[9:].strip()
                else:
                    return
                # One write a message: the log never holds half of what was acknowledged.
                os.write(log, b"".join(b"%b %b\n" % (mark, one) for one in recipients))
                recipients = []
                answer = b"250 2.0.0 taken\r\n"
            elif verb == b"QUIT":
                connection.sendall(b"221 2.0.0 bye\r\n")
                return
            else:
                answer = b"250 2.0.0 OK\r\n"
            connection.sendall(answer)


def main() -> None:
    log = os.open(sys.argv[2], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    with socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=200) as listener:
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_quietly, args=(connection, log), daemon=True).start()


def _quietly(connection: socket.socket, log: int) -> None:
    with contextlib.suppress(OSError):  # The server was killed.
        serve(connection, log)


if __name__ == "__main__":
    main()
