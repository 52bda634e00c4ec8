"""Checks that archives made in parts, assembled and joined, are what one process makes of the whole file."""

from __future__ import annotations

import io
import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import llmzip
from llmzip.codec import drafts, writer
from llmzip.codec.assembly import assemble_unit, compress_pieces
from llmzip.codec.joining import JoinReport, join_archives
from llmzip.settings import CompressSettings

PIECE = 300
UNIT = 4 * PIECE

TEXT = b"".join(
    (Path(__file__).parents[3] / "corpora" / name).read_bytes() for name in ("prose-en.txt", "technical-en.txt")
)


@pytest.fixture(autouse=True, scope="module")
def _small_units() -> Iterator[None]:
    """Units and pieces that take no time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drafts, "PIECE_BYTES", PIECE)
        patch.setattr(writer, "UNIT_BYTES", UNIT)
        yield


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def line_feeds_of(archives: list[bytes]) -> list[int]:
    """The line feeds of each frame."""
    frames = [frame for archive in archives for frame in llmzip.info(archive).archives[0].frames]
    sizes = [frame.original_bytes for frame in frames]
    text = b"".join(map(llmzip.decompress, archives))
    ends = list(itertools.accumulate(sizes))
    return [text[end - size : end].count(b"\n") for size, end in zip(sizes, ends, strict=True)]


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[begin : begin + size] for begin in range(0, len(data), size)]


def made_in_parts(data: bytes, made: CompressSettings, pieces_a_part: int) -> tuple[bytes, JoinReport]:
    """The archive of a file of which every part and every unit is made by itself, each of which decodes alone."""
    units = cut(data, UNIT) or [b""]
    archives = []
    for unit in units:
        parts = cut(unit, pieces_a_part * PIECE)
        packed = [compress_pieces(part, made) for part in parts]
        assert [llmzip.decompress(part) for part in packed] == parts
        archives.append(assemble_unit(unit, [io.BytesIO(part) for part in packed], made, alone=len(units) == 1))
        assert llmzip.decompress(archives[-1]) == unit
    sink = io.BytesIO()
    report = join_archives(map(io.BytesIO, archives), sink, line_feeds_of(archives))
    return sink.getvalue(), report


def check(data: bytes, level: int, model: str = "small") -> list[str]:
    """Compares archives with parts of every size with that of the whole; returns the methods of the frames."""
    whole = llmzip.compress(data, level=level, model=model)
    frames = llmzip.info(whole).archives[0].frames
    for pieces_a_part in (1, 2, 4):
        archive, report = made_in_parts(data, CompressSettings(level=level, model=model), pieces_a_part)
        assert archive == whole
        tokens = sum(frame.tokens for frame in frames)
        assert report == JoinReport(len(data), len(archive), len(frames), tokens)
    assert llmzip.decompress(whole) == data
    return [frame.method for frame in frames]


SEGMENTS = st.one_of(
    st.builds(lambda begin, size: TEXT[begin : begin + size], st.integers(0, len(TEXT)), st.integers(0, 2 * PIECE)),
    st.builds(noise, st.integers(0, 3 * PIECE), st.integers(0, 9)),
    st.builds(lambda size, times: noise(size) * times, st.integers(1, PIECE), st.integers(1, 6)),
    st.builds(lambda begin, times: TEXT[begin : begin + 130] * times, st.integers(0, 900), st.integers(1, 8)),
    st.binary(max_size=90),
)


@settings(max_examples=12)
@given(st.lists(SEGMENTS, max_size=6).map(b"".join), st.sampled_from([1, 6]))
def test_any_file_is_the_same_in_parts(data: bytes, level: int) -> None:
    check(data[: 3 * UNIT], level)


@pytest.mark.parametrize("level", [1, 6])
@pytest.mark.parametrize("size", [1, PIECE, UNIT - 1, UNIT, UNIT + 1, 2 * UNIT])
def test_texts_of_any_size_are_the_same_in_parts(size: int, level: int) -> None:
    methods = check(TEXT[:size], level)
    assert size < PIECE or set(methods[: size // PIECE]) == {"lm" if level == 1 else "mixed"}


@pytest.mark.parametrize("level", [1, 6])
@pytest.mark.parametrize("size", [PIECE, UNIT, UNIT + 5, 2 * UNIT])
def test_noise_is_the_same_in_parts_and_needs_no_model(size: int, level: int) -> None:
    assert check(noise(size), level)[0] == "stored"


def test_an_empty_file_is_the_same_in_parts() -> None:
    assert check(b"", 6) == ["stored"]
    made = CompressSettings(level=6)
    assert assemble_unit(b"", [compress_pieces(b"", made)], made, alone=True) == llmzip.compress(b"")


@pytest.mark.parametrize("level", [1, 6])
def test_pieces_for_the_plain_methods_are_merged_as_in_one_process(level: int) -> None:
    data = TEXT[:PIECE] + noise(2 * PIECE) + TEXT[PIECE : 2 * PIECE] + noise(PIECE, 1) + TEXT[2 * PIECE : 4 * PIECE]
    model = "lm" if level == 1 else "mixed"
    assert check(data, level) == [model, "stored", model, "stored", model, model]


@pytest.mark.parametrize("level", [1, 6])
@pytest.mark.parametrize("num_units", [1, 2])
def test_repetitions_from_piece_to_piece_are_found_as_in_one_process(num_units: int, level: int) -> None:
    """The plain methods see the whole unit, and beat the model there though it wins in every piece."""
    data = TEXT[:PIECE] * 4 * num_units
    assert check(data, level)[0] in ("lzma", "zstd")
    part = compress_pieces(data[:UNIT], CompressSettings(level=level, model="small"))
    assert {frame.method for frame in llmzip.info(part).archives[0].frames} == {"lm" if level == 1 else "mixed"}


def test_prompts_and_the_default_model_are_the_same_in_parts() -> None:
    data, prompt = TEXT[: UNIT + PIECE], TEXT[-500:]
    whole = llmzip.compress(data, prompt=prompt)
    made = CompressSettings(prompt=prompt)
    units = [
        assemble_unit(unit, [compress_pieces(unit, made)], made, alone=False) for unit in (data[:UNIT], data[UNIT:])
    ]
    sink = io.BytesIO()
    join_archives(map(io.BytesIO, units), sink, [text.count(b"\n") for text in drafts.cut_pieces(data)])
    assert sink.getvalue() == whole
    assert llmzip.decompress(whole, prompt=prompt) == data
