"""The bytes of recovery data (format section 5b): how it is laid out in packets and frames. Computes no parity."""

from __future__ import annotations

import functools
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from ..errors import CorruptError
from .headers import MAX_FRAME_BYTES, SKIP, FrameHeader, Header, with_last
from .writing import frame_bytes, pack_frame, pack_header, pack_index

PACKET_MAGIC = b"\xf7LR\x01"
HEAD_BYTES = 48
MIN_BLOCK_BYTES = 64
MAX_BLOCK_BYTES = 1 << 24
MAX_POINTS = 1 << 16
MAX_PARITY = 1 << 15
MAX_PROTECTED_BYTES = (1 << 38) - 1
"""Bytes that recovery data can protect, 256 GiB."""

_TABLE_COPIES = 5
"""Table blocks for each block that the table fills: any fifth of them gives the table."""

_MAX_WRITTEN_BLOCKS = 1 << 14
_USUAL_BLOCK_BYTES = 1 << 10
"""Blocks that a writer makes at most, and their size in bytes unless there would be more."""

_HEAD = struct.Struct("<4sIQII16sI")


@dataclass(frozen=True)
class Layout:
    """What all packets of one archive of recovery data agree on.

    Attributes:
        protected_bytes: N, the number of bytes before the archive that it protects.
        block_bytes: B, the size of a block.
        num_parity: r, the number of parity blocks.
        digest: first half of the SHA-256 of the protected bytes, 16 bytes.
    """

    protected_bytes: int
    block_bytes: int
    num_parity: int
    digest: bytes

    @property
    def num_blocks(self) -> int:
        """Number of blocks k."""
        return -(-self.protected_bytes // self.block_bytes)

    @property
    def table_blocks(self) -> int:
        """Blocks c that the table of checksums fills."""
        return -(-4 * self.num_blocks // self.block_bytes)

    @property
    def table_packets(self) -> int:
        """Packets u that hold blocks of the table, or parity blocks of these."""
        return _TABLE_COPIES * self.table_blocks

    @property
    def table_parity(self) -> int:
        """Parity blocks of the table."""
        return self.table_packets - self.table_blocks

    @property
    def num_packets(self) -> int:
        """Number of packets p."""
        return self.num_parity + self.table_packets

    @property
    def packet_bytes(self) -> int:
        """Size of a packet."""
        return HEAD_BYTES + self.block_bytes

    @property
    def is_readable(self) -> bool:
        """Whether it keeps the limits."""
        size = self.block_bytes
        return (
            MIN_BLOCK_BYTES <= size <= MAX_BLOCK_BYTES
            and size & (size - 1) == 0
            and 1 <= self.num_parity <= MAX_PARITY
            and 1 <= self.protected_bytes <= MAX_PROTECTED_BYTES
            and (1 << (self.num_parity - 1).bit_length()) + self.num_blocks <= MAX_POINTS
        )

    def table_number(self, packet: int) -> int | None:
        """Returns the number of the table block in a packet; None if it holds a parity block."""
        before, after = (n * self.table_packets // self.num_packets for n in (packet, packet + 1))
        return before if after > before else None

    def parity_number(self, packet: int) -> int:
        """Returns the number of the parity block in a packet that holds one."""
        return packet - packet * self.table_packets // self.num_packets

    @functools.cached_property
    def frame_packets(self) -> list[int]:
        """Number of packets in each frame, at most two different ones."""
        in_frame = MAX_FRAME_BYTES // self.packet_bytes
        frames = max(2, -(-self.num_packets // in_frame))
        size, more = divmod(self.num_packets, frames)
        return [size + (number < more) for number in range(frames)]

    def packet_offset(self, number: int) -> int:
        """Returns where a packet begins in the archive of recovery data."""
        counts = self.frame_packets
        larger, count = counts.count(counts[0]), counts[0]
        offset = len(pack_header(Header()))
        if number >= larger * count:
            offset += larger * self._frame_bytes(count)
            number -= larger * count
            count = counts[-1]
        frame, place = divmod(number, count)
        size = self._frame_bytes(count)
        return offset + (frame + 1) * size - 5 - (count - place) * self.packet_bytes

    def _frame_bytes(self, packets: int) -> int:
        """Returns the size of a frame with so many packets."""
        return frame_bytes(FrameHeader(SKIP, 0, packets * self.packet_bytes))

    @property
    def archive_bytes(self) -> int:
        """Size of the archive of recovery data."""
        entries = [(self._frame_bytes(count), 0, 0) for count in self.frame_packets]
        return len(pack_header(Header())) + sum(size for size, *_ in entries) + len(pack_index(entries))

    def pack_packet(self, number: int, data: bytes) -> bytes:
        """Packs a packet.

        Args:
            number: of the packet.
            data: the block.
        """
        head = _HEAD.pack(
            PACKET_MAGIC,
            number,
            self.protected_bytes,
            self.block_bytes,
            self.num_parity,
            self.digest,
            zlib.crc32(data),
        )
        return head + zlib.crc32(head).to_bytes(4, "little") + data

    def pack_archive(self, packets: Iterable[bytes]) -> Iterator[bytes]:
        """Yields the parts of the archive of recovery data: its frames, then its index."""
        rest, prefix, entries = iter(packets), pack_header(Header()), []
        counts = self.frame_packets
        for number, count in enumerate(counts, 1):
            payload = b"".join(next(rest) for _ in range(count))
            header = with_last(FrameHeader(SKIP, 0, len(payload)), number == len(counts))
            frame = pack_frame(header, payload, 0, prefix)
            entries.append((len(frame) - len(prefix), 0, 0))
            prefix = b""
            yield frame
        yield pack_index(entries)


def layout_for(num_bytes: int, percent: float, digest: bytes) -> Layout:
    """Returns the layout that llmzip writes.

    Args:
        num_bytes: bytes to protect, at least 1.
        percent: share of the bytes that can be mended, above 0 and up to 100.
        digest: of the bytes.

    Raises:
        ValueError: there are too many bytes.
    """
    block = MIN_BLOCK_BYTES
    while (block < _USUAL_BLOCK_BYTES and block * block < 2 * num_bytes) or -(
        -num_bytes // block
    ) > _MAX_WRITTEN_BLOCKS:
        block *= 2
    if not 1 <= num_bytes <= MAX_PROTECTED_BYTES:
        raise ValueError(f"{num_bytes} bytes cannot be protected")
    permyriad = round(100 * percent)  # integers, so that the same archive is made everywhere
    num_blocks = -(-num_bytes // block)
    return Layout(num_bytes, block, -(-7 * num_blocks * permyriad // 50_000) + 4, digest)


class Head(NamedTuple):
    """The head of a packet, which has passed its check.

    Attributes:
        layout: what the packet says of its archive.
        number: of the packet, below the number of packets.
        check: crc32 of the data.
    """

    layout: Layout
    number: int
    check: int


def parse_head(data: bytes) -> Head | None:
    """Returns the head that some bytes begin with; None if they don't, or if it is damaged or breaks a rule."""
    if len(data) < HEAD_BYTES or data[:4] != PACKET_MAGIC:
        return None
    if zlib.crc32(data[: HEAD_BYTES - 4]) != int.from_bytes(data[HEAD_BYTES - 4 : HEAD_BYTES], "little"):
        return None
    _, number, protected, block, parity, digest, check = _HEAD.unpack_from(data)
    layout = Layout(protected, block, parity, digest)
    return Head(layout, number, check) if layout.is_readable and number < layout.num_packets else None


def check_packets(payload: bytes, frame_number: int) -> None:
    """Checks the packets of a skip frame's payload; does nothing with a payload of another use.

    Args:
        payload: of the frame.
        frame_number: of the frame in its archive.

    Raises:
        CorruptError: a packet is damaged, or they do not belong there.
    """
    if payload[: len(PACKET_MAGIC)] != PACKET_MAGIC:
        return
    first = parse_head(payload[:HEAD_BYTES])
    counts = [] if first is None else first.layout.frame_packets
    place, number = 0, sum(counts[:frame_number])
    if first is not None and frame_number < len(counts):
        layout = first.layout
        while place < len(payload):
            head = parse_head(payload[place : place + HEAD_BYTES])
            data = payload[place + HEAD_BYTES : place + layout.packet_bytes]
            if head is None or (head.layout, head.number) != (layout, number) or zlib.crc32(data) != head.check:
                break
            place, number = place + layout.packet_bytes, number + 1
        if place == len(payload) == counts[frame_number] * layout.packet_bytes:
            return
    raise CorruptError(f"damaged recovery data: packet {number}; no text is lost, and llmzip repair mends the file")
