"""Archives of models of every family, with prompts, and with tokenizers that lack bytes, by the second decoder."""

from __future__ import annotations

import io
import json
import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import decoder
import numpy as np
import pytest
import torch
import transformers
from model_samples import LACKING, WORDS, sentencepiece_model, sentences, stir
from tokenizers import normalizers, pre_tokenizers
from weights import read_weights

import llmzip
from llmzip.codec import rows
from llmzip.codec.writer import ArchiveWriter
from llmzip.engines.exact import ExactEngine
from llmzip.format.packets import parse
from llmzip.format.plan import RowPlan
from llmzip.format.reading import read_archives
from llmzip.inference.load import load
from llmzip.mixing.vocabulary import Vocabulary
from llmzip.models import weightfile
from llmzip.models.choice import choose_model
from llmzip.models.embedded import DEFAULT
from llmzip.models.int8form import save_int8
from llmzip.models.tokenizer import Tokenizer
from llmzip.models.tokenizer_file import TokenizerFile
from llmzip.models.weights import load_model
from llmzip.settings import CompressSettings, EngineSettings
from llmzip.windows import packets as window_packets

VOCABULARY = 320
pytestmark = pytest.mark.usefixtures("only_models")
PROMPT, TEXT = sentences(200, 1), sentences(230, 2)


# -- checkpoints -------------------------------------------------------------------------------------------------------

LINEAR = {"rope_type": "linear", "rope_theta": 20000.0, "factor": 2.5}
BARE = {"rope_type": "default", "rope_theta": 5000.0}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64}
GEMMA = {"head_dim": 16, "sliding_window": 24, "query_pre_attn_scalar": 24, "tie_word_embeddings": True}
TIED = {"tie_word_embeddings": True}
GPT2 = TIED | {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}
LAYERS = {"layer_types": ["sliding_attention", "full_attention"]}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama biases": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "qwen3": ("Qwen3", {"head_dim": 16}),
    "smollm3": ("SmolLM3", {"no_rope_layers": [1, 0]} | TIED),
    "phi3 part rotated": ("Phi3", {"sliding_window": 40, "partial_rotary_factor": 0.5}),
    "gemma": ("Gemma", {"head_dim": 16} | TIED),
    "gemma2": ("Gemma2", GEMMA | {"attn_logit_softcapping": 3.0, "final_logit_softcapping": 13.7}),
    "gemma3": ("Gemma3Text", GEMMA | LAYERS),
    "gemma3 scaled": (
        "Gemma3Text",
        GEMMA | LAYERS | {"rope_parameters": {"full_attention": LINEAR, "sliding_attention": BARE}},
    ),
    "gpt2": ("GPT2", GPT2),
    "gpt2 gelu": ("GPT2", GPT2 | {"activation_function": "gelu", "n_inner": 50}),
    "gpt-neox": ("GPTNeoX", {"hidden_act": "gelu"}),
    "gpt-neox one after the other": ("GPTNeoX", {"hidden_act": "gelu_new", "use_parallel_residual": False}),
    "llama yarn": ("Llama", {"rope_parameters": YARN}),
}

# What a family is here for: the keys that its configuration has besides those that all have (N 7).
KEYS: dict[str, set[str]] = {
    "llama biases": set(),
    "qwen3": set(),
    "smollm3": {"unrotated"},
    "phi3 part rotated": {"rope_steps"},
    "gemma": {"activation", "embedding_gain"},
    "gemma2": {"activation", "attention_cap", "attention_scale", "embedding_gain", "logit_cap"},
    "gemma3": {"activation", "attention_scale", "embedding_gain", "local_rope_steps", "rope_steps"},
    "gemma3 scaled": {"activation", "attention_scale", "embedding_gain", "local_rope_steps", "rope_steps"},
    "gpt2": {"activation", "gated", "learned_positions", "norm", "unrotated"},
    "gpt2 gelu": {"activation", "gated", "learned_positions", "norm", "unrotated"},
    "gpt-neox": {"activation", "gated", "norm", "parallel", "rope_steps"},
    "gpt-neox one after the other": {"activation", "gated", "norm", "rope_steps"},
    "llama yarn": {"attention_scale", "rope_steps"},
}


def write_model(
    folder: Path, kind: str, fields: dict[str, Any], ids: Sequence[int], planes: int = 2, context: int = 56
) -> None:
    """model.llmzw of a small model of a family that has seen some text; the context begins anew in a text of TEXT."""
    common = {
        "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128,
        "tie_word_embeddings": False, "initializer_range": 0.15, "bos_token_id": 1, "eos_token_id": 2,
        "pad_token_id": None,
    }  # fmt: skip
    config = getattr(transformers, f"{kind}Config")(**common | fields)
    torch.manual_seed(7)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").train()
    stir(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(12):
        batch = torch.tensor(ids[240 * step : 240 * step + 240]).view(4, 60)
        model(batch, labels=batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    checkpoint = folder / "checkpoint"
    model.eval().save_pretrained(checkpoint)
    save_int8(load_model(checkpoint, planes, context), folder)
    shutil.rmtree(checkpoint)


@pytest.fixture(scope="module")
def tokenizer(make_tokenizer: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tokenizer.json that lacks no byte."""
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"), vocab_size=VOCABULARY)


@pytest.fixture(scope="module")
def family(tokenizer: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The folder of a family's model, made when it is first asked for."""
    made: dict[tuple[str, int, int], Path] = {}
    words = decoder.token_bytes(tokenizer / "tokenizer.json")
    ids = decoder.cut_prompt(sentences(12_000, 3), tokenizer / "tokenizer.json", words)

    def make(name: str, planes: int = 2, context: int = 56) -> Path:
        key = (name, planes, context)
        if key not in made:
            made[key] = tmp_path_factory.mktemp("family")
            shutil.copy(tokenizer / "tokenizer.json", made[key])
            write_model(made[key], *FAMILIES[name], ids, planes, context)
        return made[key]

    return make


def frame(archive: bytes) -> tuple[int, int]:
    """Method and number of tokens of the first frame of an archive with a short model record."""
    tag = 5 + archive[4] if archive[3] >> 4 == 15 else 4
    width = (archive[tag] >> 4 & 3) + 1
    return archive[tag] & 7, int.from_bytes(archive[tag + 1 + 2 * width : tag + 1 + 3 * width], "little")


METHODS = {1: decoder.LM, 6: decoder.MIXED}


@pytest.mark.parametrize("level", METHODS)
@pytest.mark.parametrize("name", FAMILIES)
def test_families(name: str, level: int, family: Callable[..., Path]) -> None:
    folder = family(name)
    config, _ = read_weights(folder / "model.llmzw")
    assert config.keys() - decoder.REQUIRED == KEYS[name]
    archive = llmzip.compress(TEXT, model=folder, level=level)
    method, count = frame(archive)
    assert method == METHODS[level] and count > config["context"]
    assert decoder.decode(archive, folder) == TEXT


@pytest.mark.parametrize("name", ["gemma2", "gpt2", "gpt-neox"])
def test_one_plane(name: str, family: Callable[..., Path]) -> None:
    folder = family(name, planes=1)
    archive = llmzip.compress(TEXT[:150], model=folder, level=1)
    assert frame(archive)[0] == decoder.LM
    assert decoder.decode(archive, folder) == TEXT[:150]
    with pytest.raises(decoder.ArchiveError, match="another model"):
        decoder.decode(archive, family(name))


# -- shapes that no family has -----------------------------------------------------------------------------------------


def odd_shape(seed: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A configuration with any of the keys, and tensors for it."""
    rng, pick = np.random.default_rng(seed), random.Random(seed)
    dim, heads, kv_heads, hidden, mlp = pick.choice([2, 6, 16, 64]), *pick.choice([(4, 2), (3, 3), (6, 1)]), 24, 30
    config: dict[str, Any] = {
        "context": 24, "head_dim": dim, "hidden_size": hidden, "mlp_size": mlp,
        "norm_eps": 10.0 ** pick.randrange(-8, 0),
        "num_heads": heads, "num_kv_heads": kv_heads, "num_layers": 3, "planes": pick.choice([1, 2]),
        "rope_theta": pick.uniform(2, 1e6), "start_token": 3, "vocab_size": 50, "windows": [0, 5, pick.choice([0, 9])],
    }  # fmt: skip
    pairs = pick.randrange(1, dim // 2 + 1)
    steps = [[pick.getrandbits(64) for _ in range(pairs)] for _ in range(2)]
    some = {
        "activation": pick.choice(["gelu", "gelu_tanh"]), "attention_cap": pick.uniform(0.5, 9.0),
        "attention_scale": pick.uniform(0.1, 2.0), "embedding_gain": pick.uniform(0.5, 9.0), "gated": False,
        "learned_positions": True, "logit_cap": pick.uniform(1.0, 30.0), "norm": "layer", "parallel": True,
        "rope_steps": steps[0], "unrotated": [1],
    }  # fmt: skip
    config |= {key: value for key, value in some.items() if pick.random() < 0.5}
    if "rope_steps" in config and pick.random() < 0.5:
        config["local_rope_steps"] = steps[1]
    tensors: dict[str, np.ndarray] = {}

    def vector(name: str, size: int, mean: float = 0.0) -> None:
        tensors[name] = rng.normal(mean, 0.4, size).astype(np.float32)

    def matrix(name: str, rows: int, columns: int) -> None:
        tensors[f"{name}_q"] = rng.integers(-127, 128, (rows, columns), dtype=np.int8)
        scale = rng.uniform(0.2, 1.0, rows) * 3 / (127 * columns**0.5)
        tensors[f"{name}_scale"] = scale.astype(np.float32)

    def norm(name: str) -> None:
        vector(name, hidden, 1.0)
        if config.get("norm") == "layer":
            vector(f"{name}_bias", hidden)

    matrix("embedding", 50, hidden)
    if pick.random() < 0.5:
        matrix("head", 50, hidden)
    if "learned_positions" in config:
        matrix("positions", 24, hidden)
    norm("final_norm")
    shapes = {
        "qkv": ((heads + 2 * kv_heads) * dim, hidden), "out": (hidden, heads * dim),
        "gate_up": (mlp * (1 if "gated" in config else 2), hidden), "down": (hidden, mlp),
    }  # fmt: skip
    for layer in range(3):
        prefix = f"layers.{layer}."
        norm(prefix + "input_norm")
        norm(prefix + "post_norm")
        for name in ("attention_post_norm", "mlp_post_norm"):
            if pick.random() < 0.4:
                vector(prefix + name, hidden, 1.0)
        if pick.random() < 0.4:
            vector(prefix + "q_norm", dim, 1.0)
            vector(prefix + "k_norm", dim, 1.0)
        for name, (rows_, columns) in shapes.items():
            matrix(prefix + name, rows_, columns)
            if pick.random() < 0.4:
                vector(f"{prefix}{name}_bias", rows_)
    return config, tensors


@pytest.mark.parametrize("seed", range(16))
def test_masses_of_odd_shapes(seed: int, tmp_path: Path) -> None:
    config, tensors = odd_shape(seed)
    (tmp_path / "model.llmzw").write_bytes(weightfile.pack(config, 1, tensors))
    model = load_model(tmp_path)
    second, engine = decoder.Model(tmp_path), ExactEngine(model)
    assert second.digest == model.digest()
    ids = np.random.default_rng(seed).integers(0, 50, (3, 24))
    hidden = engine.forward(ids)
    seen = set()
    for place in range(24):
        masses = second.step(ids[:, place].tolist())
        assert masses.tolist() == engine.masses(hidden[:, place]).tolist()
        seen |= set(masses.reshape(-1).tolist())
    assert len(seen) > 500, "the model's predictions do not vary"


@pytest.mark.parametrize("floor_bits", [1, 6, 8])
def test_models_with_a_smaller_floor(floor_bits: int, tmp_path: Path) -> None:
    config, tensors = odd_shape(floor_bits)
    config["floor_bits"] = floor_bits
    (tmp_path / "model.llmzw").write_bytes(weightfile.pack(config, 1, tensors))
    model = load_model(tmp_path)
    second, engine = decoder.Model(tmp_path), ExactEngine(model)
    assert second.digest == model.digest()
    ids = np.random.default_rng(floor_bits).integers(0, 50, 70)
    second.reset()
    masses = engine.masses(engine.forward(ids[None, :1])[:, 0])
    assert int(masses.max()) == 1 << 20 + floor_bits and masses.tolist() == second.step([int(ids[0])]).tolist()
    words = [bytes([65 + number % 26]) * (1 + number // 26) for number in range(50)]
    plan = RowPlan(len(ids), 3, 7)
    for vocabulary in (None, Vocabulary(words)):
        payload, _ = rows.FrameCoder(engine, vocabulary).encode(ids, plan)
        if vocabulary is None:
            found = decoder.decode_tokens(second, payload, len(ids), 3, 7, [])
        else:
            found = decoder.decode_mixed(second, words, payload, len(ids), 3, 7, [])
        assert [token for row in found for token in row] == ids.tolist()


# -- prompts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", METHODS)
def test_prompt_of_the_embedded_model(level: int) -> None:
    archive = llmzip.compress(TEXT[:120], level=level, prompt=PROMPT[:90])
    assert archive[3] >> 4 == 15 and frame(archive)[0] == METHODS[level]
    assert decoder.decode(archive, DEFAULT.folder, PROMPT[:90]) == TEXT[:120]


@pytest.mark.parametrize("level", METHODS)
@pytest.mark.parametrize(
    ("name", "prompt", "context"),
    [("gpt2", PROMPT, 56), ("gpt2", PROMPT, 30), ("gpt2", b"T", 56), ("gemma3", PROMPT[:80], 2)],
    ids=["longer than a context", "several contexts", "one token", "contexts of two"],
)
def test_prompt_of_a_user_model(
    level: int, name: str, prompt: bytes, context: int, family: Callable[..., Path]
) -> None:
    folder = family(name, context=context)
    archive = llmzip.compress(TEXT[:200], model=folder, level=level, prompt=prompt)
    assert frame(archive)[0] == METHODS[level]
    assert decoder.decode(archive, folder, prompt) == TEXT[:200]


@pytest.mark.parametrize("level", [1, 2])
def test_prompt_and_several_rows(level: int, family: Callable[..., Path]) -> None:
    folder, text = family("gemma3"), sentences(1000, 4)
    archive = llmzip.compress(text, model=folder, level=level, prompt=PROMPT)
    assert frame(archive)[0] == {1: decoder.LM, 2: decoder.MIXED}[level] and frame(archive)[1] >= 256
    assert decoder.decode(archive, folder, PROMPT) == text


def test_prompt_and_several_frames(family: Callable[..., Path]) -> None:
    """Each frame begins with what the mixer has learnt from the prompt, not from the frame before."""
    folder = family("gemma3")
    compressor = llmzip.Compressor(level=6, model=folder, prompt=PROMPT[:100])
    archive = compressor.compress(TEXT[:90]) + compressor.flush(compressor.FLUSH_FRAME)
    archive += compressor.compress(TEXT[90:200]) + compressor.flush()
    assert frame(archive)[0] == decoder.MIXED
    assert decoder.decode(archive, folder, PROMPT[:100]) == TEXT[:200]


def test_frames_without_a_model_do_not_see_the_prompt(
    monkeypatch: pytest.MonkeyPatch, family: Callable[..., Path]
) -> None:
    monkeypatch.undo()
    texts = [TEXT[:60], bytes(random.Random(2).choices(b"\x00\x01\xfe\xff", weights=(9, 3, 2, 1), k=600))]
    compressor = llmzip.Compressor(level=6, model=family("gpt2"), prompt=PROMPT[:100])
    archive = compressor.compress(texts[0]) + compressor.flush(compressor.FLUSH_FRAME)
    archive += compressor.compress(texts[1]) + compressor.flush()
    headers = [part.header for part in read_archives(io.BytesIO(archive))]
    assert [header.method for header in headers] == [decoder.MIXED] * 2 and headers[1].num_tokens == 0
    assert decoder.decode(archive, family("gpt2"), PROMPT[:100]) == b"".join(texts)


def test_prompts_are_needed_and_compared(family: Callable[..., Path]) -> None:
    folder = family("gpt2")
    archive = llmzip.compress(TEXT, model=folder, level=1, prompt=PROMPT)
    with pytest.raises(decoder.ArchiveError, match=r"needs a prompt of digest [0-9a-f]{32}"):
        decoder.decode(archive, folder)
    with pytest.raises(decoder.ArchiveError, match="another prompt: the archive names"):
        decoder.decode(archive, folder, PROMPT + b" ")
    plain = llmzip.compress(TEXT, model=folder, level=1)
    assert decoder.decode(plain, folder, PROMPT) == TEXT  # not needed, not used


# -- tokenizers --------------------------------------------------------------------------------------------------------


def sentencepiece(kind: str, byte_tokens: bool) -> dict[str, Any]:
    """A tokenizer as it comes from a SentencePiece model: a blank is U+2581, the first tokens are special."""
    letters = ["\u2581", *"etaniosrhldcumfpgwybvkäöé.", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ\n0123456789xzqj,;:!?()[]{}<>=+-*/"]
    words = [f"\u2581{word[:size]}" for word in WORDS for size in range(1, len(word) + 1)]
    words += [word[:size] for word in WORDS for size in range(2, len(word) + 1)]
    vocab = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256) if byte_tokens), *letters, *words]
    vocab = [*dict.fromkeys([*vocab, *(a + b for a in "aeiouy" for b in "bdfgnprstvwx")]), "\n\n", "<td>"]
    special = [{"content": text, "id": n, "special": True} for n, text in enumerate(vocab[:3])]
    text = [{"content": text, "id": vocab.index(text), "special": False} for text in vocab[-2:]]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    model = sentencepiece_model(kind, vocab, byte_tokens)
    return {
        "version": "1.0",
        "added_tokens": [flags | entry for entry in special + text],
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "ByteFallback"},
        "model": model,
    }


@pytest.fixture(scope="module")
def piece_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, bool], Path]:
    """A model whose tokenizer has SentencePiece's form; the model has more ids than the tokenizer has tokens."""
    made: dict[tuple[str, bool], Path] = {}

    def make(kind: str, byte_tokens: bool) -> Path:
        if (kind, byte_tokens) not in made:
            folder = made[kind, byte_tokens] = tmp_path_factory.mktemp("pieces")
            (folder / "tokenizer.json").write_text(json.dumps(sentencepiece(kind, byte_tokens)), encoding="utf-8")
            path, size = folder / "tokenizer.json", 640 if byte_tokens else 384
            words = decoder.with_byte_tokens(decoder.token_bytes(path, size))
            ids = decoder.cut_prompt(sentences(12_000, 3), path, words, size)
            fields = {"vocab_size": size, "tie_word_embeddings": True}
            write_model(folder, "Llama", fields, ids, context=64)
        return made[kind, byte_tokens]

    return make


ODD = "Née\n\n<td>\u2581日 ".encode() + b"\xff\xc3\x28\x80\0<s><unk>"


KINDS = [("BPE", True), ("Unigram", True), ("BPE", False), ("Unigram", False)]


@pytest.mark.parametrize("level", METHODS)
@pytest.mark.parametrize(("kind", "byte_tokens"), KINDS)
def test_sentencepiece(kind: str, byte_tokens: bool, level: int, piece_model: Callable[[str, bool], Path]) -> None:
    """Without tokens of bytes in the vocabulary, most bytes are byte tokens."""
    folder, text = piece_model(kind, byte_tokens), TEXT[:150] + ODD + TEXT[150:] + ODD + TEXT[:90]
    archive = llmzip.compress(text, model=folder, level=level)
    assert frame(archive)[0] == METHODS[level]
    assert decoder.decode(archive, folder) == text


@pytest.mark.parametrize("level", METHODS)
@pytest.mark.parametrize("byte_tokens", [True, False])
def test_prompts_of_odd_bytes(level: int, byte_tokens: bool, piece_model: Callable[[str, bool], Path]) -> None:
    folder, prompt = piece_model("BPE", byte_tokens), ODD + PROMPT[:90] + ODD[:5]
    archive = llmzip.compress(TEXT, model=folder, level=level, prompt=prompt)
    assert decoder.decode(archive, folder, prompt) == TEXT


@pytest.fixture(scope="module")
def gapped_model(make_tokenizer: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a byte-level tokenizer that lacks 21 bytes."""
    folder = make_tokenizer(tmp_path_factory.mktemp("lacking"), vocab_size=VOCABULARY, lacking=LACKING)
    words = decoder.with_byte_tokens(decoder.token_bytes(folder / "tokenizer.json", VOCABULARY))
    assert words[VOCABULARY:] == [bytes([byte]) for byte in LACKING]
    ids = decoder.cut_prompt(sentences(12_000, 3), folder / "tokenizer.json", words, VOCABULARY)
    write_model(folder, "Llama", TIED, ids)
    return folder


GAPS = TEXT[:70] + b"\x04\x06\xf1" + TEXT[70:150] + LACKING + b"\x04\x06\x04\x06" + TEXT[150:]
GAPPED = {
    "text": (TEXT[:90] + b"\xff" + TEXT[90:] + b"\x04", (1, 2, 6, 9)),
    "more": (GAPS, (2, 6)),
    "only such bytes": (LACKING * 8 + bytes(reversed(LACKING)) * 2, (6, 9)),
    "in a row": (LACKING[:1] * 300, (6,)),
}


@pytest.mark.parametrize(("name", "level"), [(name, level) for name, (_, levels) in GAPPED.items() for level in levels])
def test_a_tokenizer_that_lacks_bytes(name: str, level: int, gapped_model: Path) -> None:
    text = GAPPED[name][0]
    archive = llmzip.compress(text, model=gapped_model, level=level)
    assert frame(archive)[0] == (decoder.LM if level == 1 else decoder.MIXED)
    assert decoder.decode(archive, gapped_model) == text


@pytest.mark.parametrize("level", METHODS)
def test_byte_tokens_in_rows_whose_contexts_begin_anew(level: int, gapped_model: Path) -> None:
    text = GAPS * 3
    writer = ArchiveWriter(CompressSettings(level=level, model=gapped_model, rows=3, overlap=20))
    archive = writer.write(text) + writer.finish()
    assert frame(archive)[1] > 3 * 56
    assert decoder.decode(archive, gapped_model) == text


@pytest.mark.parametrize("level", METHODS)
def test_a_prompt_with_byte_tokens(level: int, gapped_model: Path) -> None:
    archive = llmzip.compress(GAPS, model=gapped_model, level=level, prompt=GAPS[::-1])
    assert decoder.decode(archive, gapped_model, GAPS[::-1]) == GAPS


@pytest.mark.parametrize("model_reset", [True, False])
@pytest.mark.parametrize("window_bits", [16, 64])
def test_windows_with_byte_tokens(window_bits: int, model_reset: bool, gapped_model: Path) -> None:
    settings = CompressSettings(model=gapped_model, window_bits=window_bits, model_reset=model_reset)
    writer = ArchiveWriter(settings)
    archive = writer.write(GAPS) + writer.finish()
    assert frame(archive)[0] == decoder.WINDOWS
    assert decoder.decode(archive, gapped_model) == GAPS


def test_packets_with_byte_tokens(gapped_model: Path) -> None:
    model = load(choose_model(gapped_model), EngineSettings())
    packets = window_packets.encode(model, GAPS, 64)
    assert any(parse(packet).tokens for packet in packets)
    assert decoder.decode_packets(packets[::-1], gapped_model) == GAPS


def test_tables_that_cannot_be_used_are_refused() -> None:
    with pytest.raises(decoder.ArchiveError, match="stands for anything"):
        decoder.with_byte_tokens([b""] * 300)
    with pytest.raises(decoder.ArchiveError, match="too many tokens"):
        decoder.with_byte_tokens([b"a"] * 300_000)


def flagged(content: str, number: int, special: bool) -> dict[str, Any]:
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    return flags | {"content": content, "id": number, "special": special}


def test_tables_of_odd_descriptions(tokenizer: Path, tmp_path: Path) -> None:
    """Characters of no alphabet, texts that are listed twice, added tokens that the model does not have."""
    described = json.loads((tokenizer / "tokenizer.json").read_text(encoding="utf-8"))
    described["model"]["vocab"] |= {"<\u2581>": 320, "<special>": 321, "<text>": 322, "<0x41>": 323}
    described["added_tokens"] = [
        flagged("<special>", 321, True), flagged("<text>", 325, False), flagged("é\u2581", 326, False),
        flagged("<far>", 999, False),
    ]  # fmt: skip
    (tmp_path / "tokenizer.json").write_text(json.dumps(described), encoding="utf-8")
    words = decoder.token_bytes(tmp_path / "tokenizer.json", 330)
    assert words[320:] == [b"", b"", b"", b"<0x41>", b"", b"<text>", "é\u2581".encode(), b"", b"", b""]
    assert words == TokenizerFile(tmp_path, described).byte_table(330)


LONG = sentences(70_000, 6)
PROMPTS = {
    "text": PROMPT,
    "odd": ODD + PROMPT + ODD,
    "every byte": bytes(range(256)),
    "bad bytes near and far": b"\xffabc\xffabcd\xff\xe2\x82ab\xf0" + TEXT[:40] + "\xff é".encode() + b"\xe9\n",
    "one bad word in many": TEXT[:150] + " 日本語 ".encode() + TEXT[150:] + "\u2581".encode() + TEXT,
    "control bytes near and far": b"\x04abc\x06abcd\x1d\xff\x04\x05" + TEXT[:40] + "é\x13é".encode() + TEXT[40:90],
    "pieces": LONG.replace(b". ", b".\n"),
    "pieces without a break": bytes(random.Random(1).choices(b"abcdefgh", k=60_000)),
    "tokens of no text": b"<s> </s><unk><0x41><td>\n\n\n<td",
}


@pytest.mark.parametrize("name", PROMPTS)
def test_prompts_are_cut_as_the_writer_does(
    name: str,
    tokenizer: Path,
    gapped_model: Path,
    piece_model: Callable[[str, bool], Path],
    make_tokenizer: Any,
    tmp_path: Path,
) -> None:
    odd = make_tokenizer(
        tmp_path,
        vocab_size=VOCABULARY,
        normalizer=normalizers.Sequence([normalizers.NFKD(), normalizers.Lowercase()]),
        add_prefix_space=True,
        special_tokens=("<s>", "</s>"),
        before=pre_tokenizers.WhitespaceSplit(),
    )
    for folder in (tokenizer, odd, gapped_model, *(piece_model(*kind) for kind in KINDS)):
        size = VOCABULARY if folder in (tokenizer, odd) else decoder.Model(folder).own_tokens
        words = decoder.with_byte_tokens(decoder.token_bytes(folder / "tokenizer.json", size))
        package = Tokenizer(folder, size)
        assert words == package.table.entries
        ids = decoder.cut_prompt(PROMPTS[name], folder / "tokenizer.json", words, size)
        assert ids == package.encode(PROMPTS[name])[-decoder.MOST_PROMPT_TOKENS :].tolist()


def test_only_the_end_of_a_long_prompt_counts(family: Callable[..., Path]) -> None:
    folder, prompt = family("gpt2"), LONG * 3
    archive = llmzip.compress(TEXT, model=folder, level=1, prompt=prompt)
    assert decoder.decode(archive, folder, prompt) == TEXT


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, 2, "the float engine are not read here"),
        (0, 0x82, "the float engine are not read here"),
        (0, 3, "unknown engine 3"),
        (0, 0x81, "damaged: length of the model record"),
        (1, 2, "unknown numerics 2"),
        (2, 3, "planes"),
        (2, 1, "settings are not the model's"),
    ],
)
def test_records_of_something_else_are_refused(
    place: int, value: int, message: str, family: Callable[..., Path]
) -> None:
    archive = bytearray(llmzip.compress(TEXT, model=family("gpt2"), level=1))
    assert archive[3] >> 4 == 15 and archive[4] < 128
    archive[5 + place] = value
    with pytest.raises(decoder.ArchiveError, match=message):
        decoder.decode(bytes(archive), family("gpt2"))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"odd": 1}, "configuration"),
        ({"norm": "batch"}, "unknown norm"),
        ({"activation": "relu"}, "unknown activation"),
    ],
)
def test_models_of_something_else_are_refused(
    fields: dict[str, Any], message: str, family: Callable[..., Path], tmp_path: Path
) -> None:
    config, tensors = read_weights(family("gpt2") / "model.llmzw")
    (tmp_path / "model.llmzw").write_bytes(weightfile.pack(config | fields, 1, tensors))
    with pytest.raises(decoder.ArchiveError, match=message):
        decoder.Model(tmp_path)


def test_values_that_are_left_out_are_no_part_of_the_digest(family: Callable[..., Path], tmp_path: Path) -> None:
    config, tensors = read_weights(family("qwen3") / "model.llmzw")
    (tmp_path / "model.llmzw").write_bytes(weightfile.pack(config | decoder.OPTIONAL, 1, tensors))
    assert decoder.Model(tmp_path).digest == decoder.Model(family("qwen3")).digest == load_model(tmp_path).digest()
