"""Checks that archives of models that see far have the rows that their starts allow; with a tiny checkpoint."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_samples import sentences

import llmzip
from llmzip.codec import levels
from llmzip.codec.levels import LEVELS
from llmzip.codec.report import FrameReport
from llmzip.codec.writer import compress_stream
from llmzip.engines.base import Engine
from llmzip.inference import row_start
from llmzip.inference.row_start import RowStart
from llmzip.models.tokenizer import Tokenizer
from llmzip.settings import CompressSettings, EngineSettings

VOCABULARY = 320
TEXT = sentences(8000, 2)
STARTS = 400.0
"""Bits of a start, in a text of 4 bits for a token."""
pytestmark = pytest.mark.usefixtures("only_models")


@pytest.fixture
def folder(
    random_checkpoint: Callable[..., Any],
    write_checkpoint: Callable[..., Path],
    make_tokenizer: Callable[..., Path],
    tmp_path: Path,
) -> Path:
    """A random checkpoint that sees 2,048 tokens, and a tokenizer."""
    config, tensors = random_checkpoint(vocab_size=VOCABULARY, max_position_embeddings=2048)
    return make_tokenizer(write_checkpoint(tmp_path / "far", config, tensors), vocab_size=VOCABULARY)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[RowStart]:
    """What was assumed each time that a start was to be measured."""
    assumed: list[RowStart] = []

    def measured(engine: Engine[Any], runs: list[np.ndarray], usually: RowStart) -> RowStart:
        assumed.append(usually)
        return RowStart(STARTS, 4.0, engine.context, len(runs))

    monkeypatch.setattr(row_start, "measured", measured)
    return assumed


def compressed(text: bytes, **settings: Any) -> tuple[bytes, FrameReport]:
    """An archive of one frame, and what is reported of it."""
    archive = io.BytesIO()
    (frame,) = compress_stream(io.BytesIO(text), archive, CompressSettings(**settings)).frames
    return archive.getvalue(), frame


@pytest.mark.parametrize("level", [2, 6])
def test_frames_have_the_rows_that_starts_allow(folder: Path, asked: list[RowStart], level: int) -> None:
    archive, frame = compressed(TEXT, model=folder, level=level)
    start, meaning, tokens = RowStart(STARTS, 4.0, 2048).mixed(), LEVELS[level], frame.tokens
    assert frame.method == "mixed" and len(asked) == 1
    assert asked[0].token_bits == pytest.approx(0.4 * 8 * len(TEXT) / tokens, rel=0.01)  # only stored, in this test
    usual_rows = tokens // meaning.min_row_tokens
    assert frame.rows == start.max_rows(tokens, meaning.max_start_loss, usual_rows)
    assert 1 < frame.rows < usual_rows
    assert llmzip.decompress(archive, model=folder) == TEXT


@pytest.mark.parametrize("level", [1, 6])
def test_a_short_text_goes_through_the_model_once(folder: Path, passed_tokens: list[int], level: int) -> None:
    """No samples, and no token twice: what a start costs is not measured on it."""
    compressed(TEXT, model=folder)  # a model that is loaded for the first time is measured
    passed_tokens.clear()
    tokens = Tokenizer(folder, VOCABULARY).encode(TEXT[:2000])
    compressed(TEXT[:2000], model=folder, level=level)
    assert sum(passed_tokens) == len(tokens)


def test_rows_that_were_asked_for_are_not_measured(folder: Path, asked: list[RowStart]) -> None:
    _, frame = compressed(TEXT, model=folder, rows=9)
    assert frame.rows == 9 and not asked


def test_models_with_short_contexts_keep_their_rows(folder: Path, asked: list[RowStart]) -> None:
    _, frame = compressed(TEXT, model=folder, context=1023)
    assert frame.rows == frame.tokens // LEVELS[6].min_row_tokens and not asked


@pytest.mark.parametrize("name", ["base", "small", "bytes"])
def test_embedded_models_keep_their_rows(asked: list[RowStart], name: str) -> None:
    _, frame = compressed(TEXT[:3000], model=name, level=1)
    assert frame.rows == frame.tokens // LEVELS[1].min_row_tokens and not asked


def test_archives_are_the_same_for_any_threads_and_kernels(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a start that is measured on the text itself."""
    counts: list[int] = []
    measured = row_start.measured

    def noted(engine: Engine[Any], runs: list[np.ndarray], usually: RowStart) -> RowStart:
        counts.append(len(runs))
        return measured(engine, runs, usually)

    monkeypatch.setattr(row_start, "measured", noted)
    monkeypatch.setattr(levels, "SAMPLED_FROM_BYTES", 1 << 20)  # the model is no use, and is not asked whether it is
    text = sentences(60_000, 5)
    archives = set()
    for threads, kernels in ((1, ""), (2, ""), (2, "none")):
        monkeypatch.setenv("LLMZIP_KERNELS", kernels)
        archives.add(compressed(text, model=folder, level=1, engine=EngineSettings(threads=threads))[0])
    assert len(archives) == 1 and len(counts) == 3 and min(counts) >= 1
