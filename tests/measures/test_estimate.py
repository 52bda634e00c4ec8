"""Checks estimates against really compressed files, and their arithmetic by hand."""

from __future__ import annotations

import io
import math
import random
import time
from pathlib import Path

import pytest

from llmzip.codec import writer
from llmzip.measures import budget
from llmzip.measures.estimate import Estimate, estimate
from llmzip.measures.extrapolation import Range, growth, standard_error
from llmzip.measures.places import Places
from llmzip.settings import CompressSettings, EngineSettings

CORPORA = Path(__file__).parents[2] / "corpora"
ENGINE = EngineSettings(threads=1)


@pytest.fixture(autouse=True)
def _time_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other processes take no time from a sample."""
    monkeypatch.setattr(budget, "_clock", time.process_time)


def text(num_bytes: int) -> bytes:
    """Prose and a log in turns: parts of the corpora, and no part twice."""
    names = ("prose-en.txt", "service.log", "technical-en.txt", "table.csv", "records.json", "code-c.txt")
    whole = b"".join((CORPORA / name).read_bytes() for name in names)
    assert len(whole) >= num_bytes
    return whole[:num_bytes]


def check_order(estimated: Estimate) -> None:
    for number in (estimated.compressed_bytes, estimated.compress_seconds, estimated.decompress_seconds):
        assert 0 <= number.low <= number.value <= number.high


@pytest.mark.parametrize("level", [1, 6])
def test_a_sample_shows_the_size(level: int) -> None:
    data = text(40_000)
    settings = CompressSettings(level, "small", ENGINE)
    estimated = estimate(io.BytesIO(data), settings, seconds=0.5)
    assert not estimated.is_whole and estimated.pieces >= 8 and 2000 < estimated.sampled_bytes < len(data) / 2
    assert (estimated.original_bytes, estimated.model) == (len(data), "small")
    assert estimated.method == ("lm" if level == 1 else "mixed")
    check_order(estimated)
    real = writer.compress_stream(io.BytesIO(data), io.BytesIO(), settings).compressed_bytes
    assert estimated.compressed_bytes.low <= real <= estimated.compressed_bytes.high
    assert estimated.compressed_bytes.value == pytest.approx(real, rel=0.3)
    assert estimated.start_seconds > 0 and estimated.compress_seconds.value > 0


def test_a_small_file_is_compressed_whole() -> None:
    data = text(3000)
    settings = CompressSettings(6, "small", ENGINE)
    estimated = estimate(io.BytesIO(data), settings)
    real = writer.compress_stream(io.BytesIO(data), io.BytesIO(), settings).compressed_bytes
    assert estimated.is_whole and estimated.compressed_bytes == Range.exactly(real)
    # So is a larger one if there is time for it.
    estimated = estimate(io.BytesIO(text(9000)), settings, seconds=100)
    assert estimated.is_whole and estimated.sampled_bytes == 9000


def test_an_empty_file_needs_no_model() -> None:
    estimated = estimate(io.BytesIO(b""), CompressSettings(6, "small", ENGINE))
    assert estimated.is_whole and estimated.start_seconds == 0 and estimated.model is None
    archive = io.BytesIO()
    writer.compress_stream(io.BytesIO(b""), archive, CompressSettings())
    assert estimated.compressed_bytes.value == archive.tell()


def test_noise_is_stored() -> None:
    data = random.Random(2).randbytes(200_000)
    estimated = estimate(io.BytesIO(data), CompressSettings(6, "small", ENGINE))
    assert (estimated.method, estimated.model, estimated.pieces, estimated.start_seconds) == ("stored", None, 0, 0)
    real = writer.compress_stream(io.BytesIO(data), io.BytesIO(), CompressSettings()).compressed_bytes
    assert abs(estimated.compressed_bytes.value - real) <= 32


def test_what_repeats_itself_is_noticed() -> None:
    data = text(2_000) * 20
    settings = CompressSettings(6, "small", ENGINE)
    estimated = estimate(io.BytesIO(data), settings, seconds=0.5)
    real = writer.compress_stream(io.BytesIO(data), io.BytesIO(), settings).compressed_bytes
    assert real / 2 < estimated.compressed_bytes.value < 2 * real < 0.1 * len(data)


def test_windows() -> None:
    data = text(15_000)
    settings = CompressSettings(6, "small", ENGINE, window_bits=512)
    estimated = estimate(io.BytesIO(data), settings, seconds=0.5)
    real = writer.compress_stream(io.BytesIO(data), io.BytesIO(), settings).compressed_bytes
    assert estimated.method == "windows"
    assert estimated.compressed_bytes.value == pytest.approx(real, rel=0.25)
    check_order(estimated)


def test_growth_of_a_power_law_and_of_none() -> None:
    flat = growth([2.0, 2.0, 2.0], 5)
    assert flat == (1.0, 1.0, 1.0)
    # Each doubling takes a tenth off: at the lower end for ever, at the others less and less.
    falling = growth([1 / 0.81, 1 / 0.9, 1.0], 3)
    assert falling.low == pytest.approx(0.9**3)
    assert falling.low < falling.value < falling.high < 0.9
    gains = sum(0.9**n for n in (1, 2, 3))
    assert falling.value == pytest.approx(0.9**gains)
    assert growth([1 / 0.81, 1 / 0.9, 1.0], 0) == (1.0, 1.0, 1.0)
    # What becomes longer by more text of another kind is not taken for a law.
    assert growth([1.0, 1.1, 1.2], 4) == (1.0, 1.0, 1.0)


def test_the_error_of_a_ratio() -> None:
    assert standard_error([1.0, 2.0, 3.0], [10, 20, 30]) == pytest.approx(0)
    assert standard_error([5.0], [10]) == 0
    bits, sizes = [10.0, 30.0], [10, 10]
    assert standard_error(bits, sizes) == pytest.approx(math.sqrt((10**2 + 10**2) / 2) / 20)


def test_ranges() -> None:
    number = Range(10.0, 8.0, 13.0)
    assert number.scaled(2, 1) == (21, 17, 27)
    assert number.spread(0.5) == (10, 4, 19.5)
    assert Range.exactly(3.0) == (3, 3, 3)


def test_places_are_spread_over_what_is_not_noise() -> None:
    half = 1 << 21
    noise = random.Random(3).randbytes(half)
    data = b"".join(b"%09d\n" % number for number in range(half // 10 + 1))[:half]
    places = Places(io.BytesIO(data + noise + data))
    places.find_texts()
    assert places.texts == [range(half), range(2 * half, 3 * half)] and places.text_bytes == 2 * half
    pieces = places.spread(8, 100)
    assert len(pieces) == 8 and all(piece in data for piece in pieces) and pieces[0] == data[:100]
    assert places.run_of(1000) in data and len(places.run_of(1000)) == 1000


def test_pieces_begin_with_a_character() -> None:
    data = "Größe und Maß, schön gefügt. ".encode() * 3000
    places = Places(io.BytesIO(data))
    places.find_texts()
    for piece in places.spread(50, 40):
        piece.decode("utf-8", "strict" if piece[-1] < 0x80 else "ignore")
        assert piece[0] < 0x80 or piece[0] >= 0xC0
