"""Checks when the model of an archive is loaded, and that asking about it loads nothing."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

import llmzip
from llmzip.codec.reader import FrameDecoder, decompress_stream
from llmzip.format.headers import Header
from llmzip.format.plan import RowPlan
from llmzip.format.reading import read_archives
from llmzip.inference import capacity, load
from llmzip.inference.on_demand import ModelOnDemand
from llmzip.models.choice import choose_model
from llmzip.settings import DecompressSettings, EngineSettings

PLAN = RowPlan(100, 10, 3)
TEXT = (Path(__file__).parents[2] / "corpora" / "prose-en.txt").read_bytes()[:900]


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the models that are loaded, in order."""
    names: list[str] = []
    original = load.load

    def noted(choice, settings):  # type: ignore[no-untyped-def]
        names.append(choice.name)
        return original(choice, settings)

    monkeypatch.setattr(load, "load", noted)
    return names


def test_questions_load_nothing(loads: list[str]) -> None:
    model = ModelOnDemand(choose_model("small"), EngineSettings())
    assert model.name == "small" and model.loaded is None and model.kernels is None
    assert model.frames_at_once(PLAN, mixed=True) == 1
    assert model.archive_header() == Header(choose_model("small").embedded.code)  # type: ignore[union-attr]
    assert loads == []


def test_it_is_loaded_once(loads: list[str]) -> None:
    model = ModelOnDemand(choose_model("small"), EngineSettings(device="cpu"))
    first = model.load()
    assert model.load(1) is first is model.loaded and loads == ["small"]
    assert model.kernels == first.kernels


def test_a_prompt_is_for_one_frame_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capacity, "frames_at_once", lambda *arguments: 3)
    for prompt, expected in ((b"", 3), (TEXT, 1)):
        model = ModelOnDemand(choose_model("small"), EngineSettings(), prompt)
        model.load()
        assert model.frames_at_once(PLAN, mixed=True) == expected


def test_a_decoder_says_how_many_frames_without_loading(loads: list[str]) -> None:
    archive = llmzip.compress(TEXT, model="small", level=1)
    loads.clear()
    (frame,) = read_archives(io.BytesIO(archive))
    decoder = FrameDecoder(DecompressSettings())
    assert frame.header.uses_model and decoder.frames_at_once(frame) == 1
    assert loads == [] and decoder.kernels is None
    assert list(decoder.prepare([frame])) == [frame] and loads == ["small"]
    assert decoder.decode(frame) == TEXT and decoder.model_name == "small"


def test_a_model_that_is_missing_ends_the_text_where_it_is_needed() -> None:
    """What comes before in the file is written, with the error of the frame that needs the model."""
    stored = llmzip.compress(b"\0" * 40)
    needing = llmzip.compress(TEXT, model="small", level=1, prompt=b"a text before")
    sink = io.BytesIO()
    with pytest.raises(llmzip.ModelMismatchError, match="made with a prompt"):
        decompress_stream(io.BytesIO(stored + needing), sink, DecompressSettings())
    assert sink.getvalue() == b"\0" * 40
