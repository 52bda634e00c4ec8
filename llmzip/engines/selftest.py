"""The self-test that every device must pass before it may run a model; must not know real models.

Tiny models made of integer patterns compute masses and intervals of a fixed text, at once and token by token, and the
SHA-256 of the results, the transcript, must be the stored one. They exercise every operation of the engine: both kinds
of norms, whole and partial rotary tables, learned positions, grouped heads, biases, a window that moves, one and two
planes, activations of every kind on both sides of zero, soft caps (docs/numerics.md, rule R5); compiled kernels also
masses with `floor_bits`.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import replace
from typing import Any

import torch

from ..errors import EngineError
from ..models.config import ExactConfig
from ..models.model import ExactModel, LayerWeights
from .cpu import kernels
from .exact import ExactEngine
from .frequencies import Frequencies

TRANSCRIPT = "efaf1eefc4d23f1647d6d7d91706227ce2f172a80211e5dd514f7dbf89cfb5f2"
"""What `transcript` returns on every device that computes the exact arithmetic."""

_STEPS = [1, 1, 1, 6, 12, 12]
"""How the text is cut for the second pass: single tokens, and more tokens than the window's cache holds."""

_VOCAB, _HIDDEN, _MLP, _HEADS, _KV_HEADS, _DIM = 50, 24, 40, 4, 2, 8
"""Sizes of the tiny models."""


def _pattern(salt: int, *shape: int) -> torch.Tensor:
    """Returns integers from -127 to 127 that look random, computed in integer arithmetic alone."""
    count = 1
    for size in shape:
        count *= size
    n = torch.arange(count, dtype=torch.int64, device="cpu") + 1000 * salt
    return ((((n * n * 40503 + n * 2654435761) >> 9) % 255) - 127).view(shape)


def _matrix(salt: int, rows: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    scale = (_pattern(salt + 1, rows).abs() + 64).to(torch.float32) * 2.0**-14
    return _pattern(salt, rows, columns).to(torch.int8), scale


def _vector(salt: int, size: int, offset: float = 0.0) -> torch.Tensor:
    return _pattern(salt, size).to(torch.float32) * 2.0**-8 + offset


def _layer(salt: int, extras: bool) -> LayerWeights:
    width = (_HEADS + 2 * _KV_HEADS) * _DIM
    return LayerWeights(
        _vector(salt, _HIDDEN, 1.0),
        *_matrix(salt + 2, width, _HIDDEN),
        *_matrix(salt + 4, _HIDDEN, _HEADS * _DIM),
        _vector(salt + 6, _HIDDEN, 1.0),
        *_matrix(salt + 8, 2 * _MLP, _HIDDEN),
        *_matrix(salt + 10, _HIDDEN, _MLP),
        qkv_bias=_vector(salt + 12, width) if extras else None,
        q_norm=_vector(salt + 13, _DIM, 2.0) if extras else None,
        k_norm=_vector(salt + 14, _DIM, 2.0) if extras else None,
    )


_FORMS: tuple[dict[str, Any], ...] = (
    {},
    {
        "activation": "gelu_tanh", "attention_cap": 3.0, "logit_cap": 5.0, "embedding_gain": 2.5,
        "attention_scale": 0.3, "rope_steps": (1 << 61, 1 << 55), "local_rope_steps": (1 << 59, 3 << 50),
        "unrotated": (0,),
    },
    {
        "activation": "gelu", "norm": "layer", "gated": False, "parallel": True, "learned_positions": True,
        "rope_steps": (1 << 60,),
    },
)  # fmt: skip
"""Fields of the configuration in which the tiny models differ."""

_TINY = ((1, 0), (2, 0), (1, 1), (2, 2))
"""Planes and forms of the tiny models that a device computes."""


def tiny_model(planes: int, form: int = 0) -> ExactModel:
    """Builds a model of two layers, one with biases, q/k norms and a window.

    Args:
        planes: 1 or 2.
        form: which of _FORMS: 0 as Llama, 1 as Gemma, 2 as GPT-NeoX.
    """
    fields = _FORMS[form]
    config = ExactConfig(
        vocab_size=_VOCAB,
        hidden_size=_HIDDEN,
        mlp_size=_MLP,
        num_layers=2,
        num_heads=_HEADS,
        num_kv_heads=_KV_HEADS,
        head_dim=_DIM,
        rope_theta=10000.0,
        norm_eps=2.0**-20,
        windows=(0, 7),
        planes=planes,
        context=64,
        start_token=0,
        **fields,
    )
    embedding_q, embedding_scale = _matrix(1, _VOCAB, _HIDDEN)
    head_q, head_scale = _matrix(3, _VOCAB, _HIDDEN)
    layers = [_layer(100, extras=False), _layer(200, extras=True)]
    final_norm = _vector(5, _HIDDEN, 1.0)
    if form == 1:
        norms = {
            name: _vector(salt, _HIDDEN, 1.0) for salt, name in ((301, "attention_post_norm"), (302, "mlp_post_norm"))
        }
        layers[1] = replace(layers[1], **norms)
    if form == 2:
        for n, layer in enumerate(layers):
            layers[n] = replace(
                layer,
                gate_up_q=layer.gate_up_q.rows[:_MLP],
                gate_up_scale=layer.gate_up_scale[:_MLP],
                input_norm_bias=_vector(311 + n, _HIDDEN),
                post_norm_bias=_vector(321 + n, _HIDDEN),
            )
        positions_q, positions_scale = _matrix(330, config.context, _HIDDEN)
        return ExactModel(
            config, embedding_q, embedding_scale, head_q, head_scale, final_norm, tuple(layers),
            final_norm_bias=_vector(332, _HIDDEN), positions_q=positions_q, positions_scale=positions_scale,
        )  # fmt: skip
    return ExactModel(config, embedding_q, embedding_scale, head_q, head_scale, final_norm, tuple(layers))


def transcript(device: torch.device) -> str:
    """Computes the SHA-256 of everything that the tiny models compute on a device by plain torch, in hexadecimal.

    Raises:
        EngineError: prefill and step differ.
    """
    sha = hashlib.sha256()
    frequencies = Frequencies(_VOCAB)
    ids = (_pattern(7, 3, 33) % _VOCAB).to(device)
    for planes, form in _TINY:
        engine = ExactEngine(tiny_model(planes, form), device, compiled=False)
        masses = engine.masses(engine.forward(ids).reshape(-1, _HIDDEN))
        intervals = frequencies.intervals(masses, ids.reshape(-1))
        cache = engine.new_cache(3, max(_STEPS), sum(_STEPS))
        hidden = torch.cat([engine.forward(part, cache) for part in torch.split(ids, _STEPS, 1)], 1)
        if not torch.equal(engine.masses(hidden.reshape(-1, _HIDDEN)), masses):
            raise EngineError(f"device {device}: prefill and step give different bits; this device cannot be used")
        for tensor in (masses, intervals):
            sha.update(tensor.cpu().to(torch.int64).numpy().astype("<i8").tobytes())
    return sha.hexdigest()


def compiled_model(
    hidden: int = 48, mlp: int = 80, heads: int = 4, kv_heads: int = 2, dim: int = 32, **changes: Any
) -> ExactModel:
    """Builds a model of two layers with sizes of whole vectors, one layer with a bias and a window."""
    width = (heads + 2 * kv_heads) * dim
    layers = []
    for salt, extras in ((400, False), (500, True)):
        layers.append(
            LayerWeights(
                _vector(salt, hidden, 1.0),
                *_matrix(salt + 2, width, hidden),
                *_matrix(salt + 4, hidden, heads * dim),
                _vector(salt + 6, hidden, 1.0),
                *_matrix(salt + 8, 2 * mlp, hidden),
                *_matrix(salt + 10, hidden, mlp),
                qkv_bias=_vector(salt + 12, width) if extras else None,
                q_norm=_vector(salt + 13, dim, 2.0) if extras else None,
                k_norm=_vector(salt + 14, dim, 2.0) if extras else None,
            )
        )
    fields = {
        "vocab_size": _VOCAB, "hidden_size": hidden, "mlp_size": mlp, "num_layers": 2, "num_heads": heads,
        "num_kv_heads": kv_heads, "head_dim": dim, "rope_theta": 10000.0, "norm_eps": 2.0**-20, "windows": (0, 21),
        "planes": 1, "context": 128, "start_token": 0, "embedding_gain": 1.5,
    }  # fmt: skip
    config = ExactConfig(**{**fields, **changes})
    embedding_q, embedding_scale = _matrix(401, _VOCAB, hidden)
    head_q, head_scale = _matrix(403, _VOCAB, hidden)
    final_norm = _vector(405, hidden, 1.0)
    return ExactModel(config, embedding_q, embedding_scale, head_q, head_scale, final_norm, tuple(layers))


def _has_bits_of_torch(model: ExactModel) -> bool:
    """Returns whether the compiled kernels give the bits of torch for a model: prefill, steps, windows, masses."""
    ids = (_pattern(8, 3, 64) % _VOCAB).to(torch.int64)
    plain, compiled = ExactEngine(model, "cpu", compiled=False), ExactEngine(model, "cpu")
    expected = plain.forward(ids)
    cache = compiled.new_cache(3, 40, 64)
    hidden = torch.cat([compiled.forward(part, cache) for part in torch.split(ids, [1, 1, 40, 1, 1, 20], 1)], 1)
    flat = expected.reshape(-1, expected.shape[-1])
    return (
        torch.equal(compiled.forward(ids), expected)
        and torch.equal(hidden, expected)
        and torch.equal(compiled.masses(flat), plain.masses(flat))
    )


def _check_compiled() -> bool:
    """Turns the compiled kernels off if they give other bits than torch; returns whether it did not need to."""
    library, _ = kernels.chosen()
    if library is None:
        return True
    models = [compiled_model(floor_bits=6), *(tiny_model(planes, form) for planes, form in _TINY)]
    library.failed = not all(_has_bits_of_torch(model) for model in models)
    return not library.failed


@functools.cache
def check(device: torch.device) -> bool:
    """Refuses a device that does not reproduce the transcript; turns off compiled kernels that give other bits.

    Returns:
        Whether the device passed, and the compiled kernels, if there are any, passed too.

    Raises:
        EngineError: the device failed; the message names both hashes.
    """
    has_sound_kernels = device.type != "cpu" or _check_compiled()
    computed = transcript(device)
    if computed != TRANSCRIPT:
        raise EngineError(
            f"device {device}: the self-test gives {computed[:16]}, not {TRANSCRIPT[:16]}: "
            "this device or build of torch does not compute the exact arithmetic"
        )
    return has_sound_kernels
