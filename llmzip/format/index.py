"""The index at an archive's end (format section 5): finds frames in a seekable file without reading those before them.

An index is only used if it and its file fit together; what is wrong with a damaged one is for `reading` to say, which
reads from front to back.
"""

from __future__ import annotations

import io
import zlib
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple, TypeVar

from ..errors import CorruptError, LLMZipError
from ..system.streams import read_upto
from .headers import (
    CARRIED_MODEL,
    INDEX,
    INDEX_MAGIC,
    MAGIC,
    MAX_FRAME_BYTES,
    MAX_INDEX_ENTRIES,
    MAX_INDEX_ENTRY_BYTES,
    MAX_RECORD_BYTES,
    SKIP,
    CarriedModel,
    Frame,
    Header,
    LineCounts,
)
from .numbers import varint_at
from .reading import ArchiveParser, Skip, end_of, index_entries
from .recovery import parse_head
from .writing import pack_header

_MAX_HEADER_BYTES = len(MAGIC) + 1 + 2 + MAX_RECORD_BYTES
_MIN_FRAME_BYTES = 1 + 3 + 1 + 4
_MAX_FRAME_BYTES = 1 + 3 * 4 + 4 * 5 + MAX_FRAME_BYTES + 1 + 4
"""Sizes of a frame: tag, three sizes, up to four numbers of a record, payload, checksums."""

_TAIL_BYTES = 4 + 4 + len(INDEX_MAGIC)
_MAX_INDEX_BYTES = 1 + 5 + MAX_INDEX_ENTRY_BYTES * MAX_INDEX_ENTRIES + _TAIL_BYTES

_PLAIN_HEADER = pack_header(Header())
"""Header of an archive without a model, as recovery data has it."""

ResultT = TypeVar("ResultT")


class IndexEntry(NamedTuple):
    """A frame as the index has it.

    Attributes:
        offset_bytes: where the frame's tag is in the file.
        size_bytes: size of the frame from its tag to its crc32.
        begin: where its text begins in the archive's text, in bytes.
        original_bytes: size of its text.
        line_feeds: number of line feeds in its text.
    """

    offset_bytes: int
    size_bytes: int
    begin: int
    original_bytes: int
    line_feeds: int


@dataclass(frozen=True)
class ArchiveIndex:
    """The frames of a file that is one archive of two frames or more, and maybe recovery data; `len()` is their number.

    Attributes:
        header: of the archive.
        header_bytes: the header as it is in the file.
        offsets: where each frame begins in the file, and where the last one ends.
        begins: where the text of each frame begins in the archive's text, and where the last one ends.
        line_feeds: number of line feeds in the text of each frame.
        carried: the model that the file carries before the archive, whether it serves the archive or not.
    """

    header: Header
    header_bytes: bytes
    offsets: array[int]
    begins: array[int]
    line_feeds: array[int]
    carried: CarriedModel | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def original_bytes(self) -> int:
        """Size of the archive's text."""
        return self.begins[-1]

    def entry(self, number: int) -> IndexEntry:
        """Returns a frame's entry.

        Args:
            number: of the frame, from 0 up to the number of frames.
        """
        offset, end = self.offsets[number], self.offsets[number + 1]
        begin, text_end = self.begins[number], self.begins[number + 1]
        return IndexEntry(offset, end - offset, begin, text_end - begin, self.line_feeds[number])

    def frames_with(self, begin: int, end: int) -> range:
        """Returns the numbers of the frames that have bytes `begin` up to `end` of the text.

        Frames without text may be among them.
        """
        if begin >= min(end, self.original_bytes):
            return range(0)
        return range(max(bisect_right(self.begins, begin) - 1, 0), bisect_left(self.begins, end, 0, len(self)))


def read_index(source: BinaryIO, *, allow_damaged_models: bool = False) -> ArchiveIndex | None:
    """Returns the index of a file; reads the file's beginning, with the models that it carries, and its end only.

    Args:
        source: a binary file, at its start, and there again afterwards.
        allow_damaged_models: as for `read_archives`.

    Returns:
        the index; None if the file cannot seek, or is anything but one whole archive of two frames or more, which
        recovery data may follow.

    Raises:
        OSError: from the file.
    """
    end = end_of(source)
    if end is None:
        return None
    start = read_upto(source, _MAX_HEADER_BYTES)
    begins_with_model = len(start) > len(MAGIC) and start[len(MAGIC)] >> 4 == CARRIED_MODEL
    try:
        body = _index_body(source, end)
        if body is None:
            return None  # before a carried model is read in vain
        source.seek(0)
        parser = ArchiveParser(allow_damaged_models=allow_damaged_models)
        header = _result(parser.header_steps(), source if begins_with_model else io.BytesIO(start))
        while body is not None:
            lists = _parsed(body.entries, parser.offset_bytes)
            if lists is None:
                return None
            if lists[0][-1] + body.size_bytes == end:
                return ArchiveIndex(header, parser.header_bytes, *lists, carried=parser.carried)
            before = end - body.size_bytes - (lists[0][-1] - parser.offset_bytes) - len(_PLAIN_HEADER)
            if not _is_recovery_data(source, before):
                return None
            end, body = before, _index_body(source, before)
        return None
    except (LLMZipError, EOFError):
        return None
    finally:
        source.seek(0)


def read_frame(source: BinaryIO, index: ArchiveIndex, number: int, *, skip_payload: bool = False) -> Frame:
    """Returns a frame, checked as if the archive had been read from its front, and against the index.

    Args:
        source: the file of the index.
        index: what `read_index` gave.
        number: of the frame.
        skip_payload: whether to leave the payload empty, unread and unchecked.

    Raises:
        CorruptError: the frame is damaged, or is not the one of the index. Line feeds are for the caller to compare.
        OSError: from the file.
    """
    entry = index.entry(number)
    source.seek(entry.offset_bytes)
    if not skip_payload:
        raw = read_upto(source, entry.size_bytes)
        if len(raw) != entry.size_bytes:
            raise CorruptError(f"frame {number}: the file has become shorter")
        source = io.BytesIO(raw)
    before = b"" if number else index.header_bytes
    parser = ArchiveParser(entry.offset_bytes, skip_payloads=skip_payload, before=before)
    parser.index = LineCounts(index.line_feeds)
    try:
        frame = _result(parser.frame_steps(number, index.header), source)
    except EOFError:
        frame = None
    expected = (entry.size_bytes, entry.original_bytes, number == len(index) - 1)
    if frame is None or (frame.size_bytes, frame.header.original_bytes, frame.header.last) != expected:
        raise CorruptError(f"frame {number}: damaged: it does not match the archive's index")
    return frame


def parse_frame(packed: bytes) -> Frame:
    """Returns a frame that is neither the first nor the last one of its archive, from just its bytes, checked.

    Raises:
        CorruptError: it is damaged.
    """
    source = io.BytesIO(packed)
    try:
        frame = _result(ArchiveParser(1).frame_steps(1, Header()), source)
    except EOFError:
        raise CorruptError("damaged: a frame is not whole") from None
    if source.tell() != len(packed):
        raise CorruptError("damaged: a frame is longer than it says")
    return frame


def read_frames(source: BinaryIO, index: ArchiveIndex, numbers: range) -> Iterator[Frame]:
    """Yields whole frames as `read_frame` does, one after the other; nothing else of the file is read.

    Args:
        source: the file of the index.
        index: what `read_index` gave.
        numbers: of the frames.

    Raises:
        CorruptError: a frame is damaged, or is not the one of the index.
        OSError: from the file.
    """
    for number in numbers:
        yield read_frame(source, index, number)


def _is_recovery_data(source: BinaryIO, begin: int) -> bool:
    """Whether an archive of recovery data begins at a place in a file."""
    if begin <= 0:
        return False
    source.seek(begin)
    if read_upto(source, len(_PLAIN_HEADER)) != _PLAIN_HEADER:
        return False
    frame = _result(ArchiveParser(begin, skip_payloads=True).frame_steps(0, Header()), source)
    return frame.header.method == SKIP and parse_head(frame.payload) is not None


class _Body(NamedTuple):
    """An index as it is in a file.

    Attributes:
        entries: its part that lists the frames, which has passed its checksum.
        size_bytes: of the whole index.
    """

    entries: bytes
    size_bytes: int


def _index_body(source: BinaryIO, end: int) -> _Body | None:
    """Returns the index at the end of a file of `end` bytes; None if there is no sound one."""
    source.seek(max(end - _TAIL_BYTES, 0))
    tail = read_upto(source, _TAIL_BYTES)
    if len(tail) != _TAIL_BYTES or tail[8:] != INDEX_MAGIC:
        return None
    crc32, total = int.from_bytes(tail[:4], "little"), int.from_bytes(tail[4:8], "little")
    if not _TAIL_BYTES < total <= min(end, _MAX_INDEX_BYTES):
        return None
    source.seek(end - total)
    raw = read_upto(source, total - _TAIL_BYTES)
    if len(raw) != total - _TAIL_BYTES or raw[0] != INDEX:
        return None
    try:
        length, place = varint_at(raw, 1)
    except ValueError:
        return None
    entries = raw[place:]
    return _Body(entries, total) if len(entries) == length and zlib.crc32(entries) == crc32 else None


def _parsed(entries: bytes, offset: int) -> tuple[array[int], array[int], array[int]] | None:
    """Returns where frames begin in the file, and their texts in the text, and the line feeds of each.

    The result is None if the entries break a rule.

    Args:
        entries: the part of the index that lists the frames.
        offset: where the first frame begins in the file.
    """
    offsets, begins, line_feeds = array("Q", [offset]), array("Q", [0]), array("I")
    begin = 0
    try:
        for size, original, lines in index_entries(entries):
            if not (_MIN_FRAME_BYTES <= size <= _MAX_FRAME_BYTES and original <= MAX_FRAME_BYTES):
                return None
            offset += size
            begin += original
            offsets.append(offset)
            begins.append(begin)
            line_feeds.append(lines)
    except ValueError:
        return None
    return (offsets, begins, line_feeds) if 2 <= len(offsets) - 1 <= MAX_INDEX_ENTRIES else None


def _result(steps: Generator[Any, Any, ResultT], source: BinaryIO) -> ResultT:
    """Brings a parser what it asks for, from a seekable source, and returns its result.

    Raises:
        EOFError: the source ends too early.
        FormatError, CorruptError: from the parser.
    """
    answer: bytes | None = None
    try:
        while True:
            request = steps.send(answer)
            answer = None
            if isinstance(request, Skip):
                source.seek(request.size_bytes, io.SEEK_CUR)
                continue
            answer = read_upto(source, request)
            if len(answer) != request:
                raise EOFError
    except StopIteration as done:
        result: ResultT = done.value
        return result
