"""A peer to be hostile with: an SMTP or LMTP server without I/O whose every reply a test can replace.

`Peer.feed` takes what the client sends and returns actions: octets to send, or one of the words below.  It keeps what it was told, and
every message whose content was complete, so that a test sees duplicates.

Replies are keywords by stage: greeting ehlo helo starttls auth rset mail rcpt data content bdat quit.  A value is one
action, or a list of them, the n-th for the n-th command of that stage, the last for all that follow.
"""

from __future__ import annotations

from typing import Any

DROP = "drop"  # close the connection
RESET = "reset"  # the same, rudely
STALL = "stall"  # say nothing, now and ever after
TLS = "tls"  # begin the handshake
ENDLESS = "endless"  # the octets behind it again and again: (ENDLESS, octets)
SLOW = "slow"  # one octet a turn: (SLOW, octets)


class Message:
    def __init__(self, mail: bytes, rcpts: list[bytes], content: bytes, how: str) -> None:
        self.mail, self.rcpts, self.content, self.how = mail, rcpts, content, how
        self.answers: list[bytes] = []  # what is sent in reply, b"" where it is not a reply


class Peer:
    def __init__(self, offers: tuple[bytes, ...] = (), *, lmtp: bool = False, early: Any = b"", **actions: Any) -> None:
        """early: sent as soon as the first octets of DATA content came."""
        self.offers = offers
        self.lmtp = lmtp
        self.early = early
        self.actions = {stage: each if isinstance(each, list) else [each] for stage, each in actions.items()}
        self.lines: list[bytes] = []
        self.messages: list[Message] = []
        self.is_secure = False
        self._counts: dict[str, int] = {}
        self._buffer = b""
        self._mail = b""
        self._rcpts: list[bytes] = []
        self._in_data = False
        self._bdat: tuple[int, bool] | None = None
        self._chunks = b""
        self._auth = 0

    def _act(self, stage: str, default: bytes) -> list[Any]:
        count = self._counts.get(stage, 0)
        self._counts[stage] = count + 1
        chosen = self.actions.get(stage)
        action = default if chosen is None else chosen[min(count, len(chosen) - 1)]
        return [default if action is None else action]

    @staticmethod
    def _said(actions: list[Any]) -> bytes:
        """The octets a list of actions begins with."""
        first = actions[0]
        while isinstance(first, list | tuple):
            first = first[0] if isinstance(first, list) else first[1]
        return first if isinstance(first, bytes) else b""

    def greet(self) -> list[Any]:
        return self._act("greeting", b"220 peer.example ESMTP\r\n")

    def secured(self) -> None:
        self.is_secure = True
        self._buffer = b""

    def feed(self, octets: bytes) -> list[Any]:
        self._buffer += octets
        actions: list[Any] = []
        while True:
            if self._in_data:
                if self.early and self._buffer:
                    actions.append(self.early)
                    self.early = b""
                at = (b"\r\n" + self._buffer).find(b"\r\n.\r\n")
                if at < 0:
                    return actions
                content, self._buffer = self._buffer[:at], self._buffer[at + 3 :]
                self._in_data = False
                lines = (b"\r\n" + content).replace(b"\r\n.", b"\r\n")[2:]
                actions += self._complete(lines, "data")
                continue
            if self._bdat is not None:
                size, is_last = self._bdat
                if len(self._buffer) < size:
                    return actions
                self._chunks += self._buffer[:size]
                self._buffer = self._buffer[size:]
                self._bdat = None
                if is_last:
                    chunks, self._chunks = self._chunks, b""
                    actions += self._complete(chunks, "bdat")
                else:
                    actions += self._act("bdat", b"250 2.0.0 chunk\r\n" if self._rcpts else b"503 5.5.1 no\r\n")
                continue
            line, end, rest = self._buffer.partition(b"\r\n")
            if not end:
                return actions
            self._buffer = rest
            self.lines.append(line)
            actions += self._command(line)

    def _complete(self, content: bytes, how: str) -> list[Any]:
        rcpts, self._rcpts = self._rcpts, []
        if not rcpts:
            return self._act("content", b"503 5.5.1 nobody\r\n" if how == "bdat" else b"554 5.5.1 nobody\r\n")
        self.messages.append(Message(self._mail, rcpts, content, how))
        actions: list[Any] = []
        for _ in rcpts if self.lmtp else rcpts[:1]:
            answer = self._act("content", b"250 2.6.0 taken\r\n")
            self.messages[-1].answers.append(self._said(answer))
            actions += answer
        return actions

    def _command(self, line: bytes) -> list[Any]:
        verb = line.split(b" ")[0].upper()
        if self._auth and verb != b"AUTH":
            self._auth -= 1
            return self._act("auth", b"334 UGFzc3dvcmQ6\r\n" if self._auth else b"235 2.7.0 ok\r\n")
        if verb in {b"EHLO", b"LHLO"}:
            words = [b"peer.example", *self.offers]
            if self.is_secure:
                words = [word for word in words if word != b"STARTTLS"]
            return self._act(
                "ehlo",
                b"".join(
                    b"250%b%b\r\n" % (b" " if at == len(words) - 1 else b"-", word) for at, word in enumerate(words)
                ),
            )
        if verb == b"HELO":
            return self._act("helo", b"250 peer.example\r\n")
        if verb == b"STARTTLS":
            actions = self._act("starttls", b"220 2.0.0 go\r\n")
            return [*actions, TLS] if self._said(actions).startswith(b"220") else actions
        if verb == b"AUTH":
            self._auth = 2 if line.endswith(b"LOGIN") else 0
            return self._act("auth", b"334 VXNlcm5hbWU6\r\n" if self._auth else b"235 2.7.0 ok\r\n")
        if verb == b"MAIL":
            actions = self._act("mail", b"250 2.1.0 ok\r\n")
            is_taken = self._said(actions).startswith(b"2")
            self._mail, self._rcpts, self._chunks = line if is_taken else b"", [], b""
            return actions
        if verb == b"RCPT":
            actions = self._act("rcpt", b"250 2.1.5 ok\r\n") if self._mail else [b"503 5.5.1 MAIL first\r\n"]
            if self._said(actions).startswith(b"2"):
                self._rcpts.append(line)
            return actions
        if verb == b"RSET":
            self._mail, self._rcpts, self._chunks = b"", [], b""
            return self._act("rset", b"250 2.0.0 ok\r\n")
        if verb == b"DATA":
            actions = self._act("data", b"354 go\r\n" if self._rcpts else b"554 5.5.1 no valid recipients\r\n")
            self._in_data = b"354 " in self._said(actions)
            return actions
        if verb == b"BDAT":
            words = line.split()
            self._bdat = (int(words[1]), len(words) > 2)
            return []
        if verb == b"QUIT":
            return [*self._act("quit", b"221 2.0.0 bye\r\n"), DROP]
        return [b"500 5.5.1 what\r\n"]


ALL = (
    b"PIPELINING",
    b"8BITMIME",
    b"SMTPUTF8",
    b"CHUNKING",
    b"BINARYMIME",
    b"DSN",
    b"SIZE 100000000",
    b"ENHANCEDSTATUSCODES",
)
PIPELINED = (b"PIPELINING", b"8BITMIME", b"SIZE", b"ENHANCEDSTATUSCODES")
"""What most hosts offer."""
