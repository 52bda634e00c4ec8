"""Ranges of the text by the index: what is read for them, and that damage is harmless or named, never wrong text."""

from __future__ import annotations

import contextlib
import io
import random
from collections.abc import Callable
from pathlib import Path

import pytest

import llmzip
from llmzip.codec.parts import PartReader
from llmzip.codec.reader import FrameDecoder, decompress_stream
from llmzip.codec.writer import ArchiveWriter
from llmzip.errors import CorruptError, LLMZipError
from llmzip.format.index import read_frames, read_index
from llmzip.format.reading import read_archives
from llmzip.format.writing import pack_index
from llmzip.settings import CompressSettings, DecompressSettings

PROSE = (Path(__file__).parents[2] / "corpora" / "prose-en.txt").read_bytes()
TEXTS = [PROSE[:90], random.Random(3).randbytes(40), PROSE[90:200], b"x" * 60, PROSE[200:290]]
TEXT = b"".join(TEXTS)


def archive(texts: list[bytes], made: CompressSettings, *, skipping: bool = False) -> bytes:
    """Makes an archive with a frame for each text, and perhaps a skip frame at its end."""
    writer = ArchiveWriter(made)
    out = b"".join(writer.write(text) + writer.flush_frame() for text in texts[: None if skipping else -1])
    return out + (b"" if skipping else writer.write(texts[-1])) + writer.finish()


ARCHIVES = {
    "lm": lambda: archive(TEXTS, CompressSettings(level=1, model="small")),
    "mixed, with a skip frame": lambda: archive(TEXTS, CompressSettings(model="small"), skipping=True),
    "windows": lambda: archive(TEXTS, CompressSettings(model="small", window_bits=96)),
    "two archives": lambda: (
        archive(TEXTS[:3], CompressSettings(model="small")) + archive(TEXTS[3:], CompressSettings(level=1))
    ),
    "one frame": lambda: llmzip.compress(TEXT, level=1, model="small"),
}


@pytest.fixture(params=ARCHIVES, scope="module")
def packed(request: pytest.FixtureRequest) -> bytes:
    make: Callable[[], bytes] = ARCHIVES[request.param]
    return make()


def text_of(data: bytes, begin: int, end: int) -> bytes:
    return b"".join(PartReader(io.BytesIO(data), DecompressSettings()).text(begin, end))


def changed(data: bytes, place: int, flip: int = 0x10) -> bytes:
    return data[:place] + bytes([data[place] ^ flip]) + data[place + 1 :]


class Counting(io.BytesIO):
    """A file that notes where it is read."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self.reads: list[tuple[int, int]] = []

    def read(self, size: int | None = -1) -> bytes:
        begin = self.tell()
        data = super().read(size)
        self.reads.append((begin, begin + len(data)))
        return data


def test_any_range_is_that_part_of_the_text(packed: bytes) -> None:
    reader = PartReader(io.BytesIO(packed), DecompressSettings())
    assert reader.num_bytes == len(TEXT)
    for begin in range(0, len(TEXT), 71):
        for end in (begin, begin + 1, begin + 30, begin + 130, len(TEXT), len(TEXT) + 9):
            assert b"".join(reader.text(begin, end)) == TEXT[begin:end]
    assert b"".join(reader.text(0, len(TEXT))) == TEXT


def test_reading_by_the_index_and_from_the_front_may_alternate() -> None:
    data = ARCHIVES["windows"]()
    reader = PartReader(io.BytesIO(data), DecompressSettings())
    assert b"".join(reader.text(50, 250)) == TEXT[50:250]
    assert [place.begin for place in reader.places] == [0, 90, 130, 240, 300]
    assert reader.num_windows == sum(place.num_windows for place in reader.places) > 9
    windows = b"".join(b"".join(texts) for texts, _ in reader.windows(0, reader.num_windows))
    assert windows == TEXT[:90] + TEXT[130:]  # noise has no windows
    assert b"".join(reader.text(50, 250)) == TEXT[50:250]
    assert b"".join(part.text or b"" for part in reader.salvage()) == TEXT


def test_what_is_read_for_a_range_does_not_depend_on_the_number_of_frames() -> None:
    seen = set()
    for count in (60, 120, 900):
        data = archive([random.Random(number).randbytes(30) for number in range(count)], CompressSettings(level=1))
        frames = list(read_archives(io.BytesIO(data), skip_payloads=True))
        end_of_frames = frames[-1].offset_bytes + frames[-1].size_bytes
        source = Counting(data)
        reader = PartReader(source, DecompressSettings())
        opened = len(source.reads)
        assert sum(end - begin for begin, end in source.reads) <= 600 + 12 + len(data) - end_of_frames
        text = b"".join(reader.text(30 * 40 + 7, 30 * 42 + 1))
        assert text == b"".join(random.Random(number).randbytes(30) for number in (40, 41, 42))[7:61]
        first, last = frames[40], frames[42]
        for begin, end in source.reads[opened:]:
            assert first.offset_bytes <= begin <= end <= last.offset_bytes + last.size_bytes
        seen.add((opened, len(source.reads), sum(end - begin for begin, end in source.reads[opened:])))
    assert len(seen) == 1


def test_frames_by_the_index_decode_alone() -> None:
    data = ARCHIVES["lm"]()
    source = io.BytesIO(data)
    index = read_index(source)
    assert index is not None
    decoder = FrameDecoder(DecompressSettings())
    assert b"".join(map(decoder.decode, read_frames(source, index, range(2, 5)))) == b"".join(TEXTS[2:])


# -- damage ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "step"), [("lm", 1), ("mixed, with a skip frame", 3), ("windows", 3)])
def test_damage_anywhere_never_gives_wrong_text(name: str, step: int, effort: int) -> None:
    data = ARCHIVES[name]()
    refused = 0
    for place in range(0, len(data), step if effort == 1 else 1):
        for flip in (1 << place % 8, 0x55, 0xFF)[:effort]:
            try:
                assert text_of(changed(data, place, flip), 100, 220) == TEXT[100:220]
            except LLMZipError as error:
                assert str(error) and "\n" not in str(error)
                refused += 1
    assert refused > len(data) // step // 4


def test_truncated_archives_are_refused_or_give_the_right_text(packed: bytes) -> None:
    for size in range(0, len(packed), 5):
        with contextlib.suppress(LLMZipError):
            assert text_of(packed[:size], 100, 220) == TEXT[100:220]


def test_damage_of_other_frames_does_not_matter() -> None:
    data = ARCHIVES["lm"]()
    frames = list(read_archives(io.BytesIO(data), skip_payloads=True))
    for frame in (*frames[:2], *frames[3:]):
        for place in range(frame.offset_bytes, frame.offset_bytes + frame.size_bytes):
            assert text_of(changed(data, place), 130, 240) == TEXTS[2]


def test_no_text_is_written_before_the_headers_of_a_range_have_been_read() -> None:
    data = ARCHIVES["lm"]()
    last = list(read_archives(io.BytesIO(data), skip_payloads=True))[-1]
    damaged = changed(data, last.offset_bytes, 0x07)
    parts = PartReader(io.BytesIO(damaged), DecompressSettings()).text(0, len(TEXT))
    with pytest.raises(CorruptError, match="frame 4: damaged"):
        next(parts)


def test_a_damaged_index_is_named_as_by_those_who_read_from_the_front() -> None:
    data = ARCHIVES["lm"]()
    frames = list(read_archives(io.BytesIO(data), skip_payloads=True))
    for place in range(frames[-1].offset_bytes + frames[-1].size_bytes, len(data)):
        damaged = changed(data, place)
        with pytest.raises(LLMZipError) as expected:
            llmzip.info(damaged)
        with pytest.raises(type(expected.value)) as caught:
            text_of(damaged, 0, 9)
        assert str(caught.value) == str(expected.value)


def test_checksums_of_frames_are_compared() -> None:
    """Damage that the crc8 finds is named before anything is decoded, and the crc32 is compared after."""
    data = ARCHIVES["lm"]()
    frame = list(read_archives(io.BytesIO(data), skip_payloads=True))[2]
    end = frame.offset_bytes + frame.size_bytes
    with pytest.raises(CorruptError, match="frame 2: damaged: checksum stored"):
        text_of(changed(data, end - 8), 130, 240)
    with pytest.raises(CorruptError, match="frame 2: damaged: crc32 stored"):
        text_of(changed(data, end - 2), 130, 240)


def test_an_index_that_promises_other_sizes_is_refused() -> None:
    """Its checksums are right, and a range by it would be another part of the text."""
    data = ARCHIVES["lm"]()
    frames = list(read_archives(io.BytesIO(data), skip_payloads=True))
    entries = [(frame.size_bytes, frame.header.original_bytes, frame.line_feeds or 0) for frame in frames]
    entries[2] = (entries[2][0], entries[2][1] + 1, 0)
    end_of_frames = frames[-1].offset_bytes + frames[-1].size_bytes
    with pytest.raises(CorruptError, match="frame 2: damaged: it does not match the archive's index"):
        text_of(data[:end_of_frames] + pack_index(entries), 200, 210)


def wrong_line_feeds(number: int) -> bytes:
    """An archive whose index promises one more line feed for a frame; everything else about it is right."""
    data = ARCHIVES["lm"]()
    frames = list(read_archives(io.BytesIO(data), skip_payloads=True))
    entries = [[frame.size_bytes, frame.header.original_bytes, frame.line_feeds or 0] for frame in frames]
    assert [entry[2] for entry in entries] == [text.count(b"\n") for text in TEXTS]
    entries[number][2] += 1
    return data[: frames[-1].offset_bytes + frames[-1].size_bytes] + pack_index([tuple(entry) for entry in entries])


@pytest.mark.parametrize("number", range(len(TEXTS)))
def test_an_index_that_promises_other_line_feeds_is_refused_by_everyone_who_decodes(number: int) -> None:
    data = wrong_line_feeds(number)
    found = TEXTS[number].count(b"\n")
    message = f"frame {number}: damaged: {found + 1} line feeds by the archive's index, {found} in the text"
    begin = sum(map(len, TEXTS[:number]))
    decompressor = llmzip.Decompressor()
    readers: list[Callable[[], object]] = [
        lambda: text_of(data, begin, begin + 1),
        lambda: llmzip.decompress(data),
        lambda: decompressor.decompress(data),
        lambda: decompressor.decompress(b""),
        lambda: llmzip.open(io.BytesIO(data)).read(),
        lambda: decompress_stream(io.BytesIO(data), None, DecompressSettings()),
        lambda: llmzip.decompress(data + data),
    ]
    for read in readers:
        with pytest.raises(CorruptError) as caught:
            read()
        assert str(caught.value) == message
    other = (begin + len(TEXTS[number])) % len(TEXT)
    assert text_of(data, other, other + 1) == TEXT[other : other + 1]


def test_wrong_line_feeds_lose_no_text() -> None:
    """The text before the index has been handed out, and what is salvaged does not ask for lines."""
    data = wrong_line_feeds(2)
    reader = PartReader(io.BytesIO(data), DecompressSettings(), salvaging=True)
    assert b"".join(part.text or b"" for part in reader.salvage()) == TEXT
    sink = io.BytesIO()
    with pytest.raises(CorruptError):
        decompress_stream(io.BytesIO(data), sink, DecompressSettings())
    assert sink.getvalue() == TEXT
