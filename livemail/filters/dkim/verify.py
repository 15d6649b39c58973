"""``use = "dkim-verify"``: signatures of mail that arrives are verified, and Authentication-Results says what came of it.

Fields that pretend to be ours are taken out first (RFC 8601 §5).  The verdict is always CONTINUE: what a failed signature means is for a
filter that knows more (DMARC).  DNS that does not answer is temperror, not a failure of the filter.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from livemail.filters.author import Filter, Transaction
from livemail.filters.dkim.body import BodyHash, Canonicalization
from livemail.filters.dkim.results import SignatureResult, authserv_id, render
from livemail.filters.dkim.signature import Refused, Signature, checked_key, checked_signature, parse_signature
from livemail.filters.message import Message
from livemail.interfaces.filter import CONTINUE, Verdict
from livemail.interfaces.relay import Answer
from livemail.mail.content import CHUNK_OCTETS, Content
from livemail.mail.errors import MailError

_NAME: Final = b"authentication-results"


class DKIMVerify(Filter):
    """Verifies DKIM signatures."""

    class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
        """authserv_id: the name results are given under; "" is the server's host name.  max_signatures: verified of one message."""

        authserv_id: str = ""
        max_signatures: int = 5

        def faults(self) -> Iterator[tuple[str, str]]:
            """What the types cannot say."""
            if not 1 <= self.max_signatures <= 100:
                yield "max_signatures", "must be from 1 to 100"
            if not self.authserv_id.isascii() or any(each in ' ;"()\\\r\n\t' for each in self.authserv_id):
                yield "authserv_id", 'must be a name such as "mail.example.org"'

    @classmethod
    def start(cls, config: Any, server: Any) -> Any:  # noqa: ARG003
        """Without DNS there is nothing to verify with."""
        if server.resolver is None:
            raise RuntimeError("dkim-verify needs a resolver for the keys in DNS, and there is none here")
        return None

    async def message(self, tx: Transaction, message: Message) -> Verdict:
        """See `Filter.message`."""
        ours = (self.config.authserv_id or self.server.hostname).lower().rstrip(".")
        forged = [at for at, value in enumerate(message.values(_NAME)) if authserv_id(value) == ours.encode()]
        for at in reversed(forged):
            message.remove_header("Authentication-Results", at)
        results = await self._results(message)
        message.insert_header("Authentication-Results", render(ours, results))
        return CONTINUE

    async def _results(self, message: Message) -> list[SignatureResult]:
        fields = [field for field in message.fields if field[0].lower() == b"dkim-signature"]
        results: list[SignatureResult | None] = []
        asked: list[tuple[int, Signature, bytes]] = []
        for field in fields[: self.config.max_signatures]:
            results.append(None)
            try:
                signature = parse_signature(field, self.server.now())
            except Refused as refused:
                results[-1] = SignatureResult(refused.result, refused.reason)
                continue
            try:
                asked.append((len(results) - 1, signature, await self._record(signature)))
            except Refused as refused:
                results[-1] = signature.result(refused.result, refused.reason)
        if asked:
            run = self.server.run_blocking
            signed = [(signature, record) for _, signature, record in asked]
            found = (
                await run(_verified, message.content, message.fields, signed)
                if run is not None
                else _verified(message.content, message.fields, signed)
            )
            for (at, _, _), result in zip(asked, found, strict=True):
                results[at] = result
        if len(fields) > self.config.max_signatures:
            left = len(fields) - self.config.max_signatures
            results.append(SignatureResult("policy", f"{left} more signatures were not looked at"))
        return [result for result in results if result is not None]

    async def _record(self, signature: Signature) -> bytes:
        """The key record that fits.  Raises Refused."""
        resolver = self.server.resolver
        assert resolver is not None
        try:
            answer: Answer = await resolver.txt(signature.key_name)
        except MailError as error:
            raise Refused("temperror", f"the key could not be asked for: {error.text}") from None
        records = [record for record in answer.records if isinstance(record, bytes)]
        if not records:
            raise Refused("permerror", "there is no key in DNS")
        refusal: Refused | None = None
        for record in records[:3]:
            try:
                return checked_key(signature, record)
            except Refused as refused:
                refusal = refusal or refused
        assert refusal is not None
        raise refusal


def _verified(
    content: Content, fields: list[tuple[bytes, bytes]], signed: list[tuple[Signature, bytes]]
) -> list[SignatureResult]:
    """In a thread: hash the body once for each canonicalisation, then check each signature."""
    kinds: set[Canonicalization] = {signature.body for signature, _ in signed}
    bodies = body_hashes(content, kinds)
    results = []
    for signature, record in signed:
        try:
            checked_signature(signature, fields, record, bodies[signature.body])
        except Refused as refused:
            results.append(signature.result(refused.result, refused.reason))
        else:
            results.append(signature.result("pass"))
    return results


def body_hashes(content: Content, kinds: set[Canonicalization]) -> dict[Canonicalization, tuple[bytes, int]]:
    """Hash and octets of the body under each canonicalisation, in one pass; a chunk of it is in memory at a time."""
    hashes = {kind: BodyHash(kind) for kind in kinds}
    at = content.outline.header_size
    while at < content.size:
        chunk = content.read(at, CHUNK_OCTETS)
        if not chunk:
            raise OSError("the content ends early")
        for each in hashes.values():
            each.feed(chunk)
        at += len(chunk)
    return {kind: (each.finish(), each.octets) for kind, each in hashes.items()}
