"""Mends a file by its recovery data (format section 5b)."""

from __future__ import annotations

import hashlib
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from ..errors import CorruptError, LLMZipError
from ..format.headers import DIGEST_BYTES, MAGIC
from ..format.reading import read_archives
from ..format.recovery import Layout
from ..system.streams import write_all
from .code import Restorer
from .making import archive_of
from .packets import Bytes, PacketSet, find_sets

_COPY_BYTES = 1 << 20
_SAME_BYTES = 64
"""Bytes at the beginning of two archives that are only the same if both are the same archive."""


@dataclass(frozen=True)
class Mended:
    """What was wrong with the bytes that one archive of recovery data protects.

    Attributes:
        layout: of the recovery data.
        begin: where the protected bytes begin in the mended file.
        lost_blocks: number of blocks that were damaged or missing, and are restored.
        moved_blocks: number of blocks that were found at another place than they belong to.
        lost_packets: number of packets that were damaged or missing, and are written again.
        removed_bytes: bytes before the protected ones that were left out: no archive, or the restored beginning again.
    """

    layout: Layout
    begin: int
    lost_blocks: int
    moved_blocks: int
    lost_packets: int
    removed_bytes: int = 0

    @property
    def was_whole(self) -> bool:
        """Whether all blocks and packets were whole and in their places."""
        return not (self.lost_blocks or self.moved_blocks or self.lost_packets)


@dataclass(frozen=True)
class Repair:
    """What was done to a file.

    Attributes:
        sets: what was mended, in the order of the file; each was verified by its digest.
        is_changed: whether the mended file differs from the damaged one.
    """

    sets: list[Mended]
    is_changed: bool


def repair(data: Bytes, sink: BinaryIO) -> Repair:
    """Writes a mended file; bytes that no recovery data protects are copied as they are.

    Args:
        data: the damaged file.
        sink: a binary file; what was written before an error must not be used.

    Raises:
        LLMZipError: no recovery data was found.
        CorruptError: there is more damage than the recovery data can mend.
    """
    sets = find_sets(data)
    if not sets:
        raise LLMZipError("no recovery data was found: the file was made without --recovery, or all of it is lost")
    target, done, reports = _Target(data, sink), 0, []
    for found in sets:
        layout, blocks = found.layout, _Blocks(data, found, done)
        protected = _Protected(data, found, blocks)
        removed = _is_displaced(data[done : blocks.begin], next(protected.parts()), blocks)
        if not removed:
            target.copy(done, blocks.begin)
        begin, sha = target.num_bytes, hashlib.sha256()
        for part in protected.parts():
            sha.update(part)
            target.write(part)
        if sha.digest()[:DIGEST_BYTES] != layout.digest:
            raise CorruptError("damaged: the mended bytes do not have the digest of the recovery data")
        for part in archive_of(protected.file(), layout):
            target.write(part)
        lost = layout.num_packets - len(found.offsets)
        removed_bytes = max(blocks.begin - done, 0) if removed else 0
        reports.append(Mended(layout, begin, len(blocks.lost), blocks.num_moved, lost, removed_bytes))
        done = max(found.end, done)
    target.copy(done, len(data))
    return Repair(reports, target.is_changed or target.num_bytes != len(data))


def _is_displaced(before: bytes, first: bytes, blocks: _Blocks) -> bool:
    """Whether bytes before the protected ones are no archive of their own, but came between by an insertion.

    Args:
        before: these bytes, after the archives that were mended already.
        first: the first block of the protected bytes, as it should be.
        blocks: where the blocks were found.
    """
    if not before.startswith(MAGIC):
        return True
    if blocks.offsets[0] >= 0 or before[: len(MAGIC) + 1] != first[: len(MAGIC) + 1]:
        return False
    try:
        for _ in read_archives(io.BytesIO(before)):
            pass
    except LLMZipError:
        is_same = before[:_SAME_BYTES] == first[:_SAME_BYTES]
        return is_same or len(before) <= len(first) * blocks.num_first_lost
    return False


class _Target:
    """Writes the mended file and compares it with the damaged one.

    Args:
        data: the damaged file.
        sink: where the mended one goes.

    Attributes:
        num_bytes: bytes written so far.
        is_changed: whether one of them differs from the damaged file's at the same place.
    """

    def __init__(self, data: Bytes, sink: BinaryIO) -> None:
        self._data, self._sink = data, sink
        self.num_bytes, self.is_changed = 0, False

    def write(self, part: bytes) -> None:
        """Writes the next bytes."""
        self.is_changed = self.is_changed or self._data[self.num_bytes : self.num_bytes + len(part)] != part
        write_all(self._sink, part)
        self.num_bytes += len(part)

    def copy(self, begin: int, end: int) -> None:
        """Writes bytes of the damaged file that nothing protects."""
        for place in range(begin, end, _COPY_BYTES):
            self.write(self._data[place : min(place + _COPY_BYTES, end)])


class _Blocks:
    """Where the whole blocks of a set are.

    Args:
        data: the file.
        found: the set.
        earliest: where the protected bytes would begin if the file began with them, or followed on those before.

    Attributes:
        offsets: where each block is; -1 if it is lost.
        lost: numbers of the lost blocks.
        begin: where the protected bytes begin in the file as it is.
        num_first_lost: number of lost blocks before the first one that was found.
        num_moved: number of blocks at other places than most.
    """

    def __init__(self, data: Bytes, found: PacketSet, earliest: int) -> None:
        layout, size = found.layout, found.layout.block_bytes
        starts = [start - layout.protected_bytes for start in found.likely_starts()]
        starts += [earliest] if earliest not in starts else []
        self.offsets, self.num_moved = [-1] * layout.num_blocks, 0
        try:
            checks = np.frombuffer(_table(data, found), dtype="<u4", count=layout.num_blocks).tolist()
        except CorruptError:
            whole = next((start for start in starts if _is_whole(data, start, layout)), None)
            if whole is None:
                raise
            self.offsets = list(range(whole, whole + layout.protected_bytes, size))
        else:
            self._look_for(data, checks, starts, layout)
        self.lost = [number for number, place in enumerate(self.offsets) if place < 0]
        first = next((n for n, place in enumerate(self.offsets) if place >= 0), None)
        self.num_first_lost = layout.num_blocks if first is None else first
        self.begin = max(0, starts[0] if first is None else self.offsets[first] - first * size)

    def _look_for(self, data: Bytes, checks: list[int], starts: list[int], layout: Layout) -> None:
        """Notes the places of all blocks that are whole where the protected bytes may begin."""
        size = layout.block_bytes
        for rank, start in enumerate(starts):
            for number, check in enumerate(checks):
                place = start + number * size
                length = min(size, layout.protected_bytes - number * size)
                if self.offsets[number] >= 0 or not 0 <= place <= len(data) - length:
                    continue
                if _check(data[place : place + length], size) == check:
                    self.offsets[number] = place
                    self.num_moved += rank > 0


def _is_whole(data: Bytes, begin: int, layout: Layout) -> bool:
    """Whether all protected bytes are at a place in the file, by their digest."""
    if not 0 <= begin <= len(data) - layout.protected_bytes:
        return False
    sha, end = hashlib.sha256(), begin + layout.protected_bytes
    for place in range(begin, end, _COPY_BYTES):
        sha.update(data[place : min(place + _COPY_BYTES, end)])
    return sha.digest()[:DIGEST_BYTES] == layout.digest


def _check(block: bytes, size: int) -> int:
    """Returns the crc32 of a block, filled up with zeros."""
    check = zlib.crc32(block)
    return check if len(block) == size else zlib.crc32(bytes(size - len(block)), check)


def _table(data: Bytes, found: PacketSet) -> bytes:
    """Returns the table of the blocks' checksums.

    Raises:
        CorruptError: too little of it is left.
    """
    layout, size = found.layout, found.layout.block_bytes
    places: dict[int, int] = {}
    for number, offset in found.offsets.items():
        block = layout.table_number(number)
        if block is not None:
            places[block] = offset
    if len(places) < layout.table_blocks:
        raise CorruptError(
            f"cannot be repaired: of the recovery data's table {len(places):,} blocks are left, and "
            f"{layout.table_blocks:,} are needed"
        )
    count = layout.table_blocks
    table = _Rows(data, size, [places.get(n, -1) for n in range(count)], [size] * count)
    parity = _Rows(data, size, [places.get(count + n, -1) for n in range(layout.table_parity)])
    restored = _restored(table, parity)
    return b"".join(restored[n] if n in restored else table.block(n) for n in range(count))


class _Rows:
    """Blocks of a file by number, of which some are lost.

    Args:
        data: the file.
        size: bytes of a block.
        offsets: where each one is; -1 if it is lost.
        lengths: bytes of each one that are in the file, zeros after them; None if all are.
    """

    def __init__(self, data: Bytes, size: int, offsets: list[int], lengths: list[int] | None = None) -> None:
        self.size, self.offsets = size, offsets
        self._data, self._lengths = data, lengths

    @property
    def lost(self) -> list[int]:
        """Numbers of the lost blocks."""
        return [number for number, offset in enumerate(self.offsets) if offset < 0]

    def block(self, number: int) -> bytes:
        """Returns a block, without the zeros after it."""
        length = self.size if self._lengths is None else self._lengths[number]
        return self._data[self.offsets[number] : self.offsets[number] + length]

    def fill(self, words: np.ndarray, columns: slice) -> None:
        """Writes columns of all blocks into words, (blocks, columns) uint16; lost ones are left as they are."""
        begin, end = 2 * columns.start, 2 * columns.stop
        for number, offset in enumerate(self.offsets):
            if offset >= 0:
                part = self.block(number)[begin:end]
                words[number] = np.frombuffer(part.ljust(end - begin, b"\0"), dtype="<u2")


def _restored(blocks: _Rows, parity: _Rows) -> dict[int, bytes]:
    """Returns the lost ones of some blocks by number.

    Raises:
        CorruptError: more are lost than parity blocks are left.
    """
    lost, left = blocks.lost, len(parity.offsets) - len(parity.lost)
    if not lost:
        return {}
    if len(lost) > left:
        raise CorruptError(
            f"cannot be repaired: {len(lost):,} of {len(blocks.offsets):,} blocks of {blocks.size:,} bytes are lost, "
            f"and {left:,} parity blocks are left; llmzip cat --salvage writes what is whole"
        )
    restorer = Restorer(len(parity.offsets), len(blocks.offsets), parity.lost, lost)
    found = np.empty((len(lost), blocks.size // 2), dtype="<u2")
    for columns in restorer.stripes(blocks.size // 2):
        words = np.zeros((restorer.size, columns.stop - columns.start), dtype=np.uint16)
        parity.fill(words[: len(parity.offsets)], columns)
        blocks.fill(words[restorer.first_block : restorer.first_block + len(blocks.offsets)], columns)
        found[:, columns] = restorer.restore(words)
    return {number: found[place].tobytes() for place, number in enumerate(lost)}


class _Protected:
    """The protected bytes, mended.

    Args:
        data: the file.
        found: the set of packets.
        blocks: where the blocks are.

    Raises:
        CorruptError: more blocks are lost than can be restored.
    """

    def __init__(self, data: Bytes, found: PacketSet, blocks: _Blocks) -> None:
        layout, size = found.layout, found.layout.block_bytes
        lengths = [min(size, layout.protected_bytes - number * size) for number in range(layout.num_blocks)]
        parity = [-1] * layout.num_parity
        for number, offset in found.offsets.items():
            if layout.table_number(number) is None:
                parity[layout.parity_number(number)] = offset
        self._lengths = lengths
        self._rows = _Rows(data, size, blocks.offsets, lengths)
        self._restored = _restored(self._rows, _Rows(data, size, parity))

    def parts(self) -> Iterator[bytes]:
        """Yields all bytes, block by block."""
        for number, length in enumerate(self._lengths):
            restored = self._restored.get(number)
            yield self._rows.block(number) if restored is None else restored[:length]

    def file(self) -> BinaryIO:
        """Returns a file that reads all bytes once, from the front."""
        return io.BufferedReader(_PartsReader(self.parts()), _COPY_BYTES)


class _PartsReader(io.RawIOBase):
    """Reads parts one after the other."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        self._parts, self._rest = parts, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        if not self._rest:
            self._rest = next(self._parts, b"")
        count = min(len(view), len(self._rest))
        view[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count
