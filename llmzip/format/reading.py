"""Reads headers, frames and indexes from bytes, as docs/format.md defines them; limits come before allocations.

`ArchiveParser` takes one archive apart and does no input itself; `read_archives` drives it over a file.
"""

from __future__ import annotations

import io
import zlib
from array import array
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from .._version import FORMAT_VERSION, NUMERICS_VERSION
from ..errors import CorruptError, FormatError, TruncatedError
from ..system.streams import read_some, read_upto
from .headers import (
    CARRIED_MODEL,
    DIGEST_BYTES,
    ENGINE_EXACT,
    ENGINE_FLOAT,
    EXPLICIT_ROWS,
    FLOAT_DTYPES,
    FLOAT_VERSION,
    INDEX,
    INDEX_MAGIC,
    LAST_FLAG,
    MAGIC,
    MAX_CARRIED_TABLE_BYTES,
    MAX_CARRIED_WEIGHTS_BYTES,
    MAX_CONTEXT,
    MAX_ENVIRONMENT_BYTES,
    MAX_FRAME_BYTES,
    MAX_INDEX_ENTRIES,
    MAX_INDEX_ENTRY_BYTES,
    MAX_NAME_BYTES,
    MAX_PLANES,
    MAX_RECORD_BYTES,
    MAX_VOCAB,
    PROMPT_FLAG,
    SKIP,
    USER_MODEL,
    WINDOWS,
    CarriedModel,
    Frame,
    FrameHeader,
    Header,
    LineCounts,
    ModelRecord,
    WindowsRecord,
    is_readable,
)
from .numbers import bytes_needed, crc8, unpack_varint, varint_at
from .recovery import HEAD_BYTES, check_packets

_MIN_RECORD_BYTES = 3 + 1 + 1 + 2 * DIGEST_BYTES
"""Engine, numerics and number format; two numbers of a byte each; two digests; no name."""

_PIECE_BYTES = 1 << 20
"""Bytes read at once, 1 MiB: a hostile length allocates no more than the data that is there."""


_EARLIER_READERS = {1: "llmzip 0.1"}
"""What reads archives of the format versions before this one."""


@dataclass(frozen=True)
class Skip:
    """A parser's request to pass over some bytes unread.

    Attributes:
        size_bytes: how many, more than 0.
    """

    size_bytes: int


class ArchiveParser:
    """A parser of one archive that does no input: its driver brings the bytes.

    `steps()` yields what it needs next: an int asks for that many bytes, a Skip asks to pass over some, and a Frame is
    a result. The driver sends the bytes, or None after a Skip or a Frame.

    `header_steps()` and `frame_steps()` do the same for the header alone and for one frame, which they return.

    Args:
        offset_bytes: where the archive, or the frame, begins in its file.
        skip_payloads: whether to yield a Skip for each payload and its checksum, which then remains unchecked.
        before: the archive's header as it is in the file, if its first frame is parsed alone: the check covers it.
        carried: the model that the file has carried before, if any.
        skip_models: whether to yield a Skip for a carried model's weights and table, too.
        allow_damaged_models: whether a carried model with a wrong checksum is marked as damaged instead of refused.

    Attributes:
        carried: the model that the file carries for this archive and those after it; None for none.
        offset_bytes: how far the file has been parsed.
        header: the archive's header, once it has been parsed.
        index: what the archive's index says, once it has been parsed; the frames have it too.
        unfinished: header of a frame whose payload has not been passed yet, unchecked.
    """

    def __init__(
        self, offset_bytes: int = 0, *, skip_payloads: bool = False, before: bytes = b"",
        carried: CarriedModel | None = None, skip_models: bool = False, allow_damaged_models: bool = False,
    ) -> None:  # fmt: skip
        self.carried = carried
        self._skip_models, self._allow_damaged_models = skip_models, allow_damaged_models
        self.offset_bytes = offset_bytes
        self.index = LineCounts()
        self.header: Header | None = None
        self.unfinished: FrameHeader | None = None
        self._skip_payloads = skip_payloads
        self._first = offset_bytes == 0
        self._seen = before  # what the next frame's check covers

    def steps(self) -> Generator[int | Skip | Frame, bytes | None, None]:
        """Parses header, frames and index; returns at the end of the archive."""
        self.header = yield from self.header_steps()
        entries: list[tuple[int, int]] = []
        while True:
            frame = yield from self.frame_steps(len(entries), self.header)
            entries.append((frame.size_bytes, frame.header.original_bytes))
            if len(entries) > MAX_INDEX_ENTRIES:
                raise CorruptError(f"damaged: more than {MAX_INDEX_ENTRIES} frames in one archive")
            yield frame
            if frame.header.last:
                break
        if len(entries) > 1:
            yield from self._index(entries)

    def _take(self, size: int) -> Generator[int, bytes, bytes]:
        """Takes bytes that no frame's check covers, or that its caller adds to it."""
        data = yield size
        self.offset_bytes += size
        return data

    def _note(self, size: int) -> Generator[int, bytes, bytes]:
        """Takes bytes that the next frame's check covers."""
        data = yield from self._take(size)
        self._seen += data
        return data

    def _varint(self) -> Generator[int, bytes, int]:
        """Takes a varint, which the next frame's check covers."""
        value = 0
        for shift in range(0, 35, 7):
            byte = (yield from self._note(1))[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                if byte == 0 and shift:
                    raise CorruptError("damaged: a number is longer than it needs to be")
                return value
        raise CorruptError("damaged: a number of more than 5 bytes")

    @property
    def header_bytes(self) -> bytes:
        """The archive's header as it is in the file, after `header_steps`."""
        return self._seen

    def header_steps(self) -> Generator[int | Skip, bytes | None, Header]:
        """Parses an archive's header (format section 2), and returns it; carried models before it are parsed, too."""
        kind = yield from self._kind()
        while kind >> 4 == CARRIED_MODEL:
            self.carried = yield from self._carried_model()
            self._first = False
            kind = yield from self._kind()
        model_code = kind >> 4
        record = None
        if model_code == USER_MODEL:
            length = yield from self._varint()
            if not _MIN_RECORD_BYTES <= length <= MAX_RECORD_BYTES:
                raise CorruptError(f"damaged header: model record of {length} bytes")
            record = _parse_record((yield from self._note(length)))
        is_served = record is not None and self.carried is not None and self.carried.serves(record)
        return Header(model_code, record, self.carried if is_served else None)

    def _kind(self) -> Generator[int, bytes, int]:
        """Takes the magic and the byte after it, which it returns."""
        begin = self.offset_bytes
        magic = yield from self._note(len(MAGIC))
        if magic != MAGIC:
            if self._first:
                raise FormatError("not an llmzip archive")
            raise FormatError(f"trailing data that is not an llmzip archive, from byte {begin} on")
        kind = (yield from self._note(1))[0]
        refusal = version_refusal(kind)
        if refusal is not None:
            raise FormatError(refusal if self._first else f"archive from byte {begin} on: {refusal}")
        return kind

    def _carried_model(self) -> Generator[int | Skip, bytes | None, CarriedModel]:
        """Parses a carried model after its kind (format section 5a), or passes over its data."""
        fields = yield from self._note(2 * DIGEST_BYTES + 3 * 4)
        head, self._seen = self._seen, b""  # no frame's check covers it
        sizes = fields[2 * DIGEST_BYTES :]
        weights_bytes, packed_bytes, table_bytes = (int.from_bytes(sizes[at : at + 4], "little") for at in (0, 4, 8))
        if int.from_bytes((yield from self._take(4)), "little") != zlib.crc32(head):
            raise CorruptError("damaged: the checksum of a carried model's header is wrong")
        is_small = packed_bytes <= MAX_CARRIED_TABLE_BYTES and 1 <= table_bytes <= MAX_CARRIED_TABLE_BYTES
        if weights_bytes > MAX_CARRIED_WEIGHTS_BYTES or not is_small:
            raise CorruptError("damaged: a size of a carried model is above its limit")
        digests = fields[:DIGEST_BYTES], fields[DIGEST_BYTES : 2 * DIGEST_BYTES]
        data_bytes = weights_bytes + packed_bytes
        if self._skip_models:
            if data_bytes:
                yield Skip(data_bytes)
            self.offset_bytes += data_bytes
            checksum = int.from_bytes((yield from self._take(4)), "little")
            return CarriedModel(*digests, table_bytes=table_bytes, checksum=checksum)
        weights = yield from self._take(weights_bytes)
        table = yield from self._take(packed_bytes)
        checksum = int.from_bytes((yield from self._take(4)), "little")
        if checksum != zlib.crc32(table, zlib.crc32(weights)):
            if self._allow_damaged_models:
                return CarriedModel(*digests, table_bytes=table_bytes, checksum=checksum, is_damaged=True)
            raise CorruptError("damaged: the checksum of a carried model is wrong")
        return CarriedModel(*digests, weights, table, table_bytes, checksum)

    def frame_steps(self, number: int, archive: Header) -> Generator[int | Skip, bytes | None, Frame]:
        """Parses a frame (format section 3), with its payload or around it, and returns it."""
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
        if tag >> 6 == EXPLICIT_ROWS:
            rows = yield from self._varint()
            overlap = yield from self._varint()
        elif tag & 7 == WINDOWS:
            window_bits = yield from self._varint()
            count = yield from self._varint()
            last_tokens = yield from self._varint()
            windows = WindowsRecord(window_bits, count, last_tokens, (yield from self._varint()))
        head = FrameHeader(
            tag & 7,
            original,
            payload_bytes,
            num_tokens=tokens,
            profile=tag >> 6,
            rows=rows,
            overlap=overlap,
            windows=windows,
            last=bool(tag & LAST_FLAG),
        )
        self.unfinished = head
        payload = b""
        if self._skip_payloads:
            if head.method == SKIP and payload_bytes >= HEAD_BYTES:  # it may say that it is recovery data
                payload = yield from self._take(HEAD_BYTES)
            left = payload_bytes - len(payload) + 1
            yield Skip(left)
            self.offset_bytes += left
        else:
            payload = yield from self._take(payload_bytes)
            if head.method == SKIP:
                check_packets(payload, number)
            stored, computed = (yield from self._take(1))[0], crc8(self._seen + payload)
            if stored != computed:
                raise CorruptError(f"frame {number}: damaged: checksum stored {stored:02x}, computed {computed:02x}")
        crc32 = int.from_bytes((yield from self._take(4)), "little")
        _check_frame_header(number, head, crc32, width)
        self.unfinished = None
        self._seen = b""
        return Frame(number, begin, self.offset_bytes - begin, head, payload, crc32, archive, self.index)

    def _index(self, entries: list[tuple[int, int]]) -> Generator[int, bytes, None]:
        """Parses the index (format section 5), which must match (frame bytes, original bytes) of the frames read.

        Line feeds are for those to compare who decode the frames.
        """
        begin = self.offset_bytes
        tag = (yield from self._take(1))[0]
        length = yield from self._varint()
        if tag != INDEX or length > MAX_INDEX_ENTRY_BYTES * len(entries):
            raise CorruptError("damaged: the archive's index is missing or of a wrong length")
        raw = yield from self._take(length)
        tail = yield from self._take(8 + len(INDEX_MAGIC))
        crc32, total = int.from_bytes(tail[:4], "little"), int.from_bytes(tail[4:8], "little")
        if crc32 != zlib.crc32(raw) or tail[8:] != INDEX_MAGIC or total != self.offset_bytes - begin:
            raise CorruptError("damaged: checksum, length or magic of the archive's index is wrong")
        try:
            self.index.line_feeds = _line_feeds(raw, entries)
        except ValueError:
            raise CorruptError("damaged: the archive's index does not match its frames") from None


@dataclass
class Position:
    """How far a file has been read.

    Attributes:
        offset_bytes: end of the last complete archive.
        parser: parser of the archive being read, or of the last one.
    """

    offset_bytes: int = 0
    parser: ArchiveParser | None = None


def read_archives(
    source: BinaryIO,
    *,
    skip_payloads: bool = False,
    skip_models: bool = False,
    allow_damaged_models: bool = False,
    position: Position | None = None,
) -> Iterator[Frame]:
    """Yields the frames of all archives in a file, front to back.

    Args:
        source: a binary file; it need not be seekable.
        skip_payloads: whether to leave payloads empty, seeking over them where the source can seek.
        skip_models: whether to leave carried models empty in the same way.
        allow_damaged_models: whether carried models with a wrong checksum are marked as damaged instead of refused.
        position: updated while the frames are read, so that it shows how far that went.

    Raises:
        FormatError, CorruptError, TruncatedError: as format section 8 says.
    """
    end = end_of(source) if skip_payloads or skip_models else None
    carried = None
    position = position or Position()
    while True:
        offset = position.offset_bytes
        start = read_upto(source, len(MAGIC))
        if not start:
            if offset:
                return
            raise TruncatedError("truncated: the file is empty")
        parser = position.parser = ArchiveParser(
            offset,
            skip_payloads=skip_payloads,
            carried=carried,
            skip_models=skip_models,
            allow_damaged_models=allow_damaged_models,
        )
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
            carried = parser.carried


def _truncated(offset_bytes: int) -> TruncatedError:
    """Makes the error for a file that ends inside an archive."""
    return TruncatedError(f"truncated: the file ends at byte {offset_bytes}, inside an archive")


def _pass_over(source: BinaryIO, size: int, end: int | None, offset_bytes: int) -> None:
    """Passes over `size` bytes from `offset_bytes` on, by seeking if the file's end is known."""
    if end is None:
        done = 0
        while done < size:
            part = read_some(source, min(size - done, _PIECE_BYTES))
            if not part:
                raise _truncated(offset_bytes + done)
            done += len(part)
    elif source.tell() + size > end:
        raise _truncated(offset_bytes + end - source.tell())
    else:
        source.seek(size, io.SEEK_CUR)


def version_refusal(kind: int) -> str | None:
    """Returns why archives of a format version are not read, naming the version and what reads it.

    Args:
        kind: the byte of a header that has the version in bits 0 to 3 (format section 2).

    Returns:
        a line for people; None if archives of this version are read.
    """
    version = kind & 0x0F
    if version == FORMAT_VERSION:
        return None
    reader = _EARLIER_READERS.get(version)
    advice = "made by another version of llmzip, or damaged" if reader is None else f"{reader} reads it"
    return f"format version {version} is not supported, only version {FORMAT_VERSION}: {advice}"


def end_of(source: BinaryIO) -> int | None:
    """Returns the size of a source in bytes, or None if it cannot seek."""
    try:
        offset = source.tell()
        end = source.seek(0, io.SEEK_END)
        source.seek(offset)
        return end
    except (OSError, AttributeError, ValueError):
        return None


def index_entries(raw: bytes) -> Iterator[tuple[int, int, int]]:
    """Yields the entries of an index: bytes of the frame, bytes of its text, and the line feeds among these.

    Args:
        raw: the entries as they are in the file.

    Raises:
        ValueError: they are malformed.
    """
    place = 0
    while place < len(raw):
        size, place = varint_at(raw, place)
        original, place = varint_at(raw, place)
        line_feeds, place = varint_at(raw, place)
        if line_feeds > original:
            raise ValueError("more line feeds than bytes")
        yield size, original, line_feeds


def _line_feeds(raw: bytes, entries: list[tuple[int, int]]) -> array[int]:
    """Returns the line feeds of each frame by the entries of an index.

    Args:
        raw: the entries as they are in the file.
        entries: what they must say: (frame bytes, original bytes) of each frame.

    Raises:
        ValueError: they say something else.
    """
    line_feeds = array("I")
    for expected, (size, original, number) in zip(entries, index_entries(raw), strict=True):
        if (size, original) != expected:
            raise ValueError("other frames")
        line_feeds.append(number)
    return line_feeds


def _parse_record(raw: bytes) -> ModelRecord:
    """Parses the model record of a header (format section 2), at least _MIN_RECORD_BYTES long."""
    engine, numerics, number_format = raw[0] & ~PROMPT_FLAG, raw[1], raw[2]
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
    size = DIGEST_BYTES if raw[0] & PROMPT_FLAG else 0
    prompt_digest, rest = rest[:size], rest[size:]
    try:
        name = rest.decode("utf-8")
    except UnicodeDecodeError:
        raise CorruptError("damaged header: the model's name is not UTF-8") from None
    is_exact = engine == ENGINE_EXACT
    formats = MAX_PLANES if is_exact else len(FLOAT_DTYPES)
    in_range = 1 <= number_format <= formats and 2 <= context <= MAX_CONTEXT and start_token < MAX_VOCAB
    whole = len(tokenizer_digest) == DIGEST_BYTES and len(prompt_digest) == size and len(rest) <= MAX_NAME_BYTES
    if not in_range or not whole:
        raise CorruptError("damaged header: a field of the model record is out of range")
    return ModelRecord(
        name,
        model_digest,
        tokenizer_digest,
        context=context,
        start_token=start_token,
        planes=number_format if is_exact else None,
        dtype=None if is_exact else FLOAT_DTYPES[number_format - 1],
        numerics=numerics,
        environment=environment.decode("ascii"),
        prompt_digest=prompt_digest,
    )


def _check_frame_header(number: int, header: FrameHeader, crc32: int, width: int) -> None:
    """Checks the rules of format section 3 that do not need the payload; the checksum has been checked before."""
    if header.method == INDEX:
        raise CorruptError(f"frame {number}: damaged: an index where a frame must be")
    numbers = (header.original_bytes, header.payload_bytes, header.num_tokens)
    skipped_text = header.method == SKIP and crc32
    if width != bytes_needed(numbers) or skipped_text or not is_readable(header, alone=number == 0 and header.last):
        raise CorruptError(f"frame {number}: damaged: a field of its header is out of range")
