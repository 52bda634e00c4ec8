"""The byte format of docs/format.md: header, frame, index; knows no model and no method.

Writing: `pack_header`, `pack_frame`, `pack_index`. Reading: `ArchiveParser` takes an archive apart and does no input
itself; `read_archives` drives it over a file. Every limit is checked before anything is allocated.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

from .._version import FORMAT_VERSION, NUMERICS_VERSION
from ..errors import CorruptError, FormatError, TruncatedError
from ..system.streams import read_some, read_upto

MAGIC = b"\xf7LZ"
INDEX_MAGIC = b"ZL\xf7\n"
SUFFIX = ".llmz"

STORED, LM, LZMA, ZSTD, MIXED, WINDOWS, SKIP, INDEX = range(8)
METHODS = ("stored", "lm", "lzma", "zstd", "mixed", "windows", "skip", "index")
FRESH, KEPT = 0, 1
"""Profiles of method windows: each begins with an empty context, or not."""

NO_MODEL = 0
USER_MODEL = 15
ENGINE_EXACT, ENGINE_FLOAT = 1, 2
FLOAT_VERSION = 1
FLOAT_DTYPES = ("float32", "bfloat16", "float16")
"""The float engine's number formats; the model record holds their numbers, from 1 on."""


MAX_FRAME_BYTES = 1 << 26
MAX_LM_BYTES = 1 << 21
MAX_ROWS = 1 << 12
MAX_STEPS = 1 << 16
MIN_WINDOW_BITS, MAX_WINDOW_BITS = 16, 1 << 16
MAX_CONTEXT = 1 << 17
MAX_VOCAB = 300_000
MAX_RECORD_BYTES = 512
MAX_NAME_BYTES = 255
MAX_ENVIRONMENT_BYTES = 200
MAX_INDEX_ENTRIES = 1 << 22
DIGEST_BYTES = 16

_MIN_RECORD_BYTES = 3 + 1 + 1 + 2 * DIGEST_BYTES
_LAST = 0x08
_PROMPT = 0x80
_PIECE = 1 << 20  # bytes read at once: a hostile length allocates no more than what is there
_CRC8_POLYNOMIAL = 0x11D


@dataclass(frozen=True)
class ModelRecord:
    """The model of an archive that is not embedded (format section 2).

    Attributes:
        name: for people, untrusted.
        model_digest, tokenizer_digest: first half of each.
        planes: of the exact engine; of the float engine the number of its dtype.
        context, start_token: the model's.
        engine: ENGINE_EXACT or ENGINE_FLOAT.
        numerics: version of the engine's rules.
        environment: of the float engine: what its bits depend on.
        prompt_digest: first half of the digest of the text that both sides know beforehand; empty if there is none.
    """

    name: str
    model_digest: bytes
    tokenizer_digest: bytes
    planes: int
    context: int
    start_token: int
    engine: int = ENGINE_EXACT
    numerics: int = NUMERICS_VERSION
    environment: str = ""
    prompt_digest: bytes = b""


@dataclass(frozen=True)
class Header:
    """The header of one archive."""

    model_code: int = NO_MODEL
    model: ModelRecord | None = None


@dataclass(frozen=True)
class WindowsRecord:
    """How the payload of a frame of method windows is divided (format section 4d).

    Attributes:
        window_bits: W.
        count: number of windows.
        last_tokens: of the last window.
        group: windows of a group of the directory.
    """

    window_bits: int
    count: int
    last_tokens: int
    group: int

    @property
    def data_bytes(self) -> int:
        """Of all windows; the rest of the payload is the directory."""
        return -(-self.count * self.window_bits // 8)


@dataclass(frozen=True)
class FrameHeader:
    """The fields of a frame before its payload (format section 3).

    Attributes:
        rows, overlap: only with profile 3, else 0.
        windows: only with method windows.
    """

    method: int
    last: bool
    original_bytes: int
    payload_bytes: int
    num_tokens: int = 0
    profile: int = 0
    rows: int = 0
    overlap: int = 0
    windows: WindowsRecord | None = None

    @property
    def uses_model(self) -> bool:
        """Whether the frame holds tokens of a language model."""
        return self.num_tokens > 0

    @property
    def method_name(self) -> str:
        """For people: as in the format, and `adaptive` for the mixer without a model."""
        return "adaptive" if self.method == MIXED and not self.uses_model else METHODS[self.method]


@dataclass(frozen=True)
class Frame:
    """A frame as read: where it lies in the file, and its payload unless that was skipped.

    `offset_bytes` and `size_bytes` cover tag to crc32.
    """

    number: int
    offset_bytes: int
    size_bytes: int
    header: FrameHeader
    payload: bytes
    crc32: int
    archive: Header


@dataclass(frozen=True)
class Skip:
    """A parser's wish that this many bytes be passed over."""

    size_bytes: int


# -- numbers and checks ----------------------------------------------------------------------------------------------


def pack_varint(value: int) -> bytes:
    """7 bits a byte, least significant first."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _crc8_table() -> bytes:
    """For each byte b, b * x^8 reduced by the polynomial, as a translation table."""
    table = bytearray(256)
    for byte in range(256):
        value = byte
        for _ in range(8):
            value = value << 1 ^ (_CRC8_POLYNOMIAL if value & 0x80 else 0)
        table[byte] = value
    return bytes(table)


_CRC8 = _crc8_table()


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
    record = bytes([model.engine | (_PROMPT if model.prompt_digest else 0), model.numerics, model.planes])
    record += pack_varint(model.context) + pack_varint(model.start_token)
    record += model.model_digest + model.tokenizer_digest
    if model.engine == ENGINE_FLOAT:
        environment = model.environment.encode("ascii")
        record += pack_varint(len(environment)) + environment
    record += model.prompt_digest
    room = min(MAX_NAME_BYTES, MAX_RECORD_BYTES - len(record))
    record += model.name.encode("utf-8", "replace")[:room].decode("utf-8", "ignore").encode("utf-8")
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
    width = _width(numbers)
    tag = header.method | _LAST * header.last | (width - 1) << 4 | header.profile << 6
    head = prefix + bytes([tag]) + b"".join(n.to_bytes(width, "little") for n in numbers)
    body = head + _pack_records(header) + payload
    return body + bytes([crc8(body)]) + crc32.to_bytes(4, "little")


def frame_bytes(header: FrameHeader) -> int:
    """Size of the packed frame."""
    width = _width((header.original_bytes, header.payload_bytes, header.num_tokens))
    return 1 + 3 * width + len(_pack_records(header)) + header.payload_bytes + 1 + 4


def _pack_records(header: FrameHeader) -> bytes:
    numbers: tuple[int, ...] = (header.rows, header.overlap) if header.profile == 3 else ()
    if header.windows is not None:
        record = header.windows
        numbers = (record.window_bits, record.count, record.last_tokens, record.group)
    return b"".join(map(pack_varint, numbers))


def _width(numbers: tuple[int, ...]) -> int:
    """Bytes that hold the largest of the numbers, at least 1."""
    return max(1, (max(numbers).bit_length() + 7) // 8)


def with_last(header: FrameHeader, last: bool) -> FrameHeader:
    """The same header, marked as the archive's last frame or not."""
    return replace(header, last=last)


def _index_entries(entries: list[tuple[int, int]]) -> bytes:
    return b"".join(pack_varint(size) + pack_varint(original) for size, original in entries)


def pack_index(entries: list[tuple[int, int]]) -> bytes:
    """The bytes of format section 5; entries are (frame bytes, original bytes)."""
    body = _index_entries(entries)
    head = bytes([INDEX]) + pack_varint(len(body))
    total = len(head) + len(body) + 4 + 4 + len(INDEX_MAGIC)
    return head + body + zlib.crc32(body).to_bytes(4, "little") + total.to_bytes(4, "little") + INDEX_MAGIC


# -- reading ---------------------------------------------------------------------------------------------------------


class ArchiveParser:
    """Parses one archive without doing input: whoever drives it brings the bytes.

    `steps()` yields what it needs next: an int asks for that many bytes, a Skip for nothing but that many bytes be
    passed over, and a Frame is a result. The driver sends the bytes, or None.

    Args:
        offset_bytes: where the archive begins in its file.
        skip_payloads: yield Skip for payloads, whose check then goes unseen.
    """

    def __init__(self, offset_bytes: int = 0, skip_payloads: bool = False) -> None:
        self.offset_bytes = offset_bytes
        self.header: Header | None = None
        self.unfinished: FrameHeader | None = None  # of a frame whose payload has not been passed, as it says itself
        self._skip_payloads = skip_payloads
        self._first = offset_bytes == 0
        self._seen = b""  # what the next frame's check covers

    def steps(self) -> Generator[int | Skip | Frame, bytes | None, None]:
        """Header, frames, index; returns at the end of the archive."""
        self.header = yield from self._read_header()
        entries: list[tuple[int, int]] = []
        while True:
            frame = yield from self._frame(len(entries), self.header)
            entries.append((frame.size_bytes, frame.header.original_bytes))
            if len(entries) > MAX_INDEX_ENTRIES:
                raise CorruptError(f"damaged: more than {MAX_INDEX_ENTRIES} frames in one archive")
            yield frame
            if frame.header.last:
                break
        if len(entries) > 1:
            yield from self._index(entries)

    def _take(self, size: int) -> Generator[int, bytes, bytes]:
        data = yield size
        self.offset_bytes += size
        return data

    def _note(self, size: int) -> Generator[int, bytes, bytes]:
        """Takes bytes that the next frame's check covers."""
        data = yield from self._take(size)
        self._seen += data
        return data

    def _varint(self) -> Generator[int, bytes, int]:
        value = 0
        for shift in range(0, 35, 7):
            byte = (yield from self._note(1))[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if byte == 0 and shift:
                    raise CorruptError("damaged: a number is longer than it needs to be")
                return value
        raise CorruptError("damaged: a number of more than 5 bytes")

    def _read_header(self) -> Generator[int, bytes, Header]:
        magic = yield from self._note(len(MAGIC))
        if magic != MAGIC:
            if self._first:
                raise FormatError("not an llmzip archive")
            where = self.offset_bytes - len(MAGIC)
            raise FormatError(f"trailing data that is no llmzip archive, from byte {where} on")
        kind = (yield from self._note(1))[0]
        version, model_code = kind & 0x0F, kind >> 4
        if version != FORMAT_VERSION:
            raise FormatError(
                f"format version {version} is not supported, only version {FORMAT_VERSION}: "
                "made by another version of llmzip, or damaged"
            )
        record = None
        if model_code == USER_MODEL:
            length = yield from self._varint()
            if not _MIN_RECORD_BYTES <= length <= MAX_RECORD_BYTES:
                raise CorruptError(f"damaged header: model record of {length} bytes")
            record = _parse_record((yield from self._note(length)))
        return Header(model_code, record)

    def _frame(self, number: int, archive: Header) -> Generator[int | Skip, bytes | None, Frame]:
        begin = self.offset_bytes
        tag = (yield from self._note(1))[0]
        width = (tag >> 4 & 3) + 1
        sizes = yield from self._note(3 * width)
        original, payload_bytes, tokens = (
            int.from_bytes(sizes[n * width : (n + 1) * width], "little") for n in range(3)
        )
        if max(original, payload_bytes, tokens) > MAX_FRAME_BYTES:
            raise CorruptError(f"frame {number}: damaged: a size is above the limit of {MAX_FRAME_BYTES} bytes")
        rows = overlap = 0
        windows = None
        if tag >> 6 == 3:
            rows = yield from self._varint()
            overlap = yield from self._varint()
        elif tag & 7 == WINDOWS:
            window_bits = yield from self._varint()
            count = yield from self._varint()
            last_tokens = yield from self._varint()
            windows = WindowsRecord(window_bits, count, last_tokens, (yield from self._varint()))
        head = FrameHeader(
            tag & 7, bool(tag & _LAST), original, payload_bytes, tokens, tag >> 6, rows, overlap, windows
        )
        self.unfinished = head
        payload = b""
        if self._skip_payloads:
            yield Skip(payload_bytes + 1)
            self.offset_bytes += payload_bytes + 1
        else:
            payload = yield from self._take(payload_bytes)
            stored, computed = (yield from self._take(1))[0], crc8(self._seen + payload)
            if stored != computed:
                raise CorruptError(f"frame {number}: damaged: checksum stored {stored:02x}, computed {computed:02x}")
        crc32 = int.from_bytes((yield from self._take(4)), "little")
        _check_frame_header(number, head, crc32, width)
        self.unfinished = None
        self._seen = b""
        return Frame(number, begin, self.offset_bytes - begin, head, payload, crc32, archive)

    def _index(self, entries: list[tuple[int, int]]) -> Generator[int, bytes, None]:
        begin = self.offset_bytes
        tag = (yield from self._take(1))[0]
        length = yield from self._varint()
        if tag != INDEX or length > 10 * len(entries):
            raise CorruptError("damaged: the archive's index is missing or of a wrong length")
        raw = yield from self._take(length)
        tail = yield from self._take(8 + len(INDEX_MAGIC))
        crc32, total = int.from_bytes(tail[:4], "little"), int.from_bytes(tail[4:8], "little")
        if crc32 != zlib.crc32(raw) or tail[8:] != INDEX_MAGIC or total != self.offset_bytes - begin:
            raise CorruptError("damaged: checksum, length or magic of the archive's index is wrong")
        if raw != _index_entries(entries):
            raise CorruptError("damaged: the archive's index does not match its frames")


@dataclass
class Position:
    """How far a file has been read: past its complete archives, and by the parser of the one that is being read."""

    offset_bytes: int = 0
    parser: ArchiveParser | None = None


def read_archives(source: BinaryIO, skip_payloads: bool = False, position: Position | None = None) -> Iterator[Frame]:
    """Frames of all archives in a file, front to back.

    Args:
        source: a binary file; it need not be seekable.
        skip_payloads: leave payloads empty, and seek over them where the source can seek.
        position: holds the bytes of complete archives when the iteration is over.

    Raises:
        FormatError, CorruptError, TruncatedError: as format section 8 says.
    """
    end = _end_of(source) if skip_payloads else None
    position = position or Position()
    while True:
        offset = position.offset_bytes
        start = read_upto(source, len(MAGIC))
        if not start:
            if offset:
                return
            raise TruncatedError("truncated: the file is empty, which no llmzip archive is")
        parser = position.parser = ArchiveParser(offset, skip_payloads)
        steps = parser.steps()
        answer: bytes | None = None
        try:
            while True:
                request = steps.send(answer)
                answer = None
                if isinstance(request, Frame):
                    yield request
                elif isinstance(request, Skip):
                    _pass_over(source, request.size_bytes, end, parser.offset_bytes)
                else:
                    answer = start + read_upto(source, request - len(start))
                    start = b""
                    if len(answer) != request:
                        foreign = parser.header is None and not MAGIC.startswith(answer[: len(MAGIC)])
                        if foreign and parser.offset_bytes == offset:
                            raise FormatError(
                                "not an llmzip archive" if not offset else "trailing data after the archive"
                            )
                        raise _truncated(parser.offset_bytes + len(answer))
        except StopIteration:
            position.offset_bytes = parser.offset_bytes


def _truncated(offset_bytes: int) -> TruncatedError:
    return TruncatedError(f"truncated: the file ends at byte {offset_bytes}, inside an archive")


def _pass_over(source: BinaryIO, size: int, end: int | None, offset_bytes: int) -> None:
    if end is None:
        done = 0
        while done < size:
            part = read_some(source, min(size - done, _PIECE))
            if not part:
                raise _truncated(offset_bytes + done)
            done += len(part)
    elif source.tell() + size > end:
        raise _truncated(offset_bytes + end - source.tell())
    else:
        source.seek(size, io.SEEK_CUR)


def _parse_record(raw: bytes) -> ModelRecord:
    """The model record of a header (format section 2)."""
    engine, numerics, planes = raw[0] & ~_PROMPT, raw[1], raw[2]
    context, rest = unpack_varint(raw[3:])
    start_token, rest = unpack_varint(rest)
    if (engine, numerics) not in ((ENGINE_EXACT, NUMERICS_VERSION), (ENGINE_FLOAT, FLOAT_VERSION)):
        raise FormatError(f"needs engine {engine} with numerics version {numerics}, which this llmzip does not have")
    model_digest, tokenizer_digest, rest = (
        rest[:DIGEST_BYTES],
        rest[DIGEST_BYTES : 2 * DIGEST_BYTES],
        rest[2 * DIGEST_BYTES :],
    )
    environment = b""
    if engine == ENGINE_FLOAT:
        size, rest = unpack_varint(rest)
        environment, rest = rest[:size], rest[size:]
        if len(environment) != size or size > MAX_ENVIRONMENT_BYTES or not environment.isascii():
            raise CorruptError("damaged header: the model record's environment is malformed")
    size = DIGEST_BYTES if raw[0] & _PROMPT else 0
    prompt_digest, rest = rest[:size], rest[size:]
    try:
        text = rest.decode("utf-8")
    except UnicodeDecodeError:
        raise CorruptError("damaged header: the model's name is not UTF-8") from None
    most = 2 if engine == ENGINE_EXACT else len(FLOAT_DTYPES)
    in_range = 1 <= planes <= most and 2 <= context <= MAX_CONTEXT and start_token < MAX_VOCAB
    whole = len(tokenizer_digest) == DIGEST_BYTES and len(prompt_digest) == size and len(rest) <= MAX_NAME_BYTES
    if not in_range or not whole:
        raise CorruptError("damaged header: a field of the model record is out of range")
    found = environment.decode("ascii")
    return ModelRecord(
        text, model_digest, tokenizer_digest, planes, context, start_token, engine, numerics, found, prompt_digest
    )


def unpack_varint(data: bytes, what: str = " header: a number of the model record") -> tuple[int, bytes]:
    """A varint at the front of complete data, and the rest; `what` it is, for the message."""
    value = 0
    for place, byte in enumerate(data[:5]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            if byte == 0 and place:
                break
            return value, data[place + 1 :]
    raise CorruptError(f"damaged{what} is malformed")


def _check_frame_header(number: int, header: FrameHeader, crc32: int, width: int) -> None:
    """The rules of format section 3 that do not need the payload; the checksum has already held."""
    if header.method == INDEX:
        raise CorruptError(f"frame {number}: damaged: an index where a frame must be")
    numbers = (header.original_bytes, header.payload_bytes, header.num_tokens)
    skipped_text = header.method == SKIP and crc32
    if width != _width(numbers) or skipped_text or not is_readable(header, alone=number == 0 and header.last):
        raise CorruptError(f"frame {number}: damaged: a field of its header is out of range")


def is_readable(header: FrameHeader, alone: bool) -> bool:
    """Whether a frame's header keeps the rules of format section 3, so that readers take it.

    Args:
        header: of a frame.
        alone: it is the only one of its archive.
    """
    method, profile, tokens = header.method, header.profile, header.num_tokens
    codes_tokens = method in (LM, MIXED, WINDOWS)
    wrong = (
        max(header.original_bytes, header.payload_bytes, tokens) > MAX_FRAME_BYTES
        or method == INDEX
        or (profile and not tokens)
        or (tokens and not codes_tokens)
        or (method in (LM, WINDOWS) and not tokens)
        or (codes_tokens and not tokens <= header.original_bytes <= MAX_LM_BYTES)
        or (codes_tokens and not header.original_bytes)
        or (method == WINDOWS and _is_wrong(header))
        or (method == STORED and header.payload_bytes != header.original_bytes)
        or (method == SKIP and header.original_bytes)
        or (method in (LZMA, ZSTD) and not header.original_bytes)
        or (profile == 3 and not (1 <= header.rows <= min(MAX_ROWS, tokens) and header.overlap >= 1))
        or (profile == 3 and tokens > header.rows * MAX_STEPS)
        or header.overlap >= MAX_CONTEXT
        or (header.original_bytes == 0 and method != SKIP and not alone)
    )
    return not wrong


def _is_wrong(header: FrameHeader) -> bool:
    """Whether a frame of method windows breaks a rule of format section 4d."""
    record, tokens = header.windows, header.num_tokens
    return (
        record is None
        or header.profile not in (FRESH, KEPT)
        or not MIN_WINDOW_BITS <= record.window_bits <= MAX_WINDOW_BITS
        or not 1 <= record.group <= record.count <= tokens
        or not 1 <= record.last_tokens <= tokens - (record.count - 1)
        or not record.data_bytes + 3 * -(-record.count // record.group) <= header.payload_bytes
    )


def _end_of(source: BinaryIO) -> int | None:
    """The size of a seekable source, or None."""
    try:
        here = source.tell()
        end = source.seek(0, io.SEEK_END)
        source.seek(here)
        return end
    except (OSError, AttributeError, ValueError):
        return None
