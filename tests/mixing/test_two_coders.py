"""Checks that the compiled coder gives constriction's bits, both ways and in whole archives, and when it takes over."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import llmzip
from llmzip.codec import reader, writer
from llmzip.errors import CorruptError, EngineError
from llmzip.inference import load
from llmzip.mixing import coder
from llmzip.mixing.coder import TOTAL, Decoder, Encoder
from llmzip.mixing.mixer import decode_bytes, encode_bytes
from llmzip.models.choice import choose_model
from llmzip.settings import CompressSettings, EngineSettings
from llmzip.windows import packets as window_packets

Part = tuple[str, list[tuple[int, int]]]

PROBABILITIES = st.one_of(st.integers(1, 65535), st.sampled_from([1, 2, 32767, 32768, 32769, 65534, 65535]))
DECISIONS = st.lists(st.tuples(PROBABILITIES, st.integers(0, 1)), max_size=60)
EDGES = st.sampled_from([0, 1, 2, (TOTAL >> 1) - 1, TOTAL >> 1, TOTAL - 2, TOTAL - 1])
INTERVALS = st.lists(
    st.tuples(st.one_of(st.integers(0, TOTAL - 1), EDGES), st.one_of(st.integers(1, TOTAL - 2), EDGES)).map(
        lambda pair: (pair[0], min(max(pair[1], 1), TOTAL - pair[0], TOTAL - 2))
    ),
    max_size=60,
)
PARTS = st.lists(st.one_of(st.tuples(st.just("bits"), DECISIONS), st.tuples(st.just("intervals"), INTERVALS)))
TEXT = Path(reader.__file__).read_bytes()[:700]


@pytest.fixture(autouse=True)
def _back() -> Iterator[None]:
    yield
    coder.use()


def both(make: Callable[[], Any]) -> list[Any]:
    """What something makes with either coder; both must be here."""
    pytest.importorskip("constriction", reason="constriction has no build for this machine")
    made = []
    for name in coder.CODERS:
        coder.use(name)
        made.append(make())
    coder.use()
    return made


def arrays(kind: str, pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    """The arguments of `encode_bits` or `encode`."""
    first, second = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    if kind == "bits":
        return second.astype(np.int32), first.astype(np.float32) * np.float32(2.0**-16)
    return first, second


def fill(encoder: Encoder, parts: list[Part]) -> Encoder:
    for kind, pairs in parts:
        (encoder.encode_bits if kind == "bits" else encoder.encode)(*arrays(kind, pairs))
    return encoder


def state(encoder: Encoder) -> tuple[Any, ...]:
    """All that an encoder knows: the words that are out, its interval, its own ending, the bytes."""
    position = tuple(int(number) for number in encoder._encoder.position())
    return position, encoder._encoder.sealed().tolist(), encoder.finish()


def table(left: int, frequency: int) -> list[int]:
    """Cumulative frequencies of three entries or, at the edges, two."""
    return sorted({0, left, left + frequency, TOTAL})


def assert_alike(parts: list[Part]) -> None:
    first, second = both(lambda: state(fill(Encoder(), parts)))
    assert first == second
    for decoder in both(lambda: Decoder(first[-1])):
        for kind, pairs in parts:
            if kind == "bits":
                bits, probability = arrays(kind, pairs)
                assert decoder.decode_bits(probability).tolist() == bits.tolist()
            else:
                for left, frequency in pairs:
                    edges = table(left, frequency)
                    assert edges[int(decoder.decode(np.array([edges], dtype=np.int64))[0])] == left


# -- symbols -----------------------------------------------------------------------------------------------------------


@given(parts=PARTS)
def test_symbols_of_all_kinds_give_the_same_bits(parts: list[Part]) -> None:
    assert_alike(parts)


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [("bits", []), ("intervals", [])],
        [("intervals", [(0, 1)] * 300)],
        [("intervals", [(TOTAL - 1, 1)] * 300)],
        [("intervals", [(0, TOTAL - 2), (2, TOTAL - 2)] * 300)],
        # Every later symbol may still carry: through all the words that are out, or through none of them.
        [("intervals", [((TOTAL >> 1) - 1, 2), *[(TOTAL - 1, 1)] * 300])],
        [("intervals", [((TOTAL >> 1) - 1, 2), *[(TOTAL - 1, 1)] * 300, (0, 1)])],
        [("intervals", [((TOTAL >> 1) - 1, 2), *[(0, 1)] * 300])],
        [("bits", [(32768, 1), *[(65535, 0)] * 300, *[(1, 1)] * 300, (32769, 0)])],
        [("bits", [(65535, 1)] * 3000), ("intervals", [(5, 1)]), ("bits", [(1, 0)] * 3000)],
    ],
    ids=[
        "nothing",
        "empty",
        "lowest",
        "highest",
        "likely",
        "open",
        "carry",
        "no carry",
        "unlikely bits",
        "likely bits",
    ],
)
def test_symbols_at_the_edges_give_the_same_bits(parts: list[Part]) -> None:
    assert_alike(parts)


def test_all_probabilities_give_the_same_bits() -> None:
    k = np.arange(1, 65536)
    for bits in (k & 1, 1 - (k & 1)):
        pairs = list(zip(k.tolist(), bits.tolist(), strict=True))
        first, second = both(lambda pairs=pairs: state(fill(Encoder(), [("bits", pairs)])))
        assert first == second


def test_very_many_symbols_give_the_same_bits(rng: np.random.Generator) -> None:
    size = 100_000
    k = np.where(rng.random(size) < 0.5, rng.integers(1, 65536, size), rng.integers(1, 40, size))
    bits = (rng.random(size) * 65536 < k).astype(np.int32)
    probability = k.astype(np.float32) * np.float32(2.0**-16)
    left = rng.integers(0, TOTAL, size)
    frequency = np.minimum(np.minimum(1 + (rng.random(size) ** 9 * TOTAL).astype(np.int64), TOTAL - left), TOTAL - 2)

    def code() -> bytes:
        encoder = Encoder()
        encoder.encode_bits(bits, probability)
        encoder.encode(left, frequency)
        encoder.encode_bits(bits[:1000], probability[:1000])
        return encoder.finish()

    first, second = both(code)
    assert first == second and len(first) > 50_000
    inner = np.stack([left, left + frequency], axis=1)
    usual = (left > 0) & (left + frequency < TOTAL)  # a decoder's tables have no empty entries
    for decoder in both(lambda: Decoder(first)):
        assert np.array_equal(decoder.decode_bits(probability), bits)
        begin = 0
        for end in [*np.flatnonzero(~usual).tolist(), size]:
            bounds = np.pad(inner[begin:end], ((0, 0), (1, 1)), constant_values=(0, TOTAL))
            assert (decoder.decode(bounds) == 1).all()
            if end < size:
                edges = table(int(left[end]), int(frequency[end]))
                assert edges[int(decoder.decode(np.array([edges]))[0])] == left[end]
            begin = end + 1
        assert np.array_equal(decoder.decode_bits(probability[:1000]), bits[:1000])


def test_random_tables_decode_random_bytes_alike(rng: np.random.Generator) -> None:
    refused = 0
    for _ in range(400):
        code, size = rng.bytes(int(rng.integers(0, 60))), int(rng.integers(2, 120))
        if rng.random() < 0.1:
            code = b"\xff" * 12 + code
        calls: list[tuple[str, np.ndarray]] = []
        for _ in range(15):
            inner = np.sort(rng.choice(TOTAL - 1, size - 1, replace=False) + 1)
            k = rng.integers(1, 65536, 7).astype(np.float32) * np.float32(2.0**-16)
            calls += [("decode", np.concatenate([[0], inner, [TOTAL]])[None]), ("decode_bits", k)]

        def decode(code: bytes = code, calls: list[tuple[str, np.ndarray]] = calls) -> list[Any]:
            decoder, found = Decoder(code), []
            try:
                for name, argument in calls:
                    found.append(getattr(decoder, name)(argument).tolist())
            except CorruptError as error:
                assert str(error).startswith("damaged: the compressed data fits no text")
                found.append("refused")
            return found

        first, second = both(decode)
        assert first == second
        refused += first[-1] == "refused"
    assert 0 < refused < 400


# -- what the compiled coder refuses -----------------------------------------------------------------------------------


@pytest.mark.parametrize("probability", [0.0, 1.0, -0.5, 1.5, 2.0**-17, 0.3, float("nan"), float("inf"), -float("inf")])
def test_the_compiled_coder_refuses_other_probabilities(probability: float) -> None:
    coder.use("compiled")
    encoder, decoder = Encoder(), Decoder(b"some bytes")
    wrong = np.array([0.5, probability], dtype=np.float32)
    with pytest.raises(ValueError, match="not a multiple of"):
        encoder.encode_bits(np.array([1, 1], dtype=np.int32), wrong)
    with pytest.raises(ValueError, match="not a multiple of"):
        decoder.decode_bits(wrong)
    assert encoder.finish() == b"", "something was encoded"
    half = np.full(8, 0.5, dtype=np.float32)
    assert decoder.decode_bits(half).tolist() == Decoder(b"some bytes").decode_bits(half).tolist()


def test_the_compiled_coder_refuses_arrays_of_other_shapes() -> None:
    coder.use("compiled")
    with pytest.raises(ValueError, match="shapes"):
        Encoder().encode(np.array([1, 2]), np.array([1]))
    with pytest.raises(ValueError, match="shapes"):
        Encoder().encode_bits(np.zeros(3, dtype=np.int32), np.full(2, 0.5, dtype=np.float32))
    for bounds in (np.array([0, TOTAL]), np.array([[0]]), np.zeros((2, 0), dtype=np.int64)):
        with pytest.raises(ValueError, match="bounds of shape"):
            Decoder(b"").decode(bounds)


def test_arrays_code_the_same_however_they_lie(rng: np.random.Generator) -> None:
    left, frequency = rng.integers(1, 1000, 60), rng.integers(1, 1000, 60)
    bits, probability = rng.integers(0, 2, 60), rng.integers(1, 65536, 60) * 2.0**-16
    bounds = np.stack([np.zeros(60, dtype=np.int64), left, left + frequency, np.full(60, TOTAL)], axis=1)
    apart = {"left": left, "frequency": frequency, "bits": bits.astype(np.int32), "p": probability.astype(np.float32)}
    apart = {name: np.repeat(array, 2)[::2] for name, array in apart.items()}

    def codes() -> tuple[bytes, bytes]:
        apart_encoder, plain_encoder = Encoder(), Encoder()
        apart_encoder.encode(apart["left"], apart["frequency"])
        apart_encoder.encode_bits(apart["bits"], apart["p"])
        plain_encoder.encode(left, frequency)
        plain_encoder.encode_bits(bits.astype(np.int32), probability.astype(np.float32))
        return apart_encoder.finish(), plain_encoder.finish()

    (first, second), (third, fourth) = both(codes)
    assert first == second == third == fourth
    for decoder in both(lambda: Decoder(first)):
        assert decoder.decode(np.asfortranarray(bounds)).tolist() == [1] * 60
        assert decoder.decode_bits(apart["p"]).tolist() == bits.tolist()


def test_a_coder_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match="no coder 'huffman': constriction, compiled"):
        coder.use("huffman")


def test_missing_coders_are_told_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    coder._pair.cache_clear()
    try:
        monkeypatch.setitem(sys.modules, "constriction", None)
        with pytest.raises(EngineError, match=r"^constriction is not installed$"):
            coder.use("constriction")
        coder.use("compiled")
    finally:
        coder._pair.cache_clear()


# -- archives ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {"level": 1},
        {"level": 6},
        {"level": 9, "rows": 3},
        {"level": 6, "prompt": TEXT[:200]},
        {"level": 6, "window_bits": 64},
        {"level": 1, "window_bits": 32, "model_reset": False},
    ],
    ids=" ".join,
)
def test_archives_are_equal_and_decode_with_either(settings: dict[str, Any]) -> None:
    def archive() -> bytes:
        sink = io.BytesIO()
        writer.compress_stream(io.BytesIO(TEXT), sink, CompressSettings(model="small", **settings))
        return sink.getvalue()

    first, second = both(archive)
    assert first == second and len(first) < len(TEXT)
    assert llmzip.info(first).archives[0].frames[0].method in ("lm", "mixed", "windows")
    given_prompt = {"prompt": settings["prompt"]} if "prompt" in settings else {}
    assert both(lambda: llmzip.decompress(first, **given_prompt)) == [TEXT, TEXT]


def test_payloads_without_a_model_are_equal_and_decode_with_either(rng: np.random.Generator) -> None:
    data = rng.choice(np.array([0, 1, 2, 200, 255], dtype=np.uint8), 3000).tobytes()
    (first, _), (second, _) = both(lambda: encode_bytes(data))
    assert first == second
    assert both(lambda: decode_bytes(first, len(data))) == [data, data]


def test_packets_are_equal_and_decode_with_either() -> None:
    model = load.load(choose_model("small"), EngineSettings())
    first, second = both(lambda: window_packets.encode(model, TEXT, 64))
    assert first == second and len(first) > 2
    (packets,) = window_packets.gather((str(n), packet) for n, packet in enumerate(first))[0].values()
    for parts, wrong in both(lambda: window_packets.decode(model, packets)):
        assert not wrong and b"".join(part.text or b"" for part in parts) == TEXT


@pytest.mark.parametrize("level", [1, 6])
def test_damaged_archives_end_alike(level: int, rng: np.random.Generator) -> None:
    archive = llmzip.compress(TEXT[:300], model="small", level=level)
    for _ in range(12):
        damaged = bytearray(archive)
        damaged[int(rng.integers(len(archive) // 2, len(archive)))] ^= 1 << int(rng.integers(8))

        def outcome(damaged: bytes = bytes(damaged)) -> str:
            try:
                return llmzip.decompress(damaged).decode()
            except llmzip.LLMZipError as error:
                return type(error).__name__

        first, second = both(outcome)
        assert first == second


# -- machines without constriction -------------------------------------------------------------------------------------

WITHOUT = "import sys; sys.modules['constriction'] = None\n"
COMMAND = "import sys; from llmzip.cli.main import main; sys.exit(main())\n"
NOT_BUILT = "from llmzip.system import libraries; libraries._candidates = lambda folder, stem: iter(())\n"


def run(code: str, *arguments: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[bytes]:
    """A fresh interpreter with some lines of Python and the arguments of the command line."""
    path = os.pathsep.join(filter(None, [str(Path(llmzip.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        capture_output=True,
        timeout=120,
        check=False,
        env=os.environ | {"PYTHONPATH": path} | environment,
    )


@pytest.mark.parametrize("level", [1, 6])
def test_without_constriction_the_archive_is_the_same(level: int, tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(TEXT)
    options = ["-m", "small", f"-{level}", "text"]
    done = run(WITHOUT + COMMAND, "compress", *options, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    archive = (tmp_path / "text.llmz").read_bytes()
    assert archive == llmzip.compress(TEXT, model="small", level=level)
    (tmp_path / "text").unlink()
    done = run(WITHOUT + COMMAND, "decompress", "text.llmz", folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert (tmp_path / "text").read_bytes() == TEXT


def test_without_constriction_and_kernels_the_mixer_codes_the_same(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom llmzip.mixing.mixer import decode_bytes, encode_bytes\n"
        "from llmzip.mixing import library\nassert library.chosen().level == 'portable'\n"
        "payload, _ = encode_bytes(b'abc, abc; abc')\nassert decode_bytes(payload, 13) == b'abc, abc; abc'\n"
        "assert sys.modules['constriction'] is None\nprint(payload.hex())"
    )
    done = run(WITHOUT + code, folder=tmp_path, LLMZIP_KERNELS="none")
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode().strip() == encode_bytes(b"abc, abc; abc")[0].hex()


@pytest.mark.parametrize("level", [1, 6])
def test_without_any_coder_there_is_one_line_that_says_what_to_install(level: int, tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(TEXT)
    (tmp_path / "whole.llmz").write_bytes(llmzip.compress(TEXT, model="small", level=level))
    for arguments in (["compress", "-m", "small", f"-{level}", "text"], ["decompress", "whole.llmz"]):
        done = run(WITHOUT + NOT_BUILT + COMMAND, *arguments, folder=tmp_path)
        (line,) = done.stderr.decode().splitlines()
        assert (
            done.returncode == 1 and "mixer cannot be loaded: " in line and "install llmzip again: pip install" in line
        )
        assert sorted(file.name for file in tmp_path.iterdir()) == ["text", "whole.llmz"]
    # What needs no coder works.
    (tmp_path / "empty.llmz").write_bytes(llmzip.compress(b""))
    assert run(WITHOUT + NOT_BUILT + COMMAND, "-t", "empty.llmz", folder=tmp_path).returncode == 0
