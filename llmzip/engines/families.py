"""How the families of Hugging Face decoders name and shape their parts; must not know tensors' values or engines.

Each function reads a config.json and says which settings of the exact arithmetic it means and where the checkpoint
keeps the weights. What a family's configuration can say and the exact engine cannot run is refused here, by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import ModelUnsupportedError
from . import rope, tables

_ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
}
_IGNORED = ("rotary_emb.inv_freq", "attn.bias", "attn.masked_bias", "attention.bias", "attention.masked_bias")


@dataclass(frozen=True)
class Family:
    """What a configuration means.

    Attributes:
        settings: fields of ExactConfig, all but planes, context and start_token.
        positions: most positions that the model was made for.
        tied: the head is the embedding, whatever the checkpoint holds.
        matrices: name in the int8 form, with {} for the layer -> names in the checkpoint that are joined, row by row.
        vectors: norms, likewise; each is one tensor.
        prefixes: that names in the checkpoint may have.
        norm_offset: added to the weights of RMS norms.
        transposed: matrices are stored (inputs, outputs).
        mixed_heads: rows of the joined queries, keys and values lie head by head.
        ignored: ends of names of tensors that are no weights.
    """

    settings: dict[str, Any]
    positions: int
    tied: bool
    matrices: dict[str, tuple[str, ...]]
    vectors: dict[str, str]
    prefixes: tuple[str, ...] = ("model.",)
    norm_offset: float = 0.0
    transposed: bool = False
    mixed_heads: bool = False
    ignored: tuple[str, ...] = field(default=_IGNORED)


def read(config: Mapping[str, Any]) -> Family:
    """The family of a configuration.

    Raises:
        ModelUnsupportedError: one that the exact engine does not run, or a setting of it.
        KeyError, TypeError, ValueError, ArithmeticError: the configuration lacks or misstates something.
    """
    kind = config.get("model_type")
    make = _FAMILIES.get(kind) if isinstance(kind, str) else None
    if make is None:
        raise ModelUnsupportedError(
            f"model_type {kind!r} is not one the exact engine runs ({', '.join(sorted(_FAMILIES))})"
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
_FOUR_NORMS = _NORMS | {
    "attention_post_norm": "post_attention_layernorm",
    "post_norm": "pre_feedforward_layernorm",
    "mlp_post_norm": "post_feedforward_layernorm",
}


def _llama(
    config: Mapping[str, Any],
    windows: tuple[int, ...] | None = None,
    tied: bool = False,
    activation: str | None = None,
    projections: Mapping[str, tuple[str, ...]] = _PROJECTIONS,
    norms: Mapping[str, str] = _NORMS,
    norm_offset: float = 0.0,
    **settings: Any,
) -> Family:
    """The common form; `windows` None for what the configuration says."""
    layers, heads = config["num_hidden_layers"], config["num_attention_heads"]
    dim = config.get("head_dim") or config["hidden_size"] // heads
    scale = settings.pop("attention_scale", 0.0)
    settings = {
        "vocab_size": config["vocab_size"],
        "hidden_size": config["hidden_size"],
        "mlp_size": config["intermediate_size"],
        "num_layers": layers,
        "num_heads": heads,
        "num_kv_heads": config.get("num_key_value_heads") or heads,
        "head_dim": dim,
        "norm_eps": tables.float32(float(config["rms_norm_eps"])),
        "windows": _windows(config, layers) if windows is None else windows,
        "activation": _activation(activation or config.get("hidden_act")),
        **_rope_settings(config, dim, scale),
        **settings,
    }
    return Family(
        settings,
        config["max_position_embeddings"],
        bool(config.get("tie_word_embeddings", tied)),
        {
            "embedding": ("embed_tokens",),
            "head": ("lm_head",),
            **{f"layers.{{}}.{ours}": tuple(f"layers.{{}}.{x}" for x in names) for ours, names in projections.items()},
        },
        {"final_norm": "norm", **{f"layers.{{}}.{ours}": f"layers.{{}}.{name}" for ours, name in norms.items()}},
        norm_offset=norm_offset,
    )


def _qwen(config: Mapping[str, Any]) -> Family:
    layers = config["num_hidden_layers"]
    if not config.get("use_sliding_window"):
        return _llama(config, (0,) * layers)
    full = config.get("max_window_layers", 0)
    return _llama(config, _windows(config, layers, lambda n: n >= full))


def _smollm3(config: Mapping[str, Any]) -> Family:
    layers = config["num_hidden_layers"]
    rotated = config.get("no_rope_layers")
    if rotated is None:
        every = config.get("no_rope_layer_interval", 4)
        rotated = [int((n + 1) % every != 0) for n in range(layers)]
    windows = _windows(config, layers) if config.get("use_sliding_window") else (0,) * layers
    return _llama(config, windows, tied=True, unrotated=tuple(n for n in range(layers) if not rotated[n]))


def _phi3(config: Mapping[str, Any]) -> Family:
    fused = _PROJECTIONS | {"qkv": ("self_attn.qkv_proj",), "gate_up": ("mlp.gate_up_proj",)}
    return _llama(config, projections=fused)


def _gemma(config: Mapping[str, Any]) -> Family:
    return _llama(
        config, tied=True, activation="gelu_pytorch_tanh", norm_offset=1.0, embedding_gain=_embedding_gain(config)
    )


def _gemma2(config: Mapping[str, Any], slides: Callable[[int], bool] = lambda n: n % 2 == 0) -> Family:
    return _llama(
        config,
        _windows(config, config["num_hidden_layers"], slides),
        tied=True,
        activation=config.get("hidden_activation"),
        norms=_FOUR_NORMS,
        norm_offset=1.0,
        attention_scale=_scale(config),
        attention_cap=float(config.get("attn_logit_softcapping") or 0.0),
        logit_cap=float(config.get("final_logit_softcapping") or 0.0),
        embedding_gain=_embedding_gain(config),
    )


def _gemma3(config: Mapping[str, Any]) -> Family:
    if config.get("use_bidirectional_attention"):
        raise ModelUnsupportedError("attention in both directions is not supported: this is no causal model")
    every = config.get("sliding_window_pattern") or config.get("_sliding_window_pattern") or 6
    return _gemma2(config, lambda n: (n + 1) % every != 0)


def _scale(config: Mapping[str, Any]) -> float:
    """1 / sqrt(query_pre_attn_scalar); 0, which means 1 / sqrt(D), where that is the same."""
    wanted, heads = config["query_pre_attn_scalar"], config["num_attention_heads"]
    dim = config.get("head_dim") or config["hidden_size"] // heads
    return 0.0 if wanted == dim else 1 / math.sqrt(wanted)


def _embedding_gain(config: Mapping[str, Any]) -> float:
    return tables.float32(math.sqrt(config["hidden_size"]))


# -- GPT-2 and GPT-NeoX --------------------------------------------------------------------------------------------


def _gpt2(config: Mapping[str, Any]) -> Family:
    if config.get("scale_attn_by_inverse_layer_idx") or not config.get("scale_attn_weights", True):
        raise ModelUnsupportedError("GPT-2 with scores scaled by the layer, or not at all, is not supported")
    if config.get("add_cross_attention"):
        raise ModelUnsupportedError("cross attention is not supported: this is no causal model")
    layers, heads, hidden = config["n_layer"], config["n_head"], config["n_embd"]
    settings = {
        "vocab_size": config["vocab_size"],
        "hidden_size": hidden,
        "mlp_size": config.get("n_inner") or 4 * hidden,
        "num_layers": layers,
        "num_heads": heads,
        "num_kv_heads": heads,
        "head_dim": hidden // heads,
        "rope_theta": 10000.0,
        "norm_eps": tables.float32(float(config.get("layer_norm_epsilon", 1e-5))),
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
        config.get("n_positions", 1024),
        bool(config.get("tie_word_embeddings", True)),
        {
            "embedding": ("wte",),
            "positions": ("wpe",),
            "head": ("lm_head",),
            **{f"layers.{{}}.{ours}": (f"h.{{}}.{name}",) for ours, name in matrices.items()},
        },
        {"final_norm": "ln_f", **{f"layers.{{}}.{ours}": f"h.{{}}.{name}" for ours, name in norms.items()}},
        prefixes=("transformer.", ""),
        transposed=True,
    )


def _gpt_neox(config: Mapping[str, Any]) -> Family:
    layers, heads, hidden = config["num_hidden_layers"], config["num_attention_heads"], config["hidden_size"]
    dim = hidden // heads
    settings = {
        "vocab_size": config["vocab_size"],
        "hidden_size": hidden,
        "mlp_size": config["intermediate_size"],
        "num_layers": layers,
        "num_heads": heads,
        "num_kv_heads": heads,
        "head_dim": dim,
        "norm_eps": tables.float32(float(config.get("layer_norm_eps", 1e-5))),
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
        config["max_position_embeddings"],
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
        mixed_heads=True,
    )


_FAMILIES: dict[str, Callable[[Mapping[str, Any]], Family]] = {
    "llama": _llama,
    "mistral": _llama,
    "qwen2": _qwen,
    "qwen3": _qwen,
    "smollm3": _smollm3,
    "phi3": _phi3,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3_text": _gemma3,
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
}
NAMES: Sequence[str] = tuple(_FAMILIES)


# -- parts that several have ---------------------------------------------------------------------------------------


def _activation(name: Any) -> str:
    if name not in _ACTIVATIONS:
        raise ModelUnsupportedError(f"activation {name!r} is not supported, only {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


def _windows(config: Mapping[str, Any], layers: int, slides: Callable[[int], bool] = lambda n: True) -> tuple[int, ...]:
    """The window of each layer; `slides` tells which layers have one where the configuration does not."""
    window = config.get("sliding_window") or 0
    kinds = config.get("layer_types")
    if kinds is None:
        return tuple(window if slides(n) else 0 for n in range(layers))
    odd = set(kinds) - {"full_attention", "sliding_attention"}
    if odd or len(kinds) != layers:
        raise ModelUnsupportedError(f"layer types {sorted(odd)} or their number, {len(kinds)}, are not supported")
    return tuple(window if kind == "sliding_attention" else 0 for kind in kinds)


def _rope_settings(config: Mapping[str, Any], head_dim: int, scale: float) -> dict[str, Any]:
    """The rotary positions of all layers, and of those with a window if they differ; with them the scores' factor."""
    found = config.get("rope_parameters") or config.get("rope_scaling") or {}
    local: rope.Rope | None = None
    if any(isinstance(value, dict) for value in found.values()):
        if set(found) - {"full_attention", "sliding_attention"}:
            raise ModelUnsupportedError(f"rotary parameters for {', '.join(map(str, found))} are not supported")
        local = rope.read({}, found.get("sliding_attention") or {}, head_dim)
        found = found.get("full_attention") or {}
    elif config.get("rope_local_base_freq"):
        local = rope.read({}, {"rope_theta": config["rope_local_base_freq"]}, head_dim)
    main = rope.read(config, found, head_dim)
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
