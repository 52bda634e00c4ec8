"""The self-test that every device must pass before it may run a model; must not know real models.

Tiny models made of integer patterns compute masses and intervals of a fixed text, at once and token by token, and the
SHA-256 of the results, the transcript, must be the stored one. They exercise every operation of the engine: both kinds
of norms, whole and partial rotary tables, learned positions, grouped heads, biases, a window that moves, one and two
planes, activations of every kind on both sides of zero, soft caps (docs/numerics.md, rule R5); compiled kernels also
hidden states of more tokens, and masses with `floor_bits`.

What compiled kernels compute is compared with what was stored, not with torch, which they do without. A test makes the
stored hashes anew with plain torch.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..errors import EngineError
from ..models.config import ExactConfig
from ..models.matrix import Int8Matrix
from ..models.model import ExactModel, LayerWeights
from .arrays import HOST
from .cpu import kernels
from .exact import ExactEngine
from .frequencies import Frequencies

TRANSCRIPT = "efaf1eefc4d23f1647d6d7d91706227ce2f172a80211e5dd514f7dbf89cfb5f2"
"""What `transcript` returns on every device that computes the exact arithmetic."""

LONG_TRANSCRIPT = "0df1f7a8882033fe31971db2c7d59a397c53cc51403c88ff49f62dc484c40f36"
"""What `long_transcript` returns by every pass that computes the exact arithmetic."""

_STEPS = [1, 1, 1, 6, 12, 12]
"""How the text is cut for the second pass: single tokens, and more tokens than the window's cache holds."""

_LONG_STEPS = [1, 1, 40, 1, 1, 20]
"""How the text of `long_transcript` is cut."""

_VOCAB, _HIDDEN, _MLP, _HEADS, _KV_HEADS, _DIM = 50, 24, 40, 4, 2, 8
"""Sizes of the tiny models."""


def _pattern(salt: int, *shape: int) -> np.ndarray:
    """Returns integers from -127 to 127 that look random, computed in integer arithmetic alone."""
    n = np.arange(int(np.prod(shape)), dtype=np.int64) + 1000 * salt
    return ((((n * n * 40503 + n * 2654435761) >> 9) % 255) - 127).reshape(shape)


def _matrix(salt: int, rows: int, columns: int) -> tuple[Any, Any]:
    scale = (np.abs(_pattern(salt + 1, rows)) + 64).astype(np.float32) * np.float32(2.0**-14)
    return _pattern(salt, rows, columns).astype(np.int8), scale


def _vector(salt: int, size: int, offset: float = 0.0) -> Any:
    return _pattern(salt, size).astype(np.float32) * np.float32(2.0**-8) + np.float32(offset)


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
                gate_up_q=Int8Matrix(layer.gate_up_q.rows[:_MLP]),
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


def transcript(device: str, *, compiled: bool = False) -> str:
    """Computes the SHA-256 of everything that the tiny models compute on a device, in hexadecimal.

    Args:
        device: as for `ExactEngine`.
        compiled: whether the compiled kernels compute, not plain torch.

    Raises:
        EngineError: prefill and step differ.
    """
    sha = hashlib.sha256()
    ids = _pattern(7, 3, 33) % _VOCAB
    for planes, form in _TINY:
        engine = ExactEngine(tiny_model(planes, form), device, compiled=compiled)
        masses = engine.masses(engine.forward(ids).reshape(-1, _HIDDEN))
        intervals = _frequencies(engine, compiled).intervals(masses, ids.reshape(-1))
        values = _values(engine, masses)
        stepped = [_values(engine, engine.masses(part.reshape(-1, _HIDDEN))) for part in _in_steps(engine, ids, _STEPS)]
        if not np.array_equal(_joined(stepped, len(ids)), values):
            raise EngineError(f"device {device}: prefill and step give different bits; this device cannot be used")
        for array in (values, intervals):
            sha.update(array.astype("<i8").tobytes())
    return sha.hexdigest()


def long_transcript(*, compiled: bool) -> str:
    """Computes the SHA-256 of hidden states and masses on the processor, by the kernels or by plain torch.

    Raises:
        EngineError: prefill and step differ.
    """
    sha = hashlib.sha256()
    ids = _pattern(8, 3, 64) % _VOCAB
    for model in (compiled_model(floor_bits=6), *(tiny_model(planes, form) for planes, form in _TINY)):
        engine = ExactEngine(model, HOST, compiled=compiled)
        hidden = engine.forward(ids)
        masses = engine.masses(hidden.reshape(-1, hidden.shape[-1]))
        values = _values(engine, hidden)
        stepped = [_values(engine, part) for part in _in_steps(engine, ids, _LONG_STEPS)]
        if not np.array_equal(np.concatenate(stepped, 1), values):
            raise EngineError(f"device {HOST}: prefill and step give different bits; this device cannot be used")
        sha.update(values.astype("<f4").tobytes())
        sha.update(_values(engine, masses).astype("<i4").tobytes())
    return sha.hexdigest()


def _frequencies(engine: ExactEngine, compiled: bool) -> Frequencies:
    """Returns the frequencies of the kernels, or those of plain torch."""
    if compiled:
        return engine.readout().frequencies
    from .torch_frequencies import TorchFrequencies

    return TorchFrequencies(engine.vocab_size)


def _in_steps(engine: ExactEngine, ids: np.ndarray, steps: Sequence[int]) -> Iterator[Any]:
    """Yields hidden states of a text that is cut into steps, with a cache."""
    cache = engine.new_cache(len(ids), max(steps), sum(steps))
    for part in np.split(ids, np.cumsum(steps)[:-1], 1):
        yield engine.forward(part, cache)


def _joined(parts: list[np.ndarray], rows: int) -> np.ndarray:
    """Joins masses of steps, (rows * t, V) each, to those of the whole text, (rows * T, V)."""
    vocab = parts[0].shape[-1]
    joined: np.ndarray = np.concatenate([part.reshape(rows, -1, vocab) for part in parts], 1).reshape(-1, vocab)
    return joined


def _values(engine: ExactEngine, array: Any) -> np.ndarray:
    """Returns the values of an engine's array, which later ones do not overwrite."""
    values: np.ndarray = engine.readout().fetch(array).copy()
    return values


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


def _check_compiled() -> bool:
    """Turns the compiled kernels off if they give other bits than were stored; returns whether it did not need to."""
    library, _ = kernels.chosen()
    if library is None:
        return True
    try:
        passed = transcript(HOST, compiled=True) == TRANSCRIPT and long_transcript(compiled=True) == LONG_TRANSCRIPT
    except EngineError:
        passed = False
    library.failed = not passed
    return passed


@functools.cache
def check(device: str, *, by_torch: bool = False) -> bool:
    """Refuses a device that does not reproduce the transcript; turns off compiled kernels that give other bits.

    Args:
        device: as for `ExactEngine`.
        by_torch: whether torch computes something on this device, too. Otherwise it is only tested where there are no
            compiled kernels, or none that passed.

    Returns:
        Whether the device passed, and the compiled kernels, if there are any, passed too.

    Raises:
        EngineError: the device failed; the message names both hashes.
    """
    has_sound_kernels = device != HOST or _check_compiled()
    if device == HOST and not by_torch and kernels.chosen()[0] is not None:
        return has_sound_kernels
    computed = transcript(device)
    if computed != TRANSCRIPT:
        raise EngineError(
            f"device {device}: the self-test gives {computed[:16]}, not {TRANSCRIPT[:16]}: "
            "this device or build of torch does not compute the exact arithmetic"
        )
    return has_sound_kernels
