"""What a disk may hold after its power failed: built from a record of what was written and flushed.

Rules, at a moment of the record.  They promise less than ext4, XFS or btrfs do, so what survives them survives those.

    flushed       a write or cut is there if a flush of that file began after it and has ended; a write through a descriptor
                  with O_DSYNC is there by itself.  What a flush brings includes the file's length.
    not flushed   of everything else any part may be there: whole calls, or sectors of 512 octets, in any order, so that
                  later ones are there and earlier ones are not; a sector is never torn.  A file may have grown without
                  its octets: they are zeros then, or what the disk held before.
    folders       a name made, removed or changed is so after a flush of the folder that holds it; flushing the file itself does
                  not bring its name.  Until then each change may be there or not, independent of others.
    rename        happens as a whole: the new name is never there without the content, nor both names gone.  When only the
                  new name's folder was flushed, the old name may still be there as well.

A folder or file whose name is not there is lost with all below it.  Times, owners and modes are not looked at.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import product
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from tests.storage.powerloss.record import Entry

SECTOR = 512
EXHAUSTIVE = 5
"""Steps not flushed up to which every combination is built."""


class Step(NamedTuple):
    """One thing done to a file.  data: None for a cut to ``offset``.  is_durable: it needs no flush."""

    moment: int
    offset: int
    data: bytes | None
    is_durable: bool


class Naming(NamedTuple):
    """One change of a name.  node: what it means now, None for nothing.  change: names changed together have the same."""

    moment: int
    name: str
    node: Node | None
    change: int


class Node:
    """A file or folder, whatever its name."""

    def __init__(self, *, is_folder: bool) -> None:
        self.is_folder = is_folder
        self.steps: list[Step] = []
        self.namings: list[Naming] = []
        self.names: dict[str, Node] = {}
        """What the process saw at the end of the record."""
        self.flushes: list[tuple[int, int]] = []
        self.open_flushes: list[int] = []

    def flushed_before(self, moment: int) -> int:
        """The moment before which everything is flushed."""
        return max((begin for begin, end in self.flushes if end < moment), default=-1)


class Disk:
    """All that was done to one tree.  acknowledged: (moment, line)."""

    def __init__(self, entries: Sequence[Entry], root: Path) -> None:
        """root: of the tree; it exists, flushed and empty, before the record begins."""
        self.root = Node(is_folder=True)
        self.acknowledged: list[tuple[int, str]] = []
        self.moments = len(entries)
        self._prefix = root
        self._by_inode: dict[int, Node] = {root.stat().st_ino: self.root}
        self._nodes = [self.root]
        for moment, entry in enumerate(entries):
            self._take(moment, entry)

    def _take(self, moment: int, entry: Entry) -> None:
        match entry.kind:
            case "A":
                self.acknowledged += [(moment, line) for line in entry.data.decode().splitlines()]
            case "C" | "M":
                node = Node(is_folder=entry.kind == "M")
                self._nodes.append(node)
                self._by_inode[entry.inode] = node
                self._name(moment, entry.path, node)
            case "W" | "D":
                step = Step(moment, entry.offset, entry.data, entry.kind == "D")
                self._by_inode[entry.inode].steps.append(step)
            case "T":
                self._by_inode[entry.inode].steps.append(Step(moment, entry.offset, None, is_durable=False))
            case "S":
                self._by_inode[entry.inode].open_flushes.append(moment)
            case "E":
                node = self._by_inode[entry.inode]
                # Of two at a time on one file the first to end may be the later one: it is taken for the earlier, which promises less.
                node.flushes.append((node.open_flushes.pop(0), moment))
            case "L":
                self._name(moment, entry.other, self._find(entry.path))
            case "U":
                self._name(moment, entry.path, None)
            case "R":
                self._name(moment, entry.other, self._find(entry.path))
                self._name(moment, entry.path, None)

    def _folder_of(self, path: str) -> tuple[Node, str]:
        pure = PurePosixPath(path).relative_to(self._prefix)
        node = self.root
        for part in pure.parts[:-1]:
            node = node.names[part]
        return node, pure.name

    def _find(self, path: str) -> Node:
        folder, name = self._folder_of(path)
        return folder.names[name]

    def _name(self, moment: int, path: str, node: Node | None) -> None:
        folder, name = self._folder_of(path)
        folder.namings.append(Naming(moment, name, node, moment))
        if node is None:
            del folder.names[name]
        else:
            folder.names[name] = node

    def told(self, moment: int) -> list[str]:
        """The acknowledgements before a moment."""
        return [line for _, line in self.acknowledged[: bisect_left(self.acknowledged, (moment, ""))]]

    def at(self, moment: int) -> Instant:
        """The tree when the power fails just before a moment."""
        return Instant(self.root, self._nodes, moment)


class Instant:
    """One moment: what is certain, and what is not."""

    def __init__(self, root: Node, nodes: Sequence[Node], moment: int) -> None:
        self._root = root
        self._moment = moment
        self._flushed = {id(node): node.flushed_before(moment) for node in nodes}
        self._unsure: list[tuple[int, int]] = []
        """(node's id, moment) of steps in files; (-1, change) of changes of names."""
        self._sure_changes: set[int] = set()
        changes = set()
        for node in nodes:
            flushed = self._flushed[id(node)]
            self._unsure += [
                (id(node), step.moment) for step in node.steps if flushed < step.moment < moment and not step.is_durable
            ]
            for naming in node.namings:
                if naming.moment < moment:
                    changes.add(naming.change)
                    if naming.moment < flushed:
                        self._sure_changes.add(naming.change)
        self._unsure += [(-1, change) for change in sorted(changes - self._sure_changes)]

    def whole(self) -> dict[str, bytes | None]:
        """The tree with everything there."""
        return self._tree(set(self._unsure), None)

    def states(self, count: int, chosen: random.Random) -> Iterator[dict[str, bytes | None]]:
        """Trees by path below the root: a file's octets, None for a folder.  All, where few steps are unsure, then ``count`` sampled."""
        if len(self._unsure) <= EXHAUSTIVE:
            for bits in product([False, True], repeat=len(self._unsure)):
                yield self._tree({one for one, bit in zip(self._unsure, bits, strict=True) if bit}, None)
        for _ in range(count):
            share = chosen.choice([0.0, 0.1, 0.5, 0.9, 1.0])
            there = {one for one in self._unsure if chosen.random() < share}
            yield self._tree(there, chosen)

    def _tree(self, there: set[tuple[int, int]], chosen: random.Random | None) -> dict[str, bytes | None]:
        found: dict[str, bytes | None] = {}
        self._walk("", self._root, there, chosen, found)
        return found

    def _walk(
        self,
        path: str,
        folder: Node,
        there: set[tuple[int, int]],
        chosen: random.Random | None,
        found: dict[str, bytes | None],
    ) -> None:
        names: dict[str, Node] = {}
        flushed = self._flushed[id(folder)]
        for naming in folder.namings:
            if naming.moment >= self._moment:
                break
            if naming.moment >= flushed:
                is_sure = naming.change in self._sure_changes
                if not is_sure and (-1, naming.change) not in there:
                    continue
                # Sure by the other folder's flush: the old name may linger.
                if is_sure and naming.node is None and chosen is not None and chosen.random() < 0.5:
                    continue
            if naming.node is None:
                names.pop(naming.name, None)
            else:
                names[naming.name] = naming.node
        for name, node in names.items():
            where = f"{path}/{name}" if path else name
            if node.is_folder:
                found[where] = None
                self._walk(where, node, there, chosen, found)
            else:
                found[where] = self._octets(node, there, chosen)

    def _octets(self, node: Node, there: set[tuple[int, int]], chosen: random.Random | None) -> bytes:
        flushed = self._flushed[id(node)]
        octets = bytearray()
        longest = 0
        is_torn = chosen is not None and chosen.random() < 0.6
        is_stale = chosen is not None and chosen.random() < 0.3
        for step in node.steps:
            if step.moment >= self._moment:
                break
            is_sure = step.moment < flushed or step.is_durable
            if step.data is None:
                if is_sure or (id(node), step.moment) in there:
                    octets[step.offset :] = bytes(max(0, step.offset - len(octets)))
                    longest = step.offset
                continue
            end = step.offset + len(step.data)
            longest = max(longest, end)
            if is_sure:
                _put(octets, step.offset, step.data)
            elif is_torn and chosen is not None:
                share = chosen.choice([0.2, 0.5, 0.9])
                for begin, part in _sectors(step):
                    if chosen.random() < share:
                        _put(octets, begin, part, stale=is_stale)
            elif (id(node), step.moment) in there:
                _put(octets, step.offset, step.data, stale=is_stale)
        if len(octets) < longest and chosen is not None and chosen.random() < 0.4:
            _put(octets, longest, b"", stale=is_stale)
        return bytes(octets)


def _sectors(step: Step) -> Iterator[tuple[int, bytes]]:
    assert step.data is not None
    at = 0
    while at < len(step.data):
        end = min(len(step.data), at + SECTOR - (step.offset + at) % SECTOR)
        yield step.offset + at, step.data[at:end]
        at = end


def _put(octets: bytearray, offset: int, data: bytes, *, stale: bool = False) -> None:
    hole = offset - len(octets)
    if hole > 0:
        octets += (b"stale octets of a file long gone\n" * (hole // 33 + 1))[:hole] if stale else bytes(hole)
    octets[offset : offset + len(data)] = data
