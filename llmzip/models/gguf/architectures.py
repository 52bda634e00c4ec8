"""From the metadata of a GGUF file to the configuration of the checkpoint that it was made from, and to its names.

llama.cpp's converter renames and rearranges what a checkpoint holds; each architecture here says how that is undone.
Whatever the metadata ask for and the configuration cannot say is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...errors import ModelUnsupportedError
from .fields import Fields
from .reader import GgufFile
from .rope import rope_settings

_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_FOUR_NORMS = _NAMES | {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_FUSED = _NAMES | {"attn_qkv": "self_attn.qkv_proj", "ffn_up": "mlp.gate_up_proj"}
_GPT2 = {
    "attn_norm": "ln_1",
    "attn_qkv": "attn.c_attn",
    "attn_output": "attn.c_proj",
    "ffn_norm": "ln_2",
    "ffn_up": "mlp.c_fc",
    "ffn_down": "mlp.c_proj",
}
_ENDS = {"token_embd": "embed_tokens", "output_norm": "norm"}
_GPT2_ENDS = {"token_embd": "wte", "position_embd": "wpe", "output_norm": "ln_f"}

_UNSUPPORTED = {
    "expert_count": "a mixture of experts",
    "attention.clamp_kqv": "clamped queries, keys and values",
    "attention.max_alibi_bias": "positions by ALiBi",
    "logit_scale": "scaled logits",
    "embedding_scale": "a scaled embedding",
    "residual_scale": "scaled residuals",
    "rope.scaling.yarn_log_multiplier": "YaRN with a logarithmic multiplier",
    "attention.kv_lora_rank": "latent attention",
    "pooling_type": "pooling, of a model for embeddings,",
}
"""Fields that must be missing or 0 -> what they ask for."""
_LARGE_GEMMA = {"gemma2": 46, "gemma3": 62}
"""Layers of the 27B models, whose scores are scaled by hidden size and heads rather than the head size."""
_GEMMA_CAPS = {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0}
"""Soft caps of Gemma 2, which llama.cpp takes if the metadata do not give them."""


@dataclass(frozen=True)
class Architecture:
    """How llama.cpp lays out the checkpoints of one family.

    Attributes:
        model_type: of the checkpoint's config.json.
        layer: name of a part of a layer -> its name in the checkpoint.
        ends: the same of what is outside of the layers.
        prefix: of all names in the checkpoint but the head's.
        layers: name of the list of layers in the checkpoint.
        permuted: whether rows of queries and keys are paired for llama.cpp's rotary positions.
        norm_offset: number that was added to the weights of the norms.
        transposed: whether the checkpoint stores the layers' matrices (inputs, outputs).
        more: further settings of its configuration.
    """

    model_type: str
    layer: Mapping[str, str] = field(default_factory=lambda: _NAMES)
    ends: Mapping[str, str] = field(default_factory=lambda: _ENDS)
    prefix: str = "model."
    layers: str = "layers"
    permuted: bool = False
    norm_offset: float = 0.0
    transposed: bool = False
    more: Callable[[Fields], dict[str, Any]] = lambda fields: {}

    def checkpoint_name(self, name: str) -> str:
        """Returns the name in the checkpoint of a tensor of the file; a tensor that is not known keeps its own."""
        part, _, suffix = name.rpartition(".")
        if part == "output":
            return f"lm_head.{suffix}"
        if part in self.ends:
            return f"{self.prefix}{self.ends[part]}.{suffix}"
        block, _, rest = part.partition(".")
        number, _, inner = rest.partition(".")
        if block == "blk" and inner in self.layer:
            return f"{self.prefix}{self.layers}.{number}.{self.layer[inner]}.{suffix}"
        return name


def architecture(file: GgufFile) -> Architecture:
    """Returns the architecture of a file.

    Raises:
        ModelUnsupportedError: it is not a language model of a supported architecture.
    """
    kind = file.metadata.get("general.type", "model")
    if kind != "model":
        raise ModelUnsupportedError(f"it holds no model: its general.type is {kind!r:.50}")
    name = file.metadata.get("general.architecture")
    if not isinstance(name, str) or name not in _ARCHITECTURES:
        raise ModelUnsupportedError(
            f"GGUF architecture {name!r:.50} is not supported, only {', '.join(_ARCHITECTURES)}"
        )
    return _ARCHITECTURES[name]


def config(file: GgufFile) -> dict[str, Any]:
    """Returns the config.json of the checkpoint that a file was made from, as far as the file gives it.

    Raises:
        ModelUnsupportedError: an architecture or a setting that is not supported, or a field that is missing.
    """
    family, fields = architecture(file), Fields(file)
    for name, what in _UNSUPPORTED.items():
        if fields.get(name):
            raise ModelUnsupportedError(f"{what} is not supported ({fields.full(name)})")
    if fields.get("attention.causal") is False:
        raise ModelUnsupportedError("attention in both directions is not supported: this is not a causal model")
    embedding = file.tensors.get("token_embd.weight")
    if embedding is None:
        raise ModelUnsupportedError("weights: tensor token_embd.weight is missing")
    common: dict[str, Any] = {
        "model_type": family.model_type,
        "vocab_size": embedding.shape[0],
        "tie_word_embeddings": "output.weight" not in file.tensors,
    }
    for name in ("bos", "eos"):
        token = file.metadata.get(f"tokenizer.ggml.{name}_token_id")
        if type(token) is int:
            common[f"{name}_token_id"] = token
    return common | family.more(fields)


# -- settings of the architectures -----------------------------------------------------------------------------------


def _llama_like(fields: Fields) -> dict[str, Any]:
    """Returns the settings that all but GPT-2 share."""
    hidden, heads = fields.integer("embedding_length"), fields.same("attention.head_count")
    if not heads:
        raise ModelUnsupportedError(f"layers without heads are not supported ({fields.full('attention.head_count')})")
    head_dim = fields.integer("attention.key_length", hidden // heads)
    if fields.integer("attention.value_length", head_dim) != head_dim:
        raise ModelUnsupportedError("keys and values of different sizes are not supported")
    scale = fields.number("attention.scale", 0.0)
    if not head_dim:
        raise ModelUnsupportedError(f"heads of no size are not supported ({fields.full('attention.key_length')})")
    if scale and not math.isclose(scale, head_dim**-0.5, rel_tol=1e-5):
        raise ModelUnsupportedError(f"an attention scale of {scale:.6g} is not supported")
    settings = {
        "hidden_act": "silu",
        "hidden_size": hidden,
        "intermediate_size": fields.same("feed_forward_length"),
        "num_hidden_layers": fields.integer("block_count"),
        "num_attention_heads": heads,
        "num_key_value_heads": fields.same("attention.head_count_kv", heads),
        "head_dim": head_dim,
        "rms_norm_eps": fields.number("attention.layer_norm_rms_epsilon"),
        "max_position_embeddings": fields.integer("context_length"),
    }
    rotated = fields.integer("rope.dimension_count", head_dim)
    rope = rope_settings(fields, head_dim, rotated)
    if rotated != head_dim:
        settings["partial_rotary_factor"] = (rotated + 0.5) / head_dim  # the product is cut to an integer
    return settings | rope


def _llama(fields: Fields) -> dict[str, Any]:
    settings = _llama_like(fields)
    if "partial_rotary_factor" in settings:
        raise ModelUnsupportedError("heads that are rotated in part are not supported for this architecture")
    window = fields.integer("attention.sliding_window", 0)
    return settings | ({"model_type": "mistral", "sliding_window": window} if window else {})


def _without_window(fields: Fields) -> dict[str, Any]:
    if fields.integer("attention.sliding_window", 0):
        raise ModelUnsupportedError(f"sliding windows are not supported ({fields.full('attention.sliding_window')})")
    return _llama_like(fields)


def _smollm3(fields: Fields) -> dict[str, Any]:
    settings = _without_window(fields)
    if "partial_rotary_factor" in settings:
        raise ModelUnsupportedError("heads that are rotated in part are not supported for this architecture")
    return settings | {"no_rope_layer_interval": 4}


def _phi3(fields: Fields) -> dict[str, Any]:
    return _llama_like(fields) | {"sliding_window": fields.integer("attention.sliding_window", 0) or None}


def _gemma2(fields: Fields) -> dict[str, Any]:
    return _gemma_windows(fields, _llama_like(fields), 4096, 2) | {
        name: fields.number(name, default) for name, default in _GEMMA_CAPS.items()
    }


def _gemma3(fields: Fields) -> dict[str, Any]:
    settings = _gemma_windows(fields, _llama_like(fields), 0, 6)
    local = fields.number("rope.freq_base_swa", 10000.0)
    cap = fields.number("final_logit_softcapping", 0.0)
    return settings | {"rope_local_base_freq": local, "final_logit_softcapping": cap or None}


def _gemma_windows(fields: Fields, settings: dict[str, Any], window: int, period: int) -> dict[str, Any]:
    """Adds which layers slide, and the scale of the scores.

    Args:
        fields: of the file.
        settings: so far.
        window: positions, if the metadata do not give them; 0 for no windows.
        period: after how many layers one comes that does not slide, if the metadata do not give it.
    """
    layers = settings["num_hidden_layers"]
    pattern = fields.listed("attention.sliding_window_pattern")
    if pattern is None:
        every = fields.integer("attention.sliding_window_pattern", period)
        pattern = [every == 0 or n % every < every - 1 for n in range(min(layers, 1 << 16))]
    heads, hidden = settings["num_attention_heads"], settings["hidden_size"]
    is_large = layers == _LARGE_GEMMA[fields.architecture]
    return settings | {
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": fields.integer("attention.sliding_window", window) or None,
        "layer_types": ["sliding_attention" if slides else "full_attention" for slides in pattern],
        "query_pre_attn_scalar": hidden // heads if is_large else settings["head_dim"],
    }


def _gpt2(fields: Fields) -> dict[str, Any]:
    heads = fields.same("attention.head_count")
    if fields.same("attention.head_count_kv", heads) != heads:
        raise ModelUnsupportedError("GPT-2 with fewer heads for keys and values is not supported")
    return {
        "n_embd": fields.integer("embedding_length"),
        "n_inner": fields.same("feed_forward_length"),
        "n_layer": fields.integer("block_count"),
        "n_head": heads,
        "n_positions": fields.integer("context_length"),
        "layer_norm_epsilon": fields.number("attention.layer_norm_epsilon"),
        "activation_function": "gelu_new",
    }


_ARCHITECTURES = {
    "llama": Architecture("llama", permuted=True, more=_llama),
    "qwen2": Architecture("qwen2", more=_without_window),
    "qwen3": Architecture("qwen3", more=_without_window),
    "gemma": Architecture("gemma", norm_offset=1.0, more=_without_window),
    "gemma2": Architecture("gemma2", _FOUR_NORMS, norm_offset=1.0, more=_gemma2),
    "gemma3": Architecture("gemma3_text", _FOUR_NORMS, norm_offset=1.0, more=_gemma3),
    "phi3": Architecture("phi3", _FUSED, more=_phi3),
    "smollm3": Architecture("smollm3", permuted=True, more=_smollm3),
    "gpt2": Architecture("gpt2", _GPT2, _GPT2_ENDS, prefix="", layers="h", transposed=True, more=_gpt2),
}
"""Names of general.architecture -> layouts."""
