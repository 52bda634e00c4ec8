"""Checks shapes of models: their limits, their sizes, and configurations in both directions."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st

from llmzip.errors import ModelUnsupportedError, SettingsError
from llmzip.models.embedded import EMBEDDED
from llmzip.models.weights import load_model
from llmzip.training.shapes import DECODED_CONTEXT, PRESETS, Shape, as_dict, from_config, to_config

SHAPES = st.builds(
    lambda kv_heads, groups, half, family, **fields: Shape(
        num_heads=kv_heads * groups,
        num_kv_heads=kv_heads,
        head_dim=2 * half,
        qk_norm=family == "qwen3",
        qkv_bias=family == "qwen2",
        **fields,
    ),
    kv_heads=st.integers(1, 8),
    groups=st.integers(1, 8),
    half=st.integers(1, 256),
    family=st.sampled_from(["qwen3", "qwen2", "mistral"]),
    vocab_size=st.integers(256, 1 << 18),
    hidden_size=st.integers(8, 1 << 14),
    num_layers=st.integers(1, 256),
    mlp_size=st.integers(8, 1 << 16),
    sequence=st.integers(16, 1 << 16),
    rope_theta=st.floats(1.5, 1e9),
    norm_eps=st.floats(1e-9, 0.1),
    tied=st.booleans(),
)


# -- limits and sizes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"vocab_size": 255}, "vocab size must be 256 to 262144, not 255"),
        ({"vocab_size": (1 << 18) + 1}, "vocab size"),
        ({"hidden_size": 7}, "hidden size must be 8 to 16384, not 7"),
        ({"num_layers": 0}, "num layers must be 1 to 256, not 0"),
        ({"num_layers": True}, "num layers must be 1 to 256, not True"),
        ({"num_heads": 300}, "num heads"),
        ({"num_kv_heads": 0}, "num kv heads"),
        ({"head_dim": 514}, "head dim must be 2 to 512, not 514"),
        ({"mlp_size": 704.0}, r"mlp size must be 8 to 65536, not 704\.0"),
        ({"sequence": "512"}, "sequence must be 16 to 65536, not '512'"),
        ({"sequence": 15}, "sequence"),
        ({"num_heads": 4, "num_kv_heads": 3}, "4 heads are not a multiple of 3 key/value heads"),
        ({"head_dim": 63}, "head size must be even, not 63"),
    ],
)
def test_sizes_out_of_range_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        Shape(**fields)


@pytest.mark.parametrize("tied", [True, False])
def test_operations_are_those_of_the_matrices_and_scores(tied: bool) -> None:
    shape = Shape(
        vocab_size=1000, hidden_size=64, num_layers=3, num_heads=6, num_kv_heads=2, head_dim=10, mlp_size=96,
        sequence=100, tied=tied, qk_norm=False, qkv_bias=True,
    )  # fmt: skip
    products = 3 * (64 * (60 + 20 + 20) + 60 * 64 + 3 * 64 * 96) + 64 * 1000
    scores = 3 * 6 * 10 * (100 / 2) * 2  # with keys, then with values, of half the positions
    assert shape.flops_per_token == 3 * 2 * (products + scores)


def test_presets_are_what_they_are_called() -> None:
    assert PRESETS["medium"].num_parameters == pytest.approx(5.3e6, rel=0.05)
    assert "5.3 M parameters: 6 layers of 256, 4/1 heads of 64, MLP 704" in PRESETS["medium"].describe()
    sizes = [shape.num_parameters for shape in PRESETS.values()]
    assert sizes == sorted(sizes) and sizes[-1] > 4 * PRESETS["medium"].num_parameters


@pytest.mark.parametrize("name", [model.name for model in EMBEDDED])
def test_embedded_models_have_the_shape_of_their_preset(name: str) -> None:
    config = load_model(EMBEDDED[0].folder.parent / name).config
    shape = PRESETS[name]
    assert (config.num_layers, config.hidden_size, config.mlp_size) == (
        shape.num_layers, shape.hidden_size, shape.mlp_size,
    )  # fmt: skip
    assert (config.num_heads, config.num_kv_heads, config.vocab_size) == (
        shape.num_heads, shape.num_kv_heads, shape.vocab_size,
    )  # fmt: skip


@given(shape=SHAPES)
def test_shapes_survive_a_checkpoint(shape: Shape) -> None:
    assert Shape(**json.loads(json.dumps(as_dict(shape)))) == shape


# -- configurations ----------------------------------------------------------------------------------------------------


@given(shape=SHAPES)
def test_configurations_come_back(shape: Shape) -> None:
    config = json.loads(json.dumps(to_config(shape)))
    assert from_config(config, shape.sequence) == shape
    assert from_config(config, None) == dataclasses.replace(shape, sequence=min(shape.sequence, 1024))
    assert from_config(config, 17).sequence == 17


def test_norms_and_biases_together_are_of_no_family() -> None:
    with pytest.raises(SettingsError, match="both norms and biases"):
        Shape(qk_norm=True, qkv_bias=True)


@given(shape=SHAPES)
def test_transformers_reads_configurations(shape: Shape) -> None:
    config = transformers.AutoConfig.for_model(**to_config(shape))
    assert config.sliding_window == shape.sequence and config.max_position_embeddings == DECODED_CONTEXT
    assert config.rope_parameters["rope_theta"] == shape.rope_theta
    if config.model_type != "mistral":
        assert config.layer_types == ["sliding_attention"] * shape.num_layers
    assert from_config(config.to_dict(), shape.sequence) == shape


@pytest.mark.parametrize("form", ["qwen3", "qwen2", "mistral"])
def test_readers_that_know_older_fields_only_find_the_same(form: str, shapes: dict[str, Shape]) -> None:
    shape = shapes[form]
    config = {name: value for name, value in to_config(shape).items() if name not in ("rope_parameters", "layer_types")}
    assert from_config(config, None) == shape
    read = transformers.AutoConfig.for_model(**config)
    assert read.rope_parameters["rope_theta"] == shape.rope_theta
    if form != "mistral":
        assert read.layer_types == ["sliding_attention"] * shape.num_layers


@pytest.mark.parametrize("kind", ["Llama", "Mistral", "Qwen2", "Qwen3"])
def test_configurations_of_transformers_are_read(kind: str) -> None:
    fields = {
        "vocab_size": 1000, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True, "rms_norm_eps": 0.25,
        "max_position_embeddings": 200,
    }  # fmt: skip
    config = getattr(transformers, f"{kind}Config")(**fields)
    shape = from_config(config.to_dict(), None)
    assert (shape.vocab_size, shape.hidden_size, shape.mlp_size, shape.num_layers) == (1000, 64, 96, 2)
    assert (shape.num_heads, shape.num_kv_heads, shape.norm_eps, shape.tied) == (4, 2, 0.25, True)
    assert shape.head_dim == (128 if kind == "Qwen3" else 16)
    assert (shape.qk_norm, shape.qkv_bias) == (kind == "Qwen3", kind == "Qwen2")
    assert shape.sequence == (1024 if kind == "Mistral" else 200)  # its window is 4,096


OLD: dict[str, Any] = {
    "model_type": "llama", "hidden_act": "silu", "vocab_size": 1000, "hidden_size": 64, "intermediate_size": 96,
    "num_hidden_layers": 2, "num_attention_heads": 4, "rms_norm_eps": 1e-6, "max_position_embeddings": 2048,
}  # fmt: skip


def test_start_token_is_the_bos() -> None:
    for token in (None, 0, 7):
        assert to_config(Shape(), token) == to_config(Shape()) | {"bos_token_id": token}
        assert transformers.AutoConfig.for_model(**to_config(Shape(), token)).bos_token_id == token


def test_what_old_configurations_leave_out() -> None:
    shape = from_config(OLD, None)
    assert (shape.num_kv_heads, shape.head_dim, shape.rope_theta, shape.sequence) == (4, 16, 10000.0, 1024)
    assert not shape.tied
    assert from_config(OLD | {"rope_theta": 5e5, "rope_scaling": None}, None).rope_theta == 5e5
    newer = {"rope_theta": 5e5, "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"}}
    assert from_config(OLD | newer, None).rope_theta == 1e6


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"model_type": "gpt2"}, "model_type 'gpt2' cannot be trained here, only llama, mistral, qwen2, qwen3"),
        ({"model_type": None}, "model_type None"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "scaled rotary positions"),
        ({"rope_scaling": {"type": "linear", "factor": 2.0}}, "scaled rotary positions"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "scaled rotary positions"),
        ({"quantization_config": {"bits": 4}}, "quantised weights"),
        ({"hidden_act": "gelu"}, "gated MLPs with silu"),
        ({"mlp_bias": True}, "gated MLPs with silu and without bias"),
        ({"attention_bias": True}, "attention with a bias"),
        ({"model_type": "qwen3", "attention_bias": True}, "attention with a bias"),
        ({"vocab_size": 100}, "vocab size must be 256"),
        ({"num_attention_heads": 0}, "lacks or misstates"),
        ({"num_attention_heads": None}, "lacks or misstates"),
        ({"num_attention_heads": 3, "num_key_value_heads": 2}, "not a multiple"),
        ({"rms_norm_eps": "x"}, "lacks or misstates"),
        ({"hidden_size": None}, "lacks or misstates"),
        ({"intermediate_size": None}, "mlp size must be"),
        ({"max_position_embeddings": 8}, "sequence must be"),
        ({"head_dim": 15}, "head size must be even"),
    ],
    ids=str,
)  # fmt: skip
def test_configurations_that_cannot_be_trained_are_named(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ModelUnsupportedError, match=words) as caught:
        from_config(OLD | fields, None)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("field", sorted({*OLD} - {"model_type", "hidden_act"}))
def test_missing_fields_are_refused(field: str) -> None:
    with pytest.raises(ModelUnsupportedError, match="lacks or misstates"):
        from_config({name: value for name, value in OLD.items() if name != field}, None)


@pytest.mark.parametrize(
    "fields",
    [
        {"rope_parameters": {"full_attention": {"rope_type": "default", "rope_theta": 1e6}}},
        {"rope_parameters": {"rope_type": "default", "partial_rotary_factor": 0.5}},
        {"partial_rotary_factor": 0.5},
        {"rope_parameters": "x"},
        {"rope_theta": 0.5},
        {"rope_theta": float("nan")},
        {"rms_norm_eps": 2.0},
        {"rms_norm_eps": -1},
    ],
    ids=str,
)
def test_configurations_that_the_exact_engine_refuses_are_refused_before(fields: dict[str, Any]) -> None:
    with pytest.raises(ModelUnsupportedError):
        from_config(OLD | fields, None)
