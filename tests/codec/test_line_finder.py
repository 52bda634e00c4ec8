"""Where lines begin, by the index and without it, and which frames are decoded for that."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import llmzip
from llmzip.codec import line_finder
from llmzip.codec.line_finder import LineFinder
from llmzip.codec.parts import PartReader
from llmzip.codec.reader import FrameDecoder
from llmzip.format.headers import Frame
from llmzip.settings import DecompressSettings


class Cut:
    """A text cut into frames, of which an index counts some."""

    def __init__(self, texts: list[bytes], counted: list[bool]) -> None:
        self.texts, self.counted = texts, counted
        self.read: list[int] = []

    @property
    def num_frames(self) -> int:
        return len(self.texts)

    @property
    def num_bytes(self) -> int:
        return sum(map(len, self.texts))

    def text_range(self, number: int) -> tuple[int, int]:
        begin = sum(map(len, self.texts[:number]))
        return begin, begin + len(self.texts[number])

    def line_feeds(self, number: int) -> int | None:
        return self.texts[number].count(b"\n") if self.counted[number] else None

    def frame_text(self, number: int) -> bytes:
        assert self.texts[number], "a frame without text is not decoded"
        self.read.append(number)
        return self.texts[number]


def begins_of(text: bytes) -> list[int]:
    """Where the lines of a text begin."""
    sizes = [len(line) for line in text.split(b"\n")]
    begins = [sum(sizes[:number]) + number for number in range(len(sizes))]
    return begins if begins[-1] < len(text) else begins[:-1]


TEXTS = st.lists(st.text("a\n", max_size=9).map(str.encode), max_size=7)


@given(TEXTS, st.data())
def test_lines_begin_where_they_do(texts: list[bytes], data: st.DataObject) -> None:
    counted = data.draw(st.lists(st.booleans(), min_size=len(texts), max_size=len(texts)))
    text = b"".join(texts)
    finder, begins = LineFinder(Cut(texts, counted)), begins_of(text)
    for number in range(1, len(begins) + 4):
        from_front = begins[number - 1] if number <= len(begins) else len(text)
        from_end = begins[-number] if number <= len(begins) else 0
        assert finder.begin(number) == from_front
        assert finder.begin(-number) == from_end


@given(TEXTS, st.integers(1, 20))
def test_by_the_index_only_the_frame_of_the_line_is_decoded(texts: list[bytes], number: int) -> None:
    frames = Cut(texts, [True] * len(texts))
    place = LineFinder(frames).begin(number)
    assert len(frames.read) <= 1
    for read in frames.read:
        begin, end = frames.text_range(read)
        assert begin < place <= end
    frames.read.clear()
    place = LineFinder(frames).begin(-number)
    last = max((number for number, text in enumerate(texts) if text), default=None)
    others = [read for read in frames.read if read != last]
    assert len(others) <= 1
    for read in others:
        begin, end = frames.text_range(read)
        assert begin < place <= end


def test_frames_that_no_index_counts_are_decoded_up_to_the_line() -> None:
    frames = Cut([b"1\n", b"2\n", b"3\n", b"4\n5\n6\n"], [False] * 4)
    finder = LineFinder(frames)
    assert finder.begin(3) == 4
    assert set(frames.read) == {0, 1}
    frames.read.clear()
    finder = LineFinder(frames)
    assert finder.begin(-2) == 8
    assert set(frames.read) == {3}


def test_long_texts_are_searched_by_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(line_finder, "_BLOCK_BYTES", 5)
    text = b"a\n" * 8 + b"\n\n\nlong line without an end"
    finder, begins = LineFinder(Cut([text], [True])), begins_of(text)
    assert [finder.begin(number) for number in range(1, len(begins) + 1)] == begins
    assert [finder.begin(-number) for number in range(1, len(begins) + 1)] == begins[::-1]


# -- archives ----------------------------------------------------------------------------------------------------------

PROSE = (Path(__file__).parents[2] / "corpora" / "prose-en.txt").read_bytes()[:4000]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of the frames that are decoded."""
    numbers: list[int] = []
    decode = FrameDecoder.decode

    def noting(self: FrameDecoder, frame: Frame, *rest: object) -> bytes:
        numbers.append(frame.number)
        return decode(self, frame, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(FrameDecoder, "decode", noting)
    return numbers


def lines_of(reader: PartReader, first: int, last: int) -> bytes:
    finder = LineFinder(reader)
    return b"".join(reader.text(finder.begin(first), finder.begin(last + 1)))


def test_each_frame_of_the_lines_is_decoded_once_and_no_other(decoded: list[int]) -> None:
    archive = llmzip.compress(PROSE, level=1, model="small", frame_bytes=500)
    lines = PROSE.splitlines(keepends=True)
    ends = [sum(map(len, lines[:number])) for number in range(len(lines) + 1)]
    for first, last in ((1, 1), (10, 12), (20, 45), (len(lines) - 1, len(lines) - 1)):
        decoded.clear()
        reader = PartReader(io.BytesIO(archive), DecompressSettings())
        assert lines_of(reader, first, last) == b"".join(lines[first - 1 : last])
        held = range(max(ends[first - 1] - 1, 0) // 500, (ends[last] - 1) // 500 + 1)
        assert sorted(decoded) == list(held)


def test_archives_after_each_other_are_counted_by_their_own_indexes(decoded: list[int]) -> None:
    """Headers and indexes are read; of a file with archives of one frame those before the line are decoded."""
    cut = PROSE.index(b"\n", 2000) + 1
    first = llmzip.compress(PROSE[:cut], level=1, model="small", frame_bytes=700)
    second = llmzip.compress(PROSE[cut:], level=1, model="small", frame_bytes=700)
    number = PROSE[:cut].count(b"\n") + 5
    reader = PartReader(io.BytesIO(first + second), DecompressSettings())
    assert lines_of(reader, number, number + 1) == b"".join(PROSE.splitlines(keepends=True)[number - 1 : number + 1])
    assert len(decoded) <= 2
    one = llmzip.compress(PROSE[:cut], level=1, model="small")
    decoded.clear()
    reader = PartReader(io.BytesIO(one + second), DecompressSettings())
    assert lines_of(reader, number, number) == PROSE.splitlines(keepends=True)[number - 1]
    assert len(decoded) <= 3


def test_frames_of_windows_and_prompts_have_lines_too() -> None:
    sink = io.BytesIO()
    from llmzip.codec.writer import compress_stream
    from llmzip.settings import CompressSettings

    made = CompressSettings(model="small", window_bits=96, frame_bytes=600)
    compress_stream(io.BytesIO(PROSE[:2000]), sink, made)
    lines = PROSE[:2000].splitlines(keepends=True)
    reader = PartReader(io.BytesIO(sink.getvalue()), DecompressSettings())
    for first, last in ((3, 9), (1, 4), (len(lines) - 2, len(lines))):
        assert lines_of(reader, first, last) == b"".join(lines[first - 1 : last])
