"""The story of a mail transaction: who handed it in, what each filter said, what we answered, where it went.

`livemail.smtp.story` tells it, the store keeps it in the commit that files the message, ``livemail message explain`` reads it.
Stories of messages that were not taken are kept with whatever is committed next.
"""

from __future__ import annotations

from typing import Final

import msgspec

from livemail.mail.ids import UID, AccountId, MailboxId

MAX_RECIPIENTS: Final = 50
MAX_TOLD: Final = 60
"""Recipients and filters' answers a story keeps; it says how many there were."""
MAX_TEXT: Final = 300


class ToldRecipient(msgspec.Struct, frozen=True, array_like=True):
    """One recipient.  code 0: taken."""

    path: str
    code: int = 0
    enhanced: str = ""
    text: str = ""


class ToldFilter(msgspec.Struct, frozen=True, array_like=True):
    """What one filter said at one stage.  verdict: a word, continue, accept, reject, defer, discard, quarantine; text: of a refusal.

    microseconds: how long it took.
    """

    filter: str
    stage: str
    verdict: str
    text: str
    reason: str
    microseconds: int
    count: int
    is_failure: bool
    edits: tuple[str, ...]


Quiet = tuple[str, str, int, int]
"""A filter that had nothing to say: name, stage, microseconds, count.  Most are, so they are kept short."""


class Story(msgspec.Struct, frozen=True, array_like=True):
    """One mail transaction.  answers: of filters, each with its place among all of them; quiet: the others.

    transaction: its id in our reply, Received and the log.  time: seconds since the epoch.  reverse_path: with angle brackets.
    size: octets of the content, 0 when none came.  outcome: taken, discarded or refused; code, enhanced, text: what we answered, and
    reason what we kept to ourselves.  is_junk: quarantined.  count: recipients there were.
    """

    transaction: str
    time: float
    service: str
    peer: str
    port: int
    helo: str
    tls: str
    authcid: str
    reverse_path: str
    recipients: tuple[ToldRecipient, ...]
    count: int
    message_id: bytes = b""
    size: int = 0
    outcome: str = "taken"
    code: int = 250
    enhanced: str = "2.0.0"
    text: str = ""
    reason: str = ""
    is_junk: bool = False
    answers: tuple[tuple[int, ToldFilter], ...] = ()
    quiet: tuple[Quiet, ...] = ()
    scores: tuple[tuple[float, str], ...] = ()

    @property
    def filters(self) -> list[ToldFilter]:
        """What each filter said, in the order they were asked."""
        told = [
            ToldFilter(name, stage, "continue", "", "", spent, count, False, ())
            for name, stage, spent, count in self.quiet
        ]
        for position, answer in self.answers:
            told.insert(position, answer)
        return told


class StoryPlace(msgspec.Struct, frozen=True, array_like=True):
    """Where a copy was filed."""

    account: AccountId
    mailbox: MailboxId
    uid: UID


class KeptStory(msgspec.Struct, frozen=True):
    """A story as the store has it, with the copies its commit filed."""

    story: bytes
    places: tuple[StoryPlace, ...] = ()


_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(Story)


def encode_story(story: Story) -> bytes:
    """Pack a story."""
    return _encoder.encode(story)


def decode_story(octets: bytes) -> Story:
    """Unpack a story.  Raises msgspec.DecodeError."""
    return _decoder.decode(octets)
