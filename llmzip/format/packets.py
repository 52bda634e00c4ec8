"""The bytes of packets and of streams of them (format section 11); must not know models, texts or the command line."""

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
LEAST_PACKET_BYTES, MOST_PACKET_BYTES = 32, 8192
MAX_TEXT_BYTES = 1 << 26

_LAST, _WIDTH_SHIFT, _UNASSIGNED = 1 << 4, 5, 1 << 7
_FIXED_BYTES = 13  # of a packet without data, number and begin
_MOST_DATA_BYTES = 8192
_LEAST_WINDOW_BYTES = 3


@dataclass(frozen=True)
class Packet:
    """A packet.

    Attributes:
        model: 4 bytes that name the model.
        text: 0 .. 65,535, names the whole text.
        number: of the packet.
        begin: where its text begins in the whole text, in bytes.
        tokens: of the window; 0 if the data is the text.
        text_check: 0 .. 65,535, of its text.
        data: window or text.
        last: it is the text's last one.
        width: bytes of number and begin, 1 to 4.
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
        """What all packets of a text have in common."""
        return self.model, self.text, self.width


def model_id(model_digest: bytes, tokenizer_digest: bytes) -> bytes:
    """What packets call a model, 4 bytes; of the digests, 32 bytes each, the first half counts."""
    halves = model_digest[:DIGEST_BYTES] + tokenizer_digest[:DIGEST_BYTES]
    return hashlib.sha256(b"llmzip packets\n" + halves).digest()[:4]


def check16(data: bytes) -> int:
    """Low half of the CRC-32."""
    return zlib.crc32(data) & 0xFFFF


def width(text_bytes: int) -> int:
    """Bytes of `number` and `begin` in the packets of a text of so many bytes."""
    return max(1, (text_bytes.bit_length() + 7) // 8)


def data_bytes(packet_bytes: int, text_bytes: int) -> int:
    """Data that fits into a packet.

    Args:
        packet_bytes: length of a packet, 32 to 8,192.
        text_bytes: of the whole text.

    Raises:
        SettingsError: either is out of range.
    """
    if not LEAST_PACKET_BYTES <= packet_bytes <= MOST_PACKET_BYTES:
        raise SettingsError(
            f"packets have {LEAST_PACKET_BYTES} to {MOST_PACKET_BYTES:,} bytes, {packet_bytes:,} were asked for"
        )
    if text_bytes > MAX_TEXT_BYTES:
        raise SettingsError(f"a text in packets has at most {MAX_TEXT_BYTES:,} bytes, this one has more: cut it")
    return packet_bytes - _FIXED_BYTES - 2 * width(text_bytes)


def pack(packet: Packet) -> bytes:
    """The packet's bytes."""
    kind = VERSION | _LAST * packet.last | packet.width - 1 << _WIDTH_SHIFT
    head = struct.pack("<B4sH", kind, packet.model, packet.text)
    head += packet.number.to_bytes(packet.width, "little") + packet.begin.to_bytes(packet.width, "little")
    head += struct.pack("<HH", packet.tokens, packet.text_check)
    return head + struct.pack("<H", check16(head + packet.data)) + packet.data


def parse(data: bytes) -> Packet:
    """A packet, its own check and limits checked; nothing is said of its text.

    Raises:
        FormatError: of another version.
        CorruptError: damaged.
    """
    width = (data[0] >> _WIDTH_SHIFT & 3) + 1 if data else 1
    head_bytes = _FIXED_BYTES + 2 * width
    if not head_bytes <= len(data) <= head_bytes + _MOST_DATA_BYTES:
        raise CorruptError(f"damaged: {len(data):,} bytes are no packet")
    head, body = data[: head_bytes - 2], data[head_bytes:]
    (stored,) = struct.unpack_from("<H", data, head_bytes - 2)
    if check16(head + body) != stored:
        raise CorruptError(f"damaged: check stored {stored:04x}, computed {check16(head + body):04x}")
    kind, model, text = struct.unpack_from("<B4sH", head)
    if kind & 15 != VERSION:
        raise FormatError(f"a packet of version {kind & 15}, this llmzip knows version {VERSION}")
    number = int.from_bytes(head[7 : 7 + width], "little")
    begin = int.from_bytes(head[7 + width : 7 + 2 * width], "little")
    tokens, text_check = struct.unpack_from("<HH", head, 7 + 2 * width)
    packet = Packet(model, text, number, begin, tokens, text_check, body, bool(kind & _LAST), width)
    is_empty_text = not body and packet.last and not number and not begin and not tokens
    if kind & _UNASSIGNED or not (body or is_empty_text) or (tokens and len(body) < _LEAST_WINDOW_BYTES):
        raise CorruptError("damaged: a packet that breaks a rule of the format")
    if begin + (0 if tokens else len(body)) > MAX_TEXT_BYTES or number > begin:
        raise CorruptError(f"damaged: packet {number:,} with text from byte {begin:,}")
    return packet


def stream_header() -> bytes:
    """What a stream begins with."""
    return STREAM_MAGIC + bytes([VERSION])


def stream_entry(packet: bytes) -> bytes:
    """A packet in a stream."""
    return struct.pack("<H", len(packet)) + packet


def read_stream(source: Readable) -> Iterator[bytes]:
    """The packets of a stream, unchecked.

    Raises:
        FormatError: it is none, or one of another version.
        TruncatedError: it ends within a packet; those before it were there.
    """
    head = read_upto(source, len(STREAM_MAGIC) + 1)
    if head[:-1] != STREAM_MAGIC:
        raise FormatError("not a stream of packets")
    if head[-1] != VERSION:
        raise FormatError(f"a stream of packets of version {head[-1]}, this llmzip knows version {VERSION}")
    while length := read_upto(source, 2):
        wanted = int.from_bytes(length, "little") if len(length) == 2 else 1
        data = read_upto(source, wanted) if len(length) == 2 else b""
        if len(data) != wanted:
            raise TruncatedError("the stream of packets ends within a packet")
        yield data
