"""Frames of a chosen size: what is in each, that the text comes back, and which sizes are refused."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llmzip
from llmzip.codec import writer
from llmzip.codec.assembly import compress_pieces
from llmzip.codec.writer import ArchiveWriter, compress_stream
from llmzip.settings import CompressSettings

PROSE = (Path(__file__).parents[2] / "corpora" / "prose-en.txt").read_bytes()


def packed(data: bytes, made: CompressSettings) -> bytes:
    sink = io.BytesIO()
    compress_stream(io.BytesIO(data), sink, made)
    return sink.getvalue()


def sizes_of(archive: bytes) -> list[int]:
    """The text of each frame, in bytes."""
    (only,) = llmzip.info(archive).archives
    return [frame.original_bytes for frame in only.frames]


def cut(data: bytes, size: int) -> list[int]:
    return [len(data[begin : begin + size]) for begin in range(0, len(data), size)]


@settings(max_examples=25, deadline=None)
@given(st.binary(min_size=1, max_size=300), st.integers(1, 320))
def test_every_frame_but_the_last_one_is_full(data: bytes, size: int) -> None:
    archive = llmzip.compress(data, level=1, model="small", frame_bytes=size)
    assert sizes_of(archive) == cut(data, size)
    assert llmzip.decompress(archive) == data


@pytest.mark.parametrize("level", [1, 6])
@pytest.mark.parametrize("model", ["small", "bytes"])
def test_texts_come_back_by_the_model(level: int, model: str) -> None:
    data = PROSE[:2500] + random.Random(1).randbytes(900)
    archive = llmzip.compress(data, level=level, model=model, frame_bytes=1000)
    assert sizes_of(archive) == [1000, 1000, 1000, 400]
    methods = [frame.method for frame in llmzip.info(archive).archives[0].frames]
    assert methods == [*["lm" if level == 1 else "mixed"] * 2, methods[2], "stored"]
    assert llmzip.decompress(archive) == data


def test_repetitions_do_not_bring_frames_together() -> None:
    """The plain methods would take all of it as one frame."""
    assert len(sizes_of(llmzip.compress(b"again " * 4000))) == 1
    assert sizes_of(llmzip.compress(b"again " * 4000, frame_bytes=8000)) == [8000] * 3


def test_a_text_that_fits_one_frame_is_the_archive_without_the_option() -> None:
    for data in (b"", b"x", PROSE[:500]):
        for size in (500, 2 << 20):
            assert llmzip.compress(data, model="small", frame_bytes=size) == llmzip.compress(data, model="small")


def test_units_hold_whole_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "UNIT_BYTES", 1000)
    data = random.Random(2).randbytes(3100)
    for size in (1, 300, 999, 1000):
        archive = packed(data, CompressSettings(frame_bytes=size))
        assert sizes_of(archive) == cut(data, size)
        assert llmzip.decompress(archive) == data


def test_frames_of_windows_are_no_larger() -> None:
    made = CompressSettings(model="small", window_bits=64, frame_bytes=700)
    archive = packed(PROSE[:2000], made)
    assert sizes_of(archive) == [700, 700, 600]
    assert llmzip.decompress(archive) == PROSE[:2000]


def test_flushed_frames_may_be_shorter() -> None:
    compressor = llmzip.Compressor(frame_bytes=10)
    archive = compressor.compress(b"a" * 13) + compressor.flush(compressor.FLUSH_FRAME)
    archive += compressor.compress(b"b" * 11) + compressor.flush()
    assert sizes_of(archive) == [10, 3, 10, 1]


def test_files_have_frames_of_a_chosen_size(tmp_path: Path) -> None:
    with llmzip.open(tmp_path / "a.llmz", "wt", frame_bytes=6, encoding="utf-8") as file:
        file.write("one two three\n")
    with llmzip.LLMZipFile(tmp_path / "a.llmz", "ab", frame_bytes=5) as more:
        more.write(b"four five")
    assert [[f.original_bytes for f in a.frames] for a in llmzip.info(tmp_path / "a.llmz").archives] == [
        [6, 6, 2],
        [5, 4],
    ]
    assert llmzip.decompress((tmp_path / "a.llmz").read_bytes()) == b"one two three\nfour five"
    with pytest.raises(TypeError, match="frame_bytes is for writing"):
        llmzip.open(tmp_path / "a.llmz", frame_bytes=6)


@pytest.mark.parametrize("size", [0, -1, (2 << 20) + 1, 1 << 40])
def test_sizes_out_of_bounds_are_refused(size: int) -> None:
    with pytest.raises(llmzip.SettingsError, match="frame_bytes must be 1 to 2,097,152, not"):
        CompressSettings(frame_bytes=size)
    with pytest.raises(ValueError, match="frame_bytes must be 1 to 2,097,152, not"):
        llmzip.compress(b"text", frame_bytes=size)


@pytest.mark.parametrize("size", [1.5, "64KiB", True])
def test_sizes_of_other_types_are_refused(size: object) -> None:
    with pytest.raises(TypeError, match="frame_bytes must be int"):
        llmzip.compress(b"text", frame_bytes=size)  # type: ignore[arg-type]


def test_parts_of_a_file_take_no_size() -> None:
    with pytest.raises(llmzip.SettingsError, match="frames have a size of their own"):
        compress_pieces(b"text", CompressSettings(frame_bytes=2))


def test_progress_adds_up() -> None:
    done: list[int] = []
    made = ArchiveWriter(CompressSettings(level=1, model="small", frame_bytes=300), done.append)
    made.write(PROSE[:1000])
    made.finish()
    assert sum(done) == 1000
