"""Contents on their way in."""

from __future__ import annotations

import errno
import hashlib
import random
import zlib

import pytest

from livemail.mail.errors import StorageFailed, StorageFull, TooBig
from livemail.storage.disk import Disk, ReserveFile
from livemail.storage.settings import StorageSettings
from livemail.storage.spool import HEAD, MAGIC, Spool
from tests.contracts.drive import Pump
from tests.storage.lmdb_rig import Once

KEY = b"k" * 32
SMALL, LIMIT = 1000, 300_000


class Seconds:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def make_spool(tmp_path):
    def make(**settings):
        quiet = {"reserve_octets": 0, "reserve_percent": 0, "reserve_inodes": 0}
        chosen = StorageSettings(**(quiet | {"memory_content_limit": SMALL, "message_size_limit": LIMIT} | settings))
        make.clock = Seconds()
        make.pump = Pump()
        return Spool(tmp_path / "spool", KEY, chosen, Disk(tmp_path, chosen, make.clock), make.pump.run_blocking)

    make.folder = tmp_path / "spool"
    return make


def octets_of(size, seed=0):
    head = b"Subject: x\r\n\r\n"
    return (head + random.Random(seed).randbytes(size))[:size]


async def content_of(spool, size=100_000):
    sink = spool.new_content()
    sink.write(b"x" * size)
    return await sink.finish()


@pytest.mark.parametrize("size", [0, 1, SMALL - 1, SMALL, SMALL + 1, 65536, 200_000])
@pytest.mark.parametrize("piece", [1 << 20, 777])
def test_what_was_written_is_what_is_read_however_it_was_cut(make_spool, size, piece):
    spool, octets = make_spool(), octets_of(size)
    sink = spool.new_content()
    for offset in range(0, size, piece):
        sink.write(octets[offset : offset + piece])
    assert sink.size == size
    content = make_spool.pump.wait(sink.finish())
    assert (content.size, content.summary.size, content.crc) == (size, size, zlib.crc32(octets))
    assert content.digest == hashlib.blake2b(octets, key=KEY, digest_size=16).digest()
    assert content.read(0, size + 10) == octets
    assert content.read(size // 2, 5) == octets[size // 2 : size // 2 + 5]
    assert content.read(size + 5, 5) == b""
    files = list(make_spool.folder.iterdir())
    assert len(files) == (size > SMALL)
    for path in files:
        assert path.read_bytes() == HEAD.pack(MAGIC, content.digest, size, content.crc) + octets
        assert path.stat().st_mode & 0o777 == 0o600
    content.close()
    content.close()
    sink.abort()
    assert list(make_spool.folder.iterdir()) == []


def test_a_content_over_the_limit_is_refused_and_leaves_nothing(make_spool):
    spool = make_spool()
    with pytest.raises(TooBig):
        spool.new_content(LIMIT + 1)
    for sizes in ((LIMIT + 1,), (SMALL * 2, LIMIT), (LIMIT, 1)):
        sink = spool.new_content(LIMIT)
        for size in sizes[:-1]:
            sink.write(b"x" * size)
        with pytest.raises(TooBig):
            sink.write(b"x" * sizes[-1])
        assert list(make_spool.folder.iterdir()) == []
        with pytest.raises(StorageFailed):
            sink.write(b"x")
        with pytest.raises(StorageFailed):
            make_spool.pump.wait(sink.finish())
    sink = spool.new_content()
    sink.write(b"x" * LIMIT)
    make_spool.pump.wait(sink.finish()).close()


def test_an_aborted_content_leaves_nothing(make_spool):
    spool = make_spool()
    for size in (10, 100_000):
        sink = spool.new_content()
        sink.write(b"x" * size)
        sink.abort()
        sink.abort()
        assert list(make_spool.folder.iterdir()) == []


def test_a_content_aborted_while_it_is_flushed_leaves_nothing(make_spool):
    spool = make_spool()
    sink = spool.new_content()
    sink.write(b"x" * 100_000)

    async def abort():
        sink.abort()

    outcomes = make_spool.pump.settle([sink.finish(), abort()])
    assert isinstance(outcomes[0], StorageFailed)
    assert list(make_spool.folder.iterdir()) == []


def test_a_held_content_outlives_its_close(make_spool):
    spool = make_spool()
    sink = spool.new_content()
    sink.write(b"x" * 100_000)
    content = make_spool.pump.wait(sink.finish())
    content.hold()
    content.close()
    assert content.read(0, 3) == b"xxx"
    content.release()
    assert list(make_spool.folder.iterdir()) == []
    with pytest.raises(OSError, match="Bad file"):
        content.read(0, 3)


@pytest.mark.parametrize("step", ["spool-write", "spool-sync"])
@pytest.mark.parametrize(
    ("number", "expected"), [(errno.ENOSPC, StorageFull), (errno.EFBIG, StorageFull), (errno.EIO, StorageFailed)]
)
def test_what_the_disk_answers_is_told_and_nothing_is_left(make_spool, step, number, expected):
    spool = make_spool()
    with Once(step, lambda: OSError(number, "no")), pytest.raises(expected):
        make_spool.pump.wait(content_of(spool))
    assert list(make_spool.folder.iterdir()) == []
    sink = spool.new_content()
    sink.write(b"x" * 100_000)
    make_spool.pump.wait(sink.finish()).close()


def test_the_memory_of_a_large_content_stays_small(make_spool):
    import tracemalloc

    spool = make_spool(message_size_limit=1 << 30)
    line = b"0123456789abcdef" * 4 + b"\r\n"
    chunk = line * 900
    sink = spool.new_content()
    sink.write(b"Subject: x\r\n\r\n")
    tracemalloc.start()
    try:
        for _ in range(400):
            sink.write(chunk)
        content = make_spool.pump.wait(sink.finish())
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert content.size > 20_000_000
    assert peak < 1 << 20
    content.close()


def test_the_disk_is_asked_once_a_second_and_believed_when_space_returns(make_spool, tmp_path, monkeypatch):
    import os

    spool = make_spool(reserve_octets=1000, reserve_inodes=10)
    real = os.statvfs(tmp_path)
    answers = {"f_bavail": 1 << 20, "f_favail": 1000, "f_files": 5000, "f_blocks": 1 << 21, "f_frsize": 1}
    asked = []

    class Answer:
        def __getattr__(self, name):
            return answers.get(name, getattr(real, name))

    monkeypatch.setattr(os, "statvfs", lambda path: asked.append(path) or Answer())
    for _ in range(50):
        spool.new_content()
    assert len(asked) == 1
    answers["f_bavail"] = 999
    make_spool.clock.now += 0.9
    spool.new_content()
    make_spool.clock.now += 0.2
    with pytest.raises(StorageFull):
        spool.new_content()
    answers["f_bavail"], answers["f_favail"] = 1000, 9
    make_spool.clock.now += 2
    with pytest.raises(StorageFull):
        spool.new_content()
    answers["f_files"] = 0  # A file system that counts no inodes.
    make_spool.clock.now += 2
    sink = spool.new_content()
    answers["f_bavail"] = 0
    make_spool.clock.now += 2
    with pytest.raises(StorageFull):
        sink.write(b"x" * 100_000)
    assert list(make_spool.folder.iterdir()) == []


def test_the_reserve_file_is_real_space_and_comes_back(tmp_path):
    settings = StorageSettings(reserve_octets=0, reserve_percent=0, reserve_inodes=0)
    disk = Disk(tmp_path, settings)
    reserve = ReserveFile(tmp_path / "reserve", 1 << 16)
    assert reserve.fill(disk)
    assert (tmp_path / "reserve").stat().st_blocks * 512 >= 1 << 16
    assert reserve.give_up()
    assert not reserve.give_up()
    assert not ReserveFile(tmp_path / "reserve", 1 << 60).fill(disk)
    assert not (tmp_path / "reserve").exists()
