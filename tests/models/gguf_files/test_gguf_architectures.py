"""A GGUF file gives the model of the checkpoint that it was made from: the same digest for every architecture."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Kind
from model_samples import stir
from safetensors.torch import load_file, save_file

from llmzip.errors import ModelUnsupportedError
from llmzip.models import layout
from llmzip.models.checkpoints import open_tensors
from llmzip.models.convert import RowSource, convert
from llmzip.models.weights import load_model

transformers = pytest.importorskip("transformers")

COMMON: dict[str, Any] = {
    "vocab_size": 96,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": None,
}
GEMMA = {"head_dim": 24, "sliding_window": 32, "tie_word_embeddings": True}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {}),
    "llama tied, wide heads": ("Llama", {"tie_word_embeddings": True, "head_dim": 32}),
    "llama, linear": ("Llama", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}}),
    "llama, biases": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "mistral": ("Mistral", {"sliding_window": None}),
    "qwen2": ("Qwen2", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
    "qwen2, yarn": (
        "Qwen2",
        {
            "rope_parameters": {
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 64,
                "rope_theta": 1e6,
            }
        },
    ),
    "qwen3": ("Qwen3", {"head_dim": 32, "tie_word_embeddings": True}),
    "gemma": ("Gemma", {"head_dim": 24, "tie_word_embeddings": True}),
    "gemma2": ("Gemma2", GEMMA | {"query_pre_attn_scalar": 24}),
    "gemma3": ("Gemma3Text", GEMMA | {"query_pre_attn_scalar": 24}),
    "gemma3, no windows": ("Gemma3Text", GEMMA | {"query_pre_attn_scalar": 24, "layer_types": ["full_attention"] * 6}),
    "phi3": ("Phi3", {"sliding_window": 63, "original_max_position_embeddings": 256}),
    "phi3, part of the heads": (
        "Phi3",
        {
            "original_max_position_embeddings": 256,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.75},
        },
    ),
    "smollm3": ("SmolLM3", {"no_rope_layers": [1, 1, 1, 0, 1, 1]}),
    "gpt2": ("GPT2", {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256, "tie_word_embeddings": True}),
}


def save_checkpoint(folder: Path, kind: str, **fields: Any) -> Path:
    """Makes a random checkpoint by transformers."""
    torch.manual_seed(7)
    common = COMMON if kind != "GPT2" else {"vocab_size": 96, "bos_token_id": 1, "eos_token_id": 2}
    config = getattr(transformers, f"{kind}Config")(**common | fields)
    model = transformers.AutoModelForCausalLM.from_config(config)
    stir(model)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", FAMILIES)
def test_a_gguf_file_is_the_checkpoint_that_it_was_made_from(
    name: str, tmp_path: Path, to_gguf: Callable[..., Path]
) -> None:
    kind, fields = FAMILIES[name]
    folder = save_checkpoint(tmp_path / "checkpoint", kind, **fields)
    windows = "no windows" in name

    def edit(writer: gguf.GGUFWriter) -> None:
        if windows:
            writer.add_array("gemma3.attention.sliding_window_pattern", [False] * 6)

    file = to_gguf(tmp_path / "model.gguf", folder, edit=edit)
    expected, found = load_model(folder), load_model(file)
    assert found.config == expected.config
    assert found.digest() == expected.digest()


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_llama_3_frequencies_are_recognised(factor: float, tmp_path: Path, to_gguf: Callable[..., Path]) -> None:
    rope = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    folder = save_checkpoint(tmp_path / "checkpoint", "Llama", rope_parameters=rope, head_dim=64)
    factors = []
    for frequency in 1.0 / (500000.0 ** (torch.arange(0, 64, 2, dtype=torch.float32) / 64)):
        length = 2 * math.pi / frequency
        if length < 8192 / 4:
            factors.append(1.0)
        elif length > 8192:
            factors.append(factor)
        else:
            smooth = (8192 / length - 1) / 3
            factors.append(float(1 / ((1 - smooth) / factor + smooth)))
    array = np.array(factors, dtype=np.float32)
    file = to_gguf(tmp_path / "model.gguf", folder, extra={"rope_freqs.weight": array})
    assert load_model(file).digest() == load_model(folder).digest()
    # Others are taken as they are: a power of two divides a frequency exactly.
    array[:] = 2
    stretched = load_model(to_gguf(tmp_path / "other.gguf", folder, extra={"rope_freqs.weight": array})).config
    assert stretched.rope_theta == 500000.0
    assert abs(stretched.rope_steps[0] / (2**64 / (2 * math.pi) / 2) - 1) < 1e-12


def test_longrope_factors_come_from_their_tensors(tmp_path: Path, to_gguf: Callable[..., Path]) -> None:
    short = [1.0 + n / 8 for n in range(8)]
    rope = {
        "rope_type": "longrope",
        "rope_theta": 10000.0,
        "short_factor": short,
        "long_factor": [2.0] * 8,
        "original_max_position_embeddings": 64,
    }
    folder = save_checkpoint(tmp_path / "checkpoint", "Phi3", rope_parameters=rope, original_max_position_embeddings=64)
    gain = math.sqrt(1 + math.log(256 / 64) / math.log(64))
    extra = {
        "rope_factors_long.weight": np.full(8, 2, dtype=np.float32),
        "rope_factors_short.weight": np.array(short, dtype=np.float32),
    }

    def edit(writer: gguf.GGUFWriter) -> None:
        writer.add_rope_scaling_attn_factors(gain)

    file = to_gguf(tmp_path / "model.gguf", folder, extra=extra, edit=edit)
    assert load_model(file).digest() == load_model(folder).digest()


@pytest.mark.parametrize("layers", [46, 62])
def test_scores_of_the_27b_gemmas_are_scaled_by_hidden_size_and_heads(
    layers: int, tmp_path: Path, to_gguf: Callable[..., Path]
) -> None:
    kind = {46: "Gemma2", 62: "Gemma3Text"}[layers]
    fields = GEMMA | {"query_pre_attn_scalar": 16, "num_hidden_layers": layers, "hidden_size": 64}
    folder = save_checkpoint(tmp_path / "checkpoint", kind, **fields)
    found = load_model(to_gguf(tmp_path / "model.gguf", folder))
    assert found.config.attention_scale == load_model(folder).config.attention_scale == 0.25


# -- quantisations ---------------------------------------------------------------------------------------------------

BLOCKS = {
    Kind.Q4_K: 144,
    Kind.Q5_K: 176,
    Kind.Q6_K: 210,
    Kind.Q2_K: 84,
    Kind.Q3_K: 110,
    Kind.IQ4_XS: 136,
}
"""Quantisations that the package can only read -> bytes of a block of 256 values."""


@pytest.mark.parametrize(
    "kind", [Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1], ids=lambda kind: kind.name
)
def test_a_quantised_file_is_the_checkpoint_of_its_values(
    kind: Kind, checkpoint: Path, tmp_path: Path, to_gguf: Callable[..., Path]
) -> None:
    file = to_gguf(tmp_path / "model.gguf", checkpoint, kind)
    tensors = load_file(checkpoint / "model.safetensors")
    rounded = {}
    for name, tensor in tensors.items():
        rounded[name] = tensor
        if tensor.ndim == 2:
            # A checkpoint's rows are the file's in another order: rounding row by row does not see it.
            rounded[name] = torch.from_numpy(gguf.dequantize(gguf.quantize(tensor.numpy(), kind), kind).copy())
    save_file(rounded, checkpoint / "model.safetensors")
    assert load_model(file).digest() == load_model(checkpoint).digest()
    opened = open_tensors(file)
    assert set(opened) == set(rounded)
    assert all(torch.equal(opened[name], rounded[name]) for name in rounded)


@pytest.mark.parametrize("kind", BLOCKS, ids=lambda kind: kind.name)
def test_quantisations_of_256_values_are_read_row_by_row(kind: Kind, tmp_path: Path, rng: np.random.Generator) -> None:
    rows, columns = 700, 512
    packed = rng.integers(0, 256, (rows, columns // 256 * BLOCKS[kind]), dtype=np.uint8)
    packed.reshape(-1, BLOCKS[kind])[:, 1::2] &= 0x3F  # no exponent of NaN wherever the scales are
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "qwen2")
    for name in ("token_embd.weight", "output.weight"):
        writer.add_tensor(name, packed, raw_dtype=kind)
    for name in ("block_count", "context_length", "embedding_length", "feed_forward_length"):
        writer.add_uint32(f"qwen2.{name}", 64)
    writer.add_head_count(4)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    opened = open_tensors(tmp_path / "model.gguf")
    expected = gguf.dequantize(packed, kind)
    whole = opened["lm_head.weight"]
    assert whole.shape == (rows, columns) and whole.dtype == torch.float32
    assert np.array_equal(whole.numpy(), expected, equal_nan=True)
    assert isinstance(opened, RowSource)
    lazy = opened.rows("lm_head.weight")
    assert lazy.shape == whole.shape and len(lazy) == rows and not isinstance(lazy, torch.Tensor)
    assert np.array_equal(lazy[100:333].numpy(), expected[100:333], equal_nan=True)


def test_an_unequal_head_is_kept_and_an_equal_one_is_the_embedding(
    checkpoint: Path, tmp_path: Path, to_gguf: Callable[..., Path]
) -> None:
    assert "head_q" in load_model(to_gguf(tmp_path / "untied.gguf", checkpoint)).tensors()
    tensors = load_file(checkpoint / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
    save_file(tensors, checkpoint / "model.safetensors")
    equal = load_model(to_gguf(tmp_path / "equal.gguf", checkpoint))
    assert "head_q" not in equal.tensors()
    config = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))
    (checkpoint / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}), encoding="utf-8")
    tied = load_model(to_gguf(tmp_path / "tied.gguf", checkpoint))
    assert tied.digest() == equal.digest() == load_model(checkpoint).digest()


def test_joined_queries_keys_and_values_are_taken_apart(
    checkpoint: Path, tmp_path: Path, to_gguf: Callable[..., Path]
) -> None:
    apart = to_gguf(tmp_path / "apart.gguf", checkpoint)
    reader = gguf.GGUFReader(apart)
    arrays = {tensor.name: np.array(tensor.data) for tensor in reader.tensors}
    writer = gguf.GGUFWriter(tmp_path / "joined.gguf", "llama")
    for field in reader.fields.values():
        if not field.name.startswith("GGUF.") and field.name != "general.architecture":
            inner = field.types[1] if len(field.types) > 1 else None
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=inner)
    for name, array in arrays.items():
        if name.endswith("attn_q.weight"):
            parts = [arrays[name.replace("attn_q", part)] for part in ("attn_q", "attn_k", "attn_v")]
            writer.add_tensor(name.replace("attn_q", "attn_qkv"), np.concatenate(parts))
        elif not name.endswith(("attn_k.weight", "attn_v.weight")):
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert load_model(tmp_path / "joined.gguf").digest() == load_model(checkpoint).digest()


# -- what is refused -------------------------------------------------------------------------------------------------


def uint(name: str, value: int) -> Callable[[gguf.GGUFWriter], None]:
    return lambda writer: writer.add_uint32(name, value)


def zero(name: str) -> Callable[[gguf.GGUFWriter], None]:
    """Sets a field that is there to 0."""

    def edit(writer: gguf.GGUFWriter) -> None:
        writer.kv_data[0][name].value = 0

    return edit


REFUSED: dict[str, tuple[Callable[[gguf.GGUFWriter], None], str]] = {
    "experts": (uint("llama.expert_count", 8), r"a mixture of experts is not supported \(llama.expert_count\)"),
    "logits": (lambda writer: writer.add_float32("llama.logit_scale", 0.5), "scaled logits is not supported"),
    "directions": (lambda writer: writer.add_bool("llama.attention.causal", False), "not a causal model"),
    "values": (uint("llama.attention.value_length", 8), "keys and values of different sizes"),
    "scale": (lambda writer: writer.add_float32("llama.attention.scale", 0.3), "an attention scale of 0.3"),
    "no heads": (zero("llama.attention.head_count"), "layers without heads are not supported"),
    "no size": (zero("llama.attention.key_length"), "keys and values of different sizes"),
    "no base": (zero("llama.rope.freq_base"), r"a rotary base of 0 is out of range \(llama.rope.freq_base\)"),
    "no rotation": (zero("llama.rope.dimension_count"), "0 rotary values of heads of 16 are not supported"),
    "no layers": (zero("llama.block_count"), "num_layers is 0"),
    "no context": (zero("llama.context_length"), "max_position_embeddings"),
    "adapter": (lambda writer: writer.add_type("adapter"), "it holds no model: its general.type is 'adapter'"),
    "rope": (lambda writer: writer.add_string("llama.rope.scaling.type", "spiral"), "rope scaling of type 'spiral'"),
    "longrope": (
        lambda writer: writer.add_string("llama.rope.scaling.type", "longrope"),
        "tensor rope_factors_short.weight is missing",
    ),
    "yarn": (lambda writer: writer.add_string("llama.rope.scaling.type", "yarn"), "lack llama.rope.scaling.factor"),
    "text": (
        lambda writer: writer.add_string("llama.rope.scaling.factor", "x"),
        "misstate llama.rope.scaling.factor: x",
    ),
    "layers": (
        lambda writer: writer.add_array("llama.feed_forward_length", [96, 64]),
        "layers of different shapes are not supported",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_run_is_refused_by_name(
    name: str, checkpoint: Path, tmp_path: Path, to_gguf: Callable[..., Path]
) -> None:
    edit, text = REFUSED[name]

    def replace(writer: gguf.GGUFWriter) -> None:
        if name == "layers":
            del writer.kv_data[0]["llama.feed_forward_length"]
        if name == "values":
            del writer.kv_data[0]["llama.attention.value_length"]
        edit(writer)

    file = to_gguf(tmp_path / "model.gguf", checkpoint, edit=replace)
    with pytest.raises(ModelUnsupportedError, match=f"model .*model.gguf: .*{text}"):
        load_model(file)


@pytest.mark.parametrize("name", ["block_count", "embedding_length", "attention.head_count", "context_length"])
def test_a_missing_setting_is_named(name: str, checkpoint: Path, tmp_path: Path, to_gguf: Callable[..., Path]) -> None:
    def edit(writer: gguf.GGUFWriter) -> None:
        del writer.kv_data[0][f"llama.{name}"]

    with pytest.raises(ModelUnsupportedError, match=f"its metadata lack llama.{name}"):
        load_model(to_gguf(tmp_path / "model.gguf", checkpoint, edit=edit))


def test_an_unknown_architecture_and_unknown_tensors_are_named(
    checkpoint: Path, tmp_path: Path, to_gguf: Callable[..., Path]
) -> None:
    extra = {"blk.0.ffn_gate_inp.weight": np.zeros((8, 64), dtype=np.float32)}
    with pytest.raises(ModelUnsupportedError, match=r"unknown tensor blk\.0\.ffn_gate_inp\.weight"):
        load_model(to_gguf(tmp_path / "experts.gguf", checkpoint, extra=extra))
    file = to_gguf(tmp_path / "model.gguf", checkpoint)
    data = file.read_bytes()
    file.write_bytes(data.replace(b"\5\0\0\0\0\0\0\0llama", b"\5\0\0\0\0\0\0\0rwkv7", 1))
    with pytest.raises(ModelUnsupportedError, match="GGUF architecture 'rwkv7' is not supported, only llama, qwen2"):
        load_model(file)


def test_memory_stays_near_the_integers_size(checkpoint: Path, tmp_path: Path, to_gguf: Callable[..., Path]) -> None:
    """The embedding is asked for by blocks of rows, never as a whole."""
    file = to_gguf(tmp_path / "model.gguf", checkpoint, Kind.Q8_0)
    opened = open_tensors(file)
    whole: list[str] = []

    class Watched(dict[str, torch.Tensor]):
        def __getitem__(self, name: str) -> torch.Tensor:
            whole.append(name)
            return opened[name]

        def rows(self, name: str) -> Any:
            assert isinstance(opened, RowSource)
            return opened.rows(name)

    convert(layout.read_config(file), Watched(dict.fromkeys(opened)), 2, 64)
    assert whole == []
