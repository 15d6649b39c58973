"""LF on disk, CRLF in the index, octet for octet."""

from __future__ import annotations

import os
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from livemail.mail.errors import StorageFailed
from livemail.storage.maildir import lines
from livemail.storage.maildir.lines import Expander, FileContent, message_chunks, read_message, write_file
from tests.contracts.drive import finish


class Octets:
    """Content from memory."""

    def __init__(self, octets):
        self.octets, self.size = octets, len(octets)

    def read(self, offset, length):
        return self.octets[offset : offset + length]


MESSY = st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"x", b"yy"]), max_size=40).map(b"".join)


@given(MESSY, st.lists(st.integers(0, 60), max_size=5))
def test_every_lf_gets_the_cr_it_lacks_wherever_the_chunks_end(octets, cuts):
    places = sorted({0, len(octets), *(cut for cut in cuts if cut < len(octets))})
    expander = Expander()
    got = b"".join(expander.expand(octets[a:b]) for a, b in pairwise(places))
    assert got == octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")


@pytest.mark.parametrize("size", [1, 2, 3, 1000])
@pytest.mark.parametrize("octets", [b"", b"a\r\nb\r\n", b"\r\n\r\n", b"no end", b"\r\nx"])
def test_content_in_crlf_is_written_with_lf_and_read_back(tmp_path, monkeypatch, octets, size):
    monkeypatch.setattr(lines, "CHUNK_OCTETS", size)
    path = tmp_path / "m"
    written = write_file(path, b"P: 1\r\n", Octets(octets), is_raw=False)
    whole = b"P: 1\r\n" + octets
    assert path.read_bytes() == whole.replace(b"\r\n", b"\n")
    assert path.stat().st_size == written
    fd = os.open(path, os.O_RDONLY)
    assert b"".join(message_chunks(fd, is_raw=False)) == whole
    assert read_message(fd, len(whole), "here", is_raw=False) == whole
    with pytest.raises(StorageFailed):
        read_message(fd, len(whole) + 1, "here", is_raw=False)
    reader = FileContent(fd, len(whole), 6, "here", is_raw=False)
    for offset in (0, 3, 1, len(whole) - 1, 0):
        for length in (1, 4, 100):
            assert finish(reader.read(offset, length)) == whole[offset : offset + length]
    assert finish(reader.read(len(whole), 5)) == b""
    reader.close()
    with pytest.raises(StorageFailed):
        finish(reader.read(0, 1))


def test_content_with_bare_line_ends_is_written_as_it_is(tmp_path):
    octets = b"a\nb\rc\r\n\r\r\n"
    write_file(tmp_path / "m", b"", Octets(octets), is_raw=True)
    assert (tmp_path / "m").read_bytes() == octets
    fd = os.open(tmp_path / "m", os.O_RDONLY)
    reader = FileContent(fd, len(octets) + 1, 0, "here", is_raw=True)
    assert finish(reader.read(2, 3)) == octets[2:5]
    with pytest.raises(StorageFailed):
        finish(reader.read(0, len(octets) + 1))
    reader.close()


def test_a_write_that_fails_leaves_no_file(tmp_path):
    class Failing(Octets):
        def read(self, offset, length):
            raise OSError(28, "full")

    with pytest.raises(OSError, match="full"):
        write_file(tmp_path / "m", b"", Failing(b"xx"), is_raw=False)
    assert list(tmp_path.iterdir()) == []
