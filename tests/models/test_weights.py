"""Checks integer weights: conversion, the int8 form, the digest, and every checkpoint that must be refused by name."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from llmzip.errors import ModelNotFoundError, ModelUnsupportedError
from llmzip.models import assembly, families, mappedfile, weightfile
from llmzip.models import convert as convert_module
from llmzip.models.choice import unsupported_reason
from llmzip.models.config import default_floor_bits
from llmzip.models.convert import convert, quantise_rows
from llmzip.models.embedded import DEFAULT
from llmzip.models.int8form import save_int8
from llmzip.models.layout import INT8
from llmzip.models.model import ExactModel
from llmzip.models.weights import load_model

Checkpoint = tuple[dict[str, Any], dict[str, torch.Tensor]]
Make = Callable[..., Checkpoint]
Write = Callable[..., Path]

QKV_BIASES = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")


def same(a: ExactModel, b: ExactModel) -> bool:
    first, second = a.tensors(), b.tensors()
    return (
        a.config == b.config
        and first.keys() == second.keys()
        and all(np.array_equal(tensor, second[name]) for name, tensor in first.items())
    )


# -- quantised matrices ------------------------------------------------------------------------------------------------


def test_rows_are_rounded_to_127_steps(rng: np.random.Generator) -> None:
    weight = torch.from_numpy(rng.standard_normal((50, 33)).astype(np.float32)) * torch.logspace(-9, 6, 50)[:, None]
    weight[7] = 0
    w_q, scale = quantise_rows(weight)
    assert w_q.dtype == torch.int8 and scale.shape == (50,)
    peaks = w_q.abs().amax(1)
    assert peaks[7] == 0 and (peaks[torch.arange(50) != 7] == 127).all()
    assert ((w_q * scale[:, None] - weight).abs() <= scale[:, None] * 0.50001).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_source_types_are_read_as_they_are(dtype: torch.dtype, rng: np.random.Generator) -> None:
    weight = torch.from_numpy(rng.standard_normal((4, 8))).to(dtype)
    for a, b in zip(quantise_rows(weight), quantise_rows(weight.to(torch.float32)), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("grid", [0.0, 6.0])
def test_blocks_of_rows_give_the_same_integers(
    grid: float, random_checkpoint: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, source = random_checkpoint(biases=("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"))
    whole = convert(config, source, 2, 50, grid=grid)
    monkeypatch.setattr(convert_module, "_BLOCK", 7 * 48)
    monkeypatch.setattr(assembly, "_BLOCK", 5 * 48)
    assert same(convert(config, source, 2, 50, grid=grid), whole)


def test_a_large_matrix_is_never_whole_in_float32(monkeypatch: pytest.MonkeyPatch, random_checkpoint: Make) -> None:
    config, source = random_checkpoint(vocab_size=4000)
    source = {name: tensor.bfloat16() for name, tensor in source.items()}
    largest = 0

    def quantised(weight: torch.Tensor, grid: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
        nonlocal largest
        largest = max(largest, weight.numel())
        return quantise_rows(weight, grid)

    monkeypatch.setattr(convert_module, "_BLOCK", 1 << 12)
    monkeypatch.setattr(convert_module, "quantise_rows", quantised)
    convert(config, source, 1, 50)
    assert largest <= 1 << 12


def test_parts_of_a_matrix_with_rows_of_other_lengths_are_refused(random_checkpoint: Make) -> None:
    config, source = random_checkpoint()
    name = "model.layers.1.self_attn.k_proj.weight"
    with pytest.raises(ModelUnsupportedError, match="rows of different lengths"):
        convert(config, source | {name: source[name][:, :40]}, 1, 50)


def test_a_head_of_another_type_with_the_values_of_the_embedding_is_the_embedding(random_checkpoint: Make) -> None:
    config, source = random_checkpoint()
    source["model.embed_tokens.weight"] = source["model.embed_tokens.weight"].bfloat16()
    source["lm_head.weight"] = source["model.embed_tokens.weight"].float()
    assert convert(config, source, 1, 50).head_q.shape == (100, 48)
    assert "head_q" not in convert(config, source, 1, 50).tensors()
    source["lm_head.weight"][99, 47] += 1
    assert "head_q" in convert(config, source, 1, 50).tensors()


def test_conversion_fuses_and_keeps_the_rest(random_checkpoint: Make) -> None:
    biases = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.down_proj")
    config, source = random_checkpoint(qk_norm=True, biases=biases)
    model = convert(config, source, 2, 50, start_token=3)
    assert (model.config.planes, model.config.context, model.config.start_token) == (2, 50, 3)
    layer, prefix = model.layers[1], "model.layers.1."
    qkv = torch.cat([source[f"{prefix}self_attn.{part}_proj.weight"] for part in "qkv"])
    np.testing.assert_allclose(np.asarray(layer.qkv_q) * layer.qkv_scale[:, None], qkv.numpy(), rtol=0, atol=0.03)
    assert np.array_equal(layer.qkv_bias, torch.cat([source[f"{prefix}self_attn.{part}_proj.bias"] for part in "qkv"]))
    assert layer.gate_up_q.shape == (160, 48) and layer.gate_up_bias is None and layer.out_bias is None
    assert np.array_equal(layer.down_bias, source[prefix + "mlp.down_proj.bias"])
    assert np.array_equal(layer.q_norm, source[prefix + "self_attn.q_norm.weight"])
    assert np.array_equal(layer.post_norm, source[prefix + "post_attention_layernorm.weight"])
    assert np.array_equal(model.final_norm, source["model.norm.weight"])
    assert model.head_q is not model.embedding_q


def test_a_tied_head_is_the_embedding_whether_it_is_stored_or_not(random_checkpoint: Make) -> None:
    config, source = random_checkpoint()
    tied = config | {"tie_word_embeddings": True}
    ignored = convert(tied, source, 1, 50)
    source["lm_head.weight"] = source["model.embed_tokens.weight"].clone()
    stored = [convert(config, source, 1, 50), convert(tied, source, 1, 50)]
    del source["lm_head.weight"]
    left_out = convert(tied, source, 1, 50)
    for model in (ignored, *stored, left_out):
        assert model.head_q is model.embedding_q and "head_q" not in model.tensors()
        assert model.digest() == ignored.digest()


@pytest.mark.parametrize("setting", [{}, {"tie_word_embeddings": False}])
def test_the_embedding_does_not_stand_in_for_a_head_that_is_missing(
    setting: dict[str, Any], random_checkpoint: Make, write_checkpoint: Write, tmp_path: Path
) -> None:
    config, source = random_checkpoint(**setting)
    del source["lm_head.weight"]
    folder = write_checkpoint(tmp_path / "headless", config, source)
    with pytest.raises(ModelUnsupportedError, match=r"lm_head\.weight is missing; .*\"tie_word_embeddings\": true"):
        load_model(folder)
    write_checkpoint(folder, config | {"tie_word_embeddings": True}, source)
    assert load_model(folder).head_q.shape == (100, 48)


ATTENTION_BIASES = tuple(f"self_attn.{name}_proj" for name in "qkvo")
MLP_BIASES = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")


@pytest.mark.parametrize(
    ("fields", "parts", "missing"),
    [
        ({"attention_bias": True}, {"biases": ATTENTION_BIASES}, ["q_proj.bias", "o_proj.bias"]),
        ({"mlp_bias": True}, {"biases": MLP_BIASES}, ["gate_proj.bias", "down_proj.bias"]),
        ({"model_type": "qwen2"}, {"biases": QKV_BIASES}, ["q_proj.bias"]),
        ({"model_type": "qwen3"}, {"qk_norm": True}, ["q_norm.weight", "k_norm.weight"]),
    ],
    ids=["attention", "mlp", "qwen2", "qwen3"],
)
def test_biases_and_norms_that_the_configuration_calls_for_must_be_there(
    fields: dict[str, Any], parts: dict[str, Any], missing: list[str], random_checkpoint: Make
) -> None:
    config, source = random_checkpoint(**parts, **fields)
    convert(config, source, 1, 50)
    for name in missing:
        kind = name if name.startswith(("q_norm", "k_norm")) else name.rpartition(".")[0]
        group = {"q_proj": "qkv", "gate_proj": ("gate_proj", "up_proj")}.get(kind, (kind,))
        places = [f"{part}_proj" for part in group] if group == "qkv" else list(group)
        less = {key: t for key, t in source.items() if not any(f".{x}.bias" in key or key.endswith(x) for x in places)}
        with pytest.raises(ModelUnsupportedError, match=rf"tensor model\.layers\.0\..*{name} is missing"):
            convert(config, less, 1, 50)


@pytest.mark.parametrize(
    ("ids", "start"),
    [
        ({"bos_token_id": 5, "eos_token_id": 6}, 5),
        ({"bos_token_id": None, "eos_token_id": 6}, 6),
        ({"bos_token_id": None, "eos_token_id": [6, 7]}, 0),
        ({"bos_token_id": None, "eos_token_id": None}, 0),
        ({"bos_token_id": -1, "eos_token_id": 6}, 6),
        ({"bos_token_id": 100, "eos_token_id": 99}, 99),
        ({"bos_token_id": True, "eos_token_id": 6}, 6),
        ({"bos_token_id": [5], "eos_token_id": 100}, 0),
    ],
)
def test_start_token_is_the_bos_else_the_eos_else_0(ids: dict[str, Any], start: int, random_checkpoint: Make) -> None:
    config, source = random_checkpoint(**ids)
    assert convert(config, source, 1, 50).config.start_token == start
    assert convert(config, source, 1, 50, start_token=9).config.start_token == 9


@pytest.mark.parametrize(("asked", "context"), [(50, 50), (96, 96), (1 << 17, 96), (1 << 30, 96)])
def test_context_is_cut_to_what_the_model_was_made_for(asked: int, context: int, random_checkpoint: Make) -> None:
    assert convert(*random_checkpoint(), 1, asked).config.context == context


@pytest.mark.parametrize(
    ("fields", "windows"),
    [
        ({"model_type": "llama"}, (0, 0, 0)),
        ({"model_type": "mistral", "sliding_window": 9}, (9, 9, 9)),
        ({"model_type": "mistral", "sliding_window": None}, (0, 0, 0)),
        ({"model_type": "qwen2", "sliding_window": 9, "use_sliding_window": False}, (0, 0, 0)),
        ({"model_type": "qwen2", "sliding_window": 9, "use_sliding_window": True, "max_window_layers": 2}, (0, 0, 9)),
        (
            {
                "model_type": "qwen3",
                "sliding_window": 9,
                "use_sliding_window": True,
                "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            },
            (9, 0, 9),
        ),
    ],
)
def test_windows_of_each_family(fields: dict[str, Any], windows: tuple[int, ...], random_checkpoint: Make) -> None:
    parts = {"qwen2": {"biases": QKV_BIASES}, "qwen3": {"qk_norm": True}}.get(fields["model_type"], {})
    config, source = random_checkpoint(num_hidden_layers=3, **parts, **fields)
    assert convert(config, source, 1, 50).config.windows == windows


@pytest.mark.parametrize(
    ("fields", "theta"),
    [
        ({"rope_theta": 5e5}, 5e5),
        ({"rope_theta": None}, 1e4),
        ({"rope_theta": None, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}, 1e6),
        ({"rope_theta": 2e4, "rope_scaling": None}, 2e4),
        ({"rope_theta": 2e4, "rope_scaling": {"type": "default"}}, 2e4),
    ],
)
def test_rope_theta_is_found_in_old_and_new_configs(
    fields: dict[str, Any], theta: float, random_checkpoint: Make
) -> None:
    assert convert(*random_checkpoint(**fields), 1, 50).config.rope_theta == theta


# -- the int8 form and the digest --------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [False, True])
def test_int8_form_comes_back(tied: bool, random_checkpoint: Make, tmp_path: Path) -> None:
    config, source = random_checkpoint(qk_norm=True, biases=("mlp.gate_proj", "mlp.up_proj"), sliding_window=None)
    if tied:
        config["tie_word_embeddings"] = True
        del source["lm_head.weight"]
    model = convert(config, source, 2, 50)
    save_int8(model, tmp_path)
    loaded = load_model(tmp_path, planes=1, context=7, start_token=9)  # the form carries its own
    assert same(loaded, model) and loaded.digest() == model.digest()
    assert (loaded.head_q is loaded.embedding_q) == tied


def test_digest_is_that_of_the_document(random_checkpoint: Make) -> None:
    model = convert(*random_checkpoint(biases=("self_attn.o_proj",)), 2, 50)
    config = {
        "context": 50, "head_dim": 16, "hidden_size": 48, "mlp_size": 80, "norm_eps": float(np.float32(1e-6)).hex(),
        "num_heads": 4, "num_kv_heads": 2, "num_layers": 2, "planes": 2, "rope_theta": (10000.0).hex(),
        "start_token": 1, "vocab_size": 100, "windows": [0, 0],
    }  # fmt: skip
    blob = b"llmzip exact model, numerics 1\n" + json.dumps(config, separators=(",", ":")).encode() + b"\n"
    for name, tensor in sorted(model.tensors().items()):
        array = np.asarray(tensor)
        kind = {"int8": "int8", "float32": "float32"}[str(array.dtype)]
        blob += f"{name} {kind} {'x'.join(str(size) for size in array.shape)}\n".encode()
        blob += array.astype("i1" if kind == "int8" else "<f4").tobytes()
    assert model.digest() == hashlib.sha256(blob).digest()


def test_digest_sees_every_tensor_and_every_setting(random_checkpoint: Make) -> None:
    config, source = random_checkpoint(biases=("mlp.down_proj",), qk_norm=True)
    digests = {convert(config, source, 1, 50).digest()}
    for name, tensor in source.items():
        # The largest entry of the first row, so that the row's scale must change too.
        changed = tensor.clone()
        changed.view(-1)[tensor.view(len(tensor), -1)[0].abs().argmax()] *= 1.5
        digests.add(convert(config, source | {name: changed}, 1, 50).digest())
    assert len(digests) == 1 + len(source)
    settings = [
        convert(config, source, 2, 50),
        convert(config, source, 1, 51),
        convert(config, source, 1, 50, start_token=2),
        convert(config | {"rope_theta": 10001.0}, source, 1, 50),
        convert(config | {"rms_norm_eps": 2e-6}, source, 1, 50),
        convert(config | {"model_type": "mistral", "sliding_window": 20}, source, 1, 50),
    ]
    assert len(digests | {model.digest() for model in settings}) == 1 + len(source) + len(settings)


def test_embedded_model_is_the_one_of_the_format() -> None:
    model = load_model(DEFAULT.folder)
    assert model.digest() == DEFAULT.model_digest
    document = Path(__file__).parents[2] / "docs" / "format.md"
    text = document.read_text(encoding="utf-8")
    assert DEFAULT.model_digest.hex() in text and DEFAULT.tokenizer_digest.hex() in text


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model_type": "mamba"}, r"model_type 'mamba' is not one .* runs \(gemma, .* llama, mistral, .*qwen2, qw"),
        ({"model_type": ["llama"]}, r"model_type \['llama'\]"),
        ({"model_type": None}, "model_type None"),
        ({"hidden_act": "relu"}, "activation 'relu' is not supported, only silu"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "lacks or misstates 'low_freq_factor'"),
        ({"rope_scaling": {"type": "linear"}}, "lacks or misstates 'factor'"),
        ({"rope_scaling": {"type": "linear", "factor": 0.0}}, "lacks or misstates|out of range"),
        ({"rope_scaling": {"type": "linear", "factor": "x"}}, "lacks or misstates"),
        ({"rope_scaling": {"type": "spiral", "factor": 2.0}}, "rope type 'spiral' is not supported"),
        ({"partial_rotary_factor": 0.01}, "0 rotary values of heads of 16"),
        ({"partial_rotary_factor": 1.5}, "24 rotary values of heads of 16"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}, "partial_rotary_factor": 0.5}, "gains of a part"),
        ({"num_attention_heads": 3, "num_key_value_heads": 2}, "heads must be a multiple of kv heads"),
        ({"head_dim": 15}, "15 rotary values"),
        ({"head_dim": 1024}, "head_dim is 1024"),
        ({"vocab_size": 8}, "vocab_size is 8"),
        ({"vocab_size": 1 << 19}, "vocab_size is 524288"),
        ({"vocab_size": "100"}, "vocab_size is '100'|misstates"),
        ({"hidden_size": 0}, "hidden_size is 0"),
        ({"num_hidden_layers": 0}, "num_layers is 0"),
        ({"max_position_embeddings": 1}, "context is 1"),
        ({"rope_theta": 0.5}, "rope_theta 0.5"),
        ({"rms_norm_eps": 2.0}, "norm_eps 2.0"),
        ({"max_position_embeddings": None}, "misstates 'max_position_embeddings', which is None$"),
        ({"max_position_embeddings": "96"}, "misstates 'max_position_embeddings', which is '96'$"),
        ({"max_position_embeddings": 50.5}, r"misstates 'max_position_embeddings', which is 50\.5$"),
        ({"rms_norm_eps": None}, "misstates 'rms_norm_eps', which is None$"),
        ({"rope_scaling": [1]}, r"misstates 'rope_scaling', which is \[1\]$"),
        ({"rope_theta": {"base": 3}}, "misstates 'rope_theta', which is {'base': 3}$"),
        ({"layer_types": 3}, "misstates 'layer_types', which is 3$"),
        ({"model_type": "mistral", "layer_types": [[], "global"]}, r"layer types \[\[\]\] or their number, 2, are"),
        ({"hidden_act": ["silu"]}, r"activation \['silu'\] is not supported"),
        ({"model_type": "smollm3", "no_rope_layers": [1]}, r"misstates 'no_rope_layers', which is \[1\]$"),
        ({"model_type": "smollm3", "no_rope_layers": 1}, "misstates 'no_rope_layers', which is 1$"),
        ({"model_type": "smollm3", "no_rope_layer_interval": 0}, "misstates 'no_rope_layer_interval', which is 0$"),
        ({"model_type": "smollm3", "no_rope_layer_interval": None}, "'no_rope_layer_interval', which is None$"),
        ({"model_type": "gemma2", "query_pre_attn_scalar": None}, "'query_pre_attn_scalar', which is None$"),
        ({"model_type": "gemma2", "query_pre_attn_scalar": -3}, "'query_pre_attn_scalar', which is -3"),
        ({"model_type": "mistral", "sliding_window": 100.0}, r"one sliding window per layer, each an integer"),
        ({"model_type": "mistral", "sliding_window": True}, r"one sliding window per layer, each an integer"),
        ({"model_type": "mistral", "sliding_window": 10**30}, r"integer from 0 to 2\^31 - 1"),
        ({"model_type": "mistral", "sliding_window": [9]}, r"one sliding window per layer, each an integer"),
        ({"quantization_config": {"bits": 4}}, "quantised checkpoints are not supported"),
        ({"rope_parameters": {"cross_attention": {"rope_type": "default"}}}, "rotary parameters for cross_attention"),
        ({"num_attention_heads": 512, "head_dim": 512}, "512 heads of size 512 are too many"),
        ({"rms_norm_eps": 1e-13}, "norm_eps 9.99"),
        ({"hidden_size": 64}, r"tensor \S+ is int8"),
        ({"vocab_size": 101}, r"tensor embedding_q is int8 \(100, 48\), not int8 \(101, 48\)"),
    ],
    ids=lambda value: str(value)[:40],
)  # fmt: skip
def test_unsupported_configs_are_refused_by_name(
    fields: dict[str, Any], words: str, random_checkpoint: Make, write_checkpoint: Write, tmp_path: Path
) -> None:
    config, source = random_checkpoint()
    folder = write_checkpoint(tmp_path / "m", config | fields, source)
    with pytest.raises(ModelUnsupportedError, match=words) as caught:
        load_model(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", sorted(families.NAMES))
@pytest.mark.parametrize("value", [10**9, 2e8, 10**4000], ids=["int", "float", "huge"])
def test_absurd_numbers_are_refused_or_harmless_before_anything_is_built_from_them(
    kind: str, value: float, random_checkpoint: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[int] = []
    monkeypatch.setattr(families, "_windows", lambda config, layers, slides=None: (built.append(layers), (0,) * 2)[1])
    config = random_checkpoint()[0] | {"model_type": kind, "use_sliding_window": True, "query_pre_attn_scalar": 16}
    config |= {"n_layer": 2, "n_head": 2, "n_embd": 16, "intermediate_size": 80}
    for field in (
        "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "vocab_size", "hidden_size", "head_dim",
        "intermediate_size", "n_layer", "n_head", "n_embd", "n_inner", "sliding_window", "no_rope_layer_interval",
        "rope_theta", "max_window_layers", "rotary_pct", "partial_rotary_factor", "max_position_embeddings",
    ):  # fmt: skip
        (tmp_path / "config.json").write_text(json.dumps(config | {field: value}))
        reason = unsupported_reason(tmp_path)
        assert reason is None or (len(reason) < 250 and "\n" not in reason), field
    assert all(layers == 2 for layers in built)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors.index.json"])
@pytest.mark.parametrize("nest", ["[%s]", '{"model_type":%s}', '{"weight_map":%s}'])
def test_json_that_is_nested_too_deep_is_refused(
    name: str, nest: str, random_checkpoint: Make, write_checkpoint: Write, tmp_path: Path
) -> None:
    folder = write_checkpoint(tmp_path / "m", *random_checkpoint())
    begin, end = nest.split("%s")
    (folder / name).write_text(begin * 100_000 + "3" + end * 100_000)
    with pytest.raises(ModelUnsupportedError, match=rf"{name} cannot be read"):
        load_model(folder)
    if name == "config.json":
        assert "cannot be read" in str(unsupported_reason(folder))


@pytest.mark.parametrize("depth", [50, 400, 900])
def test_deep_values_are_shown_in_short(
    depth: int, random_checkpoint: Make, write_checkpoint: Write, tmp_path: Path
) -> None:
    deep: Any = "x" * 1000
    for _ in range(depth):
        deep = [deep]
    config, source = random_checkpoint()
    for field in ("model_type", "hidden_act", "vocab_size", "max_position_embeddings", "rope_theta", "layer_types"):
        folder = write_checkpoint(tmp_path / field, config | {field: deep}, source)
        assert len(str(unsupported_reason(folder))) < 250


@pytest.mark.parametrize(
    "field",
    [
        "num_hidden_layers", "num_attention_heads", "vocab_size", "hidden_size", "intermediate_size", "rms_norm_eps",
        "max_position_embeddings",
    ],
)  # fmt: skip
def test_missing_fields_of_the_config_are_named(
    field: str, random_checkpoint: Make, write_checkpoint: Write, tmp_path: Path
) -> None:
    config, source = random_checkpoint()
    del config[field]
    with pytest.raises(ModelUnsupportedError, match=f"lacks or misstates '{field}'"):
        load_model(write_checkpoint(tmp_path / "m", config, source))


@pytest.mark.parametrize("value", [None, "x", [], {}, -1, 0, True, 1.5, 1e400], ids=str)
@pytest.mark.parametrize(
    "field",
    [
        "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "vocab_size", "hidden_size", "head_dim",
        "intermediate_size", "rms_norm_eps", "max_position_embeddings", "rope_theta", "rope_scaling", "sliding_window",
        "layer_types", "hidden_act", "model_type", "bos_token_id",
    ],
)  # fmt: skip
def test_a_config_of_wrong_types_is_refused_or_harmless(
    field: str, value: object, random_checkpoint: Make, write_checkpoint: Write, tmp_path: Path
) -> None:
    config, source = random_checkpoint(model_type="mistral", sliding_window=9)
    folder = write_checkpoint(tmp_path / "m", config | {field: value}, source)
    try:
        model = load_model(folder)
    except ModelUnsupportedError as error:
        assert str(folder) in str(error)
    else:
        assert model.config.num_layers == 2


@pytest.mark.parametrize(
    "name",
    [
        "model.embed_tokens.weight",
        "model.layers.1.mlp.up_proj.weight",
        "model.layers.0.self_attn.k_proj.weight",
        "model.norm.weight",
    ],
)
def test_missing_tensors_are_named(name: str, random_checkpoint: Make, write_checkpoint: Write, tmp_path: Path) -> None:
    config, source = random_checkpoint()
    del source[name]
    with pytest.raises(ModelUnsupportedError, match=f"tensor {name} is missing"):
        load_model(write_checkpoint(tmp_path / "m", config, source))


def test_half_a_pair_is_refused(random_checkpoint: Make) -> None:
    config, source = random_checkpoint(qk_norm=True, biases=QKV_BIASES, model_type="llama")
    one_norm = {name: tensor for name, tensor in source.items() if name != "model.layers.0.self_attn.k_norm.weight"}
    with pytest.raises(ModelUnsupportedError, match="q_norm without k_norm"):
        convert(config, one_norm, 1, 50)
    two_biases = {name: tensor for name, tensor in source.items() if name != "model.layers.1.self_attn.v_proj.bias"}
    with pytest.raises(ModelUnsupportedError, match=r"only some of .* have a bias"):
        convert(config, two_biases, 1, 50)


def test_unknown_tensors_are_named(random_checkpoint: Make, write_checkpoint: Write, tmp_path: Path) -> None:
    config, source = random_checkpoint()
    source["model.layers.0.mlp.experts.3.weight"] = torch.ones(3)
    with pytest.raises(ModelUnsupportedError, match=r"unknown tensor model\.layers\.0\.mlp\.experts\.3\.weight"):
        load_model(write_checkpoint(tmp_path / "m", config, source))


def test_stored_rotary_frequencies_are_passed_over(random_checkpoint: Make) -> None:
    config, source = random_checkpoint()
    plain = convert(config, source, 1, 50)
    source["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    assert convert(config, source, 1, 50).digest() == plain.digest()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    "name", ["model.embed_tokens.weight", "lm_head.weight", "model.layers.1.mlp.up_proj.weight", "model.norm.weight"]
)
def test_values_that_are_no_numbers_are_named(name: str, value: float, random_checkpoint: Make) -> None:
    config, source = random_checkpoint()
    source[name] = source[name].clone()
    source[name].view(-1)[5] = value
    with pytest.raises(ModelUnsupportedError, match=f"tensor {name} holds a NaN or an infinity"):
        convert(config, source, 1, 50)


@pytest.mark.parametrize(
    ("name", "factor"),
    [
        ("model.norm.weight", 1e16),
        ("lm_head.weight", 1e15),
        ("model.layers.1.mlp.up_proj.weight", 1e8),
        ("model.layers.0.self_attn.v_proj.weight", 1e15),
        ("model.layers.0.mlp.down_proj.bias", 1e17),
        ("model.embed_tokens.weight", 1e16),
    ],
)
def test_weights_that_might_leave_the_exact_range_are_refused(
    name: str, factor: float, random_checkpoint: Make
) -> None:
    config, source = random_checkpoint(biases=("mlp.down_proj",))
    with pytest.raises(ModelUnsupportedError, match=r"above"):
        convert(config, source | {name: source[name] * factor}, 1, 50)
    assert convert(config, source | {name: source[name] * 10}, 1, 50)


def test_a_bound_without_weights_is_enough_for_usual_models(
    random_checkpoint: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    exact = assembly._gain
    monkeypatch.setattr(assembly, "_gain", lambda *arguments: pytest.fail("the weights were summed"))
    model = convert(*random_checkpoint(), 2, 50)
    for layer in model.layers:
        for weight_q, scale in ((layer.qkv_q, layer.qkv_scale), (layer.down_q, layer.down_scale)):
            assert exact(weight_q, scale) < assembly._coarse_gain(weight_q, scale)


def test_the_weights_decide_where_the_coarse_bound_is_too_high(
    random_checkpoint: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, tensors = random_checkpoint()
    expected = convert(config, tensors, 2, 50)
    monkeypatch.setattr(assembly, "_coarse_gain", lambda *arguments: float("inf"))
    assert same(convert(config, tensors, 2, 50), expected)


def test_norm_weights_are_limited_on_their_own(random_checkpoint: Make) -> None:
    config, source = random_checkpoint(qk_norm=True)
    for name in ("model.norm.weight", "model.layers.1.self_attn.k_norm.weight"):
        large = source[name].clone()
        large[3] = 2.0**20 + 1
        with pytest.raises(ModelUnsupportedError, match="a norm's weight is above"):
            convert(config, source | {name: large}, 1, 50)


def test_an_index_says_which_files_count(random_checkpoint: Make, write_checkpoint: Write, tmp_path: Path) -> None:
    config, source = random_checkpoint()
    folder = write_checkpoint(tmp_path / "m", config, source)
    right = load_model(folder).digest()
    save_file({name: tensor * 2 for name, tensor in source.items()}, folder / "consolidated.safetensors")
    assert load_model(folder).digest() == right
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": dict.fromkeys(source, "other.safetensors")}))
    assert load_model(folder).digest() == right
    for broken in ("", "[]", "{}", '{"weight_map": 3}'):
        index.write_text(broken)
        with pytest.raises(ModelUnsupportedError, match=r"index\.json cannot be read"):
            load_model(folder)
    index.write_text(json.dumps({"weight_map": {"a": "absent.safetensors"}}))
    with pytest.raises(ModelNotFoundError, match=r"absent\.safetensors is missing"):
        load_model(folder)


def test_an_index_cannot_point_out_of_the_folder(
    random_checkpoint: Make, write_checkpoint: Write, tmp_path: Path
) -> None:
    config, source = random_checkpoint()
    write_checkpoint(tmp_path / "other", config, source)
    folder = write_checkpoint(tmp_path / "m", config, source)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": {"a": "../other/model.safetensors"}})
    )
    with pytest.raises(ModelNotFoundError, match="is missing"):
        load_model(folder)


def test_folders_without_weights_say_what_they_lack(random_checkpoint: Make, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"no config\.json in this folder"):
        load_model(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(random_checkpoint()[0]))
    with pytest.raises(ModelNotFoundError, match=r"no \.safetensors file in this folder$"):
        load_model(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickled")
    with pytest.raises(ModelNotFoundError, match="pickled weights are refused: they can run code"):
        load_model(tmp_path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe\x00", b"[]", b"null", b"3", b"{}"])
def test_broken_configs_are_refused(
    content: bytes, random_checkpoint: Make, write_checkpoint: Write, tmp_path: Path
) -> None:
    folder = write_checkpoint(tmp_path / "m", *random_checkpoint())
    (folder / "config.json").write_bytes(content)
    with pytest.raises(ModelUnsupportedError, match=str(folder)):
        load_model(folder)


@pytest.mark.parametrize("content", [b"", b"\0" * 7, b"not safetensors at all", b"\xff" * 64])
def test_broken_weights_are_refused(
    content: bytes, random_checkpoint: Make, write_checkpoint: Write, tmp_path: Path
) -> None:
    folder = write_checkpoint(tmp_path / "m", *random_checkpoint())
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ModelUnsupportedError, match=r"model\.safetensors cannot be read"):
        load_model(folder)


def changed_int8(
    folder: Path,
    random_checkpoint: Make,
    version: int,
    change: Callable[[dict[str, Any], dict[str, np.ndarray]], object],
) -> Path:
    """A model in the int8 form, changed on disk."""
    save_int8(convert(*random_checkpoint(), 1, 50), folder)
    header, tensors = mappedfile.read(folder / INT8)
    config, numerics = header.config, header.numerics
    arrays = {name: np.array(tensor) for name, tensor in tensors.items()}
    config["numerics"] = numerics
    change(config, arrays)
    numerics = config.pop("numerics")
    if version == 1:
        (folder / INT8).write_bytes(weightfile.pack(config, numerics, arrays))
    else:
        with (folder / INT8).open("wb") as file:
            mappedfile.write(file, config, numerics, bytes(32), arrays, {})
    return folder


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda config, tensors: config.update(numerics=2), "numerics version 2, this llmzip has version 1"),
        (lambda config, tensors: config.pop("windows"), "config: windows is missing or unknown"),
        (lambda config, tensors: config.update(windings=[]), "config: windings is missing or unknown"),
        (lambda config, tensors: config.update(norm="batch"), "norm 'batch'"),
        (lambda config, tensors: config.update(rope_steps=[1] * 300), "rope steps"),
        (lambda config, tensors: config.update(rope_steps=[1 << 64]), "rope steps"),
        (lambda config, tensors: config.update(local_rope_steps=[1]), "as many local rope steps"),
        (lambda config, tensors: config.update(unrotated=[1, 0]), "unrotated layers"),
        (lambda config, tensors: config.update(gated=1), "a flag is neither"),
        (lambda config, tensors: config.update(logit_cap=-1.0), "out of range"),
        (lambda config, tensors: config.update(embedding_gain=0.0), "embedding gain"),
        (lambda config, tensors: config.update(learned_positions=True), "positions_q is missing"),
        (lambda config, tensors: config.update(windows=[0]), "one sliding window per layer"),
        (lambda config, tensors: config.update(windows=[0, -1]), "one sliding window per layer"),
        (lambda config, tensors: config.update(windows=[0, 9.0]), "one sliding window per layer"),
        (lambda config, tensors: config.update(windows=[False, 9]), "one sliding window per layer"),
        (lambda config, tensors: config.update(windows=[0, 1 << 31]), "one sliding window per layer"),
        (lambda config, tensors: config.update(planes=3), "planes is 3"),
        (lambda config, tensors: config.update(floor_bits=9), "floor_bits is 9"),
        (lambda config, tensors: config.update(floor_bits=1.0), r"floor_bits is 1\.0"),
        (lambda config, tensors: tensors.pop("layers.1.down_q"), r"tensor layers\.1\.down_q is missing"),
        (lambda config, tensors: tensors.pop("head_scale"), "tensor head_scale is missing"),
        (lambda config, tensors: tensors["head_q"].ravel()[3:4].fill(-128), "tensor head_q holds -128"),
        (lambda config, tensors: tensors["final_norm"][3:4].fill(float("nan")), "tensor final_norm holds a NaN"),
        (
            lambda config, tensors: tensors.update(final_norm=np.ones(47, dtype=np.float32)),
            r"tensor final_norm is float32 \(47,\)",
        ),
        (
            lambda config, tensors: tensors.update(final_norm=np.ones(48, dtype=np.int8)),
            "tensor final_norm is int8",
        ),
    ],
)
def test_changed_int8_forms_are_refused_by_name(
    change: Callable[[dict[str, Any], dict[str, np.ndarray]], object],
    words: str,
    version: int,
    random_checkpoint: Make,
    tmp_path: Path,
) -> None:
    folder = changed_int8(tmp_path, random_checkpoint, version, change)
    with pytest.raises(ModelUnsupportedError, match=words) as caught:
        load_model(folder)
    assert str(folder) in str(caught.value)


def test_whole_numbers_for_floats_are_the_same_configuration(random_checkpoint: Make) -> None:
    config = convert(*random_checkpoint(), 1, 50).config
    found = config.as_dict() | {"attention_cap": 30, "rope_theta": 10000}
    same = config.as_dict() | {"attention_cap": 30.0, "rope_theta": 10000.0}
    assert type(config).from_dict(found).canonical() == type(config).from_dict(same).canonical()


@pytest.mark.parametrize(
    ("vocab_size", "floor_bits"),
    [(16, 0), (16_384, 0), (16_385, 5), (32_768, 5), (49_152, 6), (131_072, 7), (262_144, 8), (300_000, 8)],
)
def test_the_floor_shrinks_with_the_vocabulary(vocab_size: int, floor_bits: int) -> None:
    assert default_floor_bits(vocab_size) == floor_bits


def test_a_large_vocabulary_is_converted_with_a_smaller_floor(random_checkpoint: Make, tmp_path: Path) -> None:
    config, tensors = random_checkpoint()
    small = convert(config, tensors, 1, 50)
    assert small.config.floor_bits == 0 and b"floor_bits" not in small.config.canonical()
    tensors = {
        name: torch.cat([tensor] * 400)[:17_000].contiguous() if len(tensor) == config["vocab_size"] else tensor
        for name, tensor in tensors.items()
    }
    model = convert(config | {"vocab_size": 17_000}, tensors, 1, 50)
    assert model.config.floor_bits == 5 and b'"floor_bits":5' in model.config.canonical()
    assert type(model.config).from_dict(model.config.as_dict()) == model.config
    assert model.with_settings(2, 40, 3).config.floor_bits == 5
    save_int8(model, tmp_path)
    assert load_model(tmp_path).config == model.config
    other = dataclasses.replace(model, config=dataclasses.replace(model.config, floor_bits=0))
    assert other.digest() != model.digest()


def test_rows_of_positions_are_no_product(random_checkpoint: Make) -> None:
    model = convert(*random_checkpoint(), 1, 50)
    with_rows = dataclasses.replace(model, positions_q=np.zeros((2, 48), dtype=np.int8))
    assert with_rows.matrix_shapes() == model.matrix_shapes()
