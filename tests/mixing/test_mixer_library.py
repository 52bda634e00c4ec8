"""Checks the mixer's library: equal learning at every level, wrong arguments refused, no library.

test_mixer_document.py compares every level with the reference, on shorter texts.
"""

from __future__ import annotations

import ctypes
import functools
import gc
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import mixer_samples as samples
import numpy as np
import pytest

import llmzip
from llmzip.errors import CorruptError, EngineError
from llmzip.mixing import coder, library
from llmzip.mixing.mixer import MixDecoder, MixEncoder, decode_bytes, encode_bytes, memory_bytes
from llmzip.mixing.state import GROUP_ROWS, Learned
from llmzip.mixing.vocabulary import Vocabulary

BYTE_TABLE = tuple(bytes([byte]) for byte in range(256))
LIBRARY_FOLDER = library.FOLDER
LEVELS = [level for level in library.LEVELS if library.library(level) is not None]
OTHERS = LEVELS[1:]
"""Levels that are compared with the portable one."""


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def assert_equal(first: Learned, second: Learned) -> None:
    for name, one, two in zip(Learned._fields, rows_in_use(first), rows_in_use(second), strict=True):
        assert np.array_equal(one, two), name


def rows_in_use(learned: Learned) -> Learned:
    return learned._replace(pair_map=learned.pair_map[: learned.pair_row[-1] + 1])


@functools.cache
def words(size: int) -> Vocabulary:
    return Vocabulary(samples.word_table(size))


def rows_of(size: int, num_tokens: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens that repeat, and masses that know them half of the time."""
    generator = np.random.default_rng(seed)
    tokens = generator.integers(size, size=num_tokens)
    tokens[num_tokens // 2 :] = tokens[: num_tokens - num_tokens // 2]
    masses = generator.integers(1 << 12, size=(num_tokens, size)).astype(np.int32)
    peak = np.where(generator.random(num_tokens) < 0.5, tokens, generator.integers(size, size=num_tokens))
    masses[np.arange(num_tokens), peak] = 1 << 20
    masses[::7] = 1 << 20  # all alike
    masses[3::7] = 0
    masses[3::7, 0] = 1 << 20
    return tokens, masses


def encoder_of(vocabulary: Vocabulary, tokens: np.ndarray, num_rows: int, masses: np.ndarray) -> MixEncoder:
    """An encoder with all masses."""
    encoder = MixEncoder(vocabulary, tokens, num_rows, with_model=True)
    encoder.add(np.arange(len(tokens)), masses)
    return encoder


@pytest.mark.parametrize("name", samples.long_bytes())
def test_levels_learn_the_same_from_bytes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = samples.long_bytes()[name]
    tokens, vocabulary = np.frombuffer(data, dtype=np.uint8).astype(np.int64), samples.vocabulary(BYTE_TABLE)
    coded = {}
    for level in LEVELS:
        monkeypatch.setenv("LLMZIP_KERNELS", level)
        encoder = MixEncoder(vocabulary, tokens, 1, with_model=False)
        coded[level] = encoder.finish(), encoder._learned
    right, learned = coded["portable"]
    for level in OTHERS:
        assert coded[level][0] == right
        assert_equal(coded[level][1], learned)
        monkeypatch.setenv("LLMZIP_KERNELS", level)
        decoder = MixDecoder(vocabulary, right[0], len(data), 1, with_model=False)
        assert b"".join(bytes(decoder.step(None).tolist()) for _ in data) == data
        assert_equal(decoder._learned, learned)


@pytest.mark.parametrize(
    ("size", "num_tokens", "num_rows"),
    [(2, 40, 3), (17, 500, 1), (64, 900, 70), (300, 700, 33), (1000, 300, 300), (16, 65, 32)],
)
def test_levels_learn_the_same_from_rows(
    size: int, num_tokens: int, num_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens, masses = rows_of(size, num_tokens, seed=size)
    coded = {}
    for level in LEVELS:
        monkeypatch.setenv("LLMZIP_KERNELS", level)
        encoder = encoder_of(words(size), tokens, num_rows, masses)
        coded[level] = encoder.finish(), encoder._learned
    for level in OTHERS:
        assert coded[level][0] == coded["portable"][0]
        assert_equal(coded[level][1], coded["portable"][1])


def test_parts_of_steps_are_the_steps(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Encoded by some steps at a time, decoded by some groups of rows at a time."""
    monkeypatch.setenv("LLMZIP_KERNELS", level)
    size, num_tokens, num_rows = 64, 613, 71
    vocabulary = words(size)
    tokens, masses = rows_of(size, num_tokens, seed=5)
    payload, bits = encoder_of(vocabulary, tokens, num_rows, masses).finish()
    encoder = MixEncoder(vocabulary, tokens, num_rows, with_model=True)
    starts = np.array(encoder._rows.row_starts())
    steps = encoder._rows.steps
    for begin in range(0, steps, 3):
        for step in range(begin, min(begin + 3, steps)):
            places = starts[: encoder._rows.active_rows(step)] + step
            encoder.add(places, masses[places])
        encoder.walk(min(begin + 3, steps))
    assert encoder.finish() == (payload, bits)
    decoder = MixDecoder(vocabulary, payload, num_tokens, num_rows, with_model=True)
    for step in range(steps):
        active = encoder._rows.active_rows(step)
        for first in range(0, active, GROUP_ROWS):
            last = min(first + GROUP_ROWS, active)
            places = starts[first:last] + step
            decoder.take(masses[places], first)
            assert np.array_equal(decoder.decode(first, last), tokens[places])


def test_what_the_library_would_not_notice_is_refused(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMZIP_KERNELS", level)
    vocabulary = words(64)
    encoder = MixEncoder(vocabulary, np.zeros(10, dtype=np.int64), 2, with_model=True)
    with pytest.raises(IndexError):
        encoder.add(np.array([10]), np.zeros((1, 64), dtype=np.int32))
    with pytest.raises(ValueError, match="masses of shape"):
        encoder.add(np.array([3]), np.zeros((1, 63), dtype=np.int32))
    decoder = MixDecoder(vocabulary, b"", 10, 2, with_model=True)
    with pytest.raises(IndexError):
        decoder.take(np.zeros((3, 64), dtype=np.int32))
    with pytest.raises(IndexError):
        decoder.take(np.zeros((1, 64), dtype=np.int32), 2)
    with pytest.raises(IndexError):
        decoder.decode(0, 3)
    for _ in range(5):
        decoder.take(np.ones((2, 64), dtype=np.int32))
        decoder.decode(0, 2)
    with pytest.raises(IndexError):
        decoder.decode(0, 2)
    with pytest.raises(IndexError):
        encoder.walk(6)


def test_steps_are_walked_once(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMZIP_KERNELS", level)
    tokens, masses = rows_of(64, 100, seed=7)
    expected = encoder_of(words(64), tokens, 10, masses).finish()
    encoder = MixEncoder(words(64), tokens, 10, with_model=True)
    encoder.add(np.arange(100), masses)
    done: list[int] = []
    encoder.walk(6, done.append)
    encoder.walk(3, done.append)
    assert sum(done) == 60
    assert encoder.finish(done.append) == expected and sum(done) == 100


@pytest.mark.parametrize(("size", "num_tokens", "num_rows"), [(300, 3000, 200), (20_000, 500, 40), (60_000, 50, 1)])
def test_memory_is_what_is_announced(size: int, num_tokens: int, num_rows: int) -> None:
    masses = np.ones((num_rows, size), dtype=np.int32)
    tokens = np.zeros(num_tokens, dtype=np.int64)
    tracemalloc.start()
    try:
        vocabulary = Vocabulary([b"%d" % n for n in range(size)])
        encoder = MixEncoder(vocabulary, tokens, num_rows, with_model=True)
        encoder.add(np.arange(num_rows), masses)
        del encoder
        decoder = MixDecoder(vocabulary, b"", num_tokens, num_rows, with_model=True)
        decoder.take(masses)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    announced = memory_bytes(num_tokens, num_rows, size)
    assert announced / 3 < peak < announced


def outcome(code: bytes) -> bytes | str:
    try:
        return decode_bytes(code, 200)
    except CorruptError as error:
        return str(error).split(" (")[0]


@pytest.mark.parametrize("code", [b"\xff" * 64, b"\xff" * 8 + bytes(40), bytes(7) + b"\xff" * 50])
def test_damaged_codes_end_alike(code: bytes, level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers outside of the coder's range among them."""
    monkeypatch.setenv("LLMZIP_KERNELS", "portable")
    right = outcome(code)
    monkeypatch.setenv("LLMZIP_KERNELS", level)
    assert outcome(code) == right


# -- which level computes ----------------------------------------------------------------------------------------------


def test_the_variable_chooses_the_level(monkeypatch: pytest.MonkeyPatch) -> None:
    best = LEVELS[-1]
    for value, expected in {
        "": best,
        "none": "portable",
        "portable": "portable",
        "avx2": "avx2" if "avx2" in LEVELS else best,
        "avx512": "avx512" if "avx512" in LEVELS else best,
        "amx": best,
        "triton": best,
    }.items():
        monkeypatch.setenv("LLMZIP_KERNELS", value)
        assert library.chosen().level == expected


# -- without the library -----------------------------------------------------------------------------------------------


@pytest.fixture
def missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """A process that finds no library of the mixer."""
    monkeypatch.setattr(library, "FOLDER", tmp_path)
    caches = (library.library, coder._pair, coder.rangecoder.functions)
    for cache in caches:
        cache.cache_clear()
    yield
    monkeypatch.undo()
    for cache in caches:
        cache.cache_clear()


@pytest.mark.usefixtures("missing")
def test_a_missing_library_is_one_error_that_says_what_to_do() -> None:
    for function in (lambda: encode_bytes(b"abc"), lambda: decode_bytes(b"abc", 3), lambda: coder.use("compiled")):
        with pytest.raises(EngineError, match=r"mixer cannot be loaded: .*install llmzip again: pip install") as caught:
            function()
        assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("missing")
def test_stale_and_foreign_libraries_count_as_missing(tmp_path: Path) -> None:
    (tmp_path / "_mixer.so").write_bytes(b"\x7fELF of another machine")
    with pytest.raises(EngineError, match="from other sources or for another machine"):
        encode_bytes(b"abc")
    (file,) = (file for file in LIBRARY_FOLDER.glob("_mixer*") if file.suffix != ".h")
    (tmp_path / "_mixer.so").write_bytes(file.read_bytes())  # without the sources that it was built from
    with pytest.raises(EngineError, match="from other sources or for another machine"):
        encode_bytes(b"abc")


def test_the_command_line_says_so_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"abcabc" * 99)
    code = (
        "import sys; from pathlib import Path; from llmzip.mixing import library; library.FOLDER = Path('nowhere');"
        "from llmzip.cli.main import main; sys.exit(main(['-6', '-m', 'small', 'text']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=os.environ | {"PYTHONPATH": str(Path(llmzip.__file__).parents[1])},
    )
    (line,) = done.stderr.splitlines()
    assert done.returncode == 1 and line.startswith("llmzip: text: llmzip's mixer cannot be loaded: ")
    assert [file.name for file in tmp_path.iterdir()] == ["text"]


def test_compiled_callers_decode_by_addresses(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through nothing but addresses: of the mixer, its functions and plain arrays."""
    monkeypatch.setenv("LLMZIP_KERNELS", level)
    size, num_tokens, num_rows = 64, 211, 70
    tokens, masses = rows_of(size, num_tokens, seed=6)
    payload, _ = encoder_of(words(size), tokens, num_rows, masses).finish()
    decoder = MixDecoder(words(size), payload, num_tokens, num_rows, with_model=True)
    addresses, number, pointer = decoder.compiled_source(), ctypes.c_int64, ctypes.c_void_p
    take = ctypes.CFUNCTYPE(None, pointer, number, pointer, number)(addresses["take"])
    decode = ctypes.CFUNCTYPE(ctypes.c_int, pointer, number, number, pointer)(addresses["decode"])
    starts = np.array(decoder._rows.row_starts())
    for step in range(decoder._rows.steps):
        active = decoder._rows.active_rows(step)
        places, ids = starts[:active] + step, np.full(active + 1, -1, dtype=np.int64)
        given = np.ascontiguousarray(masses[places])
        take(addresses["context"], active, given.ctypes.data, 0)
        assert decode(addresses["context"], 0, active, ids.ctypes.data)
        assert ids.tolist() == [*tokens[places].tolist(), -1]


def test_a_table_of_an_earlier_frame_changes_nothing(level: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of found tokens are used again without being cleared, until their numbers get too large."""
    monkeypatch.setenv("LLMZIP_KERNELS", level)
    gc.collect()  # what earlier tests left would give its tables back later
    monkeypatch.setattr(library, "_free", [])
    tokens, masses = rows_of(64, 900, seed=8)
    expected, bases = encoder_of(words(64), tokens, 5, masses).finish(), []
    gc.collect()
    for _ in range(3):
        assert encoder_of(words(64), tokens, 5, masses).finish() == expected
        gc.collect()
        (found,) = library._free
        bases.append(found.base)
    assert bases == [1800, 2700, 3600]
    library._free[:] = [library._Found(found.table, 2**31 - 1 - 900)]  # the last frame that fits
    assert encoder_of(words(64), tokens, 5, masses).finish() == expected
    gc.collect()
    assert [found.base for found in library._free] == [2**31 - 1]
    assert encoder_of(words(64), tokens, 5, masses).finish() == expected
    gc.collect()
    assert [found.base for found in library._free] == [900]


def test_frames_at_the_same_time_have_tables_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    gc.collect()
    monkeypatch.setattr(library, "_free", [])
    tokens, masses = rows_of(64, 300, seed=9)
    payload, _ = encoder_of(words(64), tokens, 3, masses).finish()
    gc.collect()
    decoders = [MixDecoder(words(64), payload, 300, 3, with_model=True) for _ in range(7)]
    starts = np.array(decoders[0]._rows.row_starts()[:-1])
    for step in range(100):
        for decoder in decoders:
            assert np.array_equal(decoder.step(masses[starts + step]), tokens[starts + step])
    del decoder, decoders
    gc.collect()
    assert len(library._free) == library._MAX_FREE
    assert len({found.table.ctypes.data for found in library._free}) == library._MAX_FREE
