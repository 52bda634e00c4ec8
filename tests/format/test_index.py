"""Frames by the index: what it says of any archive, what is read for one frame, and which files have no usable one."""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence

import pytest

from llmzip.errors import CorruptError
from llmzip.format import index
from llmzip.format.headers import INDEX_MAGIC, MAGIC, SKIP, STORED, USER_MODEL, FrameHeader, Header, ModelRecord
from llmzip.format.index import ArchiveIndex, IndexEntry, read_frame, read_frames, read_index
from llmzip.format.numbers import pack_varint
from llmzip.format.reading import read_archives
from llmzip.format.writing import frame_bytes, index_entries, pack_frame, pack_header, pack_index

TEXTS = [b"one\n", b"sec\nond", b"", b"x\n" * 150, b"y" * 70_000, b"\n\n"]
MODEL = Header(
    USER_MODEL, ModelRecord("mine", bytes(range(16)), bytes(range(100, 116)), planes=2, context=1024, start_token=7)
)


def archive(texts: Sequence[bytes], header: Header = MODEL) -> bytes:
    """Makes an archive of stored frames; those without text are skip frames."""
    out = prefix = pack_header(header)
    entries = []
    for number, text in enumerate(texts):
        method, last = STORED if text else SKIP, number == len(texts) - 1
        head = FrameHeader(method, len(text), len(text), last=last)
        frame = pack_frame(head, text, zlib.crc32(text), prefix)[len(prefix) :]
        prefix = b""
        entries.append((len(frame), len(text), text.count(b"\n")))
        out += frame
    return out + (pack_index(entries) if len(texts) > 1 else b"")


def index_of(data: bytes) -> ArchiveIndex | None:
    return read_index(io.BytesIO(data))


def found(data: bytes) -> ArchiveIndex:
    result = index_of(data)
    assert result is not None
    return result


def with_index(data: bytes, entries: bytes, total: int | None = None) -> bytes:
    """Returns an archive with other entries in its index, whose checksum is correct."""
    head = b"\x07" + pack_varint(len(entries))
    size = len(head) + len(entries) + 12
    total = size if total is None else total
    frames = data[: -int.from_bytes(data[-8:-4], "little")]
    return frames + head + entries + zlib.crc32(entries).to_bytes(4, "little") + total.to_bytes(4, "little") + data[-4:]


class Counting(io.BytesIO):
    """A file that counts what is read."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.calls = self.num_bytes = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.calls += 1
        self.num_bytes += len(data)
        return data


# -- what it says ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("header", [Header(), Header(2), MODEL])
def test_the_index_says_where_frames_are(header: Header) -> None:
    data = archive(TEXTS, header)
    source = io.BytesIO(data)
    result = read_index(source)
    assert result is not None and source.tell() == 0
    assert result.header == header and result.header_bytes == pack_header(header)
    assert len(result) == len(TEXTS) and result.original_bytes == sum(map(len, TEXTS))
    begin = 0
    for frame in read_archives(io.BytesIO(data)):
        lines = TEXTS[frame.number].count(b"\n")
        expected = IndexEntry(frame.offset_bytes, frame.size_bytes, begin, frame.header.original_bytes, lines)
        assert result.entry(frame.number) == expected
        begin += frame.header.original_bytes


def test_frames_are_what_reading_from_the_front_gives() -> None:
    data = archive(TEXTS)
    source, result = io.BytesIO(data), found(data)
    whole = list(read_archives(io.BytesIO(data)))
    headers = list(read_archives(io.BytesIO(data), skip_payloads=True))
    for begin in range(len(TEXTS) + 1):
        for end in range(begin, len(TEXTS) + 1):
            assert list(read_frames(source, result, range(begin, end))) == whole[begin:end]
    assert [read_frame(source, result, number, skip_payload=True) for number in range(len(TEXTS))] == headers


def test_ranges_have_the_frames_they_need() -> None:
    result = found(archive([b"abc", b"", b"de", b"f", b""]))
    texts = ["abc", "", "de", "f", ""]
    for begin in range(9):
        for end in range(9):
            numbers = result.frames_with(begin, end)
            first = result.begins[numbers.start] if numbers else 0
            text = "".join(texts[number] for number in numbers)
            assert text[begin - first : end - first] == "abcdef"[begin:end] if begin < end else not numbers
    assert result.frames_with(3, 4) == range(2, 3)
    assert result.frames_with(2, 6) == range(0, 4)


def test_what_is_read_for_a_frame_does_not_depend_on_their_number() -> None:
    seen = set()
    for count in (50, 100, 3000):
        data = archive([b"text of %4d" % number for number in range(count)])
        source = Counting(data)
        result = read_index(source)
        assert result is not None
        begin, end = result.entry(5).offset_bytes, result.entry(8).offset_bytes
        calls, index_bytes = source.calls, source.num_bytes
        assert index_bytes <= len(data) - result.offsets[-1] + 12 + 600
        frames = list(read_frames(source, result, range(5, 8)))
        assert [frame.payload for frame in frames] == [b"text of %4d" % number for number in (5, 6, 7)]
        assert source.num_bytes - index_bytes == end - begin
        seen.add((calls, source.calls))
    assert seen == {(3, 6)}


# -- files without one -------------------------------------------------------------------------------------------------


class Pipe(io.BytesIO):
    def seekable(self) -> bool:
        return False

    def tell(self) -> int:
        raise io.UnsupportedOperation("tell")

    def seek(self, offset: int, whence: int = 0, /) -> int:
        raise io.UnsupportedOperation("seek")


@pytest.mark.parametrize(
    "data",
    [
        b"", b"x", MAGIC, b"not an archive" * 90, INDEX_MAGIC * 40, bytes(600), archive([b"only one"]),
        archive(TEXTS) * 2, archive([b"one"]) + archive(TEXTS), archive(TEXTS) + b"\n", archive(TEXTS)[4:],
    ],
    ids=range(11),
)  # fmt: skip
def test_other_files_have_none(data: bytes) -> None:
    source = io.BytesIO(data)
    assert read_index(source) is None
    assert source.tell() == 0
    assert read_index(Pipe(data)) is None


def test_pipes_have_none_and_nothing_of_them_is_read() -> None:
    source = Pipe(archive(TEXTS))
    assert read_index(source) is None
    assert source.read() == archive(TEXTS)


def test_truncated_archives_have_none() -> None:
    data = archive([b"one", b"second", b"third"])
    assert all(index_of(data[:size]) is None for size in range(len(data)))


def test_a_damaged_index_is_none() -> None:
    data = archive(TEXTS)
    for place in range(found(data).offsets[-1], len(data)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[place] ^= 1 << bit
            assert index_of(bytes(damaged)) is None


def test_a_damaged_header_is_none_or_another_header() -> None:
    data = archive(TEXTS)
    expected = found(data)
    for place in range(len(expected.header_bytes)):
        for bit in range(8):
            damaged = bytearray(data)
            damaged[place] ^= 1 << bit
            result = index_of(bytes(damaged))
            if result is not None:
                assert result.header != expected.header and result.offsets == expected.offsets
                with pytest.raises(CorruptError, match="frame 0: damaged: checksum"):
                    read_frame(io.BytesIO(damaged), result, 0)


TWO = archive([b"one", b"second"])
SIZE = frame_bytes(FrameHeader(STORED, 3, 3))
SECOND = frame_bytes(FrameHeader(STORED, 6, 6))


@pytest.mark.parametrize(
    "entries",
    [
        b"",
        index_entries([(SIZE + SECOND, 9, 0)]),
        index_entries([(SIZE, 3, 0), (SECOND + 1, 6, 0)]),
        index_entries([(SIZE, 3, 0), (SECOND, 6, 0), (9, 0, 0)]),
        index_entries([(8, 3, 0), (SIZE + SECOND - 8, 6, 0)]),
        index_entries([(0, 3, 0), (SIZE + SECOND, 6, 0)]),
        index_entries([(SIZE, (1 << 26) + 1, 0), (SECOND, 6, 0)]),
        index_entries([(SIZE, 3, 0), (1 << 27, 6, 0)]),
        index_entries([(SIZE, 3, 0), (SECOND, 6, 0)])[:-1],
        index_entries([(SIZE, 3, 4), (SECOND, 6, 0)]),
        index_entries([(SIZE, 3, 0), (SECOND, 6, 7)]),
        index_entries([(SIZE, 3, 0), (SECOND, 6, (1 << 35) - 1)]),
        index_entries([(SIZE, 3, 0), (SECOND, 6, 0)])[:-1] + b"\x80",
        index_entries([(SIZE, 3, 0), (SECOND, 6, 0)])[:-1] + b"\x80\x00",
        index_entries([(SIZE, 3, 0)]) + bytes([SECOND, 6]),
        index_entries([(SIZE, 3, 0)]) + bytes([SECOND | 0x80, 0, 6, 0]),
        b"\xff" * 20,
        b"\x80" * 5 + b"\x01" + index_entries([(SIZE, 3, 0), (SECOND, 6, 0)]),
    ],
)
def test_hostile_entries_are_none(entries: bytes) -> None:
    assert with_index(TWO, index_entries([(SIZE, 3, 0), (SECOND, 6, 0)])) == TWO
    assert index_of(with_index(TWO, entries)) is None


@pytest.mark.parametrize("total", [0, 1, 12, 13, len(TWO), len(TWO) + 1, 1 << 31, (1 << 32) - 1])
def test_hostile_sizes_of_the_index_are_none(total: int) -> None:
    data = with_index(TWO, index_entries([(SIZE, 3, 0), (SECOND, 6, 0)]), total)
    source = Counting(data)
    assert read_index(source) is None
    assert source.num_bytes <= 2 * len(data) + 12


def test_more_frames_than_the_format_allows_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "MAX_INDEX_ENTRIES", 3)
    assert index_of(archive([b"text"] * 3)) is not None
    assert index_of(archive([b"text"] * 4)) is None


# -- frames that are not the index's -----------------------------------------------------------------------------------


def refused(data: bytes, result: ArchiveIndex, number: int) -> str:
    """Returns the message with which a frame is refused, with and without its payload the same."""
    messages = set()
    for skip_payload in (False, True):
        with pytest.raises(CorruptError) as caught:
            read_frame(io.BytesIO(data), result, number, skip_payload=skip_payload)
        messages.add(str(caught.value))
    (message,) = messages
    return message


def frame_of(text: bytes, last: bool) -> bytes:
    return pack_frame(FrameHeader(STORED, len(text), len(text), last=last), text, zlib.crc32(text))


@pytest.mark.parametrize(
    ("frames", "entries", "number"),
    [
        ([frame_of(b"b", False), frame_of(b"c", True)], [(10, 2, 0), (10, 1, 0)], 1),
        ([frame_of(b"b", False), frame_of(b"c", True)], [(9, 1, 0), (11, 1, 0)], 1),
        ([frame_of(b"b", False), frame_of(b"c", True)], [(11, 1, 0), (9, 1, 0)], 1),
        ([frame_of(b"b", True), frame_of(b"c", True)], [(10, 1, 0), (10, 1, 0)], 1),
        ([frame_of(b"b", False), frame_of(b"c", False)], [(10, 1, 0), (10, 1, 0)], 2),
    ],
)
def test_frames_that_do_not_match_the_index_are_refused(
    frames: list[bytes], entries: list[tuple[int, int, int]], number: int
) -> None:
    prefix = pack_header(Header())
    first = pack_frame(FrameHeader(STORED, 1, 1), b"a", zlib.crc32(b"a"), prefix)
    data = first + b"".join(frames) + pack_index([(len(first) - len(prefix), 1, 0), *entries])
    result = found(data)
    assert read_frame(io.BytesIO(data), result, 0).payload == b"a"
    assert "it does not match the archive's index" in refused(data, result, number)


def test_damaged_frames_are_refused() -> None:
    data = archive([b"one", b"second", b"third"])
    result = found(data)
    for number in range(3):
        entry = result.entry(number)
        for place in range(entry.size_bytes - 4):  # the crc32 is for who decodes
            damaged = bytearray(data)
            damaged[entry.offset_bytes + place] ^= 1 << place % 8
            with pytest.raises(CorruptError) as caught:
                read_frame(io.BytesIO(damaged), result, number)
            assert "\n" not in str(caught.value)


def test_a_file_that_has_become_shorter_is_refused() -> None:
    data = archive([b"one", b"second", b"third"])
    result = found(data)
    cut = data[: result.offsets[2] + 3]
    with pytest.raises(CorruptError, match="frame 2: the file has become shorter"):
        read_frame(io.BytesIO(cut), result, 2)
    with pytest.raises(CorruptError, match="frame 2: damaged: it does not match"):
        read_frame(io.BytesIO(cut), result, 2, skip_payload=True)
