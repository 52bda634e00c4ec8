"""Checks archives of user models end to end: prompts, rows, contexts, planes, the float engine and its environment."""

from __future__ import annotations

import dataclasses
import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from model_samples import LACKING, sentences

import llmzip
from llmzip.codec import levels
from llmzip.codec.reader import decompress_stream
from llmzip.codec.writer import compress_stream
from llmzip.engines.exact import ExactEngine
from llmzip.engines.floating import FloatEngine
from llmzip.format.headers import ENGINE_FLOAT
from llmzip.format.reading import read_archives
from llmzip.inference import load
from llmzip.measures.scoring import Scorer
from llmzip.models.choice import choose_model
from llmzip.models.embedded import DEFAULT
from llmzip.models.tokenizer import Tokenizer
from llmzip.settings import CompressSettings, DecompressSettings, EngineSettings

VOCABULARY = 320
pytestmark = pytest.mark.usefixtures("only_models")
PROMPT, TEXT = sentences(2000, 1), sentences(700, 2)


@pytest.fixture(scope="module")
def folders(make_tokenizer: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Random checkpoints with a tokenizer, by the class of their configuration; "lacking" after it: 21 bytes."""
    made: dict[str, Path] = {}
    fields: dict[str, dict[str, Any]] = {
        "Llama": {"num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 64},
        "GPT2": {"n_head": 2, "n_positions": 128, "n_embd": 32, "n_layer": 2},
        "Mamba": {"state_size": 8},
    }

    def make(kind: str) -> Path:
        if kind not in made:
            torch.manual_seed(5)
            common = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "initializer_range": 0.2}
            name, _, lacks_bytes = kind.partition(" ")
            config = getattr(transformers, f"{name}Config")(
                **common | fields[name], bos_token_id=0, eos_token_id=1, pad_token_id=None
            )
            made[kind] = tmp_path_factory.mktemp("archives") / kind.lower().replace(" ", "-")
            make_tokenizer(made[kind], vocab_size=VOCABULARY, lacking=LACKING if lacks_bytes else b"")
            model = transformers.AutoModelForCausalLM.from_config(config).train()
            ids = torch.from_numpy(Tokenizer(made[kind], VOCABULARY).encode(sentences(20_000, 3)))
            optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
            for step in range(40):
                batch = ids[step * 60 : step * 60 + 8 * 60].view(8, 60)
                model(batch, labels=batch).loss.backward()
                optimizer.step()
                optimizer.zero_grad()
            model.eval().save_pretrained(made[kind])
        return made[kind]

    return make


def record(archive: bytes) -> Any:
    return next(iter(read_archives(io.BytesIO(archive)))).archive.model


def payload_bytes(archive: bytes) -> int:
    return sum(frame.header.payload_bytes for frame in read_archives(io.BytesIO(archive)))


# -- prompts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [1, 6, 9])
def test_a_prompt_helps_and_is_needed(level: int) -> None:
    plain, primed = (llmzip.compress(TEXT, level=level, prompt=prompt) for prompt in (b"", PROMPT))
    assert payload_bytes(primed) < 0.95 * payload_bytes(plain)
    assert llmzip.decompress(primed, prompt=PROMPT) == TEXT
    assert record(primed).name == DEFAULT.name
    with pytest.raises(
        llmzip.ModelMismatchError, match=r"made with a prompt, digest [0-9a-f]{32}: give .* --prompt-file"
    ):
        llmzip.decompress(primed)
    with pytest.raises(llmzip.ModelMismatchError, match="another prompt than the archive's"):
        llmzip.decompress(primed, prompt=PROMPT + b" ")
    assert llmzip.decompress(plain, prompt=PROMPT) == TEXT  # not needed, not used


def test_a_prompt_with_a_user_model(folders: Callable[[str], Path]) -> None:
    text = TEXT * 3
    archive = llmzip.compress(text, model=folders("Llama"), prompt=PROMPT)
    assert llmzip.decompress(archive, model=folders("Llama"), prompt=PROMPT) == text


@pytest.mark.parametrize("prompt", [b"x", bytes(range(256)), b"\xff" * 3000, PROMPT * 10])
def test_odd_prompts(prompt: bytes) -> None:
    archive = llmzip.compress(TEXT, prompt=prompt)
    assert llmzip.decompress(archive, prompt=prompt) == TEXT


def test_the_prompt_of_a_file_object(tmp_path: Path) -> None:
    with llmzip.open(tmp_path / "a.llmz", "wb", prompt=PROMPT) as file:
        file.write(TEXT)
    with llmzip.open(tmp_path / "a.llmz", prompt=PROMPT) as file:
        assert file.read() == TEXT
    with llmzip.open(tmp_path / "a.llmz") as file, pytest.raises(llmzip.ModelMismatchError, match="made with a prompt"):
        file.read()
    decompressor = llmzip.Decompressor(prompt=PROMPT)
    assert decompressor.decompress((tmp_path / "a.llmz").read_bytes()) == TEXT


# -- rows, context, overlap --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields", [{"rows": 3}, {"rows": 1, "context": 24}, {"context": 40, "overlap": 39}, {"overlap": 1}]
)
def test_rows_context_and_overlap_are_stored(folders: Callable[[str], Path], fields: dict[str, int]) -> None:
    settings = CompressSettings(model=folders("GPT2"), **fields)
    packed, unpacked = io.BytesIO(), io.BytesIO()
    text = TEXT * 2
    report = compress_stream(io.BytesIO(text), packed, settings)
    assert [frame.method for frame in report.frames] == ["mixed"]
    if "rows" in fields:
        assert report.frames[0].rows == fields["rows"]
    assert record(packed.getvalue()).context == fields.get("context", 128)
    packed.seek(0)
    decompress_stream(packed, unpacked, DecompressSettings(model=folders("GPT2")))
    assert unpacked.getvalue() == text


@pytest.mark.parametrize(
    "fields", [{"rows": 0}, {"rows": 5000}, {"context": 1}, {"context": 10, "overlap": 10}, {"overlap": 0}]
)
def test_settings_out_of_range_are_refused(fields: dict[str, int]) -> None:
    with pytest.raises(llmzip.SettingsError):
        CompressSettings(**fields)


def test_too_little_memory_halves_what_is_done_at_once(
    folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = llmzip.compress(TEXT * 40, model=folders("Llama"))
    forward, sizes = ExactEngine.forward, []
    monkeypatch.setattr(ExactEngine, "is_compiled", False)  # whose rows need the same memory however many there are
    load.forget()  # what is halved stays halved
    llmzip.compress(TEXT[:9], model=folders("Llama"))

    def scarce(self: ExactEngine, ids: np.ndarray, cache: Any = None) -> Any:
        sizes.append(ids.size)
        if ids.size > 150:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 7 bytes")
        return forward(self, ids, cache)

    monkeypatch.setattr(ExactEngine, "forward", scarce)
    assert llmzip.compress(TEXT * 40, model=folders("Llama")) == expected
    assert max(sizes) > 150

    def none(self: ExactEngine, ids: torch.Tensor, cache: Any = None) -> torch.Tensor:
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(ExactEngine, "forward", none)
    with pytest.raises(llmzip.ResourceError, match="not enough memory for the model"):
        llmzip.compress(TEXT, model=folders("Llama"))


def test_no_more_rows_than_a_gigabyte_holds() -> None:
    class Engine:
        context, stepwise = 1024, False

        def __init__(self, row_bytes: int) -> None:
            self.row_bytes = row_bytes

        def step_bytes(self, rows: int, chunk: int, positions: int) -> int:
            return rows * self.row_bytes

    def rows(row_bytes: int, **fields: int) -> tuple[int, int]:
        plan, profile = levels.level_plan(6, 200_000, Engine(row_bytes), CompressSettings(**fields))
        return plan.num_rows, profile

    assert rows(1000) == (256, 3)
    assert rows(1 << 25) == (32, 3)
    assert rows(1 << 40) == (4, 3)  # no row is longer than 65,536 tokens
    assert rows(1 << 25, rows=500) == (500, 3)
    assert rows(1000, rows=128) == (128, 1)  # those of profile 1


# -- the float engine --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Mamba", "Llama"])
@pytest.mark.parametrize("level", [1, 6])
def test_float_archives_come_back(folders: Callable[[str], Path], kind: str, level: int) -> None:
    archive = llmzip.compress(TEXT, model=folders(kind), level=level, arithmetic="float", prompt=PROMPT[:90])
    made = record(archive)
    assert (made.engine, made.dtype, made.planes) == (ENGINE_FLOAT, "float32", None)
    assert made.environment.startswith("device=cpu hardware=")
    assert llmzip.decompress(archive, model=folders(kind), prompt=PROMPT[:90]) == TEXT


@pytest.mark.parametrize("engine", ["float", "exact"])
@pytest.mark.parametrize("level", [1, 6, 9])
def test_archives_of_checkpoints_whose_tokenizer_lacks_bytes_come_back(
    folders: Callable[[str], Path], engine: str, level: int
) -> None:
    folder, text = folders("Llama lacking"), TEXT[:300] + b"\x04\xff" + TEXT[300:500] + LACKING[: 3 * (level > 1)]
    archive = llmzip.compress(text, model=folder, level=level, arithmetic=engine, prompt=LACKING + PROMPT[:60])
    assert [frame.method for frame in llmzip.info(archive).archives[0].frames] == ["lm" if level == 1 else "mixed"]
    assert record(archive).engine == (ENGINE_FLOAT if engine == "float" else 1)
    assert llmzip.decompress(archive, model=folder, prompt=LACKING + PROMPT[:60]) == text


@pytest.mark.parametrize("kind", ["Mamba lacking", "Llama lacking"])
def test_the_float_engine_feeds_its_start_token_for_byte_tokens(folders: Callable[[str], Path], kind: str) -> None:
    model = load.load(dataclasses.replace(choose_model(folders(kind)), engine=ENGINE_FLOAT), EngineSettings())
    engine = model.engine
    assert isinstance(engine, FloatEngine) and engine.vocab_size == VOCABULARY + len(LACKING)
    ids = np.array([[5, VOCABULARY, 7, VOCABULARY + 20, 9]])
    fed = np.array([[5, engine.start_token, 7, engine.start_token, 9]])
    assert torch.equal(engine.prefill(ids), engine.prefill(fed))
    caches = engine.new_cache(1, 1, 5), engine.new_cache(1, 1, 5)
    for step in range(5):
        logits, expected = (
            engine.forward(x[:, step : step + 1], cache) for x, cache in zip((ids, fed), caches, strict=True)
        )
        assert torch.equal(logits, expected)
    masses = engine.masses(logits[:, 0])
    assert masses.shape == (1, engine.vocab_size) and masses[:, :VOCABULARY].max() == 1 << 20
    assert not masses[:, VOCABULARY:].any()
    scores = Scorer(model).score(model.tokenizer.encode(TEXT[:60] + LACKING))
    assert scores.coded_bits[-21:].min() > 20


def test_start_tokens_outside_the_vocabulary_are_refused(folders: Callable[[str], Path]) -> None:
    with pytest.raises(llmzip.ModelUnsupportedError, match="start token 320 is outside its vocabulary of 320"):
        FloatEngine(folders("Llama"), start_token=VOCABULARY)


def test_what_cannot_run_exactly_is_named(folders: Callable[[str], Path]) -> None:
    with pytest.raises(llmzip.ModelUnsupportedError, match="model_type 'mamba' is not one the exact engine runs"):
        llmzip.compress(TEXT, model=folders("Mamba"))


def test_another_environment_is_refused(folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    from llmzip.engines import floating

    archive = llmzip.compress(TEXT, model=folders("Mamba"), arithmetic="float")
    monkeypatch.setattr(floating.torch, "__version__", "9.9.9")
    load.forget()
    with pytest.raises(
        llmzip.EngineError, match=r"made with the float engine in another environment: .* here: .*9\.9\.9"
    ):
        llmzip.decompress(archive, model=folders("Mamba"))


def test_the_archives_threads_are_used(folders: Callable[[str], Path]) -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        archive = llmzip.compress(TEXT, model=folders("Mamba"), arithmetic="float")
        torch.set_num_threads(2)
        load.forget()
        assert llmzip.decompress(archive, model=folders("Mamba")) == TEXT
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_changed_float_weights_are_told_apart(folders: Callable[[str], Path], tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    archive = llmzip.compress(TEXT, model=folders("Mamba"), arithmetic="float")
    other = shutil.copytree(folders("Mamba"), tmp_path / "mamba")
    tensors = load_file(other / "model.safetensors")
    name = next(iter(tensors))
    save_file(tensors | {name: tensors[name] * 1.001}, other / "model.safetensors", {"format": "pt"})
    with pytest.raises(llmzip.ModelMismatchError, match="another model than the archive's"):
        llmzip.decompress(archive, model=other)


def test_a_float_engine_that_varies_is_found_out(
    folders: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from llmzip.engines.floating import FloatEngine

    forward, calls = FloatEngine.forward, [0]

    def noisy(self: FloatEngine, *arguments: Any) -> torch.Tensor:
        calls[0] += 1
        return forward(self, *arguments) + torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(calls[0]))

    monkeypatch.setattr(FloatEngine, "forward", noisy)
    with pytest.raises(llmzip.EngineError, match="does not decode what it encoded"):
        llmzip.compress(TEXT, model=folders("Mamba"), arithmetic="float")


def test_pid_is_no_part_of_the_environment(folders: Callable[[str], Path]) -> None:
    archives = {llmzip.compress(TEXT, model=folders("Mamba"), arithmetic="float") for _ in range(2)}
    assert len(archives) == 1 and str(os.getpid()) not in record(archives.pop()).environment
