"""Packs and parses packets and streams of packets (format section 11); must not know models, texts or options."""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import CorruptError, FormatError, SettingsError, TruncatedError
from ..system.streams import Readable, read_upto
from .headers import DIGEST_BYTES

VERSION = 1
STREAM_MAGIC = b"\xf7LP"
MIN_PACKET_BYTES = 32
MAX_PACKET_BYTES = 8192
MAX_TEXT_BYTES = 1 << 26
"""Size of a text in packets, 64 MiB."""

_LAST_FLAG = 1 << 4
"""Bits of a packet's first byte, with its version in the lowest four."""

_WIDTH_SHIFT = 5
_UNASSIGNED = 1 << 7
_FIXED_BYTES = 13
"""Size of a packet without its data, number and begin."""

_MAX_DATA_BYTES = 8192
_MIN_WINDOW_BYTES = 3


@dataclass(frozen=True)
class Packet:
    """One packet of a text.

    Attributes:
        model: name of the model, 4 bytes, from `model_id`.
        text: checksum of the whole text, 0 to 65,535, which all of its packets carry.
        number: number of the packet in the text, from 0.
        begin: where the packet's text begins in the whole text, in bytes.
        tokens: tokens in the window; 0 if the data is the text itself.
        text_check: checksum of the packet's text, 0 to 65,535.
        data: the window or the text.
        last: whether it is the text's last packet.
        width: size of number and begin in bytes, 1 to 4.
    """

    model: bytes
    text: int
    number: int
    begin: int
    tokens: int
    text_check: int
    data: bytes
    last: bool
    width: int

    @property
    def kin(self) -> tuple[bytes, int, int]:
        """Fields that are equal in all packets of a text: model, text and width."""
        return self.model, self.text, self.width


def model_id(model_digest: bytes, tokenizer_digest: bytes) -> bytes:
    """Returns the 4 bytes that name a model in packets, from the first halves of its digests of 32 bytes."""
    halves = model_digest[:DIGEST_BYTES] + tokenizer_digest[:DIGEST_BYTES]
    return hashlib.sha256(b"llmzip packets\n" + halves).digest()[:4]


def check16(data: bytes) -> int:
    """Returns the low half of the CRC-32."""
    return zlib.crc32(data) & 0xFFFF


def width(text_bytes: int) -> int:
    """Returns the size of `number` and of `begin`, in bytes, in the packets of a text of `text_bytes` bytes."""
    return max(1, (text_bytes.bit_length() + 7) // 8)


def data_bytes(packet_bytes: int, text_bytes: int) -> int:
    """Returns how many bytes of data fit into a packet.

    Args:
        packet_bytes: size of the packet, 32 to 8,192.
        text_bytes: size of the whole text.

    Raises:
        SettingsError: either size is out of range.
    """
    if not MIN_PACKET_BYTES <= packet_bytes <= MAX_PACKET_BYTES:
        raise SettingsError(
            f"packets have {MIN_PACKET_BYTES} to {MAX_PACKET_BYTES:,} bytes, {packet_bytes:,} were asked for"
        )
    if text_bytes > MAX_TEXT_BYTES:
        raise SettingsError(f"a text in packets has at most {MAX_TEXT_BYTES:,} bytes, this one has more: cut it")
    return packet_bytes - _FIXED_BYTES - 2 * width(text_bytes)


def pack(packet: Packet) -> bytes:
    """Packs a packet into bytes."""
    kind = VERSION | _LAST_FLAG * packet.last | packet.width - 1 << _WIDTH_SHIFT
    head = struct.pack("<B4sH", kind, packet.model, packet.text)
    head += packet.number.to_bytes(packet.width, "little") + packet.begin.to_bytes(packet.width, "little")
    head += struct.pack("<HH", packet.tokens, packet.text_check)
    return head + struct.pack("<H", check16(head + packet.data)) + packet.data


def parse(data: bytes) -> Packet:
    """Parses a packet and checks its checksum and its limits, but not its text.

    Raises:
        FormatError: the packet has another version.
        CorruptError: it is damaged, or not a packet.
    """
    width = (data[0] >> _WIDTH_SHIFT & 3) + 1 if data else 1
    head_bytes = _FIXED_BYTES + 2 * width
    if not head_bytes <= len(data) <= head_bytes + _MAX_DATA_BYTES:
        raise CorruptError(f"damaged: {len(data):,} bytes are not a packet")
    head, body = data[: head_bytes - 2], data[head_bytes:]
    (stored,) = struct.unpack_from("<H", data, head_bytes - 2)
    if check16(head + body) != stored:
        raise CorruptError(f"damaged: check stored {stored:04x}, computed {check16(head + body):04x}")
    kind, model, text = struct.unpack_from("<B4sH", head)
    if kind & 15 != VERSION:
        raise FormatError(f"packet version {kind & 15} is not supported, only version {VERSION}")
    number = int.from_bytes(head[7 : 7 + width], "little")
    begin = int.from_bytes(head[7 + width : 7 + 2 * width], "little")
    tokens, text_check = struct.unpack_from("<HH", head, 7 + 2 * width)
    packet = Packet(model, text, number, begin, tokens, text_check, body, bool(kind & _LAST_FLAG), width)
    is_empty_text = not body and packet.last and not number and not begin and not tokens
    if kind & _UNASSIGNED or not (body or is_empty_text) or (tokens and len(body) < _MIN_WINDOW_BYTES):
        raise CorruptError("damaged: a packet that breaks a rule of the format")
    if begin + (0 if tokens else len(body)) > MAX_TEXT_BYTES or number > begin:
        raise CorruptError(f"damaged: packet {number:,} with text from byte {begin:,}")
    return packet


def stream_header() -> bytes:
    """Returns the bytes that a stream of packets begins with."""
    return STREAM_MAGIC + bytes([VERSION])


def stream_entry(packet: bytes) -> bytes:
    """Packs a packet for a stream: its length, 2 bytes, and its bytes."""
    return struct.pack("<H", len(packet)) + packet


def read_stream(source: Readable) -> Iterator[bytes]:
    """Yields the packets of a stream, unchecked.

    Raises:
        FormatError: it is not a stream of packets, or has another version.
        TruncatedError: it ends within a packet; the packets before that have been yielded.
    """
    head = read_upto(source, len(STREAM_MAGIC) + 1)
    if head[:-1] != STREAM_MAGIC:
        raise FormatError("not a stream of packets")
    if head[-1] != VERSION:
        raise FormatError(f"version {head[-1]} of streams of packets is not supported, only version {VERSION}")
    while length := read_upto(source, 2):
        wanted = int.from_bytes(length, "little") if len(length) == 2 else 1
        data = read_upto(source, wanted) if len(length) == 2 else b""
        if len(data) != wanted:
            raise TruncatedError("the stream of packets ends within a packet")
        yield data
