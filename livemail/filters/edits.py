"""What one filter changes about one message: noted while the filter is asked, applied when it has come to a verdict.

Each filter notes its edits in an object of its own, which is open from the beginning of its stage headers to its verdict.  An
edit outside of that time, from a task or thread the filter left behind, raises, and counts as a failure of the filter even
when it swallows the exception; so does an edit that contradicts one it made before (a second body, a second
reverse-path, the same recipient twice).  What an object notes never ends up in another filter's edits.
"""

from __future__ import annotations

from typing import Final

from livemail.interfaces.filter import EnvelopeEdit, HeaderEdit

LATE: Final = "the message can be edited at the stages headers, body and message only, before the verdict"


class EditError(RuntimeError):
    """An edit that cannot be."""


class Edits:
    """One filter's edits of one message.  fault: why they are void, None while they are sound.  made: whether there are any."""

    __slots__ = ("_is_open", "body", "envelope", "fault", "headers", "made")

    def __init__(self) -> None:
        self.headers: list[HeaderEdit] = []
        self.envelope: list[EnvelopeEdit] = []
        self.body: bytes | None = None
        self.fault: EditError | None = None
        self.made = False
        self._is_open = True

    def take(self, headers: list[HeaderEdit], envelope: list[EnvelopeEdit], body: bytes | None) -> None:
        """Have these, noted elsewhere, instead of what there is."""
        self.headers, self.envelope, self.body = headers, envelope, body
        self.made = bool(headers or envelope) or body is not None

    @property
    def changes_message(self) -> bool:
        """Whether the octets change."""
        return bool(self.headers) or self.body is not None

    def close(self) -> None:
        """The filter has come to its verdict, or to nothing."""
        self._is_open = False

    def forget(self) -> None:
        """Void them all."""
        self.take([], [], None)

    def header(self, edit: HeaderEdit) -> None:
        """Note an edit of the header."""
        self._check()
        self.headers.append(edit)

    def replace_body(self, body: bytes) -> None:
        """Note another body."""
        self._check()
        if self.body is not None:
            self._spoil("the body was replaced already")
        self.body = body

    def of_envelope(self, edit: EnvelopeEdit) -> None:
        """Note an edit of the envelope."""
        self._check()
        for known in self.envelope:
            if edit.action == known.action == "reverse-path":
                self._spoil("the reverse-path was changed already")
            if edit.path == known.path and "recipient" in edit.action and "recipient" in known.action:
                self._spoil(f"the recipient {edit.path} was added or removed already")
        self.envelope.append(edit)

    def words(self) -> tuple[str, ...]:
        """What was changed, for the record."""
        words = [f"{edit.action}-header {edit.name.decode()}" for edit in self.headers]
        words += [f"{edit.action} {edit.path}" for edit in self.envelope]
        return (*words, "replace-body") if self.body is not None else tuple(words)

    def _check(self) -> None:
        if not self._is_open:
            self._spoil(LATE)
        self.made = True

    def _spoil(self, why: str) -> None:
        error = EditError(why)
        self.fault = self.fault or error
        raise error
