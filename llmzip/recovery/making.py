"""Makes recovery data of the bytes of a file (format section 5b)."""

from __future__ import annotations

import hashlib
import tempfile
import zlib
from collections.abc import Iterator
from typing import BinaryIO, cast

import numpy as np

from ..format.headers import DIGEST_BYTES
from ..format.recovery import Layout, layout_for
from ..system.streams import read_upto
from .code import ParityMaker

_MAX_MEMORY_BYTES = 1 << 26
"""Bytes of an archive that are kept in memory until they are protected, 64 MiB; more go into a temporary file."""


class RecoveryWriter:
    """Takes the bytes of a file as they are written, and makes their recovery data at the end.

    Args:
        percent: share of the bytes that can be mended, above 0 and up to 100.
    """

    def __init__(self, percent: float) -> None:
        self._percent, self._num_bytes, self._sha = percent, 0, hashlib.sha256()
        self._copy = tempfile.SpooledTemporaryFile(_MAX_MEMORY_BYTES)  # noqa: SIM115 - closed by finish()

    def add(self, data: bytes) -> None:
        """Takes the next bytes."""
        self._copy.write(data)
        self._sha.update(data)
        self._num_bytes += len(data)

    def finish(self) -> Iterator[bytes]:
        """Yields the parts of the archive of recovery data.

        Raises:
            ValueError: there are too many bytes.
        """
        with self._copy:
            self._copy.seek(0)
            layout = layout_for(self._num_bytes, self._percent, self._sha.digest()[:DIGEST_BYTES])
            yield from archive_of(cast("BinaryIO", self._copy), layout)


def archive_of(source: BinaryIO, layout: Layout) -> Iterator[bytes]:
    """Yields the parts of the archive of recovery data with a layout.

    Args:
        source: a binary file at the first byte to protect.

    Raises:
        EOFError: the file has fewer bytes than the layout says.
    """
    parity, table = _parity(source, layout)
    table_parity = _parity_of(table, layout.table_parity)

    def packets() -> Iterator[bytes]:
        for number in range(layout.num_packets):
            place = layout.table_number(number)
            if place is None:
                block = parity[layout.parity_number(number)]
            else:
                block = table[place] if place < layout.table_blocks else table_parity[place - layout.table_blocks]
            yield layout.pack_packet(number, block.tobytes())

    yield from layout.pack_archive(packets())


def table_words(checks: bytes, layout: Layout) -> np.ndarray:
    """Returns the blocks of the table, (c, words) uint16, of the crc32 of all blocks."""
    padded = checks.ljust(layout.table_blocks * layout.block_bytes, b"\0")
    return np.frombuffer(padded, dtype="<u2").reshape(layout.table_blocks, -1).astype(np.uint16)


def _parity(source: BinaryIO, layout: Layout) -> tuple[np.ndarray, np.ndarray]:
    """Returns the parity blocks, little-endian, and the blocks of the table."""
    size, left = layout.block_bytes, layout.protected_bytes
    maker = ParityMaker(layout.num_parity, size // 2)
    checks = bytearray()
    while left:
        data = read_upto(source, min(left, maker.points * size))
        if not data:
            raise EOFError("the file has become shorter")
        left -= len(data)
        data = data.ljust(-(-len(data) // size) * size, b"\0")
        for begin in range(0, len(data), size):
            checks += zlib.crc32(data[begin : begin + size]).to_bytes(4, "little")
        maker.add(np.frombuffer(data, dtype="<u2").reshape(-1, size // 2))
    return maker.finish().astype("<u2"), table_words(bytes(checks), layout).astype("<u2")


def _parity_of(table: np.ndarray, num_parity: int) -> np.ndarray:
    """Returns the parity blocks of the table, little-endian."""
    maker = ParityMaker(num_parity, table.shape[1])
    for begin in range(0, len(table), maker.points):
        maker.add(table[begin : begin + maker.points])
    return maker.finish().astype("<u2")
