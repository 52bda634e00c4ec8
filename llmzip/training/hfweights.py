"""A network's weights under the names of Hugging Face checkpoints, and back. Must not know how they are trained."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from ..errors import ModelUnsupportedError
from ..models import families
from ..models.model import ExactModel, Weights
from .network import Network
from .shapes import MAX_SEQUENCE, Shape

_PLAIN = {
    "input_norm": "input_layernorm",
    "out": "self_attn.o_proj",
    "q_norm": "self_attn.q_norm",
    "k_norm": "self_attn.k_norm",
    "post_norm": "post_attention_layernorm",
    "down": "mlp.down_proj",
}


def names(shape: Shape) -> dict[str, list[tuple[str, int]]]:
    """Returns parameter of the network -> its parts in a checkpoint, with the rows of each."""
    parts = {"embedding": [("model.embed_tokens.weight", shape.vocab_size)]}
    if not shape.tied:
        parts["head"] = [("lm_head.weight", shape.vocab_size)]
    rows = {"out": shape.hidden_size, "down": shape.hidden_size, "q_norm": shape.head_dim, "k_norm": shape.head_dim}
    for number in range(shape.num_layers):
        ours, theirs = f"layers.{number}.", f"model.layers.{number}."
        for name, place in _PLAIN.items():
            if shape.qk_norm or name not in ("q_norm", "k_norm"):
                parts[ours + name] = [(f"{theirs}{place}.weight", rows.get(name, shape.hidden_size))]
        projections = list(zip("qkv", shape.qkv_sizes, strict=True))
        parts[f"{ours}qkv"] = [(f"{theirs}self_attn.{x}_proj.weight", size) for x, size in projections]
        if shape.qkv_bias:
            parts[f"{ours}qkv_bias"] = [(f"{theirs}self_attn.{x}_proj.bias", size) for x, size in projections]
        parts[f"{ours}gate_up"] = [(f"{theirs}mlp.{x}_proj.weight", shape.mlp_size) for x in ("gate", "up")]
    return parts | {"final_norm": [("model.norm.weight", shape.hidden_size)]}


def export(network: Network) -> dict[str, torch.Tensor]:
    """Returns all weights under Hugging Face's names, float32 on the CPU."""
    parameters = dict(network.named_parameters())
    tensors: dict[str, torch.Tensor] = {}
    for name, parts in names(network.shape).items():
        pieces = parameters[name].detach().cpu().split([rows for _, rows in parts])  # type: ignore[no-untyped-call]
        tensors |= {theirs: piece.contiguous() for (theirs, _), piece in zip(parts, pieces, strict=True)}
    return tensors


def load(network: Network, tensors: Mapping[str, torch.Tensor], shape: Shape | None = None) -> None:
    """Fills a network from a checkpoint.

    Args:
        network: to fill.
        tensors: of the checkpoint.
        shape: of the checkpoint, if the network has more layers, which stay as they are; None for the network's.

    Raises:
        ModelUnsupportedError: a tensor is missing or of another shape, or the network has no place for it.
    """
    parameters, places = dict(network.named_parameters()), names(shape or network.shape)
    known = {theirs for parts in places.values() for theirs, _ in parts} | {"lm_head.weight"}  # a tied one is not read
    left = [name for name in tensors if name not in known and not name.endswith(families.IGNORED)]
    if left:
        raise ModelUnsupportedError(f"weights: unknown tensor {min(left)}: this model cannot be trained here")
    with torch.no_grad():
        for name, parts in places.items():
            missing = [theirs for theirs, _ in parts if theirs not in tensors]
            if missing:
                raise ModelUnsupportedError(f"weights: tensor {missing[0]} is missing")
            begin = 0
            for theirs, rows in parts:
                tensor, size = tensors[theirs], (rows, *parameters[name].shape[1:])
                if tensor.shape != size:
                    raise ModelUnsupportedError(f"weights: {theirs} is {tuple(tensor.shape)}, not {size}")
                parameters[name][begin : begin + rows] = tensor
                begin += rows


def load_int8(network: Network, model: ExactModel) -> None:
    """Fills a network from an int8 form: each weight is the integer times its row's scale; added layers stay."""
    tensors = model.tensors()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name not in tensors and f"{name}_q" not in tensors:
                continue
            matrix = parameter.ndim == 2
            if matrix:
                rows, scale = _tensor(tensors[f"{name}_q"]), _tensor(tensors[f"{name}_scale"])
                parameter.copy_(rows * scale[:, None])
            else:
                parameter.copy_(_tensor(tensors[name]))


def _tensor(weights: Weights) -> torch.Tensor:
    """Returns a copy of weights as a tensor: torch warns of arrays that cannot be written to."""
    return torch.from_numpy(np.array(weights))


def shape_of_int8(model: ExactModel, sequence: int | None) -> Shape:
    """Returns the shape that a network must have to be filled from an int8 form.

    Args:
        model: the int8 form.
        sequence: tokens of a training sequence; None for the model's window, at most 1,024.

    Raises:
        ModelUnsupportedError: the model has biases where no network has them.
    """
    config, layer = model.config, model.layers[0]
    if any(bias is not None for bias in (layer.out_bias, layer.gate_up_bias, layer.down_bias)):
        raise ModelUnsupportedError("a model with these biases cannot be trained here")
    window = min((window for window in config.windows if window), default=config.context)
    return Shape(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        num_kv_heads=config.num_kv_heads,
        head_dim=config.head_dim,
        mlp_size=config.mlp_size,
        sequence=sequence or min(window, MAX_SEQUENCE),
        rope_theta=config.rope_theta,
        norm_eps=config.norm_eps,
        qk_norm=layer.q_norm is not None,
        qkv_bias=layer.qkv_bias is not None,
        tied=model.is_tied,
    )
