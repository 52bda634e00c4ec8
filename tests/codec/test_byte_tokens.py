"""A model whose vocabulary lacks bytes: every method, setting and measure of the library works with it."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import itertools
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_samples import LACKING

import llmzip
from llmzip.codec import levels
from llmzip.codec.rows import FrameCoder
from llmzip.codec.writer import ArchiveWriter
from llmzip.engines.exact import ExactEngine
from llmzip.format import writing
from llmzip.format.headers import LM, USER_MODEL, FrameHeader, Header
from llmzip.format.packets import parse
from llmzip.format.plan import RowPlan
from llmzip.inference.load import LoadedModel, load
from llmzip.inference.progress import ByteMeter
from llmzip.measures import budget
from llmzip.measures.distance import measure_distances
from llmzip.measures.estimate import estimate
from llmzip.measures.scoring import Scorer
from llmzip.models.choice import choose_model
from llmzip.models.tokenizer_file import TokenizerFile
from llmzip.settings import CompressSettings, EngineSettings
from llmzip.windows import frames as window_frames
from llmzip.windows import packets as window_packets

OWN_TOKENS = 4096
CORPORA = Path(__file__).parents[2] / "corpora"
PROSE = (CORPORA / "prose-en.txt").read_bytes()
TEXTS = {
    "text": PROSE[:900],
    "control bytes": PROSE[:300] + b"\x04\x06" + PROSE[300:500] + b"\x16\x16\x1d" + PROSE[500:900],
    "not UTF-8": PROSE[:400] + LACKING + PROSE[400:600] + b"\xf5abc\xff\xc0\x80" + PROSE[600:900],
    "only such bytes": bytes(np.random.default_rng(3).choice(list(LACKING), 300).tolist()),
    "every byte": bytes(range(256)) * 2,
    "one": b"\xff",
    "empty": b"",
}
ODD_BYTES = st.lists(
    st.one_of(
        st.sampled_from([bytes([byte]) for byte in LACKING]),
        st.sampled_from([b"the ", b"wind and ", b"\r\n", "é€".encode(), b"\x80", b"\0"]),
        st.binary(min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=20,
).map(b"".join)
ANY_BYTES = st.one_of(ODD_BYTES, st.binary(min_size=1, max_size=40))


@pytest.fixture(scope="module")
def model(lacking_model: Path) -> LoadedModel:
    return load(choose_model(lacking_model), EngineSettings())


# -- the engine --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("compiled", [True, False])
def test_byte_tokens_are_fed_as_the_start_token_and_have_no_mass(compiled: bool, model: LoadedModel) -> None:
    engine = ExactEngine(model.engine.model, compiled=compiled, byte_tokens=len(LACKING))
    plain = ExactEngine(model.engine.model, compiled=compiled)
    assert (engine.vocab_size, plain.vocab_size) == (OWN_TOKENS + len(LACKING), OWN_TOKENS)
    rng = np.random.default_rng(1)
    ids = rng.integers(0, engine.vocab_size, (3, 200))
    ids[:, ::7] = rng.integers(OWN_TOKENS, engine.vocab_size, ids[:, ::7].shape)
    fed = np.where(ids < OWN_TOKENS, ids, engine.start_token)
    assert not np.array_equal(ids, fed)
    hidden = engine.forward(ids)
    assert np.array_equal(hidden, plain.forward(fed))
    for rows in (1, 7, 200):
        masses = np.asarray(engine.masses(hidden[0, :rows]))
        assert masses.dtype == np.int32 and masses.flags.c_contiguous and masses.shape == (rows, engine.vocab_size)
        assert np.array_equal(masses[:, :OWN_TOKENS], plain.masses(hidden[0, :rows]))
        assert not masses[:, OWN_TOKENS:].any()


# -- frames ------------------------------------------------------------------------------------------------------------


def round_trip(model: LoadedModel, data: bytes, level: int, *, prompt: bytes = b"") -> int:
    """The size of a payload by the model, whatever other methods could do, after it was read back."""
    ids = model.tokenizer.encode(data)
    assert len(ids) <= len(data) and model.table.decode(ids) == data
    before = model.prompt(prompt)
    plan = levels.level_plan(level, len(ids), model.engine, CompressSettings(level)).rows
    coder = FrameCoder(model.engine, model.vocabulary if level > 1 else None, before)
    payload, _ = coder.encode(ids, plan)
    found = coder.decode(payload, plan, ByteMeter(model.table.num_bytes, len(data)))
    assert found.tolist() == ids.tolist()
    return len(payload)


@pytest.mark.parametrize("level", [1, 6])
def test_any_bytes_come_back_by_the_model(level: int, model: LoadedModel) -> None:
    @given(data=ANY_BYTES)
    def check(data: bytes) -> None:
        round_trip(model, data, level)

    check()


@pytest.mark.parametrize("level", [1, 2, 6, 9])
@pytest.mark.parametrize("name", TEXTS)
def test_archives_come_back(name: str, level: int, lacking_model: Path) -> None:
    archive = llmzip.compress(TEXTS[name], model=lacking_model, level=level)
    methods = [frame.method for frame in llmzip.info(archive).archives[0].frames]
    if TEXTS[name].startswith(PROSE[:9]):
        assert methods == ["lm" if level == 1 else "mixed"]
    assert llmzip.decompress(archive, model=lacking_model) == TEXTS[name]


def test_the_mixer_learns_byte_tokens(model: LoadedModel) -> None:
    data = PROSE[:200] + bytes(LACKING[n % 3] for n in range(600))
    assert round_trip(model, data, 6) < round_trip(model, data, 1) / 8


def test_a_vocabulary_that_lacks_nothing_keeps_its_bits_and_its_size(lacking_model: Path) -> None:
    """The same text by the model as it is embedded: its archive only differs in the header, and hardly in its size."""
    own, lacking = llmzip.compress(PROSE[:900], model="small"), llmzip.compress(PROSE[:900], model=lacking_model)
    assert own[3] >> 4 == 3 and lacking[3] >> 4 == 15
    assert abs((len(lacking) - 5 - lacking[4]) - (len(own) - 4)) <= 3


@pytest.mark.parametrize("level", [1, 6])
def test_prompts_of_byte_tokens(level: int, model: LoadedModel) -> None:
    data = PROSE[:400] + LACKING * 2
    alone, after = (round_trip(model, data, level, prompt=prompt) for prompt in (b"", LACKING[::-1] + data))
    assert after < (alone / 2 if level > 1 else 1.1 * alone)  # it is the mixer that learns them


@pytest.mark.parametrize("rows", [1, 5])
def test_rows_whose_contexts_begin_anew(rows: int, model: LoadedModel) -> None:
    data = TEXTS["not UTF-8"] * 2
    ids = model.tokenizer.encode(data)
    short = dataclasses.replace(model.engine.model.config, context=24, windows=(0,) * 4)
    engine = ExactEngine(dataclasses.replace(model.engine.model, config=short), byte_tokens=len(LACKING))
    plan = levels.level_plan(6, len(ids), engine, CompressSettings(rows=rows, overlap=9)).rows
    assert plan.steps > 2 * 24
    for vocabulary in (None, model.vocabulary):
        coder = FrameCoder(engine, vocabulary)
        found = coder.decode(coder.encode(ids, plan).payload, plan, ByteMeter(model.table.num_bytes, len(data)))
        assert found.tolist() == ids.tolist()


def test_archives_with_escapes_are_refused(model: LoadedModel, lacking_model: Path) -> None:
    """They were made with a table without byte tokens, and so name another tokenizer."""
    entries = TokenizerFile.read(lacking_model).byte_table(OWN_TOKENS)
    sha = hashlib.sha256(b"llmzip tokens %d\n" % OWN_TOKENS)
    for entry in entries:
        sha.update(len(entry).to_bytes(4, "little") + entry)
    record = dataclasses.replace(model.record, tokenizer_digest=sha.digest()[:16])
    header = FrameHeader(LM, 9, 3, last=True, num_tokens=4)
    prefix = writing.pack_header(Header(USER_MODEL, record))
    archive = writing.pack_frame(header, b"abc", zlib.crc32(b"some text"), prefix)
    with pytest.raises(llmzip.ModelMismatchError, match="tokenizer"):
        llmzip.decompress(archive, model=lacking_model)


@pytest.mark.parametrize("level", [1, 6])
def test_any_payload_is_text_or_damaged(level: int, model: LoadedModel) -> None:
    coder = FrameCoder(model.engine, model.vocabulary if level > 1 else None)
    rng, found = np.random.default_rng(level), 0
    for _ in range(30):
        plan = RowPlan(int(rng.integers(1, 12)), 1, 1)
        with contextlib.suppress(llmzip.CorruptError):
            ids = coder.decode(rng.bytes(40), plan, ByteMeter(model.table.num_bytes, 100))
            assert len(model.table.decode(ids)) == model.table.num_bytes(ids)
            found += 1
    assert found


# -- windows and packets -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("window_bits", [16, 24, 100])
def test_any_bytes_come_back_from_windows(window_bits: int, fresh: bool, model: LoadedModel) -> None:
    @given(data=ANY_BYTES)
    def check(data: bytes) -> None:
        ((header, payload),) = window_frames.encode(model, [data], window_bits, fresh=fresh, progress=None)
        assert window_frames.decode(model, header, payload, None) == data

    check()


@pytest.mark.parametrize("model_reset", [True, False])
@pytest.mark.parametrize("name", TEXTS)
def test_archives_of_windows_come_back(name: str, model_reset: bool, lacking_model: Path) -> None:
    writer = ArchiveWriter(CompressSettings(model=lacking_model, window_bits=64, model_reset=model_reset))
    archive = writer.write(TEXTS[name]) + writer.finish()
    if TEXTS[name].startswith(PROSE[:9]):
        assert [frame.method for frame in llmzip.info(archive).archives[0].frames] == ["windows"]
    assert llmzip.decompress(archive, model=lacking_model) == TEXTS[name]


@pytest.mark.parametrize("packet_bytes", [32, 200])
@pytest.mark.parametrize("name", TEXTS)
def test_packets_come_back(name: str, packet_bytes: int, model: LoadedModel) -> None:
    packets = window_packets.encode(model, TEXTS[name], packet_bytes)
    if TEXTS[name].startswith(PROSE[:9]):
        assert any(parse(packet).tokens for packet in packets)
    found, problems = window_packets.gather((str(n), packet) for n, packet in enumerate(reversed(packets)))
    assert not problems
    parts, wrong = window_packets.decode(model, next(iter(found.values())))
    assert not wrong and b"".join(part.text or b"" for part in parts) == TEXTS[name]


# -- measures ----------------------------------------------------------------------------------------------------------


def test_scores_are_what_an_archive_pays(model: LoadedModel) -> None:
    ids = model.tokenizer.encode(TEXTS["not UTF-8"])
    scores = Scorer(model, ranks=True, alternatives=3).score(ids)
    is_byte = ids >= OWN_TOKENS
    assert is_byte.sum() == sum(byte in LACKING for byte in TEXTS["not UTF-8"])
    assert (scores.coded_bits[is_byte] >= 20).all() and (scores.ranks[is_byte] > 0).all()
    assert np.isfinite(scores.model_bits).all() and scores.model_bits[is_byte].min() > 20
    assert scores.alternatives.max() < OWN_TOKENS
    plan = levels.level_plan(1, len(ids), model.engine, CompressSettings(rows=1, overlap=1)).rows
    bits = FrameCoder(model.engine).encode(ids, plan).bits
    assert scores.coded_bits.sum() == pytest.approx(bits)


@pytest.fixture
def clock_of_tokens(monkeypatch: pytest.MonkeyPatch, passed_tokens: list[int]) -> None:
    """The clock of estimates is moved by the model's tokens alone, 10,000 a second: samples have one size anywhere."""
    monkeypatch.setattr(budget, "_clock", lambda: sum(passed_tokens) / 10_000)


@pytest.mark.usefixtures("clock_of_tokens")
@pytest.mark.parametrize(
    ("method", "settings"), [("lm", {"level": 1}), ("mixed", {"level": 6}), ("windows", {"window_bits": 64})]
)
def test_an_estimate_is_about_right(method: str, settings: dict[str, Any], lacking_model: Path) -> None:
    """With no text twice, as a sample cannot know of that; too short to measure what the start of a row costs."""
    odd = itertools.cycle(bytes([byte]) for byte in LACKING)
    data = b"".join(PROSE[begin : begin + 400] + next(odd) for begin in range(0, 20_000, 400))
    made = CompressSettings(model=lacking_model, engine=EngineSettings(threads=1), **settings)
    estimated = estimate(io.BytesIO(data), made, seconds=0.5)
    writer = ArchiveWriter(made)
    real = len(writer.write(data) + writer.finish())
    assert (estimated.method, estimated.is_whole) == (method, False)
    assert estimated.compressed_bytes.value == pytest.approx(real, rel=0.3)
    assert estimated.compressed_bytes.low <= real <= estimated.compressed_bytes.high


def test_distances_of_texts_with_byte_tokens(model: LoadedModel) -> None:
    texts = [PROSE[:300] + LACKING[:1], PROSE[:300] + LACKING[1:2], LACKING * 3]
    distances = measure_distances(model, texts).matrix("max")
    assert np.isfinite(distances).all() and distances[0, 1] < distances[0, 2]
