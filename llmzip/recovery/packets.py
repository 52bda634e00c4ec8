"""Finds the packets of recovery data in damaged bytes. Bounds what hostile bytes may cost."""

from __future__ import annotations

import mmap
import zlib
from collections import Counter
from dataclasses import dataclass, field

from ..errors import CorruptError
from ..format.recovery import HEAD_BYTES, PACKET_MAGIC, Layout, parse_head

Bytes = bytes | mmap.mmap
"""A whole file; a memory map of it needs no memory of its own."""

_MAX_CHECKS = 4
"""How many times the size of the file may be read to check packets."""

_SPARE_CHECKS_BYTES = 1 << 26  # 64 MiB
_MAX_GROWTH = 8
"""How many times the size of the file the recovery data may be that is written again."""

_MAX_SHIFTS = 8
"""Places at which the protected bytes are looked for, each of which costs reading the file once."""


@dataclass
class PacketSet:
    """Whole packets that belong together.

    Attributes:
        layout: what they agree on.
        offsets: number of each packet that was found -> where its data is in the file.
        starts: where the archive of recovery data would begin, by how many packets, for each such place.
    """

    layout: Layout
    offsets: dict[int, int] = field(default_factory=dict)
    starts: Counter[int] = field(default_factory=Counter)

    @property
    def begin(self) -> int:
        """Where the protected bytes would most likely begin in the file; it may be before the file."""
        return self.likely_starts()[0] - self.layout.protected_bytes

    @property
    def end(self) -> int:
        """Where the archive of recovery data would most likely end."""
        return self.likely_starts()[0] + self.layout.archive_bytes

    def likely_starts(self) -> list[int]:
        """Returns where the archive of recovery data may begin, the likeliest place first."""
        return [start for start, _ in self.starts.most_common(_MAX_SHIFTS)]


def find_sets(data: Bytes) -> list[PacketSet]:
    """Returns the sets of packets in a file, in the order in which they are in it.

    Sets inside what another one protects are left out: they belong to a file that was stored in an archive.

    Raises:
        CorruptError: packets in hostile data would cost too much.
    """
    sets: dict[Layout, PacketSet] = {}
    allowance = _MAX_CHECKS * len(data) + _SPARE_CHECKS_BYTES
    place = data.find(PACKET_MAGIC)
    while place >= 0:
        head = parse_head(data[place : place + HEAD_BYTES])
        end = place if head is None else place + head.layout.packet_bytes
        if head is None or end > len(data):
            place = data.find(PACKET_MAGIC, place + 1)
            continue
        allowance -= head.layout.block_bytes
        if allowance < 0:
            raise CorruptError("damaged: too many packets of recovery data fail their checks")
        if zlib.crc32(data[place + HEAD_BYTES : end]) != head.check:
            place = data.find(PACKET_MAGIC, place + 1)
            continue
        found = sets.setdefault(head.layout, PacketSet(head.layout))
        found.offsets.setdefault(head.number, place + HEAD_BYTES)
        found.starts[place - found.layout.packet_offset(head.number)] += 1
        place = data.find(PACKET_MAGIC, end)
    return _outermost(list(sets.values()), len(data))


def _outermost(sets: list[PacketSet], num_bytes: int) -> list[PacketSet]:
    """Returns the sets that are not inside what others protect, in their order in a file of `num_bytes`.

    Raises:
        CorruptError: they are larger than anything that could be mended by what is in the file.
    """
    kept: list[PacketSet] = []
    end = 0
    for found in sorted(sets, key=lambda found: (found.begin, -found.end)):
        if found.likely_starts()[0] >= end or not kept:
            kept.append(found)
            end = found.end
    # Each whole or restored block is one of the file's, or made from a parity block that is.
    protected = sum(found.layout.protected_bytes - found.layout.block_bytes for found in kept)
    written = sum(found.layout.archive_bytes for found in kept)
    if protected > num_bytes or written > _MAX_GROWTH * num_bytes + _SPARE_CHECKS_BYTES:
        raise CorruptError("cannot be repaired: too little is left of what the recovery data protects, or of itself")
    return kept
