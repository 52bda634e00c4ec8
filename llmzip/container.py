"""The byte format of docs/format.md: header, frame, index; standard library only, knows no model and no method.

Writing: `pack_header`, `pack_frame`, `pack_index`. Reading: `ArchiveReader` walks a file of one or several archives,
checks every limit before it allocates, and can skip payloads.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from .errors import CorruptError, FormatError, TruncatedError

MAGIC = b"\xf7LZ"
INDEX_MAGIC = b"ZL\xf7\n"
SUFFIX = ".llmz"
FORMAT_VERSION = 1

STORED, LM, LZMA, ZSTD, SKIP, INDEX = 0, 1, 2, 3, 6, 7
METHOD_NAMES = {STORED: "stored", LM: "lm", LZMA: "lzma", ZSTD: "zstd", SKIP: "skip", INDEX: "index"}

NO_MODEL = 0
USER_MODEL = 15
ENGINE_EXACT = 1
NUMERICS_VERSION = 1

MAX_FRAME_BYTES = 1 << 26
MAX_LM_BYTES = 1 << 24
MAX_ROWS = 1 << 16
MAX_CONTEXT = 1 << 17
MAX_RECORD_BYTES = 512
MAX_NAME_BYTES = 255
MAX_INDEX_ENTRIES = 1 << 22
DIGEST_BYTES = 16

_LAST = 0x08
_PIECE = 1 << 20  # bytes read at once: a hostile length allocates no more than what is there
_CRC8_POLYNOMIAL = 0x11D


@dataclass(frozen=True)
class ModelRecord:
    """The model of an archive that is not embedded (format section 2)."""

    name: str
    model_digest: bytes
    tokenizer_digest: bytes
    planes: int
    context: int
    start_token: int
    engine: int = ENGINE_EXACT
    numerics: int = NUMERICS_VERSION


@dataclass(frozen=True)
class Header:
    """The header of one archive."""

    model_code: int = NO_MODEL
    model: ModelRecord | None = None


@dataclass(frozen=True)
class FrameHeader:
    """The fields of a frame before its payload (format section 3).

    Attributes:
        rows, overlap: only with profile 3, else 0.
    """

    method: int
    last: bool
    original_bytes: int
    payload_bytes: int
    num_tokens: int = 0
    profile: int = 0
    rows: int = 0
    overlap: int = 0


@dataclass(frozen=True)
class Frame:
    """A frame as read: its place in the file, and its payload unless that was skipped."""

    number: int
    offset_bytes: int
    size_bytes: int
    header: FrameHeader
    payload: bytes
    crc32: int
    archive: Header


# -- numbers and checks ----------------------------------------------------------------------------------------------


def pack_varint(value: int) -> bytes:
    """7 bits a byte, least significant first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _crc8_table(power: int) -> bytes:
    """For each byte b, b * x^8 * x^(8 * power) reduced by the polynomial, as a translation table."""
    table = bytearray(256)
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value << 1 ^ (_CRC8_POLYNOMIAL if value & 0x80 else 0)
        table[byte] = value
    result = bytes(table)
    for _ in range(power):
        result = result.translate(bytes(table))
    return result


_CRC8 = _crc8_table(0)


def crc8(data: bytes) -> int:
    """CRC-8, polynomial 0x1D, initial value 0 (format section 1).

    The polynomial is irreducible, so bytes are elements of GF(256) and the checksum is a polynomial in x^8: it can be
    folded in halves, multiplying the front half by a power of x^8, instead of byte by byte.
    """
    tables: list[bytes] = [_CRC8]  # tables[n] multiplies by x^(8 * 2^n)
    while len(data) > 64:
        level = (len(data) - 1).bit_length() - 1
        half = 1 << level
        while len(tables) <= level:
            tables.append(tables[-1].translate(tables[-1]))
        front = data[: len(data) - half].translate(tables[level])
        folded = int.from_bytes(front, "big") ^ int.from_bytes(data[len(data) - half :], "big")
        data = folded.to_bytes(half, "big")
    value = 0
    for byte in data:
        value = _CRC8[value ^ byte]
    return value


# -- writing ---------------------------------------------------------------------------------------------------------


def pack_header(header: Header) -> bytes:
    """The bytes of format section 2."""
    out = MAGIC + bytes([FORMAT_VERSION | header.model_code << 4])
    if header.model is None:
        return out
    model = header.model
    record = bytes([model.engine, model.numerics, model.planes])
    record += pack_varint(model.context) + pack_varint(model.start_token)
    record += model.model_digest + model.tokenizer_digest
    record += model.name.encode("utf-8", "replace")[:MAX_NAME_BYTES].decode("utf-8", "ignore").encode("utf-8")
    return out + pack_varint(len(record)) + record


def pack_frame(header: FrameHeader, payload: bytes, crc32: int, prefix: bytes = b"") -> bytes:
    """The bytes of format section 3.

    Args:
        header: with payload_bytes == len(payload).
        payload: the compressed bytes.
        crc32: of the original bytes.
        prefix: the archive's header before its first frame, which the check covers; it is part of the result.
    """
    numbers = (header.original_bytes, header.payload_bytes, header.num_tokens)
    width = max(1, (max(numbers).bit_length() + 7) // 8)
    tag = header.method | _LAST * header.last | (width - 1) << 4 | header.profile << 6
    head = prefix + bytes([tag]) + b"".join(n.to_bytes(width, "little") for n in numbers)
    if header.profile == 3:
        head += pack_varint(header.rows) + pack_varint(header.overlap)
    body = head + payload
    return body + bytes([crc8(body)]) + crc32.to_bytes(4, "little")


def pack_index(entries: list[tuple[int, int]]) -> bytes:
    """The bytes of format section 5; entries are (frame bytes, original bytes)."""
    body = b"".join(pack_varint(size) + pack_varint(original) for size, original in entries)
    head = bytes([INDEX]) + pack_varint(len(body))
    total = len(head) + len(body) + 4 + 4 + len(INDEX_MAGIC)
    return head + body + zlib.crc32(body).to_bytes(4, "little") + total.to_bytes(4, "little") + INDEX_MAGIC


# -- reading ---------------------------------------------------------------------------------------------------------


class ArchiveReader:
    """Yields the frames of a file of concatenated archives, front to back.

    Args:
        source: a binary file; it need not be seekable.
        skip_payloads: leave payloads empty and their check unread, seeking over them where the source can seek.
        single: stop after the first archive; `tail` then holds nothing beyond it.
    """

    def __init__(self, source: BinaryIO, skip_payloads: bool = False, single: bool = False) -> None:
        self._source = source
        self._skip = skip_payloads
        self._single = single
        self._seek_end = _end_of(source) if skip_payloads else None
        self.offset_bytes = 0
        self.archives: list[Header] = []
        self._check = b""  # header bytes that the next frame's crc8 covers

    def __iter__(self) -> Iterator[Frame]:
        first = True
        while True:
            start = self._read_some(len(MAGIC))
            if not start and not first:
                return
            self._read_header(start, first)
            first = False
            yield from self._read_frames()
            if self._single:
                return

    def _read_header(self, start: bytes, first: bool) -> None:
        where = "" if first else f" at byte {self.offset_bytes - len(start)}, after a complete archive"
        if start != MAGIC:
            if start and MAGIC.startswith(start):
                raise TruncatedError(f"truncated: {len(start)} bytes, not even a header{where}")
            if not start:
                raise TruncatedError("truncated: empty file, not an llmzip archive")
            raise FormatError(f"not an llmzip archive{where}" if first else f"not an llmzip archive: trailing data{where}")
        kind = self._read(1)
        version, model_code = kind[0] & 0x0F, kind[0] >> 4
        if version != FORMAT_VERSION:
            raise FormatError(
                f"format version {version} is not supported, only version {FORMAT_VERSION}: "
                "made by another version of llmzip, or damaged"
            )
        self._check = start + kind
        record = self._read_record() if model_code == USER_MODEL else None
        self.archives.append(Header(model_code, record))

    def _read_record(self) -> ModelRecord:
        length = self._read_varint()
        if length > MAX_RECORD_BYTES:
            raise CorruptError(f"damaged header: model record of {length} bytes, at most {MAX_RECORD_BYTES}")
        raw = self._read(length)
        self._check += raw
        fields = ArchiveReader(io.BytesIO(raw))
        engine, numerics, planes = fields._read(3)
        context, start_token = fields._read_varint(), fields._read_varint()
        model_digest, tokenizer_digest = fields._read(DIGEST_BYTES), fields._read(DIGEST_BYTES)
        try:
            name = raw[fields.offset_bytes :].decode("utf-8")
        except UnicodeDecodeError:
            raise CorruptError("damaged header: the model's name is not UTF-8") from None
        if len(name.encode()) > MAX_NAME_BYTES or planes not in (1, 2) or not 2 <= context <= MAX_CONTEXT:
            raise CorruptError("damaged header: a field of the model record is out of range")
        if engine != ENGINE_EXACT or numerics != NUMERICS_VERSION:
            raise FormatError(f"needs engine {engine} with numerics version {numerics}, which this llmzip does not have")
        return ModelRecord(name, model_digest, tokenizer_digest, planes, context, start_token, engine, numerics)

    def _read_frames(self) -> Iterator[Frame]:
        entries: list[tuple[int, int]] = []
        while True:
            frame = self._read_frame(len(entries))
            entries.append((frame.size_bytes, frame.header.original_bytes))
            if len(entries) > MAX_INDEX_ENTRIES:
                raise CorruptError(f"damaged: more than {MAX_INDEX_ENTRIES} frames in one archive")
            yield frame
            if frame.header.last:
                break
        if len(entries) > 1:
            self._read_index(entries)

    def _read_frame(self, number: int) -> Frame:
        begin = self.offset_bytes
        prefix, self._check = self._check, b""
        tag = self._read(1)[0]
        self._check += bytes([tag])
        width = (tag >> 4 & 3) + 1
        sizes = self._read(3 * width)
        self._check += sizes
        original, payload_bytes, tokens = (
            int.from_bytes(sizes[n * width : (n + 1) * width], "little") for n in range(3)
        )
        if original > MAX_FRAME_BYTES or payload_bytes > MAX_FRAME_BYTES or tokens > MAX_FRAME_BYTES:
            raise CorruptError(f"frame {number}: damaged: a size is above the limit of {MAX_FRAME_BYTES} bytes")
        rows = overlap = 0
        if tag >> 6 == 3:
            rows, overlap = self._read_varint(), self._read_varint()
        header = FrameHeader(
            tag & 7, bool(tag & _LAST), original, payload_bytes, tokens, tag >> 6, rows, overlap
        )
        checked, self._check = prefix + self._check, b""
        payload = b""
        if self._skip and self._seek_end is not None:
            self._seek(payload_bytes)
            self._read(1)
        else:
            payload = self._read(payload_bytes)
            stored = self._read(1)[0]
            computed = crc8(checked + payload)
            if stored != computed:
                raise CorruptError(
                    f"frame {number}: damaged: checksum stored {stored:02x}, computed {computed:02x}"
                )
        crc32 = int.from_bytes(self._read(4), "little")
        _check_frame_header(number, header, crc32)
        size = self.offset_bytes - begin
        return Frame(number, begin, size, header, payload, crc32, self.archives[-1])

    def _read_index(self, entries: list[tuple[int, int]]) -> None:
        begin = self.offset_bytes
        tag = self._read(1)[0]
        length = self._read_varint()
        if tag != INDEX or length > 10 * MAX_INDEX_ENTRIES:
            raise CorruptError("damaged: the archive's index is missing or out of range")
        raw = self._read(length)
        crc32 = int.from_bytes(self._read(4), "little")
        total = int.from_bytes(self._read(4), "little")
        magic = self._read(len(INDEX_MAGIC))
        if crc32 != zlib.crc32(raw) or magic != INDEX_MAGIC or total != self.offset_bytes - begin:
            raise CorruptError("damaged: checksum, length or magic of the archive's index is wrong")
        if raw != b"".join(pack_varint(size) + pack_varint(original) for size, original in entries):
            raise CorruptError("damaged: the archive's index does not match its frames")
        self._check = b""

    # -- bytes

    def _read_some(self, size: int) -> bytes:
        """Up to `size` bytes: fewer only at the end of the source."""
        parts = []
        left = size
        while left:
            part = self._source.read(min(left, _PIECE))
            if not part:
                break
            parts.append(part)
            left -= len(part)
        data = b"".join(parts)
        self.offset_bytes += len(data)
        return data

    def _read(self, size: int) -> bytes:
        data = self._read_some(size)
        if len(data) != size:
            raise TruncatedError(f"truncated: the archive ends at byte {self.offset_bytes}, inside a frame or its header")
        return data

    def _seek(self, size: int) -> None:
        if self._source.tell() + size > self._seek_end:
            raise TruncatedError(f"truncated: the archive ends at byte {self.offset_bytes}, inside a frame")
        self._source.seek(size, io.SEEK_CUR)
        self.offset_bytes += size

    def _read_varint(self) -> int:
        value = 0
        for shift in range(0, 35, 7):
            byte = self._read(1)[0]
            self._check += bytes([byte])
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if byte == 0 and shift:
                    raise CorruptError("damaged: a number is longer than it needs to be")
                return value
        raise CorruptError("damaged: a number of more than 5 bytes")


def _check_frame_header(number: int, header: FrameHeader, crc32: int) -> None:
    """The rules of format section 3 that do not need the payload; the checksum has already held."""
    method, profile = header.method, header.profile
    if method not in METHOD_NAMES or method == INDEX:
        raise FormatError(f"frame {number}: method {method} is not supported: made by a newer llmzip")
    wrong = (
        (profile and method != LM)
        or (header.num_tokens and method != LM)
        or (method == LM and not 0 < header.num_tokens <= header.original_bytes <= MAX_LM_BYTES)
        or (method == STORED and header.payload_bytes != header.original_bytes)
        or (method == SKIP and (header.original_bytes or crc32))
        or (method in (LZMA, ZSTD) and not header.original_bytes)
        or (profile == 3 and not (1 <= header.rows <= min(MAX_ROWS, header.num_tokens) and header.overlap >= 1))
        or header.overlap >= MAX_CONTEXT
        or (header.original_bytes == 0 and method != SKIP and not (number == 0 and header.last))
    )
    if wrong:
        raise CorruptError(f"frame {number}: damaged: a field of its header is out of range")


def _end_of(source: BinaryIO) -> int | None:
    """The size of a seekable source, or None."""
    try:
        here = source.tell()
        end = source.seek(0, io.SEEK_END)
        source.seek(here)
        return end
    except (OSError, AttributeError, ValueError):
        return None
