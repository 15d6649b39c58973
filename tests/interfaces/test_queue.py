"""Queue ids as people write them."""

from __future__ import annotations

import pytest

from livemail.interfaces.queue import QueueId, parse_queue_id, queue_id_text


@pytest.mark.parametrize("number", [1, 0x1F3, 2**64 - 1])
def test_an_id_is_read_as_it_was_written_in_either_case(number: int) -> None:
    """Copying from a log, or typing in lower case."""
    text = queue_id_text(QueueId(number))
    assert parse_queue_id(text) == parse_queue_id(text.lower()) == number


@pytest.mark.parametrize("text", ["", "Q", "1F3", "Q1G", "Q-1", "Q 1", "Q1F3 ", "Q" + "F" * 17, "Q٣"])
def test_what_is_no_id_is_refused_by_name(text: str) -> None:
    """Never taken for another number."""
    with pytest.raises(ValueError, match="looks like Q1F3"):
        parse_queue_id(text)
