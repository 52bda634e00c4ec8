"""How the families of Hugging Face decoders name and shape their parts. Must not know tensors' values or engines.

Each function reads a config.json and says which settings of the exact arithmetic it means and where the checkpoint
keeps the weights. Whatever a configuration may ask for and the exact engine cannot run is refused here, by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import ModelUnsupportedError
from ..numerics import tables
from . import rope
from .config import checked_size, shown
from .rope import misstated, number

_ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
_MAX_POSITIONS = 1 << 31
IGNORED = ("rotary_emb.inv_freq", "attn.bias", "attn.masked_bias", "attention.bias", "attention.masked_bias")
"""Ends of names of tensors that are not weights, in checkpoints of all families."""


@dataclass(frozen=True)
class Family:
    """What a configuration means.

    Attributes:
        settings: fields of ExactConfig, all but planes, context and start_token.
        positions: maximum positions that the model was made for.
        tied: whether the head is the embedding, whatever the checkpoint holds.
        matrices: name in the int8 form, with {} for the layer -> names in the checkpoint that are joined, row by row.
        vectors: the same for norms, each of which is one tensor.
        prefixes: prefixes that names in the checkpoint may have.
        required: biases, and norms of queries and keys, that each layer must have by its kind or its settings; others
            are used if they are present.
        norm_offset: number added to the weights of RMS norms.
        transposed: whether matrices are stored (inputs, outputs).
        mixed_heads: whether rows of the joined queries, keys and values come head by head.
        ignored: ends of names of tensors that are not weights.
    """

    settings: dict[str, Any]
    positions: int
    tied: bool
    matrices: dict[str, tuple[str, ...]]
    vectors: dict[str, str]
    prefixes: tuple[str, ...] = ("model.",)
    required: frozenset[str] = frozenset()
    norm_offset: float = 0.0
    transposed: bool = False
    mixed_heads: bool = False
    ignored: tuple[str, ...] = field(default=IGNORED)


def read(config: Mapping[str, Any]) -> Family:
    """Returns the family of a configuration.

    Raises:
        ModelUnsupportedError: the exact engine does not run this family, or one of its settings.
        KeyError, ValueError, and others of config.MISSTATED: the configuration lacks or misstates something.
    """
    kind = config.get("model_type")
    make = _FAMILIES.get(kind) if isinstance(kind, str) else None
    if make is None:
        raise ModelUnsupportedError(
            f"model_type {shown(kind)} is not one the exact engine runs ({', '.join(sorted(_FAMILIES))})"
        )
    if config.get("quantization_config"):
        raise ModelUnsupportedError("quantised checkpoints are not supported, only floating-point ones")
    return make(config)


# -- Llama and what descends from it -------------------------------------------------------------------------------

_PROJECTIONS = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "out": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}
_NORMS = {
    "input_norm": "input_layernorm",
    "post_norm": "post_attention_layernorm",
    "q_norm": "self_attn.q_norm",
    "k_norm": "self_attn.k_norm",
}
_QK_NORMS = frozenset({"q_norm", "k_norm"})
_ATTENTION_BIASES, _MLP_BIASES = frozenset({"qkv_bias", "out_bias"}), frozenset({"gate_up_bias", "down_bias"})
_FOUR_NORMS = _NORMS | {
    "attention_post_norm": "post_attention_layernorm",
    "post_norm": "pre_feedforward_layernorm",
    "mlp_post_norm": "post_feedforward_layernorm",
}


def _llama(
    config: Mapping[str, Any],
    *,
    windows: tuple[int, ...] | None = None,
    tied: bool = False,
    activation: str | None = None,
    projections: Mapping[str, tuple[str, ...]] = _PROJECTIONS,
    norms: Mapping[str, str] = _NORMS,
    **settings: Any,
) -> Family:
    """Reads the form that these families share.

    Args:
        config: of the model.
        windows: of each layer; None for those of the configuration.
        tied: whether the head is the embedding if the configuration does not say.
        activation: its name; None for that of the configuration.
        projections: name in the int8 form -> names in the checkpoint, of matrices.
        norms: the same of norms.
        settings: further fields of ExactConfig.
    """
    layers, heads, dim = _layers(config), _heads(config), _head_dim(config)
    scale = settings.pop("attention_scale", 0.0)
    settings = {
        "vocab_size": _size(config, "vocab_size", "vocab_size"),
        "hidden_size": _hidden(config),
        "mlp_size": _size(config, "mlp_size", "intermediate_size"),
        "num_layers": layers,
        "num_heads": heads,
        "num_kv_heads": _size(config, "num_kv_heads", "num_key_value_heads", heads),
        "head_dim": dim,
        "norm_eps": tables.float32(number(config, "rms_norm_eps")),
        "windows": _windows(config, layers) if windows is None else windows,
        "activation": _activation(activation or config.get("hidden_act")),
        **_rope_settings(config, dim, scale),
        **settings,
    }
    return Family(
        settings,
        _positions(config, "max_position_embeddings"),
        bool(config.get("tie_word_embeddings", tied)),
        {
            "embedding": ("embed_tokens",),
            "head": ("lm_head",),
            **{f"layers.{{}}.{ours}": tuple(f"layers.{{}}.{x}" for x in names) for ours, names in projections.items()},
        },
        {"final_norm": "norm", **{f"layers.{{}}.{ours}": f"layers.{{}}.{name}" for ours, name in norms.items()}},
    )


def _plain(config: Mapping[str, Any]) -> Family:
    return replace(_llama(config), required=_biases(config))


def _biases(config: Mapping[str, Any]) -> frozenset[str]:
    """Returns the biases that a configuration asks for."""
    attention = _ATTENTION_BIASES if config.get("attention_bias") else frozenset()
    return attention | (_MLP_BIASES if config.get("mlp_bias") else frozenset())


def _qwen(config: Mapping[str, Any], required: frozenset[str]) -> Family:
    layers = _layers(config)
    windows: tuple[int, ...] = (0,) * layers
    if config.get("use_sliding_window"):
        windows = _windows(config, layers, lambda n: n >= number(config, "max_window_layers", 0))
    return replace(_llama(config, windows=windows), required=required)


def _qwen2(config: Mapping[str, Any]) -> Family:
    return _qwen(config, frozenset({"qkv_bias"}))


def _qwen3(config: Mapping[str, Any]) -> Family:
    # Models of `llmzip train` have no bias after the heads, whatever this setting says.
    return _qwen(config, _QK_NORMS | (frozenset({"qkv_bias"}) if config.get("attention_bias") else frozenset()))


def _smollm3(config: Mapping[str, Any]) -> Family:
    layers = _layers(config)
    rotated = config.get("no_rope_layers")
    if rotated is None:
        every = _interval(config, "no_rope_layer_interval", 4)
        rotated = [int((n + 1) % every != 0) for n in range(layers)]
    if not isinstance(rotated, list) or len(rotated) < layers:
        raise misstated("no_rope_layers", rotated)
    windows = _windows(config, layers) if config.get("use_sliding_window") else (0,) * layers
    unrotated = tuple(n for n in range(layers) if not rotated[n])
    family = _llama(config, windows=windows, tied=True, unrotated=unrotated)
    return replace(family, required=_biases(config))


def _phi3(config: Mapping[str, Any]) -> Family:
    fused = _PROJECTIONS | {"qkv": ("self_attn.qkv_proj",), "gate_up": ("mlp.gate_up_proj",)}
    return _llama(config, projections=fused)


def _gemma(config: Mapping[str, Any]) -> Family:
    family = _llama(config, tied=True, activation="gelu_pytorch_tanh", embedding_gain=_embedding_gain(config))
    return replace(family, norm_offset=1.0, required=_biases(config))


def _gemma2(
    config: Mapping[str, Any],
    slides: Callable[[int], bool] = lambda n: n % 2 == 0,
    required: frozenset[str] = frozenset(),
) -> Family:
    family = _llama(
        config,
        windows=_windows(config, _layers(config), slides),
        tied=True,
        activation=config.get("hidden_activation"),
        norms=_FOUR_NORMS,
        attention_scale=_scale(config),
        attention_cap=number(config, "attn_logit_softcapping") if config.get("attn_logit_softcapping") else 0.0,
        logit_cap=number(config, "final_logit_softcapping") if config.get("final_logit_softcapping") else 0.0,
        embedding_gain=_embedding_gain(config),
    )
    return replace(family, norm_offset=1.0, required=required | _biases(config))


def _gemma3(config: Mapping[str, Any]) -> Family:
    if config.get("use_bidirectional_attention"):
        raise ModelUnsupportedError("attention in both directions is not supported: this is not a causal model")
    name = next((x for x in ("sliding_window_pattern", "_sliding_window_pattern") if config.get(x)), "")
    return _gemma2(config, lambda n: (n + 1) % _interval(config, name, 6) != 0, _QK_NORMS)


def _scale(config: Mapping[str, Any]) -> float:
    """Returns 1 / sqrt(query_pre_attn_scalar), or 0, which means 1 / sqrt(D), if that is the same."""
    scalar = number(config, "query_pre_attn_scalar")
    if scalar <= 0:
        raise misstated("query_pre_attn_scalar", scalar)
    return 0.0 if scalar == _head_dim(config) else 1 / math.sqrt(scalar)


def _embedding_gain(config: Mapping[str, Any]) -> float:
    return tables.float32(math.sqrt(_hidden(config)))


# -- GPT-2 and GPT-NeoX --------------------------------------------------------------------------------------------


def _gpt2(config: Mapping[str, Any]) -> Family:
    if config.get("scale_attn_by_inverse_layer_idx") or not config.get("scale_attn_weights", True):
        raise ModelUnsupportedError("GPT-2 with scores scaled by the layer, or not at all, is not supported")
    if config.get("add_cross_attention"):
        raise ModelUnsupportedError("cross attention is not supported: this is not a causal model")
    layers, heads = _size(config, "num_layers", "n_layer"), _size(config, "num_heads", "n_head")
    hidden = _size(config, "hidden_size", "n_embd")
    settings = {
        "vocab_size": _size(config, "vocab_size", "vocab_size"),
        "hidden_size": hidden,
        "mlp_size": _size(config, "mlp_size", "n_inner", 4 * hidden),
        "num_layers": layers,
        "num_heads": heads,
        "num_kv_heads": heads,
        "head_dim": hidden // heads,
        "rope_theta": 10000.0,
        "norm_eps": tables.float32(number(config, "layer_norm_epsilon", 1e-5)),
        "windows": (0,) * layers,
        "norm": "layer",
        "activation": _activation(config.get("activation_function", "gelu_new")),
        "gated": False,
        "unrotated": tuple(range(layers)),
        "learned_positions": True,
    }
    matrices = {"qkv": "attn.c_attn", "out": "attn.c_proj", "gate_up": "mlp.c_fc", "down": "mlp.c_proj"}
    norms = {"input_norm": "ln_1", "post_norm": "ln_2"}
    return Family(
        settings,
        _positions(config, "n_positions", 1024),
        bool(config.get("tie_word_embeddings", True)),
        {
            "embedding": ("wte",),
            "positions": ("wpe",),
            "head": ("lm_head",),
            **{f"layers.{{}}.{ours}": (f"h.{{}}.{name}",) for ours, name in matrices.items()},
        },
        {"final_norm": "ln_f", **{f"layers.{{}}.{ours}": f"h.{{}}.{name}" for ours, name in norms.items()}},
        prefixes=("transformer.", ""),
        required=_ATTENTION_BIASES | _MLP_BIASES,
        transposed=True,
    )


def _gpt_neox(config: Mapping[str, Any]) -> Family:
    layers, heads, hidden = _layers(config), _heads(config), _hidden(config)
    dim = checked_size("head_dim", hidden // heads)
    settings = {
        "vocab_size": _size(config, "vocab_size", "vocab_size"),
        "hidden_size": hidden,
        "mlp_size": _size(config, "mlp_size", "intermediate_size"),
        "num_layers": layers,
        "num_heads": heads,
        "num_kv_heads": heads,
        "head_dim": dim,
        "norm_eps": tables.float32(number(config, "layer_norm_eps", 1e-5)),
        "windows": (0,) * layers,
        "norm": "layer",
        "activation": _activation(config.get("hidden_act", "gelu")),
        "gated": False,
        "parallel": bool(config.get("use_parallel_residual", True)),
        **_rope_settings({"rotary_pct": 0.25} | dict(config), dim, 0.0),
    }
    matrices = {
        "qkv": "attention.query_key_value",
        "out": "attention.dense",
        "gate_up": "mlp.dense_h_to_4h",
        "down": "mlp.dense_4h_to_h",
    }
    norms = {"input_norm": "input_layernorm", "post_norm": "post_attention_layernorm"}
    return Family(
        settings,
        _positions(config, "max_position_embeddings"),
        bool(config.get("tie_word_embeddings", False)),
        {
            "embedding": ("embed_in",),
            "head": ("embed_out",),
            **{f"layers.{{}}.{ours}": (f"layers.{{}}.{name}",) for ours, name in matrices.items()},
        },
        {
            "final_norm": "final_layer_norm",
            **{f"layers.{{}}.{ours}": f"layers.{{}}.{name}" for ours, name in norms.items()},
        },
        prefixes=("gpt_neox.",),
        required=_MLP_BIASES | _biases({"attention_bias": True} | dict(config)),
        mixed_heads=True,
    )


_FAMILIES: dict[str, Callable[[Mapping[str, Any]], Family]] = {
    "llama": _plain,
    "mistral": _llama,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "smollm3": _smollm3,
    "phi3": _phi3,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
}
NAMES: Sequence[str] = tuple(_FAMILIES)
"""Values of model_type that the exact engine runs."""


# -- parts that several share ---------------------------------------------------------------------------------------


def _size(config: Mapping[str, Any], field: str, name: str, default: int | None = None) -> int:
    """Returns a size within ExactConfig's limits: lists of this length are made before ExactConfig can check it."""
    value = config[name] if default is None else config.get(name) or default
    return checked_size(field, value)


def _layers(config: Mapping[str, Any]) -> int:
    return _size(config, "num_layers", "num_hidden_layers")


def _heads(config: Mapping[str, Any]) -> int:
    return _size(config, "num_heads", "num_attention_heads")


def _hidden(config: Mapping[str, Any]) -> int:
    return _size(config, "hidden_size", "hidden_size")


def _head_dim(config: Mapping[str, Any]) -> int:
    return _size(config, "head_dim", "head_dim", _hidden(config) // _heads(config) or None)


def _positions(config: Mapping[str, Any], name: str, default: int | None = None) -> int:
    """Returns the maximum positions that the model was made for; some tools write the number as a float."""
    value = config[name] if default is None else config.get(name, default)
    if type(value) not in (int, float) or not value >= 1:
        raise misstated(name, value)
    positions = min(value, _MAX_POSITIONS)
    if positions != int(positions):
        raise misstated(name, value)
    return int(positions)


def _interval(config: Mapping[str, Any], name: str, default: int) -> float:
    """Returns after how many layers something comes again."""
    interval = number(config, name, default)
    if not interval:
        raise misstated(name, config[name])
    return interval


def _activation(name: Any) -> str:
    if not isinstance(name, str) or name not in _ACTIVATIONS:
        raise ModelUnsupportedError(f"activation {shown(name)} is not supported, only {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


def _windows(config: Mapping[str, Any], layers: int, slides: Callable[[int], bool] = lambda n: True) -> tuple[int, ...]:
    """Returns the window of each layer; `slides` says which layers have one if the configuration does not."""
    window = config.get("sliding_window") or 0
    kinds = config.get("layer_types")
    if kinds is None:
        return tuple(window if slides(n) else 0 for n in range(layers))
    if not isinstance(kinds, list):
        raise misstated("layer_types", kinds)
    odd = [kind for kind in kinds if kind not in ("full_attention", "sliding_attention")]
    if odd or len(kinds) != layers:
        raise ModelUnsupportedError(f"layer types {shown(odd[:1])} or their number, {len(kinds)}, are not supported")
    return tuple(window if kind == "sliding_attention" else 0 for kind in kinds)


def _rope_settings(config: Mapping[str, Any], head_dim: int, scale: float) -> dict[str, Any]:
    """Returns the rotary positions of all layers, of those with a window if they differ, and the scores' factor."""
    name = "rope_parameters" if config.get("rope_parameters") else "rope_scaling"
    parameters = _object(config, name)
    local: rope.Rope | None = None
    if any(isinstance(value, dict) for value in parameters.values()):
        if set(parameters) - {"full_attention", "sliding_attention"}:
            raise ModelUnsupportedError(f"rotary parameters for {', '.join(map(str, parameters))} are not supported")
        local = rope.read({}, _object(parameters, "sliding_attention"), head_dim)
        parameters = _object(parameters, "full_attention")
    elif config.get("rope_local_base_freq"):
        local = rope.read({}, {"rope_theta": config["rope_local_base_freq"]}, head_dim)
    main = rope.read(config, parameters, head_dim)
    if main.gain != 1 or (local is not None and local.gain != 1):
        if local is not None or 2 * len(main.steps) < head_dim:
            raise ModelUnsupportedError("rotary gains of a part of the layers or of the heads are not supported")
        scale = (scale or 1 / math.sqrt(head_dim)) * main.gain**2
    settings: dict[str, Any] = {"rope_theta": main.theta, "attention_scale": scale}
    if not main.plain or local is not None:
        settings["rope_steps"] = main.steps
    if local is not None and local.steps != main.steps:
        settings["local_rope_steps"] = local.steps
    return settings


def _object(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Returns a part of a configuration, {} if it is missing."""
    part = config.get(name) or {}
    if not isinstance(part, dict):
        raise misstated(name, part)
    return part
