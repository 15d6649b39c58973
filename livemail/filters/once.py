"""One message through filters outside of any dialogue: how `livemail.testing` and ``livemail filter test|replay`` ask them.

The real chain, every stage from connect to message in the order a client's commands would bring them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, cast

import msgspec

from livemail.filters.chain import FilterChain
from livemail.filters.plan import Loaded
from livemail.interfaces.filter import (
    CONTINUE,
    Accept,
    ConnectionInfo,
    Continue,
    Defer,
    Discard,
    IFilterTransaction,
    Quarantine,
    Record,
    Reject,
    Verdict,
)
from livemail.mail.address import Address, Path
from livemail.mail.content import Content, chunks
from livemail.mail.envelope import Envelope, Recipient, ReversePath


class FilterResult(msgspec.Struct):
    """What became of a message.

    verdict: the chain's; stage: where it was said.  message: the octets afterwards, as given where nothing was edited.  recipients:
    those that are left, ``local@domain``; refused: those a filter refused at rcpt, with its verdict.  reverse_path: ``local@domain``,
    "" for the null path.  edits: one word and name for each.  failure: the first failure of a filter, "" when there was none.
    seconds: of all stages.
    """

    verdict: Verdict
    stage: str
    message: bytes
    recipients: list[str]
    refused: dict[str, Verdict]
    reverse_path: str
    edits: list[str]
    records: list[Record]
    scores: list[tuple[float, str]]
    failure: str = ""
    seconds: float = 0.0
    is_junk: bool = False


class Circumstances(msgspec.Struct, frozen=True, kw_only=True):
    """Who hands the message in, and to whom.  sender: "" for the null reverse-path."""

    sender: str = "sender@example.org"
    recipients: Sequence[str] = ("you@localhost",)
    peer: str = "192.0.2.1"
    helo: str = "client.example.org"
    service: str = "smtp"
    tls: str = ""
    authcid: str = ""


async def run_once(
    chain: FilterChain, content: Content, circumstances: Circumstances, *, wants_message: bool = True
) -> FilterResult:
    """Pass one message through a chain.  content: closed when this returns.  wants_message: the edited octets are wanted."""
    about = circumstances
    began = time.perf_counter()
    connection = ConnectionInfo("test", about.service, about.peer, 4242, about.tls, about.authcid)
    verdict, state = await chain.connect(connection)
    try:
        result = await _stages(state, verdict, content, about, wants_message=wants_message)
    finally:
        state.closed()
    result.seconds = time.perf_counter() - began
    return result


def retire(loaded: Sequence[Loaded]) -> None:
    """Filters that were loaded for a while are not needed any more."""
    for each in loaded:
        each.retire()


def _path(address: str) -> Path:
    local, _, domain = address.strip("<>").rpartition("@")
    return Path(Address(local or domain, domain if local else "")) if address.strip("<>") else Path.null


async def _stages(
    state: IFilterTransaction, verdict: Verdict, content: Content, about: Circumstances, *, wants_message: bool
) -> FilterResult:
    reverse_path = ReversePath(_path(about.sender), content.size)
    envelope = Envelope(reverse_path, [])
    refused: dict[str, Verdict] = {}
    held: Verdict = verdict if isinstance(verdict, Quarantine) else CONTINUE
    stage = "connect"
    outcome = None
    for stage in ("helo", "mail", "rcpt", "data", "message"):
        if not isinstance(verdict, Continue | Quarantine | Accept):
            break
        if stage == "helo":
            verdict = await state.helo(about.helo)
        elif stage == "mail":
            verdict = await state.mail(reverse_path)
        elif stage == "rcpt":
            for each in about.recipients:
                answer = await state.rcpt(Recipient(_path(each)))
                if isinstance(answer, Reject | Defer):
                    refused[each] = answer
                    continue
                envelope.recipients.append(Recipient(_path(each)))
                held = answer if isinstance(answer, Quarantine) else held
                if isinstance(answer, Discard):
                    verdict = answer
                    break
            if not envelope.recipients and refused:
                verdict = next(iter(refused.values()))
        elif stage == "data":
            verdict = await state.data(envelope)
        else:
            outcome = await state.message(content, envelope)
            content, envelope, verdict = outcome.content, outcome.envelope, outcome.verdict
        held = verdict if isinstance(verdict, Quarantine) else held
    if isinstance(verdict, Continue) and isinstance(held, Quarantine):
        verdict = held
    records = list(state.records)
    said = next((record.stage for record in records if record.verdict is verdict or record.is_failure), stage)
    octets = (
        b"".join(chunks(content))
        if wants_message and outcome is not None and any(record.edits for record in records)
        else b""
    )
    content.close()
    own = cast(Any, state).state
    return FilterResult(
        verdict=verdict,
        stage=said,
        message=octets,
        recipients=[str(recipient.path.address) for recipient in envelope.recipients],
        refused=refused,
        reverse_path=str(envelope.reverse_path.path.address or ""),
        edits=[edit for record in records for edit in record.edits],
        records=records,
        scores=list(own.scores),
        failure=next((_failure(record) for record in records if record.is_failure), ""),
        is_junk=isinstance(held, Quarantine),
    )


def _failure(record: Record) -> str:
    return getattr(record.verdict, "reason", "") or f"filter {record.filter} failed at {record.stage}"
